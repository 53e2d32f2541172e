//! What the API answers when no database does: bad input is refused before one is needed, the rest is 503.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use routing_core::{NodeConfig, Router, RouterConfig};
use routing_diesel::{Diesel, DieselOptions};
use routing_seaorm::{SeaOrm, SeaOrmOptions};
use tower::ServiceExt as _;

/// The API on both ORMs, over one node that refuses every connection: nothing listens on port 1.
fn apps() -> [axum::Router; 2] {
    let node = NodeConfig::new("pg1", "postgres://app:hunter2@127.0.0.1:1/app".parse().unwrap());
    let short = Duration::from_millis(100);
    let config = RouterConfig {
        nodes: vec![node],
        acquire_deadline: short,
        checkout_timeout: short,
        write_wait: short,
        session_wait: short / 2,
        ..RouterConfig::default()
    };
    let seaorm = Router::<SeaOrm>::start(config, SeaOrmOptions::default()).unwrap();
    let diesel = Router::<Diesel>::new(seaorm.cluster(), DieselOptions::default()).unwrap();
    [example_screener::seaorm::app(seaorm, String::new), example_screener::diesel::app(diesel, String::new)]
}

async fn ask(app: &axum::Router, method: Method, uri: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    let response = app.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn code(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(body["error"]["message"].is_string(), "{body}");
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn bad_input_is_refused_as_json_before_a_database_is_needed() {
    let apps = apps();
    let table = [
        (Method::GET, "/stocks?page=0", "", 400, "bad_query"),
        (Method::GET, "/stocks?page_size=1000", "", 400, "bad_query"),
        (Method::GET, "/stocks?page=one", "", 400, "bad_query"),
        (Method::GET, "/stocks?sort=price", "", 400, "bad_query"),
        (Method::GET, "/stocks?min_employees=1e3", "", 400, "bad_query"),
        (Method::GET, "/stocks?q=%00", "", 400, "bad_query"),
        (Method::GET, "/stocks/one", "", 400, "bad_path"),
        (Method::GET, "/stocks/1/closes?from=2022-02-30", "", 400, "bad_query"),
        (Method::GET, "/screen?window=1", "", 400, "bad_query"),
        (Method::GET, "/screen?sort=name", "", 400, "bad_query"),
        (Method::POST, "/stocks", "{", 400, "bad_json"),
        (Method::POST, "/stocks", "{}", 422, "bad_json"),
        (Method::POST, "/stocks", r#"{"symbol": "", "name": "A"}"#, 422, "invalid"),
        (Method::POST, "/watchlist", r#"{"stock_id": "x"}"#, 422, "bad_json"),
        (Method::DELETE, "/watchlist/x", "", 400, "bad_path"),
        (Method::GET, "/nothing", "", 404, "not_found"),
        (Method::PUT, "/stocks", "", 405, "method_not_allowed"),
        (Method::POST, "/health/live", "", 405, "method_not_allowed"),
    ];
    for (method, uri, body, status, expected) in table {
        for app in &apps {
            let (answered, text) = ask(app, method.clone(), uri, body).await;
            assert_eq!(
                (answered.as_u16(), code(&text).as_str()),
                (status, expected),
                "{method} {uri}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn without_a_database_routes_answer_503_without_internals_and_the_process_is_live() {
    let apps = apps();
    for app in &apps {
        serves_without_a_database(app).await;
    }
}

async fn serves_without_a_database(app: &axum::Router) {
    for (method, uri, body) in [
        (Method::GET, "/stocks", ""),
        (Method::GET, "/screen", ""),
        (Method::POST, "/watchlist", r#"{"stock_id": 1}"#),
        (Method::GET, "/health/ready", ""),
    ] {
        let (status, text) = ask(app, method, uri, body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{uri}: {text}");
        assert!(
            !code(&text).is_empty() && !text.contains("127.0.0.1") && !text.contains("hunter2"),
            "{text}"
        );
    }
    for uri in ["/", "/health/live", "/metrics", "/routing", "/routing/dashboard"] {
        let (status, text) = ask(app, Method::GET, uri, "").await;
        assert_eq!(status, StatusCode::OK, "{uri}");
        assert!(!text.contains("hunter2"), "{uri}");
    }
}
