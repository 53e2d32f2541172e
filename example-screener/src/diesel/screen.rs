//! `/screen`.

use axum::Json;
use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use routing_axum::ReadDb;
use routing_diesel::Diesel;

use crate::error::AppError;
use crate::extract::Query;
use crate::screen::{Ranks, Screen};

pub(crate) async fn screen(
    ReadDb(db): ReadDb<Diesel>,
    Query(screen): Query<Screen>,
) -> Result<Json<Ranks>, AppError> {
    let query = sql_query(screen.sql())
        .bind::<BigInt, _>(i64::from(screen.window))
        .bind::<BigInt, _>(i64::from(screen.limit));
    let items = db.run(async |conn| query.load(conn).await).await?;
    Ok(Json(Ranks { window: screen.window, items }))
}
