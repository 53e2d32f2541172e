//! Extractors, headers and rejections.

use crate::support::{body, get, header, router, servers, silent_servers};
use axum::Router;
use axum::extract::FromRef;
use axum::response::{IntoResponse, Response};
use axum::routing::get as on_get;
use http::StatusCode;
use routing_axum::{ReadDb, RoutingLayer, Unavailable, WriteDb, consistency, priority};
use routing_core::testing::{FakeBackend, FakeError, FakeHandle, Reach};
use routing_core::{Claims, Consistency, Priority, Refusals, RouteError, Routed, RouterConfig, Timeline};

fn refused(error: FakeError) -> Unavailable {
    match error {
        FakeError::Route(error) => error.into(),
        other => panic!("{other}"),
    }
}

async fn read(ReadDb(FakeHandle(db)): ReadDb<FakeBackend>) -> Result<String, Unavailable> {
    let lease = db.acquire_read().await.map_err(refused)?;
    Ok(lease.node().name().to_owned())
}

async fn write(WriteDb(FakeHandle(db)): WriteDb<FakeBackend>) -> Result<String, Unavailable> {
    let lease = db.acquire_write().await.map_err(refused)?;
    Ok(lease.node().name().to_owned())
}

async fn idle(_read: ReadDb<FakeBackend>, _write: WriteDb<FakeBackend>) {}

fn routes(layer: RoutingLayer, router: routing_core::Router<FakeBackend>) -> Router {
    Router::new()
        .route("/read", on_get(read))
        .route("/strong", on_get(read).layer(consistency(Consistency::Strong)))
        .route("/write", on_get(write))
        .route("/idle", on_get(idle))
        .layer(layer)
        .with_state(router)
}

#[tokio::test(start_paused = true)]
async fn reads_go_to_replicas_writes_to_the_primary_and_headers_say_so() {
    let app = routes(RoutingLayer::new().debug_headers(true), router(&servers()).await);
    let response = get(&app, "/read").await;
    assert!(["pg2", "pg3"].contains(&header(&response, "x-db-node").unwrap()));
    assert_eq!(header(&response, "x-db-role"), Some("replica"));
    assert_eq!(header(&response, "x-db-reason"), Some("least_in_flight"));
    let response = get(&app, "/write").await;
    assert_eq!(header(&response, "x-db-node"), Some("pg1"));
    assert_eq!(header(&response, "x-db-role"), Some("primary"));
    assert_eq!(header(&response, "x-db-reason"), Some("writer"));
    assert_eq!(body(response).await, "pg1");
}

#[tokio::test(start_paused = true)]
async fn a_route_chooses_its_consistency() {
    let app = routes(RoutingLayer::new().debug_headers(true), router(&servers()).await);
    let response = get(&app, "/strong").await;
    assert_eq!(header(&response, "x-db-node"), Some("pg1"));
    assert_eq!(header(&response, "x-db-reason"), Some("strong"));
}

#[tokio::test(start_paused = true)]
async fn a_route_chooses_its_priority() {
    let servers = servers();
    let router = router(&servers).await;
    for name in ["pg2", "pg3"] {
        servers.server(name).set_reach(Reach::Refused);
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(router.read(Consistency::Eventual).await.unwrap());
    }
    async fn list(ReadDb(FakeHandle(db)): ReadDb<FakeBackend>) -> Result<String, Unavailable> {
        match db.acquire_read().await {
            Ok(lease) => Ok(lease.node().name().to_owned()),
            Err(FakeError::Route(error)) => Err(Unavailable::from(&error)),
            Err(other) => panic!("{other}"),
        }
    }
    let app = Router::new()
        .route("/batch", on_get(list).layer(priority(Priority::Batch)))
        .route("/normal", on_get(list))
        .layer(RoutingLayer::new())
        .with_state(router);
    let response = get(&app, "/batch").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(body(response).await.contains(r#""code":"overloaded""#));
    assert_eq!(body(get(&app, "/normal").await).await, "pg1");
}

#[tokio::test(start_paused = true)]
async fn the_innermost_consistency_counts() {
    async fn asked(ReadDb(FakeHandle(db)): ReadDb<FakeBackend>) -> String {
        db.consistency().to_string()
    }
    let app = Router::new()
        .route("/inner", on_get(asked).layer(consistency(Consistency::Eventual)))
        .route("/outer", on_get(asked))
        .layer(consistency(Consistency::Strong))
        .route("/none", on_get(asked))
        .layer(RoutingLayer::new())
        .with_state(router(&servers()).await);
    for (uri, expected) in [("/inner", "eventual"), ("/outer", "strong"), ("/none", "session")] {
        assert_eq!(body(get(&app, uri).await).await, expected);
    }
    let servers = servers();
    let config = RouterConfig { consistency: Consistency::Eventual, ..servers.config() };
    let router = routing_core::Router::<FakeBackend>::start(config, servers).unwrap();
    let app = Router::new().route("/", on_get(asked)).layer(RoutingLayer::new()).with_state(router);
    assert_eq!(body(get(&app, "/").await).await, "eventual", "the router's own, where no route says");
}

#[tokio::test(start_paused = true)]
async fn extraction_takes_no_connection_and_shows_no_node() {
    let servers = servers();
    let router = router(&servers).await;
    let app = routes(RoutingLayer::new().debug_headers(true), router.clone());
    let response = get(&app, "/idle").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "x-db-node"), None);
    assert_eq!(servers.server("pg1").statements() + servers.connections(), 0);
    let app = routes(RoutingLayer::new(), router);
    assert_eq!(header(&get(&app, "/read").await, "x-db-node"), None, "headers are off by default");
}

