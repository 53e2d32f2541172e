//! One primary and two replicas for a test, in a directory that goes with them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use routing_cluster::{ClusterOptions, LocalCluster, Login, SilentProgress};
use routing_core::NodeConfig;
use tempfile::TempDir;

/// Kills all servers before their directory goes.
pub(crate) struct Place(TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.0.path().join("cluster"));
    }
}

/// The servers, what a router needs to know of each, and where they are.
pub(crate) async fn servers() -> (LocalCluster, Vec<NodeConfig>, Place) {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let place = tempfile::Builder::new()
        // The servers' user must be able to enter it.
        .permissions(Permissions::from_mode(0o755))
        // As the workspace's tests name theirs, which clear up after tests that were killed.
        .prefix(&format!("routing-tests-{}-", std::process::id()))
        .tempdir_in(root)
        .unwrap();
    let place = Place(place);
    let dir = place.0.path().join("cluster");
    let options = ClusterOptions { dir, replicas: 2, port: 0, durable: false, ..ClusterOptions::default() };
    let servers = LocalCluster::up(options, &SilentProgress).await.unwrap();
    let node = |name: &str| NodeConfig {
        probe_url: Some(servers.url(name, Login::Monitor).unwrap().parse().unwrap()),
        ..NodeConfig::new(name, servers.url(name, Login::Application).unwrap().parse().unwrap())
    };
    let nodes = servers.nodes().iter().map(|record| node(&record.name)).collect();
    (servers, nodes, place)
}
