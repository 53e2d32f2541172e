//! Decisions alone, for measuring what one costs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backend::FakeBackend;
use super::cluster::FakeCluster;
use crate::balance::Balance;
use crate::cluster::Cluster;
use crate::config::RouterConfig;
use crate::consistency::Consistency;
use crate::routed::Routed;
use crate::router::Router;
use crate::selection::Choice;
use crate::session::Session;
use crate::token::{Mark, SessionToken, UnixMillis};

/// A router on servers in memory whose picture of them no longer changes: decisions can be made on it one after the
/// other, from any thread, with nothing else going on.
///
/// ```
/// use routing_core::balance::LeastInFlight;
/// use routing_core::testing::Decisions;
///
/// let decisions = Decisions::on(8, LeastInFlight::default());
/// decisions.reader(true).decide();
/// ```
pub struct Decisions {
    router: Router<FakeBackend>,
    /// When the picture was made: by then all of it is fresh, however long the measurement takes.
    now: Instant,
    /// What a client presents that has seen everything.
    token: String,
}

impl Decisions {
    /// A primary and `nodes - 1` replicas that have replayed everything.
    ///
    /// # Panics
    /// When `nodes` is 0, or within a tokio runtime.
    #[must_use]
    pub fn on(nodes: u16, balance: impl Balance + 'static) -> Self {
        let replicas = nodes.checked_sub(1).expect("at least one node");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime for the monitor").block_on(async {
            let servers = FakeCluster::new(replicas);
            // They have been there for long.
            let config = RouterConfig { slow_start: Duration::ZERO, ..servers.config() };
            let cluster = Cluster::start_with(config, Arc::new(servers.clone()), Arc::new(balance))
                .expect("the defaults are valid");
            assert!(cluster.settled(Duration::from_secs(60)).await, "the servers in memory answer");
            let router = Router::<FakeBackend>::new(&cluster, servers).expect("every node has its server");
            let topology = cluster.topology();
            let (_, timeline) = topology.lineage.writer.expect("the primary is known");
            let token = SessionToken {
                system_id: topology.lineage.system_id.expect("the primary has said it"),
                timeline,
                mark: Mark::Position(topology.primary_lsn.expect("the primary has said it")),
                issued_at: UnixMillis::now(),
            };
            let token = token.encode(&cluster.shared().keys);
            Self { router, now: topology.published, token }
        })
    }

    /// The cluster that the decisions are about.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.router.cluster()
    }

    /// A client's request, whose reads all begin anew: none of them remembers which node served the one before. With a
    /// token it has seen everything that the primary has written.
    #[must_use]
    pub fn reader(&self, with_token: bool) -> Reader {
        let session = Session::new();
        if with_token {
            session.present(&*self.token);
        }
        Reader { routed: self.router.routed(session, Consistency::Session), now: self.now }
    }
}

impl fmt::Debug for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decisions").field("router", &self.router).finish_non_exhaustive()
    }
}

/// A request that makes decisions, and takes no connection.
#[derive(Debug)]
pub struct Reader {
    routed: Routed<FakeBackend>,
    now: Instant,
}

impl Reader {
    /// What a read goes through, its connection aside: its demand from the picture and the session, the candidates, the
    /// balancer, the place on the node, its success, and the place given back. `true` when the primary was chosen.
    ///
    /// # Panics
    /// When no node may serve, which here none gives cause to.
    pub fn decide(&self) -> bool {
        let mut attempts = self.routed.attempts_at(self.now);
        let choice = self.routed.decide(&mut attempts, self.now);
        let Choice::Take(ticket) = &choice else { panic!("every node is fresh and admits") };
        ticket.settle(Duration::from_micros(1), false, None, self.now);
        self.routed.session.lean_to_none();
        ticket.is_on_primary()
    }
}
