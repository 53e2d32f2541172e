//! The notes API on diesel-async, on replicas.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use routing_axum::{ReadDb, RoutingLayer, WriteDb};
use routing_core::{ConfigError, RouterConfig};
use routing_diesel::{Diesel, DieselOptions};

use crate::AppError;
use crate::schema::{NewNote, Note, notes};

/// The API on the servers of `config`.
///
/// # Errors
/// When a rule of the configuration is broken.
pub fn app(config: RouterConfig) -> Result<Router, ConfigError> {
    let db = routing_core::Router::<Diesel>::start(config, DieselOptions::default())?;
    let routes = Router::new().route("/notes", get(list).post(add)).route("/notes/{id}", get(show));
    Ok(routes.layer(RoutingLayer::new()).with_state(db))
}

async fn list(ReadDb(db): ReadDb<Diesel>) -> Result<Json<Vec<Note>>, AppError> {
    Ok(Json(db.run(async |conn| notes::table.order(notes::id).load(conn).await).await?))
}

async fn show(ReadDb(db): ReadDb<Diesel>, Path(id): Path<i32>) -> Result<Json<Note>, AppError> {
    let note = db.run(async |conn| notes::table.find(id).first(conn).await.optional()).await?;
    note.map(Json).ok_or(AppError::NotFound)
}

async fn add(
    WriteDb(db): WriteDb<Diesel>,
    Json(note): Json<NewNote>,
) -> Result<(StatusCode, Json<Note>), AppError> {
    let insert = diesel::insert_into(notes::table).values(&note);
    Ok((StatusCode::CREATED, Json(db.run(async |conn| insert.get_result(conn).await).await?)))
}
