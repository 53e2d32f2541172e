//! `/stocks`.

use std::str::FromStr;

use axum::Json as Body;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use routing_axum::{ReadDb, WriteDb};
use routing_seaorm::SeaOrm;
use sea_orm::sea_query::extension::postgres::PgExpr as _;
use sea_orm::sea_query::{Expr, NullOrdering};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, EntityTrait, Order, PaginatorTrait, QueryFilter, QueryOrder,
    QueryTrait, Select, Set, SqlErr,
};
use serde::Deserialize;

use crate::entity::stock::{self, Column};
use crate::error::AppError;
use crate::extract::{Json, Path, Query};
use crate::page::{Page, Paged};
use crate::text::{Text, anywhere, optional};

/// Which stocks are asked for. Every part must hold; country, index and industry are compared exactly.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Filter {
    #[serde(default, deserialize_with = "optional")]
    country: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    index: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    industry: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    min_employees: Option<i32>,
    /// A part of the symbol or the name, in any case.
    #[serde(default, deserialize_with = "optional")]
    q: Option<Text>,
    #[serde(default, deserialize_with = "optional")]
    sort: Option<Sort>,
}

/// `symbol`, `name`, `employees` or `founded`; with `-` before it the greatest comes first. Unknown figures come last.
#[derive(Clone, Debug)]
struct Sort {
    column: Column,
    order: Order,
}

impl FromStr for Sort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, order) = match text.strip_prefix('-') {
            Some(name) => (name, Order::Desc),
            None => (text, Order::Asc),
        };
        let column = match name {
            "symbol" => Column::Symbol,
            "name" => Column::Name,
            "employees" => Column::Employees,
            "founded" => Column::Founded,
            _ => return Err("unknown sort: use symbol, name, employees or founded, with - for descending"),
        };
        Ok(Self { column, order })
    }
}

impl Filter {
    fn select(self) -> Select<stock::Entity> {
        let Sort { column, order } = self.sort.unwrap_or(Sort { column: Column::Symbol, order: Order::Asc });
        stock::Entity::find()
            .apply_if(self.country, |query, Text(country)| query.filter(Column::Country.eq(country)))
            .apply_if(self.index, |query, Text(index)| query.filter(member(Column::Indices, index)))
            .apply_if(self.industry, |query, Text(name)| query.filter(member(Column::Industries, name)))
            .apply_if(self.min_employees, |query, least| query.filter(Column::Employees.gte(least)))
            .apply_if(self.q, |query, Text(part)| query.filter(named(&part)))
            .order_by_with_nulls(column, order, NullOrdering::Last)
            // Pages must not overlap where the sort leaves a tie.
            .order_by_asc(Column::Id)
    }
}

fn member(list: Column, name: String) -> Expr {
    Expr::col(list).contains(vec![name])
}

fn named(part: &str) -> Condition {
    let pattern = anywhere(part);
    Condition::any()
        .add(Expr::col(Column::Symbol).ilike(pattern.as_str()))
        .add(Expr::col(Column::Name).ilike(pattern.as_str()))
}

pub(crate) async fn list(
    ReadDb(db): ReadDb<SeaOrm>,
    Query(page): Query<Page>,
    Query(filter): Query<Filter>,
) -> Result<Body<Paged<stock::Model>>, AppError> {
    let found = filter.select().paginate(&db, page.size.into());
    let items = found.fetch_page(page.before()).await?;
    let total = found.num_items().await?;
    Ok(Body(Paged { items, page: page.number, page_size: page.size, total }))
}

pub(crate) async fn show(
    ReadDb(db): ReadDb<SeaOrm>,
    Path(id): Path<i32>,
) -> Result<Body<stock::Model>, AppError> {
    let found = stock::Entity::find_by_id(id).one(&db).await?;
    found.map(Body).ok_or(AppError::NotFound("there is no such stock"))
}

pub(crate) async fn add(
    WriteDb(db): WriteDb<SeaOrm>,
    Json(new): Json<NewStock>,
) -> Result<impl IntoResponse, AppError> {
    let new = new.checked()?;
    let symbol = new.symbol.clone();
    let stock = new.into_model().insert(&db).await.map_err(|error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => AppError::DuplicateSymbol(symbol),
        _ => AppError::Database(error),
    })?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/stocks/{}", stock.id))], Body(stock)))
}

/// A stock as a client describes it. Only symbol and name are required.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NewStock {
    symbol: String,
    name: String,
    #[serde(default)]
    country: Option<String>,
    #[serde(default)]
    currency: Option<String>,
    #[serde(default)]
    industries: Vec<String>,
    #[serde(default)]
    indices: Vec<String>,
    #[serde(default)]
    founded: Option<i32>,
    #[serde(default)]
    employees: Option<i32>,
}

impl NewStock {
    /// The same with its texts trimmed and its symbol in capitals.
    fn checked(mut self) -> Result<Self, AppError> {
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

    fn into_model(self) -> stock::ActiveModel {
        stock::ActiveModel {
            symbol: Set(self.symbol),
            name: Set(self.name),
            country: Set(self.country),
            currency: Set(self.currency),
            industries: Set(self.industries),
            indices: Set(self.indices),
            founded: Set(self.founded),
            employees: Set(self.employees),
            ..Default::default()
        }
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
    use sea_orm::DbBackend;
    use serde_json::json;

    use super::*;

    fn filter(query: &str) -> Result<Filter, String> {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let read = axum::extract::Query::try_from_uri(&uri);
        read.map(|axum::extract::Query(filter)| filter).map_err(|error| error.body_text())
    }

    #[test]
    fn text_from_outside_is_bound_and_empty_parameters_ask_for_nothing() {
        let hostile = "country=x'--&index=i'&industry=d'&min_employees=5&q=%25'%3B&sort=-employees";
        let sql = filter(hostile).unwrap().select().build(DbBackend::Postgres).sql;
        let sql = sql.as_str();
        assert!(!sql.contains('\''), "{sql}");
        assert!(sql.ends_with("NULLS LAST, \"stocks\".\"id\" ASC"), "{sql}");
        let none = filter("country=&index=&industry=&min_employees=&q=&sort=").unwrap().select();
        assert!(!none.build(DbBackend::Postgres).sql.as_str().contains("WHERE"));
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
