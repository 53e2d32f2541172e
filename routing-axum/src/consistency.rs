//! How much the reads of one route may miss.

use std::task::{Context, Poll};

use http::Request;
use routing_core::Consistency;
use tower::{Layer, Service};

/// Gives the reads of the routes under it this consistency instead of the default. The innermost one counts.
///
/// ```
/// use axum::{Router, routing::get};
/// use routing_core::Consistency;
///
/// let routes: Router = Router::new()
///     .route("/balance", get(async || "exact").layer(routing_axum::consistency(Consistency::Strong)));
/// ```
#[must_use]
pub fn consistency(consistency: Consistency) -> ConsistencyLayer {
    ConsistencyLayer(consistency)
}

/// What [`consistency`] returns.
#[derive(Clone, Copy, Debug)]
pub struct ConsistencyLayer(Consistency);

/// The service that [`ConsistencyLayer`] makes.
#[derive(Clone, Copy, Debug)]
pub struct ConsistencyService<S> {
    inner: S,
    consistency: Consistency,
}

/// A route's consistency on its way from the layer to the extractors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteConsistency(pub(crate) Consistency);

// === impl ConsistencyLayer ===

impl<S> Layer<S> for ConsistencyLayer {
    type Service = ConsistencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ConsistencyService { inner, consistency: self.0 }
    }
}

// === impl ConsistencyService ===

impl<S, Body> Service<Request<Body>> for ConsistencyService<S>
where
    S: Service<Request<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        request.extensions_mut().insert(RouteConsistency(self.consistency));
        self.inner.call(request)
    }
}
