//! `/stocks`.

use axum::Json as Body;
use diesel::dsl::{AsSelect, insert_into};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::RunQueryDsl;
use routing_axum::{ReadDb, WriteDb};
use routing_diesel::Diesel;

use crate::diesel::schema::stocks;
use crate::error::AppError;
use crate::extract::{Json, Path, Query};
use crate::page::{Page, Paged};
use crate::stock::{Created, Filter, NewStock, Sort, SortKey, Stock};
use crate::text::{Text, anywhere};

pub(crate) async fn list(
    ReadDb(db): ReadDb<Diesel>,
    Query(page): Query<Page>,
    Query(filter): Query<Filter>,
) -> Result<Body<Paged<Stock>>, AppError> {
    let items = db.run(async |conn| select(&filter, page).load(conn).await).await?;
    let total: i64 = db.run(async |conn| matching(&filter).count().get_result(conn).await).await?;
    Ok(Body(Paged { items, page: page.number, page_size: page.size, total: total.unsigned_abs() }))
}

pub(crate) async fn show(ReadDb(db): ReadDb<Diesel>, Path(id): Path<i32>) -> Result<Body<Stock>, AppError> {
    let query = stocks::table.find(id).select(Stock::as_select());
    let found = db.run(async |conn| query.first(conn).await.optional()).await?;
    found.map(Body).ok_or(AppError::NO_SUCH_STOCK)
}

pub(crate) async fn add(
    WriteDb(db): WriteDb<Diesel>,
    Json(new): Json<NewStock>,
) -> Result<Created, AppError> {
    let new = new.checked()?;
    let insert = insert_into(stocks::table).values(&new).returning(Stock::as_returning());
    let added = db.run(async |conn| insert.get_result(conn).await).await;
    added.map(Created).map_err(|error| match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => {
            AppError::DuplicateSymbol(new.symbol.clone())
        }
        error => AppError::from(error),
    })
}

fn select(filter: &Filter, page: Page) -> stocks::BoxedQuery<'_, Pg, AsSelect<Stock, Pg>> {
    let size = i64::from(page.size);
    sorted(matching(filter), filter.sort.unwrap_or_default())
        .limit(size)
        .offset(i64::from(page.before()) * size)
        .select(Stock::as_select())
}

fn matching(filter: &Filter) -> stocks::BoxedQuery<'_, Pg> {
    let mut query = stocks::table.into_boxed();
    if let Some(Text(country)) = &filter.country {
        query = query.filter(stocks::country.eq(country));
    }
    if let Some(Text(index)) = &filter.index {
        query = query.filter(stocks::indices.contains(vec![index]));
    }
    if let Some(Text(name)) = &filter.industry {
        query = query.filter(stocks::industries.contains(vec![name]));
    }
    if let Some(least) = filter.min_employees {
        query = query.filter(stocks::employees.ge(least));
    }
    if let Some(Text(part)) = &filter.q {
        let pattern = anywhere(part);
        query = query.filter(stocks::symbol.ilike(pattern.clone()).or(stocks::name.ilike(pattern)));
    }
    query
}

/// Pages must not overlap where the sort leaves a tie: the number decides it.
fn sorted(query: stocks::BoxedQuery<'_, Pg>, sort: Sort) -> stocks::BoxedQuery<'_, Pg> {
    let query = match (sort.key, sort.descending) {
        (SortKey::Symbol, false) => query.order_by(stocks::symbol.asc()),
        (SortKey::Symbol, true) => query.order_by(stocks::symbol.desc()),
        (SortKey::Name, false) => query.order_by(stocks::name.asc()),
        (SortKey::Name, true) => query.order_by(stocks::name.desc()),
        (SortKey::Employees, false) => query.order_by(stocks::employees.asc().nulls_last()),
        (SortKey::Employees, true) => query.order_by(stocks::employees.desc().nulls_last()),
        (SortKey::Founded, false) => query.order_by(stocks::founded.asc().nulls_last()),
        (SortKey::Founded, true) => query.order_by(stocks::founded.desc().nulls_last()),
    };
    query.then_order_by(stocks::id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(query: &str) -> String {
        let uri = format!("http://h/?{query}").parse().unwrap();
        let axum::extract::Query(filter) = axum::extract::Query::try_from_uri(&uri).unwrap();
        let text = diesel::debug_query::<Pg, _>(&select(&filter, Page { number: 1, size: 20 })).to_string();
        text.split("-- binds").next().unwrap().to_owned()
    }

    #[test]
    fn text_from_outside_is_bound_and_empty_parameters_ask_for_nothing() {
        let hostile = sql("country=x'--&index=i'&industry=d'&min_employees=5&q=%25'%3B&sort=-employees");
        assert!(!hostile.contains('\''), "{hostile}");
        assert!(hostile.contains(r#"NULLS LAST, "stocks"."id""#), "{hostile}");
        let none = sql("country=&index=&industry=&min_employees=&q=&sort=");
        assert!(!none.contains("WHERE"), "{none}");
    }
}
