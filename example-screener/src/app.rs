//! All routes over one router.

use axum::Router as AxumRouter;
use axum::routing::{MethodRouter, get};
use routing_axum::{Operations, RoutingLayer};
use routing_core::{Backend, Router};

use crate::error::AppError;
use crate::screen::CONSISTENCY;

/// What one ORM's handlers answer, by the path that [`app`] gives them.
pub(crate) struct Handlers<B: Backend> {
    pub(crate) stocks: MethodRouter<Router<B>>,
    pub(crate) stock: MethodRouter<Router<B>>,
    pub(crate) closes: MethodRouter<Router<B>>,
    pub(crate) screen: MethodRouter<Router<B>>,
    pub(crate) watchlist: MethodRouter<Router<B>>,
    pub(crate) entry: MethodRouter<Router<B>>,
}

/// The whole API. `render` returns the text of the process's metrics recorder.
///
/// Its responses say which node served them (`x-db-node`, `x-db-role`, `x-db-reason`): a demonstration wants to be
/// looked into.
pub(crate) fn app<B: Backend>(
    handlers: Handlers<B>,
    router: Router<B>,
    render: impl Fn() -> String + Send + Sync + 'static,
) -> AxumRouter {
    AxumRouter::new()
        .route("/", get(crate::home::home))
        .route("/stocks", handlers.stocks)
        .route("/stocks/{id}", handlers.stock)
        .route("/stocks/{id}/closes", handlers.closes)
        .route("/screen", handlers.screen.layer(routing_axum::consistency(CONSISTENCY)))
        .route("/watchlist", handlers.watchlist)
        .route("/watchlist/{stock_id}", handlers.entry)
        .merge(Operations::new(router.clone()).metrics(render).into_routes())
        .fallback(async || AppError::NotFound("there is no such route"))
        .method_not_allowed_fallback(async || AppError::MethodNotAllowed)
        // It is served without TLS, so a cookie for HTTPS alone would be lost.
        .layer(RoutingLayer::new().debug_headers(true).secure_cookie(false))
        .with_state(router)
}
