//! The API on Diesel.

mod closes;
pub(crate) mod schema;
mod screen;
mod stocks;
mod watchlist;

use axum::Router as AxumRouter;
use axum::routing::{delete, get};
use routing_core::Router;
use routing_diesel::Diesel;

use crate::app::Handlers;

/// The whole API on Diesel. `render` returns the text of the process's metrics recorder.
///
/// Its responses say which node served them (`x-db-node`, `x-db-role`, `x-db-reason`): a demonstration wants to be
/// looked into.
pub fn app(router: Router<Diesel>, render: impl Fn() -> String + Send + Sync + 'static) -> AxumRouter {
    let handlers = Handlers {
        stocks: get(stocks::list).post(stocks::add),
        stock: get(stocks::show),
        closes: get(closes::list),
        screen: get(screen::screen),
        watchlist: get(watchlist::list).post(watchlist::add),
        entry: delete(watchlist::remove),
    };
    crate::app::app(handlers, router, render)
}
