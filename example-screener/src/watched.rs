//! Stocks on watchlists: how they are added and shown.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use diesel::Queryable;
use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A stock on a watchlist, as responses show it.
#[derive(Debug, FromQueryResult, Queryable, Serialize)]
pub(crate) struct Watched {
    stock_id: i32,
    symbol: String,
    name: String,
    added_at: DateTime<Utc>,
}

/// What a client sends to add a stock.
#[derive(Debug, Deserialize)]
pub(crate) struct NewEntry {
    pub(crate) stock_id: i32,
}

/// What it gets back: 201 when the stock was added, 200 when it was there already. Repeating it after a lost answer does
/// no harm.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) stock_id: i32,
    pub(crate) is_new: bool,
}

impl IntoResponse for Added {
    fn into_response(self) -> Response {
        let status = if self.is_new { StatusCode::CREATED } else { StatusCode::OK };
        (status, Json(json!({ "stock_id": self.stock_id }))).into_response()
    }
}
