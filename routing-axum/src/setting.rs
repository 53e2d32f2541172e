//! What one route asks of its reads.

use std::task::{Context, Poll};

use http::Request;
use routing_core::{Consistency, Priority};
use tower::{Layer, Service};

/// Gives the reads of the routes under it this consistency instead of the router's. The innermost one counts.
///
/// ```
/// use axum::{Router, routing::get};
/// use routing_core::Consistency;
///
/// let routes: Router = Router::new()
///     .route("/balance", get(async || "exact").layer(routing_axum::consistency(Consistency::Strong)));
/// ```
#[must_use]
pub fn consistency(consistency: Consistency) -> SettingLayer<Consistency> {
    SettingLayer(consistency)
}

/// Gives the reads of the routes under it this priority instead of [`Priority::Normal`]: who is let go first when the primary
/// cannot serve everybody that replicas leave to it. The innermost one counts.
///
/// ```
/// use axum::{Router, routing::get};
/// use routing_core::Priority;
///
/// let routes: Router = Router::new()
///     .route("/export", get(async || "much").layer(routing_axum::priority(Priority::Batch)));
/// ```
#[must_use]
pub fn priority(priority: Priority) -> SettingLayer<Priority> {
    SettingLayer(priority)
}

/// What [`consistency`] and [`priority`] return.
#[derive(Clone, Copy, Debug)]
pub struct SettingLayer<T>(T);

/// The service that [`SettingLayer`] makes.
#[derive(Clone, Copy, Debug)]
pub struct SettingService<S, T> {
    inner: S,
    setting: T,
}

/// A route's setting on its way from the layer to the extractors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteSetting<T>(pub(crate) T);

// === impl SettingLayer ===

impl<S, T: Copy> Layer<S> for SettingLayer<T> {
    type Service = SettingService<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        SettingService { inner, setting: self.0 }
    }
}

// === impl SettingService ===

impl<S, T, Body> Service<Request<Body>> for SettingService<S, T>
where
    S: Service<Request<Body>>,
    T: Copy + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        request.extensions_mut().insert(RouteSetting(self.setting));
        self.inner.call(request)
    }
}
