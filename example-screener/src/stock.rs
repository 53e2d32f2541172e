//! Stocks: how they are asked for, shown and added.

use std::str::FromStr;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use diesel::prelude::*;
use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};

use crate::diesel::schema::stocks;
use crate::error::AppError;
use crate::text::{Text, optional};

/// A listed company, as responses show it.
#[derive(Clone, Debug, FromQueryResult, Queryable, Selectable, Serialize)]
#[diesel(table_name = stocks, check_for_backend(diesel::pg::Pg))]
pub(crate) struct Stock {
    pub(crate) id: i32,
    pub(crate) symbol: String,
    pub(crate) name: String,
    pub(crate) country: Option<String>,
    pub(crate) currency: Option<String>,
    pub(crate) industries: Vec<String>,
    pub(crate) indices: Vec<String>,
    pub(crate) founded: Option<i32>,
    pub(crate) employees: Option<i32>,
}

/// Which stocks are asked for. Every part must hold; country, index and industry are compared exactly.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Filter {
    #[serde(default, deserialize_with = "optional")]
    pub(crate) country: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) index: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) industry: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) min_employees: Option<i32>,
    /// A part of the symbol or the name, in any case.
    #[serde(default, deserialize_with = "optional")]
    pub(crate) q: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    pub(crate) sort: Option<Sort>,
}

/// `symbol`, `name`, `employees` or `founded`; with `-` before it the greatest comes first. Unknown figures come last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sort {
    pub(crate) key: SortKey,
    pub(crate) descending: bool,
}

/// What stocks are sorted by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum SortKey {
    #[default]
    Symbol,
    Name,
    Employees,
    Founded,
}

impl FromStr for Sort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let key = match name {
            "symbol" => SortKey::Symbol,
            "name" => SortKey::Name,
            "employees" => SortKey::Employees,
            "founded" => SortKey::Founded,
            _ => return Err("unknown sort: use symbol, name, employees or founded, with - for descending"),
        };
        Ok(Self { key, descending })
    }
}

/// The answer to a stock that was added: 201, with where it is.
pub(crate) struct Created(pub(crate) Stock);

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        let location = format!("/stocks/{}", self.0.id);
        (StatusCode::CREATED, [(LOCATION, location)], Json(self.0)).into_response()
    }
}

/// A stock as a client describes it. Only symbol and name are required.
#[derive(Clone, Debug, Deserialize, Insertable)]
#[diesel(table_name = stocks)]
pub(crate) struct NewStock {
    pub(crate) symbol: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) country: Option<String>,
    #[serde(default)]
    pub(crate) currency: Option<String>,
    #[serde(default)]
    pub(crate) industries: Vec<String>,
    #[serde(default)]
    pub(crate) indices: Vec<String>,
    #[serde(default)]
    pub(crate) founded: Option<i32>,
    #[serde(default)]
    pub(crate) employees: Option<i32>,
}

impl NewStock {
    /// The same with its texts trimmed and its symbol in capitals.
    pub(crate) fn checked(mut self) -> Result<Self, AppError> {
        self.symbol = self.symbol.trim().to_ascii_uppercase();
        self.name = self.name.trim().to_owned();
        let symbol_chars = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let symbol_starts = self.symbol.starts_with(|c: char| c.is_ascii_alphanumeric());
        rule(
            symbol_starts && self.symbol.len() <= 32 && self.symbol.chars().all(symbol_chars),
            "symbol must have 1 to 32 letters, digits, dots, dashes and underscores, and begin with a letter or digit",
        )?;
        rule(is_text(&self.name), "name must have 1 to 200 characters and no control characters")?;
        rule(
            self.country.as_deref().is_none_or(is_text),
            "country must have 1 to 200 characters and no control characters",
        )?;
        let is_currency = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        rule(self.currency.as_deref().is_none_or(is_currency), "currency must be three capital letters")?;
        let lists = [&self.industries, &self.indices];
        rule(
            lists.iter().all(|list| list.len() <= 50 && list.iter().all(|text| is_text(text))),
            "industries and indices may have up to 50 entries of 1 to 200 characters, without control characters",
        )?;
        rule(
            self.founded.is_none_or(|year| (1000..=2100).contains(&year)),
            "founded must be a year from 1000 to 2100",
        )?;
        rule(self.employees.is_none_or(|count| count >= 0), "employees must not be negative")?;
        Ok(self)
    }
}

fn is_text(text: &str) -> bool {
    !text.trim().is_empty() && text.parse::<Text>().is_ok()
}

fn rule(holds: bool, rule: &'static str) -> Result<(), AppError> {
    if holds { Ok(()) } else { Err(AppError::Invalid(rule)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(query: &str) -> Result<Filter, String> {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let read = axum::extract::Query::try_from_uri(&uri);
        read.map(|axum::extract::Query(filter)| filter).map_err(|error| error.body_text())
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        for query in
            ["sort=price", "sort=--name", "sort=name%20desc", "min_employees=many", "q=%00", "country=a%0Ab"]
        {
            assert!(filter(query).is_err(), "{query}");
        }
    }

    #[test]
    fn a_new_stock_is_checked() {
        let read = |value| serde_json::from_value::<NewStock>(value).unwrap().checked();
        let good =
            read(json!({ "symbol": " abc.d ", "name": "A", "currency": "EUR", "founded": 1999 })).unwrap();
        assert_eq!(good.symbol, "ABC.D");
        for bad in [
            json!({ "symbol": "", "name": "A" }),
            json!({ "symbol": "-A", "name": "A" }),
            json!({ "symbol": "A'; --", "name": "A" }),
            json!({ "symbol": "A".repeat(33), "name": "A" }),
            json!({ "symbol": "A", "name": " " }),
            json!({ "symbol": "A", "name": "A\u{0}" }),
            json!({ "symbol": "A", "name": "A", "country": "" }),
            json!({ "symbol": "A", "name": "A", "currency": "euro" }),
            json!({ "symbol": "A", "name": "A", "industries": [""] }),
            json!({ "symbol": "A", "name": "A", "founded": 3000 }),
            json!({ "symbol": "A", "name": "A", "employees": -1 }),
        ] {
            assert!(matches!(read(bad.clone()), Err(AppError::Invalid(_))), "{bad}");
        }
    }
}
