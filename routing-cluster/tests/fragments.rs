//! The configuration files in `ops/postgresql`: they are what the tool prints, and servers take them.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use routing_cluster::{ClusterOptions, Fragment, LocalCluster, Login, SilentProgress, production_settings};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

const FILES: [(&str, &str, Fragment); 3] = [
    ("primary", "primary.conf", Fragment::Primary),
    ("replica", "replica.conf", Fragment::Replica),
    ("pg_hba", "pg_hba.conf", Fragment::AccessRules),
];

fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/postgresql").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_files_in_ops_are_what_the_tool_prints() {
    for (name, file, fragment) in FILES {
        let printed =
            Command::new(env!("CARGO_BIN_EXE_routing-cluster")).args(["config", name]).output().unwrap();
        assert!(printed.status.success(), "{printed:?}");
        let printed = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(printed, fragment.render());
        assert!(
            printed == shipped(file),
            "ops/postgresql/{file} is out of date: \
             cargo run -p routing-cluster -- config {name} > ops/postgresql/{file}"
        );
    }
}

/// A cluster whose servers end with it.
struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        // The servers' user must be able to enter it.
        let open = fs::Permissions::from_mode(0o755);
        Place { temp: tempfile::Builder::new().permissions(open).tempdir_in(root).unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("cluster")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.dir());
    }
}

async fn superuser(cluster: &LocalCluster, node: &str) -> Client {
    let it = cluster.credentials(Login::Superuser);
    let mut config = Config::new();
    config.host("127.0.0.1").port(cluster.node(node).unwrap().port);
    config.user(&it.user).password(&it.password).dbname(&it.database);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A file for anybody to read, included by the node's configuration after everything but `ALTER SYSTEM`.
fn include(data_dir: &Path, text: &str) {
    let fragment = data_dir.join("fragment.conf");
    fs::write(&fragment, text).unwrap();
    fs::set_permissions(&fragment, fs::Permissions::from_mode(0o644)).unwrap();
    let main = data_dir.join("postgresql.conf");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{text}\ninclude 'fragment.conf'\n")).unwrap();
}

/// What a server says of its configuration files: every line with a problem, and where each setting comes from.
async fn accepted(client: &Client) {
    let problems =
        "SELECT sourcefile || ':' || sourceline || ' ' || name || ': ' || coalesce(error, 'not applied')
        FROM pg_file_settings WHERE error IS NOT NULL";
    let problems: Vec<String> =
        client.query(problems, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    for setting in production_settings() {
        let row = client
            .query_opt(
                "SELECT sourcefile, pending_restart FROM pg_settings WHERE lower(name) = lower($1)",
                &[&setting.name],
            )
            .await
            .unwrap();
        let row = row.unwrap_or_else(|| panic!("this server knows no {}", setting.name));
        let from: Option<String> = row.get(0);
        assert!(
            from.as_ref().is_some_and(|file| file.ends_with("fragment.conf")),
            "{}: {from:?}",
            setting.name
        );
        assert!(!row.get::<_, bool>(1), "{} waits for a restart", setting.name);
    }
}

/// The only lines that cannot be taken over as they are on a machine of somebody else's: the address, the memory, and
/// the certificate, which a scratch server does not have.
fn scratch(text: &str) -> String {
    text.replace("listen_addresses = '*'", "listen_addresses = '127.0.0.1'")
        .replace("shared_buffers = '4GB'", "shared_buffers = '128MB'")
        .replace("ssl = 'on'", "ssl = 'off'")
}

#[tokio::test]
async fn a_primary_and_a_replica_start_with_them_and_take_every_setting() {
    let place = Place::new();
    let options =
        ClusterOptions { dir: place.dir(), replicas: 1, port: 0, durable: true, ..ClusterOptions::default() };
    let cluster = LocalCluster::up(options, &SilentProgress).await.unwrap();
    for (node, file) in [("pg1", "primary.conf"), ("pg2", "replica.conf")] {
        include(&cluster.node(node).unwrap().data_dir, &scratch(&shipped(file)));
    }
    // A replica below its primary's max_connections would not start: the primary, which has more, starts last.
    for node in ["pg2", "pg1"] {
        cluster.stop(node).await.unwrap();
        cluster.start(node).await.unwrap();
    }
    for node in ["pg1", "pg2"] {
        accepted(&superuser(&cluster, node).await).await;
    }
    let follows: String =
        superuser(&cluster, "pg2").await.query_one("SHOW primary_slot_name", &[]).await.unwrap().get(0);
    assert_eq!(follows, "pg2", "what pg_basebackup wrote comes after the fragment");
}

#[tokio::test]
async fn a_server_reads_every_access_rule() {
    let place = Place::new();
    let options = ClusterOptions {
        dir: place.dir(),
        replicas: 0,
        port: 0,
        durable: false,
        ..ClusterOptions::default()
    };
    let cluster = LocalCluster::up(options, &SilentProgress).await.unwrap();
    let client = superuser(&cluster, "pg1").await;
    // The view reads the file as it is now, whether or not the server has loaded it.
    let rules = shipped("pg_hba.conf");
    fs::write(cluster.node("pg1").unwrap().data_dir.join("pg_hba.conf"), &rules).unwrap();
    let rows = client.query("SELECT line_number, type, error FROM pg_hba_file_rules", &[]).await.unwrap();
    let written = rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert_eq!(rows.len(), written);
    for row in rows {
        // A scratch server has no TLS, which the server remarks beside a rule that is right.
        let error: Option<String> = row.get(2);
        let harmless = error.as_ref().is_none_or(|error| error.contains("record cannot match because SSL"));
        assert!(harmless, "line {}: {error:?}", row.get::<_, i32>(0));
    }
}
