//! What a request of the API can fail with.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use routing_axum::Unavailable;
use sea_orm::DbErr;
use serde_json::json;

/// What a request of the API can fail with. Its response is `{"error": {"code", "message"}}`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The request cannot be read: its query, path, headers or body.
    #[error("{message}")]
    Unreadable {
        /// The response's status, a 4xx.
        status: StatusCode,
        /// One fixed word.
        code: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The body can be read and breaks a rule: 422.
    #[error("{0}")]
    Invalid(&'static str),
    /// What was asked for does not exist: 404.
    #[error("{0}")]
    NotFound(&'static str),
    /// The route exists, for other methods: 405.
    #[error("the route does not know this method")]
    MethodNotAllowed,
    /// Another stock has the symbol: 409.
    #[error("there is already a stock with the symbol {0}")]
    DuplicateSymbol(String),
    /// The database failed. 503 when the request got no connection or the fate of a write is unknown; else 500.
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            Self::Unreadable { status, code, .. } => response(status, code, &message),
            Self::Invalid(_) => response(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &message),
            Self::NotFound(_) => response(StatusCode::NOT_FOUND, "not_found", &message),
            Self::MethodNotAllowed => {
                response(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message)
            }
            Self::DuplicateSymbol(_) => response(StatusCode::CONFLICT, "duplicate_symbol", &message),
            Self::Database(error) => database(&error),
        }
    }
}

fn database(error: &DbErr) -> Response {
    if let Some(refused) = routing_seaorm::route_error(error) {
        return Unavailable::from(refused).into_response();
    }
    if routing_seaorm::is_commit_unknown(error) {
        tracing::warn!("a write was lost: {error}");
        // No `Retry-After`: whether to repeat it is for the client to decide, after it has looked.
        let message = "the write may or may not have been applied: read the data again before you repeat it";
        return response(StatusCode::SERVICE_UNAVAILABLE, "commit_unknown", message);
    }
    tracing::error!("a statement failed: {error}");
    response(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request could not be served")
}

fn response(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}
