//! The end of a router: what runs may finish, then everything is closed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::pool::{CLEANUP_TIMEOUT, LAST_WORD};
use crate::pools::NodePools;
use crate::router::Router;

/// How often connections that are being given back are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How a shutdown went. Requests and leases count alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Requests and leases that were under way at the limit and were cut: a write of theirs that had been sent has an
    /// unknown outcome, all else fails with [`RouteError::Closed`](crate::RouteError::Closed).
    pub cut: u32,
    /// Of these, those that have not ended although they were cut: leases that the application keeps, or whose task is not
    /// running. Their connections are closed when they come back.
    pub left: u32,
    /// How long it took.
    pub took: Duration,
}

impl Shutdown {
    /// Whether everything ended by itself.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.cut == 0
    }
}

impl<B: Backend> Router<B> {
    /// Ends it in order. No request begins from now on: it fails with [`RouteError::Closed`](crate::RouteError::Closed).
    /// What has begun goes on, with its retries and under the monitor's protection, until it ends or `limit` has passed;
    /// what is left then is cut. Then the pools are closed, and, for a router that [started](Self::start) its cluster,
    /// everything else on that cluster as by [`Cluster::shutdown`]; a cluster that it was [put on](Self::new) goes on
    /// for others.
    ///
    /// A request here is one call: a statement of a handle, a transaction, a stream of rows, a lease. A handler with
    /// several of them gets [`Closed`](crate::RouteError::Closed) for the next, so stop taking requests before.
    ///
    /// `limit` counts from the call. A limit of zero cuts at once. Beyond it, connections that come back may take some
    /// two seconds to be restored or ended on their servers.
    ///
    /// It may be called again, also at the same time: all calls end together, and the shortest limit counts.
    /// [`close`](Self::close) ends the waiting at once.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the router drained of new requests and nothing closed; call it or
    /// [`close`](Self::close) again.
    pub async fn shutdown(&self, limit: Duration) -> Shutdown {
        if self.owns_cluster() {
            return self.cluster().shutdown(limit).await;
        }
        let pools: Arc<dyn NodePools> = self.all_pools().clone();
        drain(&[pools], Instant::now(), limit).await
    }
}

impl Cluster {
    /// Ends everything on it in order: every router as by [`Router::shutdown`], all at the same time; then the monitor,
    /// whose tasks and connections are gone when this returns. Nobody can use it afterwards.
    ///
    /// # Cancel safety
    /// As [`Router::shutdown`].
    pub async fn shutdown(&self, limit: Duration) -> Shutdown {
        let began = Instant::now();
        let pools = self.shared().membership.carried();
        let ended = drain(&pools, began, limit).await;
        self.close();
        self.monitor_ended().await;
        Shutdown { took: began.elapsed(), ..ended }
    }
}

/// Drains and closes the pools of some routers.
async fn drain(pools: &[Arc<dyn NodePools>], began: Instant, limit: Duration) -> Shutdown {
    let total = || pools.iter().map(|pools| pools.work().under_way()).sum::<u32>();
    pools.iter().for_each(|pools| pools.work().drain());
    // A time that is too far away never comes.
    let deadline = began.checked_add(limit);
    until(deadline, join_all(pools.iter().map(|pools| pools.work().over()))).await;
    let cut = total();
    if cut > 0 {
        tracing::warn!(cut, "what still runs at the limit of the shutdown, {limit:?}, is cut");
    }
    pools.iter().for_each(|pools| pools.work().cut());
    let last = Some(Instant::now() + LAST_WORD + CLEANUP_TIMEOUT + LOOK);
    until(last, join_all(pools.iter().map(|pools| came_back(&**pools)))).await;
    let left = total();
    pools.iter().for_each(|pools| pools.close_all());
    Shutdown { cut, left, took: began.elapsed() }
}

/// Waits until nothing runs, and every connection that was in use has been restored or ended.
async fn came_back(pools: &dyn NodePools) {
    pools.work().idle().await;
    while !pools.are_idle() {
        sleep(LOOK).await;
    }
}

async fn until(deadline: Option<Instant>, end: impl Future) {
    match deadline {
        Some(deadline) => drop(timeout_at(deadline, end).await),
        None => drop(end.await),
    }
}
