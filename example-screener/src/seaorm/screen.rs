//! `/screen`.

use axum::Json;
use routing_axum::ReadDb;
use routing_seaorm::SeaOrm;
use sea_orm::{DbBackend, FromQueryResult, Statement};

use crate::error::AppError;
use crate::extract::Query;
use crate::screen::{Ranked, Ranks, Screen};

pub(crate) async fn screen(
    ReadDb(db): ReadDb<SeaOrm>,
    Query(screen): Query<Screen>,
) -> Result<Json<Ranks>, AppError> {
    let values = [i64::from(screen.window).into(), i64::from(screen.limit).into()];
    let query = Statement::from_sql_and_values(DbBackend::Postgres, screen.sql(), values);
    let items = Ranked::find_by_statement(query).all(&db).await?;
    Ok(Json(Ranks { window: screen.window, items }))
}
