//! The screen: stocks ranked by what their prices did.

use std::str::FromStr;
use std::time::Duration;

use chrono::NaiveDate;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Date, Double, Integer, Nullable, Text};
use routing_core::Consistency;
use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};

use crate::text::optional;

/// A ranking may lag behind the market by seconds, not by minutes.
pub(crate) const CONSISTENCY: Consistency = Consistency::BoundedStaleness(Duration::from_secs(5));

/// For each stock that has any, the newest `$1` closes, by the primary key. The return is that of the window; the volatility that of
/// the daily logarithmic returns, over the 252 trading days of a year. A stock with a single close has neither.
const SQL: &str = r#"
    SELECT s.id, s.symbol, s.name, w.closes, w.first_date, w.last_date, w."return", w.volatility
    FROM (SELECT DISTINCT stock_id FROM closes) priced
    JOIN stocks s ON s.id = priced.stock_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS closes, min(date) AS first_date, max(date) AS last_date,
               (array_agg(close ORDER BY date DESC))[1] / (array_agg(close ORDER BY date))[1] - 1 AS "return",
               stddev_samp(change) * sqrt(252) AS volatility
        FROM (
            SELECT date, close, ln(close / lag(close) OVER (ORDER BY date)) AS change
            FROM (SELECT date, close FROM closes WHERE stock_id = priced.stock_id ORDER BY date DESC LIMIT $1) newest
        ) daily
    ) w
    WHERE w.closes >= 2
"#;

/// `window`: closes, 2 to 1000, default 30. `sort`: default `return`. `limit`: 1 to 100, default 20.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Asked")]
pub(crate) struct Screen {
    pub(crate) window: u16,
    pub(crate) sort: Ranking,
    pub(crate) limit: u16,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default, deserialize_with = "optional")]
    window: Option<u16>,
    #[serde(default, deserialize_with = "optional")]
    sort: Option<Ranking>,
    #[serde(default, deserialize_with = "optional")]
    limit: Option<u16>,
}

/// What the ranking is by: the greatest return or volatility first, or the symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ranking {
    Return,
    Volatility,
    Symbol,
}

impl FromStr for Ranking {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "return" => Ok(Self::Return),
            "volatility" => Ok(Self::Volatility),
            "symbol" => Ok(Self::Symbol),
            _ => Err("unknown sort: use return, volatility or symbol"),
        }
    }
}

impl TryFrom<Asked> for Screen {
    type Error = &'static str;

    fn try_from(asked: Asked) -> Result<Self, &'static str> {
        let screen = Self {
            window: asked.window.unwrap_or(30),
            sort: asked.sort.unwrap_or(Ranking::Return),
            limit: asked.limit.unwrap_or(20),
        };
        if !(2..=1000).contains(&screen.window) {
            return Err("window must be from 2 to 1000");
        }
        if !(1..=100).contains(&screen.limit) {
            return Err("limit must be from 1 to 100");
        }
        Ok(screen)
    }
}

impl Screen {
    /// The query. `$1` is the window and `$2` the limit.
    pub(crate) fn sql(&self) -> String {
        let order = match self.sort {
            Ranking::Return => r#"w."return" DESC, s.symbol"#,
            Ranking::Volatility => "w.volatility DESC NULLS LAST, s.symbol",
            Ranking::Symbol => "s.symbol",
        };
        format!("{SQL} ORDER BY {order} LIMIT $2")
    }
}

/// One stock of the ranking.
#[derive(Debug, FromQueryResult, QueryableByName, Serialize)]
pub(crate) struct Ranked {
    #[diesel(sql_type = Integer)]
    id: i32,
    #[diesel(sql_type = Text)]
    symbol: String,
    #[diesel(sql_type = Text)]
    name: String,
    /// How many closes the window has: fewer than asked for when there are no more.
    #[diesel(sql_type = BigInt)]
    closes: i64,
    #[diesel(sql_type = Date)]
    first_date: NaiveDate,
    #[diesel(sql_type = Date)]
    last_date: NaiveDate,
    /// Last close over first, minus 1.
    #[diesel(sql_type = Double, column_name = "return")]
    r#return: f64,
    /// Annualised; absent when the window has fewer than three closes.
    #[diesel(sql_type = Nullable<Double>)]
    volatility: Option<f64>,
}

/// The ranking.
#[derive(Serialize)]
pub(crate) struct Ranks {
    pub(crate) window: u16,
    pub(crate) items: Vec<Ranked>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Screen, String> {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let read = axum::extract::Query::try_from_uri(&uri);
        read.map(|axum::extract::Query(screen)| screen).map_err(|error| error.body_text())
    }

    #[test]
    fn the_parameters_have_defaults_and_bounds() {
        let default = Screen { window: 30, sort: Ranking::Return, limit: 20 };
        assert_eq!(read(""), Ok(default));
        let all = Screen { window: 1000, sort: Ranking::Symbol, limit: 100 };
        assert_eq!(read("window=1000&sort=symbol&limit=100"), Ok(all));
        for query in
            ["window=1", "window=1001", "window=x", "limit=0", "limit=101", "sort=symbol;--", "window=99999"]
        {
            assert!(read(query).is_err(), "{query}");
        }
    }

    #[test]
    fn nothing_from_outside_is_part_of_the_sql() {
        let sql = Screen { window: 77, sort: Ranking::Volatility, limit: 88 }.sql();
        assert!(!sql.contains("77") && !sql.contains("88"));
    }
}
