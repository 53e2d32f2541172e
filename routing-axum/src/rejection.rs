//! The answers to requests that got no connection.

use std::sync::LazyLock;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use routing_core::RouteError;
use serde_json::json;
use tokio::time::Instant;

use crate::throttle::Throttle;

/// The request reached an extractor without passing a [`RoutingLayer`](crate::RoutingLayer): a mistake in the
/// application. Its response is a 500 that says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingLayer;

impl std::fmt::Display for MissingLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoutingLayer is missing: add .layer(RoutingLayer::new()) around the routes that use the database")
    }
}

impl std::error::Error for MissingLayer {}

impl IntoResponse for MissingLayer {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "missing_layer", &self.to_string())
    }
}

/// The database cannot serve the request now: a 503 with `Retry-After`.
///
/// Its body is `{"error": {"code", "message"}}` with the error's [`code`](RouteError::code) and nothing about the
/// servers; why each node was refused goes to the log (one line a second, however many are refused), and to the header `x-db-reason` where
/// [debug headers](crate::RoutingLayer::debug_headers) are on.
#[derive(Clone, Debug)]
pub struct Unavailable {
    code: &'static str,
    retry_after: Duration,
    details: String,
}

/// An outage refuses thousands of requests for the same reason; a line for each would be a second outage.
static REFUSALS: LazyLock<Throttle> = LazyLock::new(|| Throttle::new(Instant::now()));

/// Why a request was refused, on its way from the response to the layer.
#[derive(Clone, Debug)]
pub(crate) struct RefusalText(pub(crate) String);

impl From<&RouteError> for Unavailable {
    fn from(error: &RouteError) -> Self {
        Self { code: error.code(), retry_after: error.retry_after(), details: error.to_string() }
    }
}

impl From<RouteError> for Unavailable {
    fn from(error: RouteError) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        // The one place that logs it: whoever passed the error on has not.
        if let Some(more) = REFUSALS.pass(Instant::now()) {
            tracing::warn!(
                db.code = self.code,
                more,
                "request refused, and {more} more before it: {}",
                self.details
            );
        }
        let message = "the database cannot serve this request now";
        let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, self.code, message);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(self.retry_after)));
        response.extensions_mut().insert(RefusalText(self.details));
        response
    }
}

/// An error in the form of all bodies of this crate.
pub(crate) fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message } }))).into_response()
}

/// `Retry-After` knows only whole seconds, and 0 would invite a caller to try at once.
fn whole_seconds(duration: Duration) -> u64 {
    let rounded_up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    rounded_up.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        let table = [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (5_000, 5)];
        for (millis, seconds) in table {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
