//! A notes API on SeaORM.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use sea_orm::{
    ActiveModelTrait, Database, DatabaseConnection, DbErr, EntityTrait, IntoActiveModel, QueryOrder,
};

use crate::AppError;
use crate::note::{Column, Entity, Model};

/// The API on the database at `url`.
///
/// # Errors
/// When it cannot be reached.
pub async fn app(url: &str) -> Result<Router, DbErr> {
    let db = Database::connect(url).await?;
    let routes = Router::new().route("/notes", get(list).post(add)).route("/notes/{id}", get(show));
    Ok(routes.with_state(db))
}

async fn list(State(db): State<DatabaseConnection>) -> Result<Json<Vec<Model>>, AppError> {
    Ok(Json(Entity::find().order_by_asc(Column::Id).all(&db).await?))
}

async fn show(State(db): State<DatabaseConnection>, Path(id): Path<i32>) -> Result<Json<Model>, AppError> {
    Entity::find_by_id(id).one(&db).await?.map(Json).ok_or(AppError::NotFound)
}

async fn add(
    State(db): State<DatabaseConnection>,
    Json(note): Json<Model>,
) -> Result<(StatusCode, Json<Model>), AppError> {
    let mut note = note.into_active_model();
    note.id = sea_orm::NotSet;
    Ok((StatusCode::CREATED, Json(note.insert(&db).await?)))
}
