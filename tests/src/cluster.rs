//! A cluster that ends with its test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use routing_cluster::{ClusterOptions, LocalCluster, Login, SilentProgress};
use routing_core::{Consistency, DatabaseUrl, NodeConfig, Router, RouterConfig, Session};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_postgres::types::FromSqlOwned;

use crate::database::Database;
use crate::engines::PgBouncers;
use crate::leftovers;
use crate::note;
use crate::orm::Orm;
use crate::proxy::{Proxies, Proxy};
use crate::seen::served_by;
use crate::servers::Servers;
use crate::wait::{PATIENCE, eventually};

/// The nodes of every test cluster.
pub const NODES: [&str; 3] = [PRIMARY, "pg2", "pg3"];
/// The node that is born the primary.
pub const PRIMARY: &str = "pg1";
/// The nodes that are born replicas.
pub const REPLICAS: [&str; 2] = ["pg2", "pg3"];

/// One primary and two streaming replicas in a directory of their own, with an empty table of notes. Dropping it kills
/// all servers and removes the directory.
///
/// Its methods panic when the cluster does not do what it is told: that is a failure of the test's set-up.
#[derive(Debug)]
pub struct TestCluster {
    servers: LocalCluster,
    bouncers: Option<PgBouncers>,
    // Ends what still runs, also when the set-up failed half-way.
    _place: Place,
}

/// Where the empty beginnings of clusters are kept between tests: with what the tests were built into.
fn templates() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its program");
    program.parent().expect("a program lies in a directory").join("cluster-templates")
}

#[derive(Debug)]
struct Place(TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.0.path().join("cluster"));
    }
}

impl TestCluster {
    /// A new cluster whose replicas have the table.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the message says what to do.
    pub async fn start() -> Self {
        Self::start_with(false).await
    }

    /// The same with servers that refuse connections without encryption. Its URLs verify them.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_encrypted() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(tls: bool) -> Self {
        leftovers::remove();
        // The servers' user must be able to enter the directory.
        let open = fs::Permissions::from_mode(0o755);
        let place = tempfile::Builder::new()
            .prefix(&leftovers::prefix())
            .permissions(open)
            .tempdir_in(leftovers::root())
            .expect("a directory for the cluster");
        let place = Place(place);
        let dir = place.0.path().join("cluster");
        let options = ClusterOptions {
            dir,
            replicas: 2,
            port: 0,
            durable: false,
            tls,
            template: Some(templates()),
            ..ClusterOptions::default()
        };
        let servers = match LocalCluster::up(options, &SilentProgress).await {
            Ok(servers) => servers,
            Err(error) => panic!("the test's cluster does not come up: {error}"),
        };
        let mut cluster = Self { servers, bouncers: None, _place: place };
        let app = cluster.database(PRIMARY, Login::Application).await;
        app.run(note::CREATE).await.expect("the table of notes");
        cluster.wait_replayed().await;
        if PgBouncers::are_wanted() && !tls {
            let users = "SELECT string_agg(format('\"%s\" \"%s\"', rolname, rolpassword), E'\\n') FROM pg_authid \
                         WHERE rolname IN ('app', 'monitor')";
            let users: String = cluster.value(PRIMARY, users).await;
            let nodes = NODES.map(|name| (name, cluster.port(name)));
            cluster.bouncers = Some(PgBouncers::start(&nodes, &users));
        }
        cluster
    }

    /// The servers themselves, to kill, pause, stop and start.
    #[must_use]
    pub fn servers(&self) -> &LocalCluster {
        &self.servers
    }

    /// The servers themselves, to add and remove.
    pub fn servers_mut(&mut self) -> &mut LocalCluster {
        &mut self.servers
    }

    /// Kills a node as a crash would.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&self, node: &str) {
        self.servers.kill(node).await.expect("the node runs and can be killed");
    }

    /// Starts a node that was killed or stopped.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_node(&self, node: &str) {
        self.servers.start(node).await.expect("the node starts");
    }

    /// Stops a node cleanly.
    ///
    /// # Panics
    /// When it does not stop.
    pub async fn stop(&self, node: &str) {
        self.servers.stop(node).await.expect("the node stops");
    }

    /// A connection past the router.
    ///
    /// # Panics
    /// When the node does not let us in.
    pub async fn database(&self, node: &str, login: Login) -> Database {
        let mut credentials = self.servers.credentials(login);
        Login::Application.database().clone_into(&mut credentials.database);
        let connected = Database::connect(self.port(node), &credentials).await;
        connected.unwrap_or_else(|error| panic!("no connection to {node} as {}: {error}", credentials.user))
    }

    /// Runs statements as the superuser, past the router.
    ///
    /// # Panics
    /// When one fails.
    pub async fn sql(&self, node: &str, sql: &str) {
        let database = self.database(node, Login::Superuser).await;
        database.run(sql).await.unwrap_or_else(|error| panic!("{sql} on {node}: {error:?}"));
    }

    /// Asks for one value as the superuser, past the router.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn value<T: FromSqlOwned>(&self, node: &str, sql: &str) -> T {
        let database = self.database(node, Login::Superuser).await;
        database.value(sql).await.unwrap_or_else(|error| panic!("{sql} on {node}: {error:?}"))
    }

    /// Sets a parameter of a node's configuration and has the server read it again.
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn set(&self, node: &str, parameter: &str, value: &str) {
        let quoted = value.replace('\'', "''");
        self.sql(node, &format!("ALTER SYSTEM SET {parameter} = '{quoted}'")).await;
        self.sql(node, "SELECT pg_reload_conf()").await;
    }

    /// How many server processes of the application there are on a node that meet a condition.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn app_processes(&self, node: &str, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND ({condition})");
        self.value(node, &sql).await
    }

    /// How many notes by this author a node has.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn notes_by(&self, node: &str, author: &str) -> i64 {
        self.value(node, &format!("SELECT count(*) FROM note WHERE author = '{author}'")).await
    }

    /// Waits until the born replicas have replayed all that the born primary has flushed by now.
    ///
    /// # Panics
    /// When they do not.
    pub async fn wait_replayed(&self) {
        self.wait_replayed_by(&REPLICAS).await;
    }

    /// The same of these replicas, which may have been added.
    ///
    /// # Panics
    /// When they do not.
    pub async fn wait_replayed_by(&self, replicas: &[&str]) {
        let flushed: String = self.value(PRIMARY, "SELECT pg_current_wal_flush_lsn()::text").await;
        for replica in replicas {
            let caught_up = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{flushed}', false)");
            eventually(PATIENCE, "the replicas catch up", async || self.value(replica, &caught_up).await)
                .await;
        }
    }

    /// The port of a node.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn port(&self, node: &str) -> u16 {
        self.servers.node(node).expect("a node of the cluster").port
    }

    /// The URL of a server of this cluster behind a port.
    ///
    /// # Panics
    /// Never: it is well-formed.
    #[must_use]
    pub fn url(&self, port: u16, login: Login) -> DatabaseUrl {
        let root = self.servers.root_certificate();
        let tls = root.map(|root| format!("sslmode=verify-full&sslrootcert={}", root.display()));
        self.url_with(port, login, &tls.unwrap_or_default())
    }

    /// The same with these parameters.
    ///
    /// # Panics
    /// When it is not well-formed.
    #[must_use]
    pub fn url_with(&self, port: u16, login: Login, parameters: &str) -> DatabaseUrl {
        let login = self.servers.credentials(login);
        let (user, password, database) = (login.user, login.password, login.database);
        let url = format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}?{parameters}");
        url.parse().expect("a well-formed URL")
    }

    /// All nodes, as the application logs in; the monitor's role probes them.
    #[must_use]
    pub fn config(&self) -> RouterConfig {
        let mut config = self.config_at(|node| self.port(node));
        if let Some(bouncers) = &self.bouncers {
            for node in &mut config.nodes {
                node.url = self.url(bouncers.port(&node.name), Login::Application);
            }
        }
        config
    }

    /// All nodes with these parameters in all their URLs.
    #[must_use]
    pub fn config_with(&self, parameters: &str) -> RouterConfig {
        let mut config = self.config();
        for node in &mut config.nodes {
            let port = self.port(&node.name);
            node.url = self.url_with(port, Login::Application, parameters);
            node.probe_url = Some(self.url_with(port, Login::Monitor, parameters));
        }
        config
    }

    /// The same through proxies, the probes included.
    #[must_use]
    pub fn config_through(&self, proxies: &Proxies) -> RouterConfig {
        self.config_at(|node| proxies.get(node).port())
    }

    fn config_at(&self, port: impl Fn(&str) -> u16) -> RouterConfig {
        let node = |name: &&str| NodeConfig {
            probe_url: Some(self.url(port(name), Login::Monitor)),
            ..NodeConfig::new(*name, self.url(port(name), Login::Application))
        };
        RouterConfig { nodes: NODES.iter().map(node).collect(), ..RouterConfig::default() }
    }

    /// A proxy before each node.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn proxies(&self) -> Proxies {
        let mut proxies = Vec::new();
        for name in NODES {
            proxies.push((name, Proxy::start(self.port(name)).await.expect("a free port for a proxy")));
        }
        Proxies::new(proxies)
    }

    /// A router with the defaults that has seen every node.
    pub async fn router<O: Orm>(&self) -> Router<O> {
        router(self.config()).await
    }
}

