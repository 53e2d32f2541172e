//! What a request of the API can fail with.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use diesel::result::Error as DieselError;
use routing_axum::Unavailable;
use routing_core::{Access, Failure, Fault, RouteError};
use routing_diesel::Diesel;
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
    /// The database failed, says SeaORM. 503 when the request got no connection or the fate of a write is unknown;
    /// else 500.
    #[error(transparent)]
    SeaOrm(#[from] DbErr),
    /// The database failed, says Diesel. The same responses.
    #[error(transparent)]
    Diesel(#[from] DieselError),
}

impl AppError {
    pub(crate) const NO_SUCH_STOCK: Self = Self::NotFound("there is no such stock");
    pub(crate) const NOT_WATCHED: Self = Self::NotFound("the stock is not on the watchlist");
}

impl From<routing_diesel::Error> for AppError {
    fn from(error: routing_diesel::Error) -> Self {
        DieselError::from(error).into()
    }
}

/// What a closure fails with that runs statements and decides: `db.run` asks it whether another node may do better.
impl Failure<Diesel> for AppError {
    fn fault(&self, access: Access) -> Option<Fault> {
        match self {
            Self::Diesel(error) => Failure::<Diesel>::fault(error, access),
            Self::Unreadable { .. }
            | Self::Invalid(_)
            | Self::NotFound(_)
            | Self::MethodNotAllowed
            | Self::DuplicateSymbol(_)
            | Self::SeaOrm(_) => None,
        }
    }
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
            Self::SeaOrm(error) => {
                let unknown = routing_seaorm::is_commit_unknown(&error);
                failed(routing_seaorm::route_error(&error), unknown, &message)
            }
            Self::Diesel(error) => {
                let unknown = routing_diesel::is_commit_unknown(&error);
                failed(routing_diesel::route_error(&error), unknown, &message)
            }
        }
    }
}

fn failed(refused: Option<&RouteError>, unknown: bool, error: &str) -> Response {
    if let Some(refused) = refused {
        return Unavailable::from(refused).into_response();
    }
    if unknown {
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

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;
    use diesel::result::DatabaseErrorKind;
    use routing_core::CommitUnknown;

    use super::*;

    async fn shown(error: AppError) -> (u16, bool, String) {
        let response = error.into_response();
        let (status, again) = (response.status().as_u16(), response.headers().contains_key(RETRY_AFTER));
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (status, again, body["error"]["code"].as_str().unwrap().to_owned())
    }

    #[test]
    fn what_a_statement_says_about_its_node_is_passed_on() {
        let closed =
            || DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(String::new()));
        assert_eq!(AppError::from(closed()).fault(Access::Read), Some(Fault::Unreachable));
        assert_eq!(AppError::NO_SUCH_STOCK.fault(Access::Read), None);
    }

    #[tokio::test]
    async fn the_same_failure_is_the_same_response_on_both_orms() {
        let lost = CommitUnknown { node: "pg1".into(), why: "gone".into() };
        let table = [
            (
                AppError::from(DbErr::from(routing_seaorm::Error::from(RouteError::Closed))),
                AppError::from(routing_diesel::Error::from(RouteError::Closed)),
                (503, true, RouteError::Closed.code()),
            ),
            (
                AppError::from(DbErr::from(routing_seaorm::Error::from(lost.clone()))),
                AppError::from(routing_diesel::Error::from(lost)),
                (503, false, "commit_unknown"),
            ),
            (
                AppError::from(DbErr::Custom("secret".to_owned())),
                AppError::from(DieselError::RollbackTransaction),
                (500, false, "internal"),
            ),
        ];
        for (seaorm, diesel, (status, again, code)) in table {
            let expected = (status, again, code.to_owned());
            assert_eq!(shown(seaorm).await, expected);
            assert_eq!(shown(diesel).await, expected);
        }
    }
}
