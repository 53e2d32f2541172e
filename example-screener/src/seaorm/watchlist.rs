//! `/watchlist`.

use axum::Json as Body;
use axum::http::StatusCode;
use routing_axum::{ReadDb, WriteDb};
use routing_seaorm::SeaOrm;
use sea_orm::{
    ColumnTrait, EntityTrait, JoinType, QueryFilter, QueryOrder, QuerySelect, RelationTrait as _, Set,
    SqlErr, TryInsertResult,
};

use crate::error::AppError;
use crate::extract::{Json, Path, User};
use crate::page::Items;
use crate::seaorm::entity::{stock, watchlist};
use crate::watched::{Added, NewEntry, Watched};

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

/// Adding twice is the same as adding once.
pub(crate) async fn add(
    WriteDb(db): WriteDb<SeaOrm>,
    User(user): User,
    Json(NewEntry { stock_id }): Json<NewEntry>,
) -> Result<Added, AppError> {
    let entry =
        watchlist::ActiveModel { user_name: Set(user), stock_id: Set(stock_id), ..Default::default() };
    let insert = watchlist::Entity::insert(entry).on_conflict_do_nothing();
    let added = insert.exec_without_returning(&db).await.map_err(|error| match error.sql_err() {
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => AppError::NO_SUCH_STOCK,
        _ => AppError::from(error),
    })?;
    Ok(Added { stock_id, is_new: matches!(added, TryInsertResult::Inserted(1..)) })
}

/// 204 when the stock was removed, 404 when it was not there.
pub(crate) async fn remove(
    WriteDb(db): WriteDb<SeaOrm>,
    User(user): User,
    Path(stock_id): Path<i32>,
) -> Result<StatusCode, AppError> {
    let removed = watchlist::Entity::delete_by_id((user, stock_id)).exec(&db).await?;
    match removed.rows_affected {
        0 => Err(AppError::NOT_WATCHED),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