impl Servers for TestCluster {
    async fn superuser(&self, node: &str) -> Database {
        self.database(node, Login::Superuser).await
    }
}

/// A router that has seen every node of its configuration serve.
///
/// # Panics
/// When the configuration is refused, or a node does not serve.
pub async fn router<O: Orm>(config: RouterConfig) -> Router<O> {
    let router = Router::start(config, O::Options::default()).expect("a valid configuration");
    ready(&router).await;
    router
}

/// Waits until a router has seen every node of its configuration serve.
///
/// # Panics
/// When one does not.
pub async fn ready<O: Orm>(router: &Router<O>) {
    eventually(PATIENCE, "every node serves", async || {
        let status = router.status();
        status.primary.is_some() && status.nodes.iter().all(|node| node.serving)
    })
    .await;
}

/// The read handle of a new request.
#[must_use]
pub fn reader<O: Orm>(router: &Router<O>) -> O::Read {
    reader_with(router, Consistency::Eventual)
}

/// The read handle of a new request with this consistency.
#[must_use]
pub fn reader_with<O: Orm>(router: &Router<O>, consistency: Consistency) -> O::Read {
    O::read(router.routed(Session::new(), consistency))
}

/// A new request whose reads keep to this node. One that has failed lately gets reads again once that has faded.
///
/// # Panics
/// When the node serves no reads for long.
pub async fn reader_on<O: Orm>(router: &Router<O>, node: &str) -> O::Read {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let db = reader(router);
        if served_by(&db).await.expect("a read") == node {
            return db;
        }
    }
    panic!("{node} serves no reads");
}

/// The write handle of a new request.
#[must_use]
pub fn writer<O: Orm>(router: &Router<O>) -> O::Write {
    O::write(router.routed(Session::new(), Consistency::Strong))
}
