//! The layer around all routes that use the database.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use routing_core::Session;
use tower::{Layer, Service};

use crate::rejection::RefusalText;
use crate::token::{self, CookieAttributes};

const NODE: HeaderName = HeaderName::from_static("x-db-node");
const ROLE: HeaderName = HeaderName::from_static("x-db-role");
const REASON: HeaderName = HeaderName::from_static("x-db-reason");

/// Gives each request a [`Session`], which its extractors share.
///
/// It belongs around every route that uses [`ReadDb`](crate::ReadDb) or [`WriteDb`](crate::WriteDb); without it they
/// answer [`MissingLayer`](crate::MissingLayer). One layer inside another shares the outer one's session.
///
/// The session begins with the tokens that the client presents: cookies `db_session` and headers `x-db-session`, up to four.
/// After a request that wrote, the response carries a new one in both forms, whatever its status; it costs one question to
/// the primary. A request that only read gets none, so that its response can be cached.
#[derive(Clone, Debug)]
pub struct RoutingLayer {
    options: Options,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    debug_headers: bool,
    cookie: CookieAttributes,
}

/// The service that [`RoutingLayer`] makes.
#[derive(Clone, Debug)]
pub struct RoutingService<S> {
    inner: S,
    options: Options,
}

pin_project! {
    /// The response of a [`RoutingService`].
    pub struct RoutingFuture<F, R> {
        #[pin]
        inner: F,
        session: Session,
        // A layer within another leaves the token to that one.
        outermost: bool,
        options: Options,
        // The response, while its token is made.
        finished: Option<(R, BoxFuture<'static, Option<String>>)>,
    }
}

// === impl RoutingLayer ===

impl RoutingLayer {
    /// A layer without debug headers, whose cookie lasts five minutes and is `Secure`.
    #[must_use]
    pub fn new() -> Self {
        let cookie = CookieAttributes { secure: true, lifetime: Duration::from_secs(5 * 60) };
        Self { options: Options { debug_headers: false, cookie } }
    }

    /// Whether browsers send the token's cookie over HTTPS only. Default: yes. Browsers keep such a cookie on `localhost`
    /// without HTTPS as well, other clients may not.
    #[must_use]
    pub fn secure_cookie(mut self, secure: bool) -> Self {
        self.options.cookie.secure = secure;
        self
    }

    /// How long clients keep the token's cookie, rounded down to seconds. Default: five minutes. More than the router's
    /// `token_lifetime` is of no use.
    #[must_use]
    pub fn cookie_lifetime(mut self, lifetime: Duration) -> Self {
        self.options.cookie.lifetime = lifetime;
        self
    }

    /// Whether responses say which node served the request's last statement (`x-db-node`), as what (`x-db-role`) and
    /// why (`x-db-reason`; on a 503 why each node was refused). Default: no, since that tells strangers how the
    /// database is built.
    #[must_use]
    pub fn debug_headers(mut self, debug_headers: bool) -> Self {
        self.options.debug_headers = debug_headers;
        self
    }
}

impl Default for RoutingLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for RoutingLayer {
    type Service = RoutingService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RoutingService { inner, options: self.options }
    }
}

// === impl RoutingService ===

impl<S, Body, ResponseBody> Service<Request<Body>> for RoutingService<S>
where
    S: Service<Request<Body>, Response = Response<ResponseBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RoutingFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let outer = request.extensions().get::<Session>().cloned();
        let outermost = outer.is_none();
        let session = outer.unwrap_or_default();
        if outermost {
            token::present(request.headers(), &session);
            request.extensions_mut().insert(session.clone());
        }
        let inner = self.inner.call(request);
        RoutingFuture { inner, session, outermost, options: self.options, finished: None }
    }
}

// === impl RoutingFuture ===

impl<F, E, Body> Future for RoutingFuture<F, Response<Body>>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.finished.is_none() {
            let mut response = ready!(this.inner.poll(context))?;
            if this.options.debug_headers {
                show_decision(this.session, &mut response);
            }
            if !*this.outermost || !this.session.wrote() {
                return Poll::Ready(Ok(response));
            }
            let session = this.session.clone();
            *this.finished = Some((response, Box::pin(async move { session.signed_token().await })));
        }
        let Some((_, token)) = this.finished else { return Poll::Pending };
        let token = ready!(token.as_mut().poll(context));
        let Some((mut response, _)) = this.finished.take() else { return Poll::Pending };
        if let Some(token) = token {
            token::hand_out(&token, this.options.cookie, response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}

impl<F, R> std::fmt::Debug for RoutingFuture<F, R> {
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
