//! The handlers of the API.

pub(crate) mod closes;
pub(crate) mod screen;
pub(crate) mod stocks;
pub(crate) mod watchlist;

use serde::Serialize;

/// A list that comes whole.
#[derive(Serialize)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
}
