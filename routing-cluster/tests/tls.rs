//! Encrypted clusters, looked at through PostgreSQL's own client: who gets in, and who does not.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use routing_cluster::{ClusterOptions, Credentials, LocalCluster, Login, Rejoined, SilentProgress, UpError};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_postgres::{Config, NoTls};

/// A directory for one cluster, in memory where there is room for it, whose servers end with it.
struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        // The servers' user must be able to enter it, whatever it is called.
        let open = fs::Permissions::from_mode(0o755);
        Place {
            temp: tempfile::Builder::new().prefix("tls, 50%").permissions(open).tempdir_in(root).unwrap(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("cluster")
    }

    fn options(&self, replicas: u32) -> ClusterOptions {
        let options = ClusterOptions { dir: self.dir(), replicas, port: 0, ..ClusterOptions::default() };
        ClusterOptions { durable: false, tls: true, ..options }
    }

    async fn up(&self, replicas: u32) -> LocalCluster {
        LocalCluster::up(self.options(replicas), &SilentProgress).await.unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.dir());
    }
}

/// Asks by libpq, whose TLS is not ours.
fn psql(conninfo: &str, query: &str) -> Output {
    let program = env::var_os("PG_BIN_DIR").map(|dir| Path::new(&dir).join("psql"));
    let program = program.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("psql"));
    let mut command = Command::new(program);
    command.env_remove("PGSSLROOTCERT").env("PGCONNECT_TIMEOUT", "30");
    command.args([
        "--no-psqlrc",
        "--no-password",
        "--tuples-only",
        "--no-align",
        "--command",
        query,
        conninfo,
    ]);
    command.output().expect("psql is missing: install postgresql-client")
}

fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn conninfo(cluster: &LocalCluster, node: &str, login: Login, rest: &str) -> String {
    let Credentials { user, password, database, .. } = cluster.credentials(login);
    let port = cluster.node(node).unwrap().port;
    format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={user} password={password} dbname={database} {rest}"
    )
}

/// The application names of all connections that came over the network without encryption.
fn plain_connections(cluster: &LocalCluster, node: &str) -> String {
    let url = cluster.url(node, Login::Superuser).unwrap();
    let plain = "SELECT coalesce(string_agg(application_name, ','), '') FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE client_addr IS NOT NULL AND (NOT ssl OR version NOT IN ('TLSv1.2', 'TLSv1.3'))";
    answer(&psql(&url, plain))
}

#[tokio::test]
async fn every_connection_of_an_encrypted_cluster_is_encrypted_and_verified_through_all_its_changes() {
    let place = Place::new();
    let mut cluster = place.up(2).await;
    let url = cluster.url("pg1", Login::Application).unwrap();
    answer(&psql(&url, "CREATE TABLE notes AS SELECT 1 AS id"));
    let senders = "SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl";
    assert_eq!(answer(&psql(&cluster.url("pg1", Login::Superuser).unwrap(), senders)), "2");

    cluster.kill("pg1").await.unwrap();
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    assert_eq!(cluster.rejoin("pg1", false, &SilentProgress).await.unwrap(), Rejoined::Rewound);
    assert_eq!(cluster.rejoin("pg3", true, &SilentProgress).await.unwrap(), Rejoined::Copied);
    cluster.switchover("pg1", &SilentProgress).await.unwrap();
    cluster.add_replica(None, Some("pg2"), &SilentProgress).await.unwrap();
    assert_eq!(cluster.verify(&SilentProgress).await.unwrap().differences, []);

    for (node, expected) in [("pg1", "2"), ("pg2", "1")] {
        assert_eq!(plain_connections(&cluster, node), "", "{node}");
        assert_eq!(answer(&psql(&cluster.url(node, Login::Superuser).unwrap(), senders)), expected, "{node}");
    }
    for node in ["pg2", "pg3", "pg4"] {
        let upstream = answer(&psql(&cluster.url(node, Login::Superuser).unwrap(), "SHOW primary_conninfo"));
        assert!(upstream.contains("sslmode=verify-full sslrootcert="), "{node}: {upstream}");
        let received = answer(&psql(&cluster.url(node, Login::Application).unwrap(), "SELECT id FROM notes"));
        assert_eq!(received, "1", "{node}");
    }
}

#[tokio::test]
async fn only_who_encrypts_gets_in_and_only_the_clusters_own_servers_are_believed() {
    let (place, other) = (Place::new(), Place::new());
    let (cluster, stranger) = (place.up(0).await, other.up(0).await);

    for login in [Login::Application, Login::Monitor, Login::Superuser] {
        let refused = complaint(&psql(&conninfo(&cluster, "pg1", login, "sslmode=disable"), "SELECT 1"));
        assert!(refused.contains("no pg_hba.conf entry") && refused.contains("no encryption"), "{refused}");
        // With the right certificate everything else is right, too.
        answer(&psql(&cluster.url("pg1", login).unwrap(), "SELECT 1"));
    }

    let theirs = stranger.root_certificate().unwrap();
    let theirs = format!("sslmode=verify-full sslrootcert='{}'", theirs.display());
    let refused = complaint(&psql(&conninfo(&cluster, "pg1", Login::Application, &theirs), "SELECT 1"));
    assert!(refused.contains("certificate verify failed"), "{refused}");

    let ours = cluster.root_certificate().unwrap();
    let ours = format!("sslmode=verify-full sslrootcert='{}' host=db.example.com", ours.display());
    let refused = complaint(&psql(&conninfo(&cluster, "pg1", Login::Application, &ours), "SELECT 1"));
    assert!(refused.contains("does not match host name"), "{refused}");

    // The tool itself believes no other server either: with the stranger's authority it sees nothing.
    fs::copy(stranger.root_certificate().unwrap(), cluster.root_certificate().unwrap()).unwrap();
    let refused = cluster.verify(&SilentProgress).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("pg1") && refused.contains("invalid peer certificate"), "{refused}");

    let oldest =
        answer(&psql(&stranger.url("pg1", Login::Superuser).unwrap(), "SHOW ssl_min_protocol_version"));
    assert_eq!(oldest, "TLSv1.2");
}

