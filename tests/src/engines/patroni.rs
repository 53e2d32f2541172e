//! Three PostgreSQL nodes under Patroni, with one etcd.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use routing_cluster::{Credentials, Login};
use routing_core::{DatabaseUrl, Patroni, PatroniOptions, Router, RouterConfig};
use tokio::task::block_in_place;

use crate::database::Database;
use crate::engines::agent::Agent;
use crate::engines::patroni_config::{self, Node};
use crate::engines::place::{Place, free_ports, kill};
use crate::engines::program;
use crate::note;
use crate::orm::Orm;
use crate::process::Signal;
use crate::servers::Servers;
use crate::wait::{PATIENCE, eventually};

/// The nodes that a cluster begins with, and one that can join.
pub const NAMES: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// What a cluster is told beside its addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct PatroniSettings {
    /// The leader stays leader without etcd while all members answer.
    pub failsafe: bool,
    /// Nodes with the tag `noloadbalance`.
    pub noloadbalance: &'static [&'static str],
}

/// A Patroni cluster of three nodes with the table of notes. Dropping it kills all of it.
///
/// Its methods panic when the cluster does not do what it is told: that is a failure of the test's set-up.
#[derive(Debug)]
pub struct PatroniCluster {
    etcd: Agent,
    agents: Vec<Option<Agent>>,
    ports: Vec<u16>,
    settings: PatroniSettings,
    password: String,
    pub(super) http: reqwest::Client,
    // Ends what still runs: dropped after the agents, which would start it again.
    place: Place,
}

impl PatroniCluster {
    /// A new cluster: a leader and two replicas that stream.
    ///
    /// # Panics
    /// When a program is missing or the cluster does not come up; the message says what to do.
    pub async fn start(settings: PatroniSettings) -> Self {
        let place = Place::new();
        let ports = free_ports(2 + 2 * u16::try_from(NAMES.len()).expect("a small number"));
        let etcd = start_etcd(&place, &ports);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
        let password: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
        let agents = NAMES.map(|_| None).into();
        let mut cluster = Self { etcd, agents, ports, settings, password, http, place };
        for name in NAMES {
            cluster.configure(name);
        }
        for name in &NAMES[..3] {
            cluster.start_agent(name);
        }
        cluster.whole(3).await;
        cluster.prepare().await;
        cluster
    }

    /// The leader's roles, database and table, and waits until the others have them.
    async fn prepare(&self) {
        let (leader, password) = (self.leader().await, &self.password);
        let login = Credentials { database: "postgres".to_owned(), ..self.login(Login::Superuser) };
        let database = Database::connect(self.port(&leader), &login).await.expect("the leader lets us in");
        for sql in [
            &format!("CREATE ROLE app LOGIN PASSWORD '{password}'"),
            &format!("CREATE ROLE monitor LOGIN PASSWORD '{password}' IN ROLE pg_monitor"),
            "CREATE DATABASE app OWNER app",
        ] {
            database.run(sql).await.expect("a role or a database");
        }
        let app = Database::connect(self.port(&leader), &self.login(Login::Application)).await;
        app.expect("the leader lets the application in").run(note::CREATE).await.expect("the table of notes");
        self.replicated(&leader).await;
    }

    fn index(name: &str) -> usize {
        NAMES.iter().position(|known| *known == name).expect("a node of the cluster")
    }

    /// The port of a node's server.
    #[must_use]
    pub fn port(&self, name: &str) -> u16 {
        self.ports[2 + Self::index(name)]
    }

    pub(super) fn rest_port(&self, name: &str) -> u16 {
        self.ports[2 + NAMES.len() + Self::index(name)]
    }

    fn login(&self, login: Login) -> Credentials {
        Credentials {
            user: login.user().to_owned(),
            password: self.password.clone(),
            database: Login::Application.database().to_owned(),
            root_certificate: None,
        }
    }

    fn configure(&self, name: &str) {
        let text = patroni_config::text(&Node {
            name,
            port: self.port(name),
            rest: self.rest_port(name),
            etcd: self.ports[0],
            dir: self.place.dir(),
            programs: &program("PG_BIN_DIR"),
            password: &self.password,
            failsafe: self.settings.failsafe,
            noloadbalance: self.settings.noloadbalance.contains(&name),
        });
        self.place.file(&format!("{name}.yml"), &text);
    }

    /// Has a node lose its tags. It reads its configuration again.
    ///
    /// # Panics
    /// When it does not run.
    pub fn drop_tags(&mut self, name: &str) {
        self.settings.noloadbalance = &[];
        self.configure(name);
        self.agents[Self::index(name)].as_ref().expect("it runs").signal(Signal::SIGHUP);
    }

    /// Starts a node's Patroni, which starts its server.
    pub fn start_agent(&mut self, name: &str) {
        let config = self.place.dir().join(format!("{name}.yml"));
        let log = format!("{name}.log");
        let agent = Agent::start(self.place.dir(), &log, &program("PATRONI"), [config], &[]);
        self.agents[Self::index(name)] = Some(agent);
    }

