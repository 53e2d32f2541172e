//! Closing prices: how they are asked for and shown.

use chrono::{Datelike as _, NaiveDate};
use diesel::prelude::*;
use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};

use crate::diesel::schema::closes;
use crate::text::optional;

/// The price of one stock on one day, as responses show it.
#[derive(Clone, Debug, FromQueryResult, Queryable, Selectable, Serialize)]
#[diesel(table_name = closes, check_for_backend(diesel::pg::Pg))]
pub(crate) struct Close {
    date: NaiveDate,
    close: f64,
}

/// `from` and `to` are days, both included, as `2022-12-28`; each may be left out.
#[derive(Deserialize)]
#[serde(try_from = "Asked")]
pub(crate) struct Days {
    pub(crate) from: Option<NaiveDate>,
    pub(crate) to: Option<NaiveDate>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default, deserialize_with = "optional")]
    from: Option<NaiveDate>,
    #[serde(default, deserialize_with = "optional")]
    to: Option<NaiveDate>,
}

impl TryFrom<Asked> for Days {
    type Error = &'static str;

    fn try_from(Asked { from, to }: Asked) -> Result<Self, &'static str> {
        // Beyond these years PostgreSQL knows no days.
        if [from, to].into_iter().flatten().any(|day| !(1..=9999).contains(&day.year())) {
            return Err("from and to must lie in the years 1 to 9999");
        }
        match (from, to) {
            (Some(from), Some(to)) if from > to => Err("from must not be after to"),
            _ => Ok(Self { from, to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Days, String> {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let read = axum::extract::Query::try_from_uri(&uri);
        read.map(|axum::extract::Query(days)| days).map_err(|error| error.body_text())
    }

    #[test]
    fn days_are_dates_in_order_that_postgresql_knows() {
        for good in ["", "from=&to=", "from=2022-01-01", "to=2022-01-01", "from=2022-01-01&to=2022-01-01"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "from=2022-13-01",
            "from=yesterday",
            "from=-262143-01-01",
            "to=%2B262142-12-31",
            "from=2022-01-02&to=2022-01-01",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
