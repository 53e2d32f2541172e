//! The session token in cookie and header.

use crate::support::{body, get, header, servers};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get as on_get;
use http::{Request, StatusCode};
use routing_axum::{ReadDb, RoutingLayer, WriteDb};
use routing_core::testing::{FakeBackend, FakeCluster, FakeError, FakeHandle, Reach};
use routing_core::{Lease, Routed};
use std::time::Duration;
use tower::ServiceExt as _;

async fn append(db: &Routed<FakeBackend>) -> String {
    let written = db
        .run_statement(async |lease: &mut Lease<FakeBackend>| Ok::<_, FakeError>(lease.write().await?))
        .await;
    written.unwrap().to_string()
}

async fn write(WriteDb(FakeHandle(db)): WriteDb<FakeBackend>) -> String {
    append(&db).await
}

async fn audit(WriteDb(FakeHandle(db)): WriteDb<FakeBackend>) -> String {
    append(&db.untracked()).await
}

async fn fail(WriteDb(FakeHandle(db)): WriteDb<FakeBackend>) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, append(&db).await)
}

/// The position that a read sees.
async fn read(ReadDb(FakeHandle(db)): ReadDb<FakeBackend>) -> String {
    let read = db
        .run_read(async |lease: &mut Lease<FakeBackend>| Ok::<_, FakeError>(lease.query().await?.to_string()))
        .await;
    read.unwrap()
}

async fn app(servers: &FakeCluster, layer: RoutingLayer) -> Router {
    let mut config = servers.config();
    config.token_keys = Some("the-key-of-all-processes-of-this-application".parse().unwrap());
    let router = routing_core::Router::<FakeBackend>::start(config, servers.clone()).unwrap();
    assert!(router.cluster().settled(Duration::from_secs(3)).await);
    Router::new()
        .route("/write", on_get(write))
        .route("/audit", on_get(audit))
        .route("/fail", on_get(fail))
        .route("/read", on_get(read))
        .layer(RoutingLayer::new())
        .layer(layer)
        .with_state(router)
}

fn cookies(response: &Response) -> Vec<&str> {
    response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
}

async fn get_with(app: &Router, headers: &[(&str, &str)]) -> String {
    let mut request = Request::get("/read");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    body(app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
}

/// A cluster whose replicas lag by a minute, so that only the primary shows what was just written.
async fn lagging() -> FakeCluster {
    let servers = servers();
    for replica in ["pg2", "pg3"] {
        servers.server(replica).set_apply_lag(Duration::from_secs(60));
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    servers
}

#[tokio::test(start_paused = true)]
async fn a_write_hands_out_its_token_once_in_both_forms_and_a_read_none() {
    let servers = servers();
    let app = app(&servers, RoutingLayer::new().cookie_lifetime(Duration::from_secs(60))).await;
    let response = get(&app, "/write").await;
    let token = header(&response, "x-db-session").unwrap();
    let expected = format!("db_session={token}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60");
    assert_eq!(cookies(&response), [expected]);
    for uri in ["/read", "/audit", "/nowhere"] {
        let response = get(&app, uri).await;
        assert_eq!((header(&response, "x-db-session"), cookies(&response)), (None, vec![]), "{uri}");
    }
    let response = get(&app, "/fail").await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(header(&response, "x-db-session").is_some(), "the commit came before the failure");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_brings_its_token_back_sees_its_write_in_any_process() {
    let servers = lagging().await;
    let (one, two) = (app(&servers, RoutingLayer::new()).await, app(&servers, RoutingLayer::new()).await);
    let response = get(&one, "/write").await;
    let token = header(&response, "x-db-session").unwrap().to_owned();
    let written = body(response).await;
    let old = "v1.AAAAAAAA";
    for headers in [
        &[("cookie", format!("db_session={token}"))][..],
        &[("cookie", format!("theme=dark; db_session=\"{token}\"; x=db_session"))],
        &[("cookie", "theme=dark".to_owned()), ("cookie", format!("a=b;db_session={token}"))],
        &[("cookie", format!("db_session={old}; db_session={token}"))],
        &[("x-db-session", format!(" {token} "))],
        &[("x-db-session", token.clone()), ("cookie", format!("db_session={old}"))],
        &[("x-db-session", old.to_owned()), ("x-db-session", token.clone())],
        &[("x-db-session", format!("{old}, {token}"))],
        &[("x-db-session", format!(",{token} ,"))],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(get_with(&two, &headers).await, written, "{headers:?}");
    }
    for headers in [
        &[][..],
        &[("cookie", format!("session={token}"))],
        &[("cookie", format!("db_session={}", &token[..60]))],
        &[("x-db-session", format!("{token}{token}"))],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_ne!(get_with(&two, &headers).await, written, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_succeeds_with_a_pin_when_the_position_cannot_be_read() {
    let servers = lagging().await;
    let (one, two) = (app(&servers, RoutingLayer::new()).await, app(&servers, RoutingLayer::new()).await);
    let pg1 = servers.server("pg1").clone();
    pg1.set_latency(Duration::from_millis(300));
    let freeze = async {
        // The write has been answered by then, and the question after it has not.
        tokio::time::sleep(Duration::from_millis(450)).await;
        pg1.set_reach(Reach::Frozen);
        tokio::time::sleep(Duration::from_secs(3)).await;
        pg1.set_reach(Reach::Up);
    };
    let (response, ()) = tokio::join!(get(&one, "/write"), freeze);
    assert_eq!(response.status(), StatusCode::OK);
    let token = header(&response, "x-db-session").unwrap().to_owned();
    let written = body(response).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(get_with(&two, &[("x-db-session", &token)]).await, written);
}

#[tokio::test(start_paused = true)]
async fn a_cookie_for_plain_http_says_so() {
    let app = app(&servers(), RoutingLayer::new().secure_cookie(false)).await;
    let response = get(&app, "/write").await;
    assert!(!cookies(&response)[0].contains("Secure"));
}
