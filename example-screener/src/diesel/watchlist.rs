//! `/watchlist`.

use axum::Json as Body;
use axum::http::StatusCode;
use diesel::dsl::{delete, insert_into};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::RunQueryDsl;
use routing_axum::{ReadDb, WriteDb};
use routing_diesel::Diesel;

use crate::diesel::schema::{stocks, watchlist};
use crate::error::AppError;
use crate::extract::{Json, Path, User};
use crate::page::Items;
use crate::watched::{Added, NewEntry, Watched};

/// The user's watchlist, in the order in which it was made.
pub(crate) async fn list(
    ReadDb(db): ReadDb<Diesel>,
    User(user): User,
) -> Result<Body<Items<Watched>>, AppError> {
    let query = watchlist::table
        .inner_join(stocks::table)
        .select((watchlist::stock_id, stocks::symbol, stocks::name, watchlist::added_at))
        .filter(watchlist::user_name.eq(user))
        .order_by((watchlist::added_at, watchlist::stock_id));
    let items = db.run(async |conn| query.load(conn).await).await?;
    Ok(Body(Items { items }))
}

/// Adding twice is the same as adding once.
pub(crate) async fn add(
    WriteDb(db): WriteDb<Diesel>,
    User(user): User,
    Json(NewEntry { stock_id }): Json<NewEntry>,
) -> Result<Added, AppError> {
    let entry = (watchlist::user_name.eq(user), watchlist::stock_id.eq(stock_id));
    let insert = insert_into(watchlist::table).values(entry).on_conflict_do_nothing();
    let added = db.run(async |conn| insert.execute(conn).await).await.map_err(|error| match error {
        DieselError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => AppError::NO_SUCH_STOCK,
        error => AppError::from(error),
    })?;
    Ok(Added { stock_id, is_new: added > 0 })
}

/// 204 when the stock was removed, 404 when it was not there.
pub(crate) async fn remove(
    WriteDb(db): WriteDb<Diesel>,
    User(user): User,
    Path(stock_id): Path<i32>,
) -> Result<StatusCode, AppError> {
    let entry = watchlist::table.find((user, stock_id));
    match db.run(async |conn| delete(entry).execute(conn).await).await? {
        0 => Err(AppError::NOT_WATCHED),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
