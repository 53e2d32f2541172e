//! A cluster in memory, and requests to an application on it.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use routing_core::Router;
use routing_core::testing::{FakeBackend, FakeCluster, Reach};
use tower::ServiceExt as _;

/// Two replicas of `pg1`, all answering.
pub(crate) fn servers() -> FakeCluster {
    FakeCluster::new(2)
}

/// The same, none answering.
pub(crate) fn silent_servers() -> FakeCluster {
    let servers = servers();
    for server in servers.servers() {
        server.set_reach(Reach::Refused);
    }
    servers
}

/// A router over them, once the monitor has looked at all of them. Their URLs have the password `hunter2`.
pub(crate) async fn router(servers: &FakeCluster) -> Router<FakeBackend> {
    let mut config = servers.config();
    for node in &mut config.nodes {
        node.url = node.url.with_credentials("app", "hunter2");
    }
    let router = Router::start(config, servers.clone()).unwrap();
    router.cluster().settled(Duration::from_secs(3)).await;
    // Staleness is proven only by two probes of the primary.
    tokio::time::sleep(Duration::from_secs(1)).await;
    router
}

/// What `GET uri` answers.
pub(crate) async fn get(app: &axum::Router, uri: &str) -> Response {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn body(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}
