//! All routes over one router.

use axum::Router as AxumRouter;
use axum::routing::{delete, get};
use routing_axum::{Operations, RoutingLayer};
use routing_core::Router;
use routing_seaorm::SeaOrm;

use crate::error::AppError;
use crate::routes::{closes, screen, stocks, watchlist};

/// The whole API. `render` returns the text of the process's metrics recorder.
///
/// Its responses say which node served them (`x-db-node`, `x-db-role`, `x-db-reason`): a demonstration wants to be
/// looked into.
pub fn app(router: Router<SeaOrm>, render: impl Fn() -> String + Send + Sync + 'static) -> AxumRouter {
    AxumRouter::new()
        .route("/", get(crate::home::home))
        .route("/stocks", get(stocks::list).post(stocks::add))
        .route("/stocks/{id}", get(stocks::show))
        .route("/stocks/{id}/closes", get(closes::list))
        .route("/screen", get(screen::screen).layer(routing_axum::consistency(screen::CONSISTENCY)))
        .route("/watchlist", get(watchlist::list).post(watchlist::add))
        .route("/watchlist/{stock_id}", delete(watchlist::remove))
        .merge(Operations::new(router.clone()).metrics(render).into_routes())
        .fallback(async || AppError::NotFound("there is no such route"))
        .method_not_allowed_fallback(async || AppError::MethodNotAllowed)
        .layer(RoutingLayer::new().debug_headers(true))
        .with_state(router)
}
