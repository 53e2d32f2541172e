//! Watching over what runs on a lease.

use std::fmt;
use std::sync::Arc;

use crate::backend::Backend;
use crate::decision::Access;
use crate::error::RouteError;
use crate::lease::Lease;
use crate::node::Node;
use crate::routed::Routed;
use crate::shared::Shared;
use crate::signal::Watcher;

/// Ends a step on a connection when the monitor declares its node dead, and one on a write connection also when another
/// writer is accepted; either also at the limit of the router's shutdown. Without it a statement on a frozen server would
/// wait for ever.
#[derive(Clone)]
pub struct LeaseWatch {
    /// The epoch that a write connection belongs to, and where to see whether it has ended.
    epoch: Option<(u64, Arc<Shared>)>,
    losses: Watcher,
    cuts: Watcher,
}

impl<B: Backend> Routed<B> {
    /// Watches the node of a lease, from when it was chosen on: what happens between two steps ends the second.
    #[must_use]
    pub fn watch(&self, lease: &Lease<B>) -> LeaseWatch {
        let writes = lease.purpose().0 == Access::Write;
        LeaseWatch {
            epoch: writes.then(|| (lease.epoch(), self.router().cluster().shared().clone())),
            losses: lease.losses(),
            cuts: self.router().work().cuts(),
        }
    }
}

impl LeaseWatch {
    /// Runs a step. `None`: the watch was over, or came to its end meanwhile, and the step was dropped where it was; what
    /// it had sent may or may not take effect.
    ///
    /// # Cancel safety
    /// That of the step.
    pub async fn unless_lost<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        if self.is_over() {
            return None;
        }
        self.last_step(step).await
    }

    /// Runs a step that ends what was begun before: it is looked at first, whatever the watch says.
    ///
    /// # Cancel safety
    /// That of the step.
    pub(crate) async fn last_step<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            outcome = step => Some(outcome),
            () = self.end() => None,
        }
    }

    /// Whether it has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.was_cut() || self.writer_changed() || self.losses.has_changed()
    }

    /// Whether the router's shutdown came to its limit.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.cuts.has_changed()
    }

    /// What a step on this node fails with that did not run for the watch's end, or whose effect is undone by it.
    #[must_use]
    pub fn refusal(&self, node: &Node) -> RouteError {
        if self.was_cut() {
            RouteError::Closed
        } else {
            RouteError::WriterChanged { from: node.shared_name().clone() }
        }
    }

    /// Why the answer to a step is not known that the watch's end has cut.
    #[must_use]
    pub fn why(&self) -> &'static str {
        if self.was_cut() {
            "the router was shut down while it ran"
        } else {
            "the node ceased to be the primary, or to answer"
        }
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn end(&self) {
        let writer_changed = async {
            let Some((_, shared)) = &self.epoch else { return std::future::pending().await };
            let mut versions = shared.versions();
            while !self.writer_changed() {
                versions.changed().await;
            }
        };
        tokio::select! {
            biased;
            () = writer_changed => {}
            () = self.losses.raised() => {}
            () = self.cuts.raised() => {}
        }
    }

    fn writer_changed(&self) -> bool {
        self.epoch.as_ref().is_some_and(|(epoch, shared)| shared.peek().lineage.epoch != *epoch)
    }
}

impl fmt::Debug for LeaseWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseWatch").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::time::Duration;

    use crate::consistency::Consistency;
    use crate::error::RouteError;
    use crate::router::Router;
    use crate::session::Session;
    use crate::testing::{FakeBackend, FakeCluster};

    async fn settled() -> (FakeCluster, Router<FakeBackend>) {
        let servers = FakeCluster::new(2);
        let router =
            Router::<FakeBackend>::start(servers.config(), servers.clone()).expect("a valid configuration");
        assert!(router.cluster().settled(Duration::from_secs(5)).await);
        (servers, router)
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_between_the_choice_of_a_node_and_the_first_step_ends_the_step() {
        let (_servers, router) = settled().await;
        let routed = router.routed(Session::new(), Consistency::Eventual);
        let lease = routed.acquire_read().await.unwrap();
        assert_eq!(routed.watch(&lease).unless_lost(async { 1 }).await, Some(1));
        lease.node().declare_lost();
        assert_eq!(routed.watch(&lease).unless_lost(async { 1 }).await, None);
        drop(lease);
        lease_of_now(&router).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_new_is_sent_once_a_shutdown_has_come_to_its_limit() {
        let (_servers, router) = settled().await;
        let routed = router.routed(Session::new(), Consistency::Strong);
        let lease = routed.acquire_write().await.unwrap();
        let watch = routed.watch(&lease);
        let end = router.shutdown(Duration::from_millis(10));
        let (sent, _) = tokio::join!(
            async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                watch.unless_lost(async { 1 }).await
            },
            end
        );
        assert_eq!(sent, None);
        assert_eq!(watch.refusal(lease.node()), RouteError::Closed);
    }

    /// One that is taken after the loss has nothing to do with it.
    async fn lease_of_now(router: &Router<FakeBackend>) {
        for _ in 0..10 {
            let routed = router.routed(Session::new(), Consistency::Eventual);
            let lease = routed.acquire_read().await.expect("a lease");
            assert!(!routed.watch(&lease).is_over());
        }
    }
}
