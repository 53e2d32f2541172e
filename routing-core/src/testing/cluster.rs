//! All servers in memory.

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::server::FakeServer;
use crate::config::{NodeConfig, RouterConfig};
use crate::lsn::Lsn;

/// The servers of a test. Clones share them.
#[derive(Clone, Default)]
pub struct FakeCluster {
    servers: Arc<Vec<Arc<FakeServer>>>,
}

impl FakeCluster {
    /// `pg1`, the primary on timeline 1, and `replicas` replicas that stream from it without delay.
    #[must_use]
    pub fn new(replicas: u16) -> Self {
        let log = Arc::new(Mutex::new(vec![(Instant::now(), 1, Lsn::from(1_000))]));
        let server = |number| Arc::new(FakeServer::new(number, log.clone()));
        Self { servers: Arc::new((1..=replicas + 1).map(server).collect()) }
    }

    /// The defaults, with these servers as nodes.
    ///
    /// # Panics
    /// Never: the URLs are well-formed.
    #[must_use]
    pub fn config(&self) -> RouterConfig {
        let node = |server: &Arc<FakeServer>| {
            let url = format!("postgres://app@10.0.0.{}/app", server.number());
            NodeConfig::new(server.name(), url.parse().expect("a well-formed URL"))
        };
        RouterConfig { nodes: self.servers.iter().map(node).collect(), ..RouterConfig::default() }
    }

    /// The server with this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn server(&self, name: &str) -> &Arc<FakeServer> {
        self.find(name).unwrap_or_else(|| panic!("there is no server {name}"))
    }

    pub(super) fn find(&self, name: &str) -> Option<&Arc<FakeServer>> {
        self.servers.iter().find(|server| server.name() == name)
    }

    /// All servers.
    #[must_use]
    pub fn servers(&self) -> &[Arc<FakeServer>] {
        &self.servers
    }

    /// Promotes a replica onto the next timeline; it and those that follow it go on from there.
    pub fn promote(&self, name: &str) {
        let highest = self.servers.iter().map(|server| server.state().timeline).max().unwrap_or(0);
        self.promote_onto(name, highest + 1);
    }

    /// Promotes a replica onto a timeline of the test's choice: two promotions can end up on the same.
    pub fn promote_onto(&self, name: &str, timeline: u32) {
        self.server(name).begin_timeline(timeline);
    }

    /// Makes a server a replica of another, on its timeline.
    pub fn follow(&self, name: &str, primary: &str) {
        let (number, timeline) = {
            let primary = self.server(primary);
            (primary.number(), primary.state().timeline)
        };
        let mut state = self.server(name).state();
        (state.primary, state.follows, state.timeline) = (false, Some(number), timeline);
    }

    /// Connections that the pools hold on all servers and that a caller has.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.servers.iter().map(|server| server.connections.load(SeqCst)).sum()
    }

    /// Statements under way on all servers.
    #[must_use]
    pub fn executing(&self) -> u32 {
        self.servers.iter().map(|server| server.executing.load(SeqCst)).sum()
    }
}

impl fmt::Debug for FakeCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter()).finish()
    }
}
