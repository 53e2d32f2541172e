//! `/stocks/{id}/closes`.

use axum::Json;
use routing_axum::ReadDb;
use routing_seaorm::SeaOrm;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QueryTrait};

use crate::close::{Close, Days};
use crate::error::AppError;
use crate::extract::{Path, Query};
use crate::page::Items;
use crate::seaorm::entity::{close, stock};

/// The prices of one stock, oldest first.
pub(crate) async fn list(
    ReadDb(db): ReadDb<SeaOrm>,
    Path(id): Path<i32>,
    Query(days): Query<Days>,
) -> Result<Json<Items<Close>>, AppError> {
    stock::Entity::find_by_id(id).one(&db).await?.ok_or(AppError::NO_SUCH_STOCK)?;
    let items = close::Entity::find()
        .filter(close::Column::StockId.eq(id))
        .apply_if(days.from, |query, from| query.filter(close::Column::Date.gte(from)))
        .apply_if(days.to, |query, to| query.filter(close::Column::Date.lte(to)))
        .order_by_asc(close::Column::Date)
        .into_model()
        .all(&db)
        .await?;
    Ok(Json(Items { items }))
}
