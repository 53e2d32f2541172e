//! `/stocks/{id}/closes`.

use axum::Json;
use diesel::dsl::{AsSelect, exists, select};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use routing_axum::ReadDb;
use routing_diesel::Diesel;

use crate::close::{Close, Days};
use crate::diesel::schema::{closes, stocks};
use crate::error::AppError;
use crate::extract::{Path, Query};
use crate::page::Items;

/// The prices of one stock, oldest first.
pub(crate) async fn list(
    ReadDb(db): ReadDb<Diesel>,
    Path(id): Path<i32>,
    Query(days): Query<Days>,
) -> Result<Json<Items<Close>>, AppError> {
    let items = db
        .run(async |conn| {
            if !select(exists(stocks::table.find(id))).get_result(conn).await? {
                return Err(AppError::NO_SUCH_STOCK);
            }
            Ok(within(&days, id).load(conn).await?)
        })
        .await?;
    Ok(Json(Items { items }))
}

fn within(days: &Days, id: i32) -> closes::BoxedQuery<'static, Pg, AsSelect<Close, Pg>> {
    let mut query = closes::table.into_boxed().filter(closes::stock_id.eq(id)).order_by(closes::date);
    if let Some(from) = days.from {
        query = query.filter(closes::date.ge(from));
    }
    if let Some(to) = days.to {
        query = query.filter(closes::date.le(to));
    }
    query.select(Close::as_select())
}
