//! Three PostgreSQL nodes under `pg_auto_failover`, with its monitor.

use std::collections::HashMap;
use std::path::PathBuf;

use routing_cluster::{Credentials, Login};
use routing_core::{NodeConfig, RouterConfig};
use tokio::task::block_in_place;
use tokio_postgres::types::FromSqlOwned;

use crate::cluster::NODES;
use crate::database::Database;
use crate::engines::agent::Agent;
use crate::engines::place::{Place, free_ports, kill};
use crate::engines::program;
use crate::note;
use crate::servers::Servers;
use crate::wait::{PATIENCE, eventually};

/// The monitor counts a silent node as dead after 5 s instead of 20 s, and lets the successor write after 10 s instead of
/// 30 s: the states are the same.
const SHORTER_TIMES: [(&str, u32); 4] = [
    ("node_considered_unhealthy_timeout", 5_000),
    ("primary_demote_timeout", 10_000),
    ("health_check_period", 1_000),
    ("startup_grace_period", 1_000),
];

/// Three nodes with the table of notes, and their monitor. Dropping it kills all of it.
///
/// Its methods panic when the cluster does not do what it is told: that is a failure of the test's set-up.
#[derive(Debug)]
pub struct AutoFailoverCluster {
    agents: HashMap<String, Agent>,
    ports: Vec<u16>,
    password: String,
    // Ends what still runs: dropped after the agents, which would start it again.
    place: Place,
}

impl AutoFailoverCluster {
    /// A new cluster whose first node is the primary.
    ///
    /// # Panics
    /// When a program is missing or the cluster does not come up; the message says what to do.
    pub async fn start() -> Self {
        let place = Place::new();
        let ports = free_ports(4);
        let password = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
        let mut cluster = Self { agents: HashMap::new(), ports, password, place };
        cluster.create("monitor", 3);
        cluster.run("monitor");
        for setting in SHORTER_TIMES {
            let sql = format!("ALTER SYSTEM SET pgautofailover.{} = {}", setting.0, setting.1);
            cluster.ask_monitor(&sql).await;
        }
        cluster.ask_monitor("SELECT pg_reload_conf()").await;
        // The first that the monitor hears of becomes the primary.
        for (number, name) in NODES.into_iter().enumerate() {
            cluster.create(name, number);
            cluster.run(name);
            let wanted = if number == 0 { "single" } else { "secondary" };
            cluster.reaches(name, wanted).await;
        }
        cluster.reaches(NODES[0], "primary").await;
        cluster.prepare().await;
        cluster
    }

    async fn prepare(&self) {
        let database = self.superuser(NODES[0]).await;
        let password = &self.password;
        for sql in [
            // The engine has made the database.
            format!("CREATE ROLE app LOGIN PASSWORD '{password}'"),
            format!("CREATE ROLE monitor LOGIN PASSWORD '{password}' IN ROLE pg_monitor"),
            "ALTER DATABASE app OWNER TO app".to_owned(),
        ] {
            database.run(&sql).await.expect("a role");
        }
        let app = Database::connect(self.port(NODES[0]), &self.login(Login::Application)).await;
        app.expect("the primary lets the application in")
            .run(note::CREATE)
            .await
            .expect("the table of notes");
    }

    fn home(&self, name: &str) -> PathBuf {
        self.place.dir().join(name)
    }

