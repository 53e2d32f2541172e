//! axum's extractors with this API's errors.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::AppError;
use crate::text::Text;

/// The query string.
pub(crate) struct Query<T>(pub(crate) T);

/// The variable part of the path.
pub(crate) struct Path<T>(pub(crate) T);

/// The body of a request.
pub(crate) struct Json<T>(pub(crate) T);

/// Whose watchlist it is: the header `x-user`, `demo` without one. It names a user and proves nothing.
pub(crate) struct User(pub(crate) String);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(AppError::from(error)),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AppError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(error) => Err(AppError::from(error)),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = AppError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AppError> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(error) => Err(AppError::from(error)),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, AppError> {
        let Some(header) = parts.headers.get("x-user") else { return Ok(Self("demo".to_owned())) };
        let name = header.to_str().ok().and_then(|text| text.trim().parse::<Text>().ok());
        let short = name.filter(|name| (1..=64).contains(&name.0.chars().count()));
        short.map(|name| Self(name.0)).ok_or_else(|| AppError::Unreadable {
            status: StatusCode::BAD_REQUEST,
            code: "bad_user",
            message: "the header x-user must hold 1 to 64 visible ASCII characters".to_owned(),
        })
    }
}

impl From<QueryRejection> for AppError {
    fn from(rejection: QueryRejection) -> Self {
        Self::Unreadable { status: rejection.status(), code: "bad_query", message: rejection.body_text() }
    }
}

impl From<PathRejection> for AppError {
    fn from(rejection: PathRejection) -> Self {
        Self::Unreadable { status: rejection.status(), code: "bad_path", message: rejection.body_text() }
    }
}

impl From<JsonRejection> for AppError {
    fn from(rejection: JsonRejection) -> Self {
        Self::Unreadable { status: rejection.status(), code: "bad_json", message: rejection.body_text() }
    }
}