    /// Kills a node's Patroni. Its server goes on and is told nothing.
    pub fn kill_agent(&mut self, name: &str) {
        self.agents[Self::index(name)] = None;
    }

    /// Kills a node's server, as a crash would. A Patroni that lives starts it again.
    pub fn kill_server(&self, name: &str) {
        let data = self.data_dir(name);
        block_in_place(|| {
            let file = data.join("postmaster.pid");
            let before = std::fs::read_to_string(&file).unwrap_or_default();
            kill(&data);
            // Where nobody reaps orphans the dead process still has its number, and its successor would take it for alive.
            if std::fs::read_to_string(&file).is_ok_and(|after| after == before) {
                let _ = std::fs::remove_file(&file);
                let port = self.port(name);
                let _ = std::fs::remove_file(self.place.dir().join(format!(".s.PGSQL.{port}.lock")));
            }
        });
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        self.place.dir().join(name)
    }

    /// What a node's Patroni and its server have logged.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let log = std::fs::read(self.place.dir().join(format!("{name}.log")));
        String::from_utf8_lossy(&log.unwrap_or_default()).into_owned()
    }

    /// Freezes etcd, or lets it go on.
    pub fn freeze_etcd(&self, frozen: bool) {
        self.etcd.signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    /// Removes a key below the cluster's: `leader` has another node lead at once, instead of when the key's time is over.
    pub fn delete_key(&self, key: &str) {
        let (endpoint, key) = (format!("127.0.0.1:{}", self.ports[0]), format!("/svc/lab/{key}"));
        block_in_place(|| {
            let arguments = ["--endpoints", &endpoint, "del", &key];
            Agent::run(self.place.dir(), "etcdctl", &arguments, &[("ETCDCTL_API", "3")]);
        });
    }

    /// Waits until all standbys have replayed what a node has flushed by now.
    ///
    /// # Panics
    /// When they do not.
    pub async fn replicated(&self, primary: &str) {
        let flushed: String = self.value(primary, "SELECT pg_current_wal_flush_lsn()::text").await;
        let left = format!("SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= '{flushed}'");
        eventually(PATIENCE, "the standbys catch up", async || self.value::<i64>(primary, &left).await >= 2)
            .await;
    }

    /// The discovery of an application that knows one member by its address.
    ///
    /// # Panics
    /// Never: the address is well-formed.
    #[must_use]
    pub fn discovery(&self) -> Arc<Patroni> {
        let url = |login| {
            let Credentials { user, password, database, .. } = self.login(login);
            let url = format!("postgres://{user}:{password}@any-member/{database}");
            url.parse::<DatabaseUrl>().expect("a well-formed URL")
        };
        let seeds = NAMES[..3].iter().map(|name| format!("http://127.0.0.1:{}", self.rest_port(name)));
        let options = PatroniOptions {
            probe_url: Some(url(Login::Monitor)),
            ..PatroniOptions::new(seeds, url(Login::Application))
        };
        Arc::new(Patroni::new(options).expect("well-formed addresses"))
    }

    /// A router that follows this cluster and has seen every node serve that serves reads.
    ///
    /// # Panics
    /// When a node does not serve.
    pub async fn router<O: Orm>(&self, config: RouterConfig) -> Router<O> {
        let discovery = self.discovery();
        let config = config.discovered(&*discovery).await.expect("a member answers");
        let router = Router::start(config, O::Options::default()).expect("a valid configuration");
        router.cluster().follow(discovery);
        eventually(PATIENCE, "every node serves", async || {
            let status = router.status();
            let keeps_away = |name: &str| self.settings.noloadbalance.contains(&name);
            status.primary.is_some() && status.nodes.iter().all(|node| node.serving || keeps_away(&node.name))
        })
        .await;
        router
    }
}

impl Servers for PatroniCluster {
    async fn superuser(&self, node: &str) -> Database {
        let connected = Database::connect(self.port(node), &self.login(Login::Superuser)).await;
        connected.unwrap_or_else(|error| panic!("no connection to {node} as the superuser: {error}"))
    }
}

fn start_etcd(place: &Place, ports: &[u16]) -> Agent {
    let client = format!("http://127.0.0.1:{}", ports[0]);
    let peer = format!("http://127.0.0.1:{}", ports[1]);
    let (data, members) = (place.folder("etcd"), format!("e1={peer}"));
    let data = data.to_str().expect("a path of plain letters");
    let arguments = [
        ["--name", "e1"],
        ["--data-dir", data],
        ["--listen-client-urls", &client],
        ["--advertise-client-urls", &client],
        ["--listen-peer-urls", &peer],
        ["--initial-advertise-peer-urls", &peer],
        ["--initial-cluster", &members],
    ];
    // What it stores need not survive the machine, and a slow disk would cost it its lead.
    Agent::start(
        place.dir(),
        "etcd.log",
        "etcd",
        arguments.iter().flatten().chain(&["--unsafe-no-fsync"]),
        &[],
    )
}