    /// The port of a node's server.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn port(&self, name: &str) -> u16 {
        self.ports[NODES.iter().position(|known| *known == name).expect("a node of the cluster")]
    }

    fn login(&self, login: Login) -> Credentials {
        Credentials {
            user: login.user().to_owned(),
            password: self.password.clone(),
            database: "app".to_owned(),
            root_certificate: None,
        }
    }

    /// Makes a node's or the monitor's files.
    fn create(&self, name: &str, number: usize) {
        let home = self.place.folder(name);
        let (data, port) = (home.join("data").display().to_string(), self.ports[number].to_string());
        let pg_ctl = format!("{}/pg_ctl", program("PG_BIN_DIR"));
        let monitor = format!("postgres://autoctl_node@127.0.0.1:{}/pg_auto_failover", self.ports[3]);
        let kind = if name == "monitor" { "monitor" } else { "postgres" };
        let mut arguments = vec!["create", kind, "--pgdata", &data, "--pgport", &port, "--pgctl", &pg_ctl];
        arguments.extend(["--hostname", "127.0.0.1", "--auth", "trust", "--no-ssl"]);
        if kind == "postgres" {
            arguments.extend(["--name", name, "--dbname", "app", "--monitor", &monitor]);
            arguments.extend(["--listen", "127.0.0.1"]);
        }
        block_in_place(|| self.autoctl(name, &arguments));
        if kind == "monitor" {
            let local = ["config", "set", "--pgdata", &data, "postgresql.listen_addresses", "127.0.0.1"];
            block_in_place(|| self.autoctl(name, &local));
        }
    }

    fn autoctl(&self, name: &str, arguments: &[&str]) {
        let home = self.home(name);
        let text = home.display().to_string();
        Agent::run(&home, &program("PG_AUTOCTL"), arguments, &variables(&text));
    }

    /// Starts a node, or the monitor.
    pub fn run(&mut self, name: &str) {
        let home = self.home(name);
        let home_text = home.display().to_string();
        let data = home.join("data").display().to_string();
        let variables = [("PG_REGRESS_SOCK_DIR", &*home_text), ("XDG_RUNTIME_DIR", &home_text)];
        let agent =
            Agent::start(&home, "log", &program("PG_AUTOCTL"), ["run", "--pgdata", &data], &variables);
        self.agents.insert(name.to_owned(), agent);
    }

    /// Kills a node with all its processes.
    pub fn kill(&mut self, name: &str) {
        self.agents.remove(name);
        block_in_place(|| {
            let home = self.home(name);
            kill(&home);
            // Where nobody reaps orphans the dead process still has its number, and its successor would take it for alive.
            for file in
                [home.join("data/postmaster.pid"), home.join(format!(".s.PGSQL.{}.lock", self.port(name)))]
            {
                let _ = std::fs::remove_file(file);
            }
        });
    }

    /// Asks a node for one value as the superuser; `None` while it does not answer.
    pub async fn ask<T: FromSqlOwned>(&self, name: &str, sql: &str) -> Option<T> {
        let database = Database::connect(self.port(name), &self.login(Login::Superuser)).await.ok()?;
        database.value(sql).await.ok()
    }

    async fn monitor(&self) -> Option<Database> {
        let login = Credentials {
            user: "postgres".to_owned(),
            database: "pg_auto_failover".to_owned(),
            ..self.login(Login::Superuser)
        };
        Database::connect(self.ports[3], &login).await.ok()
    }

    async fn ask_monitor(&self, sql: &str) {
        eventually(PATIENCE, &format!("the monitor does {sql}"), async || match self.monitor().await {
            Some(monitor) => monitor.run(sql).await.is_ok(),
            None => false,
        })
        .await;
    }

    /// Waits until the monitor knows a node to be in a state.
    ///
    /// # Panics
    /// When it does not get there; with the end of its log.
    pub async fn reaches(&self, name: &str, state: &str) {
        let sql = format!(
            "SELECT count(*) FROM pgautofailover.node WHERE nodename = '{name}' AND reportedstate = '{state}' \
             AND goalstate = '{state}'"
        );
        for _ in 0..600 {
            if let Some(monitor) = self.monitor().await
                && monitor.value::<i64>(&sql).await.is_ok_and(|count| count == 1)
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let log = std::fs::read(self.home(name).join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        panic!("{name} is not {state}\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }

    /// All nodes, as a fixed list.
    ///
    /// # Panics
    /// Never: the URLs are well-formed.
    #[must_use]
    pub fn config(&self) -> RouterConfig {
        let url = |name: &str, login| {
            let (Credentials { user, password, database, .. }, port) = (self.login(login), self.port(name));
            format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}").parse().expect("a URL")
        };
        let node = |name: &&str| NodeConfig {
            probe_url: Some(url(name, Login::Monitor)),
            ..NodeConfig::new(*name, url(name, Login::Application))
        };
        RouterConfig { nodes: NODES.iter().map(node).collect(), ..RouterConfig::default() }
    }
}

/// Where `pg_autoctl` and its servers keep sockets and states.
fn variables(home: &str) -> [(&str, &str); 3] {
    [("PG_REGRESS_SOCK_DIR", home), ("PGHOST", home), ("XDG_RUNTIME_DIR", home)]
}

impl Servers for AutoFailoverCluster {
    async fn superuser(&self, node: &str) -> Database {
        let connected = Database::connect(self.port(node), &self.login(Login::Superuser)).await;
        connected.unwrap_or_else(|error| panic!("no connection to {node} as the superuser: {error}"))
    }
}
