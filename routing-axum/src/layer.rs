//! The layer around all routes that use the database.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use routing_core::Session;
use tower::{Layer, Service};

use crate::rejection::RefusalText;

const NODE: HeaderName = HeaderName::from_static("x-db-node");
const ROLE: HeaderName = HeaderName::from_static("x-db-role");
const REASON: HeaderName = HeaderName::from_static("x-db-reason");

/// Gives each request a [`Session`], which its extractors share.
///
/// It belongs around every route that uses [`ReadDb`](crate::ReadDb) or [`WriteDb`](crate::WriteDb); without it they
/// answer [`MissingLayer`](crate::MissingLayer). One layer inside another shares the outer one's session.
#[derive(Clone, Debug, Default)]
pub struct RoutingLayer {
    debug_headers: bool,
}

/// The service that [`RoutingLayer`] makes.
#[derive(Clone, Debug)]
pub struct RoutingService<S> {
    inner: S,
    debug_headers: bool,
}

pin_project! {
    /// The response of a [`RoutingService`].
    pub struct RoutingFuture<F> {
        #[pin]
        inner: F,
        session: Session,
        debug_headers: bool,
    }
}

// === impl RoutingLayer ===

impl RoutingLayer {
    /// A layer without debug headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether responses say which node served the request's last statement (`x-db-node`), as what (`x-db-role`) and
    /// why (`x-db-reason`; on a 503 why each node was refused). Default: no, since that tells strangers how the
    /// database is built.
    #[must_use]
    pub fn debug_headers(mut self, debug_headers: bool) -> Self {
        self.debug_headers = debug_headers;
        self
    }
}

impl<S> Layer<S> for RoutingLayer {
    type Service = RoutingService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RoutingService { inner, debug_headers: self.debug_headers }
    }
}

// === impl RoutingService ===

impl<S, Body, ResponseBody> Service<Request<Body>> for RoutingService<S>
where
    S: Service<Request<Body>, Response = Response<ResponseBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RoutingFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let session = request.extensions_mut().get_or_insert_with(Session::new).clone();
        RoutingFuture { inner: self.inner.call(request), session, debug_headers: self.debug_headers }
    }
}

// === impl RoutingFuture ===

impl<F, E, Body> Future for RoutingFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context))?;
        if *this.debug_headers {
            show_decision(this.session, &mut response);
        }
        Poll::Ready(Ok(response))
    }
}

impl<F> std::fmt::Debug for RoutingFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutingFuture").field("session", &self.session).finish_non_exhaustive()
    }
}

fn show_decision<Body>(session: &Session, response: &mut Response<Body>) {
    if let Some(decision) = session.last_decision() {
        let headers = response.headers_mut();
        headers.insert(NODE, visible(&decision.node));
        headers.insert(ROLE, HeaderValue::from_static(decision.role.as_str()));
        headers.insert(REASON, HeaderValue::from_static(decision.reason.as_str()));
    }
    // What refused the request explains the response better than what served an earlier statement of it.
    if let Some(RefusalText(text)) = response.extensions().get() {
        let reason = visible(text);
        response.headers_mut().insert(REASON, reason);
    }
}

/// The text without what a header may not hold. Names and drivers' words may hold anything.
fn visible(text: &str) -> HeaderValue {
    let printable: String = text.chars().filter(|c| matches!(c, ' '..='~')).collect();
    HeaderValue::try_from(printable).unwrap_or_else(|_| HeaderValue::from_static("unprintable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_keeps_what_can_be_printed() {
        assert_eq!(visible("pg1: down\r\nx-evil: 1\u{e9}\u{7f}\0"), "pg1: downx-evil: 1");
        assert_eq!(visible(""), "");
    }
}
