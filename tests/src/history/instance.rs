//! One process of the application.

use std::net::Ipv4Addr;

use routing_cluster::Login;
use routing_core::{NodeConfig, Router, RouterConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cluster::{NODES, TestCluster};
use crate::history::ledger;
use crate::orm::Orm;
use crate::proxy::Proxies;

/// What all processes sign their tokens with, as `ROUTING_TOKEN_KEY` would say.
pub const TOKEN_KEY: &str = "the key that all processes of the ledger share";

/// One process of the application: a router of its own, and a network of its own to each node. Dropping it ends it.
#[derive(Debug)]
pub struct Instance<O: Orm> {
    /// Its router.
    pub router: Router<O>,
    /// Before each node, for what its requests do there.
    pub requests: Proxies,
    /// Before each node, for its monitor.
    pub probes: Proxies,
    url: String,
    serving: JoinHandle<()>,
}

impl<O: Orm> Instance<O> {
    /// A process that serves the ledger on a port of this machine.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(cluster: &TestCluster, tune: impl Fn(&mut RouterConfig)) -> Self {
        let (requests, probes) = (cluster.proxies().await, cluster.proxies().await);
        let url = |proxies: &Proxies, node: &str, login| cluster.url(proxies.get(node).port(), login);
        let node = |name: &&str| NodeConfig {
            probe_url: Some(url(&probes, name, Login::Monitor)),
            ..NodeConfig::new(*name, url(&requests, name, Login::Application))
        };
        let mut config = RouterConfig {
            nodes: NODES.iter().map(node).collect(),
            token_keys: Some(TOKEN_KEY.parse().expect("a key that is long enough")),
            ..RouterConfig::default()
        };
        tune(&mut config);
        let router = Router::<O>::start(config, O::Options::default()).expect("a valid configuration");
        let app = ledger::app(router.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves until it is ended");
        });
        Self { router, requests, probes, url, serving }
    }

    /// Where it is served.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl<O: Orm> Drop for Instance<O> {
    fn drop(&mut self) {
        self.serving.abort();
        self.router.close();
    }
}
