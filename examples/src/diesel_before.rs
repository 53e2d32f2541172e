//! A notes API on diesel-async.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use diesel::prelude::*;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::{BuildError, Pool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::AppError;
use crate::schema::{NewNote, Note, notes};

type Db = Pool<AsyncPgConnection>;

/// The API on the database at `url`.
///
/// # Errors
/// When the pool cannot be built.
pub fn app(url: &str) -> Result<Router, BuildError> {
    let db = Pool::builder(AsyncDieselConnectionManager::<AsyncPgConnection>::new(url)).build()?;
    let routes = Router::new().route("/notes", get(list).post(add)).route("/notes/{id}", get(show));
    Ok(routes.with_state(db))
}

async fn list(State(db): State<Db>) -> Result<Json<Vec<Note>>, AppError> {
    let conn = &mut db.get().await?;
    Ok(Json(notes::table.order(notes::id).load(conn).await?))
}

async fn show(State(db): State<Db>, Path(id): Path<i32>) -> Result<Json<Note>, AppError> {
    let conn = &mut db.get().await?;
    notes::table.find(id).first(conn).await.optional()?.map(Json).ok_or(AppError::NotFound)
}

async fn add(State(db): State<Db>, Json(note): Json<NewNote>) -> Result<(StatusCode, Json<Note>), AppError> {
    let conn = &mut db.get().await?;
    Ok((StatusCode::CREATED, Json(diesel::insert_into(notes::table).values(&note).get_result(conn).await?)))
}
