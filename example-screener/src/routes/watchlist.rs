//! `/watchlist`.

use axum::Json as Body;
use axum::http::StatusCode;
use routing_axum::{ReadDb, WriteDb};
use routing_seaorm::SeaOrm;
use sea_orm::prelude::DateTimeWithTimeZone;
use sea_orm::{
    ColumnTrait, EntityTrait, FromQueryResult, JoinType, QueryFilter, QueryOrder, QuerySelect,
    RelationTrait as _, Set, SqlErr, TryInsertResult,
};
use serde::{Deserialize, Serialize};

use crate::entity::{stock, watchlist};
use crate::error::AppError;
use crate::extract::{Json, Path, User};
use crate::routes::Items;

/// A stock on a watchlist.
#[derive(Debug, FromQueryResult, Serialize)]
pub(crate) struct Watched {
    stock_id: i32,
    symbol: String,
    name: String,
    added_at: DateTimeWithTimeZone,
}

/// What a client sends to add a stock.
#[derive(Debug, Deserialize)]
pub(crate) struct NewEntry {
    stock_id: i32,
}

/// What it gets back.
#[derive(Debug, Serialize)]
pub(crate) struct Added {
    stock_id: i32,
}

/// The user's watchlist, in the order in which it was made.
pub(crate) async fn list(
    ReadDb(db): ReadDb<SeaOrm>,
    User(user): User,
) -> Result<Body<Items<Watched>>, AppError> {
    let items = watchlist::Entity::find()
        .join(JoinType::InnerJoin, watchlist::Relation::Stock.def())
        .select_only()
        .columns([watchlist::Column::StockId, watchlist::Column::AddedAt])
        .columns([stock::Column::Symbol, stock::Column::Name])
        .filter(watchlist::Column::UserName.eq(user))
        .order_by_asc(watchlist::Column::AddedAt)
        .order_by_asc(watchlist::Column::StockId)
        .into_model()
        .all(&db)
        .await?;
    Ok(Body(Items { items }))
}

/// 201 when the stock was added, 200 when it was there already: repeating it after a lost answer does no harm.
pub(crate) async fn add(
    WriteDb(db): WriteDb<SeaOrm>,
    User(user): User,
    Json(NewEntry { stock_id }): Json<NewEntry>,
) -> Result<(StatusCode, Body<Added>), AppError> {
    let entry =
        watchlist::ActiveModel { user_name: Set(user), stock_id: Set(stock_id), ..Default::default() };
    let insert = watchlist::Entity::insert(entry).on_conflict_do_nothing();
    let added = insert.exec_without_returning(&db).await.map_err(|error| match error.sql_err() {
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => AppError::NotFound("there is no such stock"),
        _ => AppError::Database(error),
    })?;
    let status = match added {
        TryInsertResult::Inserted(1..) => StatusCode::CREATED,
        TryInsertResult::Inserted(0) | TryInsertResult::Conflicted | TryInsertResult::Empty => StatusCode::OK,
    };
    Ok((status, Body(Added { stock_id })))
}

/// 204 when the stock was removed, 404 when it was not there.
pub(crate) async fn remove(
    WriteDb(db): WriteDb<SeaOrm>,
    User(user): User,
    Path(stock_id): Path<i32>,
) -> Result<StatusCode, AppError> {
    let removed = watchlist::Entity::delete_by_id((user, stock_id)).exec(&db).await?;
    match removed.rows_affected {
        0 => Err(AppError::NotFound("the stock is not on the watchlist")),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
