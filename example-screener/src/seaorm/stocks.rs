//! `/stocks`.

use axum::Json as Body;
use routing_axum::{ReadDb, WriteDb};
use routing_seaorm::SeaOrm;
use sea_orm::sea_query::extension::postgres::PgExpr as _;
use sea_orm::sea_query::{Expr, NullOrdering};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, EntityTrait, Order, PaginatorTrait, QueryFilter, QueryOrder,
    QueryTrait, Select, Set, SqlErr,
};

use crate::error::AppError;
use crate::extract::{Json, Path, Query};
use crate::page::{Page, Paged};
use crate::seaorm::entity::stock::{self, Column};
use crate::stock::{Created, Filter, NewStock, SortKey, Stock};
use crate::text::{Text, anywhere};

pub(crate) async fn list(
    ReadDb(db): ReadDb<SeaOrm>,
    Query(page): Query<Page>,
    Query(filter): Query<Filter>,
) -> Result<Body<Paged<Stock>>, AppError> {
    let found = select(filter).into_model().paginate(&db, page.size.into());
    let items = found.fetch_page(page.before().into()).await?;
    let total = found.num_items().await?;
    Ok(Body(Paged { items, page: page.number, page_size: page.size, total }))
}

pub(crate) async fn show(ReadDb(db): ReadDb<SeaOrm>, Path(id): Path<i32>) -> Result<Body<Stock>, AppError> {
    let found = stock::Entity::find_by_id(id).into_model().one(&db).await?;
    found.map(Body).ok_or(AppError::NO_SUCH_STOCK)
}

pub(crate) async fn add(
    WriteDb(db): WriteDb<SeaOrm>,
    Json(new): Json<NewStock>,
) -> Result<Created, AppError> {
    let new = new.checked()?;
    let symbol = new.symbol.clone();
    let stock = model(new).insert(&db).await.map_err(|error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => AppError::DuplicateSymbol(symbol),
        _ => AppError::from(error),
    })?;
    Ok(Created(stock.into()))
}

fn select(filter: Filter) -> Select<stock::Entity> {
    let sort = filter.sort.unwrap_or_default();
    let column = match sort.key {
        SortKey::Symbol => Column::Symbol,
        SortKey::Name => Column::Name,
        SortKey::Employees => Column::Employees,
        SortKey::Founded => Column::Founded,
    };
    let order = if sort.descending { Order::Desc } else { Order::Asc };
    stock::Entity::find()
        .apply_if(filter.country, |query, Text(country)| query.filter(Column::Country.eq(country)))
        .apply_if(filter.index, |query, Text(index)| query.filter(member(Column::Indices, index)))
        .apply_if(filter.industry, |query, Text(name)| query.filter(member(Column::Industries, name)))
        .apply_if(filter.min_employees, |query, least| query.filter(Column::Employees.gte(least)))
        .apply_if(filter.q, |query, Text(part)| query.filter(named(&part)))
        .order_by_with_nulls(column, order, NullOrdering::Last)
        // Pages must not overlap where the sort leaves a tie.
        .order_by_asc(Column::Id)
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

fn model(new: NewStock) -> stock::ActiveModel {
    stock::ActiveModel {
        symbol: Set(new.symbol),
        name: Set(new.name),
        country: Set(new.country),
        currency: Set(new.currency),
        industries: Set(new.industries),
        indices: Set(new.indices),
        founded: Set(new.founded),
        employees: Set(new.employees),
        ..Default::default()
    }
}

impl From<stock::Model> for Stock {
    fn from(row: stock::Model) -> Self {
        Self {
            id: row.id,
            symbol: row.symbol,
            name: row.name,
            country: row.country,
            currency: row.currency,
            industries: row.industries,
            indices: row.indices,
            founded: row.founded,
            employees: row.employees,
        }
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::DbBackend;

    use super::*;

    fn sql(query: &str) -> String {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let axum::extract::Query(filter) = axum::extract::Query::try_from_uri(&uri).unwrap();
        select(filter).build(DbBackend::Postgres).sql.as_str().to_owned()
    }

    #[test]
    fn text_from_outside_is_bound_and_empty_parameters_ask_for_nothing() {
        let hostile = sql("country=x'--&index=i'&industry=d'&min_employees=5&q=%25'%3B&sort=-employees");
        let none = sql("country=&index=&industry=&min_employees=&q=&sort=");
        // As `&str`: SeaORM's traits give `String` a `contains` of their own.
        let (hostile, none) = (hostile.as_str(), none.as_str());
        assert!(!hostile.contains('\''), "{hostile}");
        assert!(hostile.ends_with("NULLS LAST, \"stocks\".\"id\" ASC"), "{hostile}");
        assert!(!none.contains("WHERE"), "{none}");
    }
}