#[tokio::test]
async fn keys_are_secret_and_a_start_renews_the_certificate() {
    let place = Place::new();
    let cluster = place.up(0).await;
    let dir = cluster.dir().to_owned();
    let (key, certificate) = (dir.join("pg1/server.key"), dir.join("pg1/server.crt"));
    for secret in [&key, &dir.join("ca.key")] {
        assert_eq!(fs::metadata(secret).unwrap().mode() & 0o777, 0o600, "{}", secret.display());
    }
    // The authority's key is not for the servers' user.
    let servers = fs::metadata(dir.join("pg1/data")).unwrap().uid();
    assert_eq!(fs::metadata(&key).unwrap().uid(), servers);
    assert_eq!(fs::metadata(dir.join("ca.key")).unwrap().uid(), fs::metadata(&dir).unwrap().uid());

    let url = cluster.url("pg1", Login::Application).unwrap();
    let (old_key, old) = (fs::read(&key).unwrap(), fs::read(&certificate).unwrap());
    cluster.stop("pg1").await.unwrap();
    cluster.start("pg1").await.unwrap();
    assert_ne!(fs::read(&certificate).unwrap(), old);
    assert_ne!(fs::read(&key).unwrap(), old_key);
    // Clients keep the authority that they had.
    answer(&psql(&url, "SELECT 1"));

    cluster.stop("pg1").await.unwrap();
    fs::remove_file(dir.join("ca.key")).unwrap();
    let refused = cluster.start("pg1").await.unwrap_err();
    let refused = format!("{refused}: {}", std::error::Error::source(&refused).unwrap());
    assert!(refused.contains("certificate of pg1") && refused.contains("ca.key"), "{refused}");
}

/// What the server says to `login` when it comes from `source`; its answer is empty when it lets it in.
async fn from(source: &str, cluster: &LocalCluster, login: Login) -> String {
    let it = cluster.credentials(login);
    let mut config = Config::new();
    config.user(&it.user).password(&it.password).dbname(&it.database);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], cluster.node("pg1").unwrap().port));
    let refused = config.connect_raw(socket.connect(server).await.unwrap(), NoTls).await.err();
    refused.and_then(|error| error.as_db_error().map(ToString::to_string)).unwrap_or_default()
}

#[tokio::test]
async fn only_allowed_networks_get_in_and_never_as_the_superuser() {
    let place = Place::new();
    let allow = vec!["127.0.0.2".parse().unwrap(), "127.0.8.0/24".parse().unwrap()];
    let options = ClusterOptions { tls: false, allow, ..place.options(0) };
    let cluster = LocalCluster::up(options, &SilentProgress).await.unwrap();
    for (source, login, enters) in [
        ("127.0.0.1", Login::Superuser, true),
        ("127.0.0.2", Login::Application, true),
        ("127.0.0.2", Login::Monitor, true),
        ("127.0.0.2", Login::Superuser, false),
        ("127.0.8.9", Login::Application, true),
        ("127.0.9.9", Login::Application, false),
        ("127.0.0.3", Login::Monitor, false),
    ] {
        let said = from(source, &cluster, login).await;
        assert_eq!(said.is_empty(), enters, "{source} {login:?}: {said}");
        assert!(enters || said.contains("no pg_hba.conf entry"), "{source} {login:?}: {said}");
    }
}

#[tokio::test]
async fn other_machines_are_not_let_in_without_encryption() {
    let place = Place::new();
    let allow = vec!["10.1.0.0/16".parse().unwrap()];
    let options = ClusterOptions { tls: false, allow, ..place.options(0) };
    let refused = LocalCluster::up(options, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, UpError::Unencrypted { .. }), "{refused}");
    assert!(!place.dir().exists());
}

#[tokio::test]
async fn the_command_hands_out_verified_addresses() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routing-cluster"));
        command.arg("--dir").arg(place.dir()).args(arguments).output().unwrap()
    };
    let refused = complaint(&run(&["up", "--tls", "--allow", "10.1.2.3/16"]));
    assert!(refused.contains("10.1.0.0/16"), "{refused}");
    answer(&run(&["up", "--tls", "--replicas", "0", "--port", "0", "--no-fsync"]));
    let env = answer(&run(&["env"]));
    let root_certificate = place.dir().canonicalize().unwrap().join("ca.crt");
    assert!(env.contains(&format!("export PGSSLROOTCERT='{}'", root_certificate.display())), "{env}");
    let url = env.lines().find_map(|line| line.strip_prefix("export DATABASE_PRIMARY_URL='pg1=")).unwrap();
    assert_eq!(
        answer(&psql(url.trim_end_matches('\''), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")),
        "t"
    );
}
