//! Serving until a signal, and the way out that costs no client a response.
//!
//! HTTP/1.1 lets a server close an idle connection at any time, and a client send a request on it at any time: a request
//! that crosses the closing is lost. So idle connections are not closed at once. Every response after the signal says
//! `Connection: close`, which ends its connection where the client knows of it; what is still idle a moment later is closed.

use std::io;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use routing_core::{Backend, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::listener::Stoppable;
use crate::serve::Signals;

/// How long requests in flight may take to end once no connection is taken any more.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// How long idle connections stay open for a request that is on its way.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// How long responses to requests that were cut may take to be written.
const LAST_RESPONSE: Duration = Duration::from_secs(1);

/// Serves until a signal. Then `/health/ready` is 503 and each response ends its connection. After `delay` no
/// connection is taken any more; requests in flight may end, then the router is shut down. What is still in flight after
/// [`GRACE`], or at another signal, is cut and answered with that.
pub(crate) async fn serve_until(
    signals: &mut Signals,
    delay: Duration,
    listener: TcpListener,
    app: axum::Router,
    router: &Router<impl Backend>,
) -> io::Result<()> {
    let (leaving, closed, quitting) =
        (watch::Sender::new(false), watch::Sender::new(false), watch::Sender::new(false));
    let open = watch::Sender::new(());
    let listener = Stoppable::new(listener, closed.subscribe(), open.clone())?;
    let app = app.layer(from_fn_with_state(leaving.subscribe(), last_words));
    let mut quit = quitting.subscribe();
    let quit = async move {
        // An error means that the sender is gone: it is time to quit as well.
        let _ = quit.wait_for(|quit| *quit).await;
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(quit).into_future();
    tokio::pin!(server);
    tokio::select! {
        biased;
        served = &mut server => return served,
        () = signals.next() => {}
    }
    tracing::info!("stopping: requests in flight may end; another signal cuts them");
    leaving.send_replace(true);
    let in_order = async {
        let _ = timeout(delay, &mut server).await;
        closed.send_replace(true);
        let limit = Instant::now() + GRACE;
        let _ = timeout(LAST_REQUEST, async {
            tokio::select! {
                biased;
                () = open.closed() => {}
                _ = &mut server => {}
            }
        })
        .await;
        quitting.send_replace(true);
        timeout_at(limit, &mut server).await.is_ok()
    };
    let ended = tokio::select! {
        biased;
        ended = in_order => ended,
        () = signals.next() => false,
    };
    if ended {
        // Tasks that handlers have left behind may still hold leases.
        tokio::select! {
            biased;
            _ = router.shutdown(GRACE) => {}
            () = signals.next() => { router.shutdown(Duration::ZERO).await; }
        }
        return Ok(());
    }
    tracing::warn!("requests were still in flight; they are cut");
    closed.send_replace(true);
    quitting.send_replace(true);
    // Those that are cut here are answered by their handlers.
    router.shutdown(Duration::ZERO).await;
    let _ = timeout(LAST_RESPONSE, server).await;
    Ok(())
}

/// From the signal on: a readiness that sends clients elsewhere, and responses that end their connections.
async fn last_words(State(leaving): State<watch::Receiver<bool>>, request: Request, next: Next) -> Response {
    let asks_readiness = request.uri().path() == "/health/ready";
    let mut response = if asks_readiness && *leaving.borrow() {
        let body = json!({ "error": { "code": "stopping", "message": "the process is stopping" } });
        (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
    } else {
        next.run(request).await
    };
    // Looked at last: the signal may have come meanwhile.
    if *leaving.borrow() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
