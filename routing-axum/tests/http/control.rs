//! The routes by which an operator intervenes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use routing_axum::{Control, Operations};
use routing_core::testing::{FakeBackend, Written};
use routing_core::{Consistency, Reason};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::support::{body, get, router, servers};

fn routes(router: &routing_core::Router<FakeBackend>) -> Router {
    let who = |request: &http::request::Parts| {
        let user = request.headers.get("x-forwarded-user").map(|user| user.to_str().unwrap().to_owned());
        user.unwrap_or_else(|| "unknown".to_owned())
    };
    Control::new(router.cluster().clone())
        .who(who)
        .into_routes()
        .merge(Operations::new(router.clone()).into_routes())
}

async fn ask(app: &Router, method: &str, uri: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(uri).header("x-forwarded-user", "ada");
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    (response.status(), body(response).await)
}

async fn status(app: &Router) -> Value {
    serde_json::from_str(&body(get(app, "/routing").await).await).unwrap()
}

fn messages(status: &Value) -> Vec<String> {
    let control = status["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "control");
    control.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_operator_drains_a_node_and_lets_it_have_work_again() {
    let router = router(&servers()).await;
    let app = routes(&router);
    for _ in 0..2 {
        assert_eq!(ask(&app, "PUT", "/routing/nodes/pg2/drain").await.0, StatusCode::NO_CONTENT);
    }
    for _ in 0..20 {
        assert_eq!(router.read(Consistency::Eventual).await.unwrap().node().name(), "pg3");
    }
    let shown = status(&app).await;
    let pg2 = shown["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "pg2").unwrap();
    assert_eq!((&pg2["draining"], &pg2["refused"]), (&Value::Bool(true), &"draining".into()));
    assert_eq!(ask(&app, "DELETE", "/routing/nodes/pg2/drain").await.0, StatusCode::NO_CONTENT);
    assert_eq!(messages(&status(&app).await), ["node pg2 is drained", "node pg2 may have work again"]);
    let (code, text) = ask(&app, "PUT", "/routing/nodes/pg9/drain").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(text.contains("the nodes are pg1, pg2, pg3"), "{text}");
    assert_eq!(ask(&app, "GET", "/routing/nodes/pg2/drain").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(start_paused = true)]
async fn an_operator_has_the_primary_serve_every_read() {
    let router = router(&servers()).await;
    let app = routes(&router);
    assert_eq!(ask(&app, "PUT", "/routing/primary-only").await.0, StatusCode::NO_CONTENT);
    for consistency in [Consistency::Eventual, Consistency::Session] {
        let lease = router.read(consistency).await.unwrap();
        assert_eq!((lease.node().name(), lease.decision().reason), ("pg1", Reason::PrimaryOnly));
    }
    assert_eq!(status(&app).await["reads_from_primary_only"], true);
    assert_eq!(ask(&app, "DELETE", "/routing/primary-only").await.0, StatusCode::NO_CONTENT);
    assert_ne!(router.read(Consistency::Eventual).await.unwrap().node().name(), "pg1");
    let told = ["reads are served by the primary alone", "reads are served by replicas again"];
    assert_eq!(messages(&status(&app).await), told);
}

#[tokio::test(start_paused = true)]
async fn the_discovery_is_frozen_and_asked_on_request() {
    let router = router(&servers()).await;
    let app = routes(&router);
    assert_eq!(ask(&app, "POST", "/routing/discovery/refresh").await.0, StatusCode::CONFLICT);
    let list = tempfile::NamedTempFile::new().unwrap();
    let write = |names: &[u8]| {
        let node =
            |n: &u8| format!("[[nodes]]\nname = 'pg{n}'\nurl = 'postgres://app:hunter2@10.0.0.{n}/app'\n");
        std::fs::write(list.path(), names.iter().map(node).collect::<String>()).unwrap();
    };
    write(&[1, 2, 3]);
    router.cluster().follow(Arc::new(routing_core::FileDiscovery::new(list.path())));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(ask(&app, "PUT", "/routing/discovery/freeze").await.0, StatusCode::NO_CONTENT);
    write(&[1, 2]);
    assert_eq!(ask(&app, "POST", "/routing/discovery/refresh").await.0, StatusCode::ACCEPTED);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let shown = status(&app).await;
    assert_eq!(
        (shown["nodes"].as_array().unwrap().len(), &shown["discovery"]["frozen"]),
        (3, &Value::Bool(true))
    );
    assert_eq!(ask(&app, "DELETE", "/routing/discovery/freeze").await.0, StatusCode::NO_CONTENT);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(status(&app).await["nodes"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_did_what_is_logged() {
    let log = Written::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let router = router(&servers()).await;
    let app = routes(&router);
    ask(&app, "PUT", "/routing/nodes/pg2/drain").await;
    ask(&app, "PUT", "/routing/nodes/pg9/drain").await;
    let text = log.text();
    for line in [
        "routing_axum::audit: ada: PUT /routing/nodes/pg2/drain",
        "routing_core::audit: node pg2 is drained",
        "routing_axum::audit: ada: PUT /routing/nodes/pg9/drain",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("hunter2"));
}
