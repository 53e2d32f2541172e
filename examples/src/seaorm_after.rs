//! The notes API on SeaORM, on replicas.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use routing_axum::{ReadDb, RoutingLayer, WriteDb};
use routing_core::{ConfigError, RouterConfig};
use routing_seaorm::{SeaOrm, SeaOrmOptions};
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, QueryOrder};

use crate::AppError;
use crate::note::{Column, Entity, Model};

/// The API on the servers of `config`.
///
/// # Errors
/// When a rule of the configuration is broken.
pub fn app(config: RouterConfig) -> Result<Router, ConfigError> {
    let db = routing_core::Router::<SeaOrm>::start(config, SeaOrmOptions::default())?;
    let routes = Router::new().route("/notes", get(list).post(add)).route("/notes/{id}", get(show));
    Ok(routes.layer(RoutingLayer::new()).with_state(db))
}

async fn list(ReadDb(db): ReadDb<SeaOrm>) -> Result<Json<Vec<Model>>, AppError> {
    Ok(Json(Entity::find().order_by_asc(Column::Id).all(&db).await?))
}

async fn show(ReadDb(db): ReadDb<SeaOrm>, Path(id): Path<i32>) -> Result<Json<Model>, AppError> {
    Entity::find_by_id(id).one(&db).await?.map(Json).ok_or(AppError::NotFound)
}

async fn add(
    WriteDb(db): WriteDb<SeaOrm>,
    Json(note): Json<Model>,
) -> Result<(StatusCode, Json<Model>), AppError> {
    let mut note = note.into_active_model();
    note.id = sea_orm::NotSet;
    Ok((StatusCode::CREATED, Json(note.insert(&db).await?)))
}