#[tokio::test(start_paused = true)]
async fn the_handles_of_a_request_share_its_session_also_under_two_layers() {
    async fn pair(
        ReadDb(FakeHandle(a)): ReadDb<FakeBackend>,
        ReadDb(FakeHandle(b)): ReadDb<FakeBackend>,
        WriteDb(FakeHandle(c)): WriteDb<FakeBackend>,
    ) -> Result<String, Unavailable> {
        let name =
            |db: &Routed<FakeBackend>| db.session().last_decision().map(|decision| decision.node.to_string());
        drop(a.acquire_read().await.map_err(refused)?);
        assert!(name(&a).is_some());
        assert_eq!((name(&b), name(&c)), (name(&a), name(&a)));
        Ok("shared".to_owned())
    }
    let app = Router::new()
        .route("/", on_get(pair))
        .layer(RoutingLayer::new())
        .layer(RoutingLayer::new().debug_headers(true))
        .with_state(router(&servers()).await);
    let response = get(&app, "/").await;
    assert!(header(&response, "x-db-node").is_some(), "the outer layer knows the session");
    assert_eq!(body(response).await, "shared");
}

#[tokio::test(start_paused = true)]
async fn without_any_node_the_answer_is_503_with_the_reasons_in_the_header_only() {
    let router = router(&silent_servers()).await;
    let response = get(&routes(RoutingLayer::new().debug_headers(true), router.clone()), "/read").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&response, "retry-after"), Some("1"));
    let reason = header(&response, "x-db-reason").unwrap();
    for part in ["pg1: down", "pg2: down", "pg3: down", "connection refused"] {
        assert!(reason.contains(part), "{reason}");
    }
    let text = body(response).await;
    assert!(text.contains("the database cannot serve this request now") && !text.contains("pg1"), "{text}");

    let response = get(&routes(RoutingLayer::new(), router), "/write").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&response, "retry-after"), Some("5"));
    assert_eq!(header(&response, "x-db-reason"), None);
    assert!(body(response).await.contains(r#""code":"no_primary""#));
}

#[tokio::test(start_paused = true)]
async fn a_lost_replica_costs_no_error() {
    let servers = servers();
    let app = routes(RoutingLayer::new(), router(&servers).await);
    servers.server("pg2").set_reach(Reach::Refused);
    for _ in 0..20 {
        assert_eq!(body(get(&app, "/read").await).await, "pg3");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_layer_is_a_500_that_names_it() {
    let router = router(&servers()).await;
    let app = Router::new().route("/read", on_get(read)).route("/write", on_get(write)).with_state(router);
    for uri in ["/read", "/write"] {
        let response = get(&app, uri).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body(response).await.contains("RoutingLayer is missing"));
    }
}

#[derive(Clone)]
struct App(Option<routing_core::Router<FakeBackend>>);

impl FromRef<App> for Option<routing_core::Router<FakeBackend>> {
    fn from_ref(app: &App) -> Self {
        app.0.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn an_optional_handle_is_absent_exactly_when_the_router_is() {
    async fn both(read: Option<ReadDb<FakeBackend>>, write: Option<WriteDb<FakeBackend>>) -> String {
        format!("{} {}", read.is_some(), write.is_some())
    }
    let routes = || Router::new().route("/", on_get(both)).layer(RoutingLayer::new());
    let with = routes().with_state(App(Some(router(&servers()).await)));
    let without = routes().with_state(App(None));
    assert_eq!(body(get(&with, "/").await).await, "true true");
    assert_eq!(body(get(&without, "/").await).await, "false false");
    let unlayered = Router::new().route("/", on_get(both)).with_state(App(None));
    assert_eq!(
        get(&unlayered, "/").await.status(),
        StatusCode::OK,
        "without a router the layer is not needed"
    );
}

#[tokio::test]
async fn every_refusal_has_its_code_and_hides_its_details() {
    let table = [
        (RouteError::NoNode(Refusals::default()), "no_node", "1"),
        (RouteError::NoPrimary(Refusals::default()), "no_primary", "5"),
        (
            RouteError::AmbiguousPrimary(Claims(vec![("secret".into(), Timeline(1))])),
            "ambiguous_primary",
            "5",
        ),
        (
            RouteError::Overloaded { cap: 10, priority: Priority::Batch, refusals: Refusals::default() },
            "overloaded",
            "1",
        ),
        (RouteError::TooManyWaiters { limit: 1000 }, "too_many_waiters", "1"),
        (RouteError::WriterChanged { from: "secret".into() }, "writer_changed", "1"),
        (RouteError::Closed, "closed", "1"),
    ];
    for (error, code, retry_after) in table {
        let response: Response = Unavailable::from(&error).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(header(&response, "retry-after"), Some(retry_after), "{code}");
        assert_eq!(header(&response, "content-type"), Some("application/json"));
        let text = body(response).await;
        let expected = format!(
            r#"{{"error":{{"code":"{code}","message":"the database cannot serve this request now"}}}}"#
        );
        assert_eq!(text, expected);
    }
}
