//! The routes by which an operator intervenes.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post, put};
use axum::{Json, Router as AxumRouter};
use http::request::Parts;
use http::{Method, StatusCode};
use routing_core::Cluster;
use serde_json::json;

use crate::rejection::refuse;

/// The routes by which an operator intervenes. They are mounted only on request, and know no users: put them behind a layer
/// that does, on a port that strangers cannot reach.
///
/// | route | `PUT` | `DELETE` |
/// |---|---|---|
/// | `/routing/nodes/{name}/drain` | no new reads for the node ([`Cluster::drain`]) | it may have work again |
/// | `/routing/primary-only` | the primary serves every read ([`Cluster::read_from_primary_only`]) | replicas serve again |
/// | `/routing/discovery/freeze` | the discovery's lists are left aside ([`Cluster::freeze_discovery`]) | they are taken over again |
///
/// `POST /routing/discovery/refresh` asks the discovery now (202, or 409 without one). The others answer 204; an unknown node is a 404 that names those that
/// there are. Doing twice what is done already changes nothing. What is in force shows in `/routing`, what was done among its
/// events; each call is logged with the target `routing_axum::audit`, with who did it as [`who`](Self::who) says.
///
/// ```
/// use axum::Router;
/// use http::request::Parts;
/// use routing_axum::Control;
///
/// # fn make(cluster: &routing_core::Cluster) -> Router {
/// let who = |request: &Parts| match request.headers.get("x-forwarded-user") {
///     Some(user) => String::from_utf8_lossy(user.as_bytes()).into_owned(),
///     None => "unknown".to_owned(),
/// };
/// Control::new(cluster.clone()).who(who).into_routes()
/// // .layer(the application's own authentication)
/// # }
/// ```
pub struct Control(Inner);

struct Inner {
    cluster: Cluster,
    who: Box<dyn Fn(&Parts) -> String + Send + Sync>,
}

impl Control {
    /// The routes over one cluster.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self(Inner { cluster, who: Box::new(|_| "unknown".to_owned()) })
    }

    /// How the audit log names whoever calls: from what the application's authentication has put into the request. Default:
    /// `unknown`.
    #[must_use]
    pub fn who(mut self, who: impl Fn(&Parts) -> String + Send + Sync + 'static) -> Self {
        self.0.who = Box::new(who);
        self
    }

    /// The routes, to merge or nest into an application with any state.
    pub fn into_routes<S: Clone + Send + Sync + 'static>(self) -> AxumRouter<S> {
        AxumRouter::new()
            .route("/routing/nodes/{name}/drain", put(drain).delete(drain))
            .route("/routing/primary-only", switch(Cluster::read_from_primary_only))
            .route("/routing/discovery/freeze", switch(Cluster::freeze_discovery))
            .route("/routing/discovery/refresh", post(refresh))
            .with_state(Arc::new(self.0))
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("cluster", &self.0.cluster).finish_non_exhaustive()
    }
}

impl Inner {
    /// Before it is done: what is not done after all shows as a refusal in the answer.
    fn audit(&self, request: &Parts) {
        let (who, what) = ((self.who)(request), format!("{} {}", request.method, request.uri.path()));
        tracing::info!(target: "routing_axum::audit", who, what, "{who}: {what}");
    }
}

/// A switch that `PUT` turns on and `DELETE` off.
fn switch(set: fn(&Cluster, bool)) -> MethodRouter<Arc<Inner>> {
    let turn = async move |State(inner): State<Arc<Inner>>, request: Parts| {
        inner.audit(&request);
        set(&inner.cluster, request.method == Method::PUT);
        StatusCode::NO_CONTENT
    };
    put(turn).delete(turn)
}

async fn drain(State(inner): State<Arc<Inner>>, Path(name): Path<String>, request: Parts) -> Response {
    inner.audit(&request);
    let draining = request.method == Method::PUT;
    let changed = if draining { inner.cluster.drain(&name) } else { inner.cluster.undrain(&name) };
    match changed {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(StatusCode::NOT_FOUND, "unknown_node", &error.to_string()),
    }
}

async fn refresh(State(inner): State<Arc<Inner>>, request: Parts) -> Response {
    inner.audit(&request);
    match inner.cluster.discovery() {
        Some(_) => {
            inner.cluster.rediscover();
            (StatusCode::ACCEPTED, Json(json!({ "status": "asked" }))).into_response()
        }
        None => refuse(StatusCode::CONFLICT, "no_discovery", "the cluster follows no discovery"),
    }
}
