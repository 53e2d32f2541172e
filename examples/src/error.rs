//! What a request can fail with.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use routing_axum::Unavailable;

/// What a request can fail with: any error becomes a 500, that the database cannot serve now a 503.
#[derive(Debug)]
pub enum AppError {
    /// There is no such note.
    NotFound,
    /// The database could not serve the request.
    Unavailable(Unavailable),
    /// Anything else.
    Other,
}

impl From<sea_orm::DbErr> for AppError {
    fn from(error: sea_orm::DbErr) -> Self {
        match routing_seaorm::route_error(&error) {
            Some(refused) => Self::Unavailable(refused.into()),
            None => Self::Other,
        }
    }
}

impl From<diesel::result::Error> for AppError {
    fn from(error: diesel::result::Error) -> Self {
        match routing_diesel::route_error(&error) {
            Some(refused) => Self::Unavailable(refused.into()),
            None => Self::Other,
        }
    }
}

impl From<diesel_async::pooled_connection::deadpool::PoolError> for AppError {
    fn from(_: diesel_async::pooled_connection::deadpool::PoolError) -> Self {
        Self::Other
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Unavailable(refused) => refused.into_response(),
            Self::Other => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}
