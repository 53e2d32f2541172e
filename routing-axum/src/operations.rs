//! The routes that operators and orchestrators ask.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router as AxumRouter};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use routing_core::{Backend, Router};
use serde_json::json;

use crate::dashboard::dashboard;
use crate::exposition::node_gauges;
use crate::rejection::refuse;

/// The routes that operators and orchestrators ask. None of them runs a statement.
///
/// | route | answer |
/// |---|---|
/// | `/health/live` | 200 while the process answers |
/// | `/health/ready` | 200 once the database could be used; see below |
/// | `/metrics` | what [`metrics`](Self::metrics) renders, and the [gauges of each node](crate::node_gauges) |
/// | `/routing` | [`RouterStatus`](routing_core::RouterStatus) as JSON |
/// | `/routing/dashboard` | the same, drawn for a person and kept up to date; `/routing` must lie beside it |
///
/// `/health/ready` is a gate for the start: 503 until a primary was accepted or a node could serve reads for the first
/// time, then 200, also while no node serves. The loss of the database hits all instances alike, and taking them all
/// out of the load balancer would turn clear 503s into refused connections. It is 503 again only when the router is
/// closed, from the
/// moment on in which its [shutdown](Router::shutdown) begins.
///
/// The routes show names and addresses of servers, never credentials. They belong on a port that strangers cannot reach.
pub struct Operations<B: Backend>(Inner<B>);

struct Inner<B: Backend> {
    router: Router<B>,
    render: Box<dyn Fn() -> String + Send + Sync>,
    was_ready: AtomicBool,
}

impl<B: Backend> Operations<B> {
    /// The routes of one router, whose `/metrics` has the gauges of the nodes alone.
    #[must_use]
    pub fn new(router: Router<B>) -> Self {
        Self(Inner { router, render: Box::new(String::new), was_ready: AtomicBool::new(false) })
    }

    /// Also shows what `render` returns: the text of the process's Prometheus recorder.
    #[must_use]
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.0.render = Box::new(render);
        self
    }

    /// The routes, to merge or nest into an application with any state.
    pub fn into_routes<S: Clone + Send + Sync + 'static>(self) -> AxumRouter<S> {
        AxumRouter::new()
            .route("/health/live", get(live))
            .route("/health/ready", get(ready::<B>))
            .route("/metrics", get(metrics::<B>))
            .route("/routing", get(status::<B>))
            .route("/routing/dashboard", get(dashboard))
            .with_state(Arc::new(self.0))
    }
}

impl<B: Backend> fmt::Debug for Operations<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").field("router", &self.0.router).finish_non_exhaustive()
    }
}

impl<B: Backend> Inner<B> {
    fn is_ready(&self) -> bool {
        if self.was_ready.load(Relaxed) {
            return true;
        }
        let status = self.router.cluster().status();
        // The epoch remembers a primary that was accepted while no one asked.
        let ready = status.epoch > 0 || status.nodes.iter().any(|node| node.serving);
        self.was_ready.fetch_or(ready, Relaxed);
        ready
    }
}

async fn live() -> Json<serde_json::Value> {
    Json(json!({ "status": "live" }))
}

async fn ready<B: Backend>(State(inner): State<Arc<Inner<B>>>) -> Response {
    if inner.router.is_closed() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "closed", "the router is closed");
    }
    if !inner.is_ready() {
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_ready",
            "no usable database node has been seen yet",
        );
    }
    Json(json!({ "status": "ready" })).into_response()
}

async fn metrics<B: Backend>(State(inner): State<Arc<Inner<B>>>) -> Response {
    let mut text = (inner.render)();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&node_gauges(&inner.router.status()));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn status<B: Backend>(State(inner): State<Arc<Inner<B>>>) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(inner.router.status())).into_response()
}
