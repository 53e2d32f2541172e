//! The cluster on real servers: what it promises when it comes up, when nodes fail, and when it goes.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use routing_cluster::{
    ClusterOptions, LocalCluster, Login, NodeRole, NodeState, PortError, SilentProgress, UpError,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

/// Ten times what anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory for one cluster, whose servers end with it.
struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Place {
        // The servers' user must be able to enter it.
        let open = fs::Permissions::from_mode(0o755);
        Place { temp: tempfile::Builder::new().permissions(open).tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("cluster")
    }

    fn options(&self, replicas: u32) -> ClusterOptions {
        ClusterOptions { dir: self.dir(), replicas, port: 0, durable: false, ..ClusterOptions::default() }
    }

    async fn up(&self, replicas: u32) -> LocalCluster {
        LocalCluster::up(self.options(replicas), &SilentProgress).await.unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&self.dir(), arguments)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.dir());
    }
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_routing-cluster"))
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .output()
        .unwrap()
}

/// The only line that a failed command has written.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(output.stdout, b"");
    text
}

/// How many processes mention the directory in their arguments or work in it.
fn processes_in(dir: &Path) -> usize {
    command_lines()
        .iter()
        .filter(|(cwd, line)| cwd.starts_with(dir) || line.contains(dir.to_str().unwrap()))
        .count()
}

fn command_lines() -> Vec<(PathBuf, String)> {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    pids.filter_map(|process| {
        let line = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).into_owned();
        Some((fs::read_link(process.join("cwd")).unwrap_or_default(), line))
    })
    .collect()
}

async fn connect_as(
    cluster: &LocalCluster,
    node: &str,
    user: &str,
    password: &str,
    database: &str,
) -> Result<Client, String> {
    let port = cluster.node(node).unwrap().port;
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).password(password).dbname(database);
    let connected = timeout(PATIENCE, config.connect(NoTls)).await.unwrap();
    let (client, connection) = connected.map_err(|error| code(&error))?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect(cluster: &LocalCluster, node: &str, login: Login) -> Client {
    let it = cluster.credentials(login);
    connect_as(cluster, node, &it.user, &it.password, &it.database).await.unwrap()
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

async fn refused(client: &Client, statement: &str) -> String {
    code(&client.batch_execute(statement).await.unwrap_err())
}

/// Waits until the node has the row that was written on the primary.
async fn arrives(client: &Client, value: i32) {
    let begun = Instant::now();
    loop {
        let rows = client.query("SELECT FROM notes WHERE id = $1", &[&value]).await;
        if rows.is_ok_and(|rows| rows.len() == 1) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "row {value} did not arrive");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_cluster_from_nothing_streams_to_every_replica() {
    let place = Place::new();
    let cluster = place.up(2).await;

    let status = cluster.status().await;
    let roles: Vec<_> = status.nodes.iter().map(|node| (node.name.as_str(), node.state, node.role)).collect();
    let (running, replica) = (NodeState::Running, Some(NodeRole::Replica));
    assert_eq!(
        roles,
        [("pg1", running, Some(NodeRole::Primary)), ("pg2", running, replica), ("pg3", running, replica)]
    );
    let mut standbys: Vec<_> =
        status.nodes[0].standbys.iter().map(|it| (it.name.as_str(), it.state.as_str())).collect();
    standbys.sort_unstable();
    assert_eq!(standbys, [("pg2", "streaming"), ("pg3", "streaming")]);
    assert!(status.nodes[0].slots.iter().all(|slot| slot.active) && status.nodes[0].slots.len() == 2);
    assert!(status.nodes[1..].iter().all(|node| node.receiver.as_deref() == Some("streaming")));
    assert!(status.nodes[1..].iter().all(|node| node.lag_bytes.is_some() && node.timeline == Some(1)));

    let primary = connect(&cluster, "pg1", Login::Application).await;
    primary
        .batch_execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")
        .await
        .unwrap();
    for node in ["pg2", "pg3"] {
        let replica = connect(&cluster, node, Login::Application).await;
        arrives(&replica, 1).await;
        assert_eq!(refused(&replica, "INSERT INTO notes VALUES (2)").await, "25006");
    }

    // The same cluster shows the roles' limits and the commands' complaints: none of them changes it.
    roles_have_the_least_privileges(&cluster).await;
    passwords_stay_in_closed_files(&cluster, &place);
    commands_complain_in_one_line(&place);
    shell_lines_name_every_node(&cluster, &place);

    let dir = place.dir();
    let output = place.run(&["down", "--purge"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!dir.exists());
    assert_eq!(processes_in(&dir), 0);
}

async fn roles_have_the_least_privileges(cluster: &LocalCluster) {
    let application = connect(cluster, "pg1", Login::Application).await;
    let flags = "SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_' AND
                 (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls) ORDER BY 1";
    let powerful: Vec<String> =
        application.query(flags, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(powerful, ["postgres"]);
    let replicating = "SELECT rolname::text FROM pg_roles WHERE rolreplication AND NOT rolsuper";
    let replicating: Vec<String> =
        application.query(replicating, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(replicating, ["replicator"]);

    let passfile = fs::read_to_string(cluster.dir().join("replication.pass")).unwrap();
    let replicator = passfile.trim_end().rsplit(':').next().unwrap();
    for database in ["app", "postgres", "template1"] {
        let attempt = connect_as(cluster, "pg1", "replicator", replicator, database).await;
        assert_eq!(attempt.err().as_deref(), Some("42501"), "{database}");
    }
    let app = cluster.credentials(Login::Application);
    let attempt = connect_as(cluster, "pg1", &app.user, &app.password, "postgres").await;
    assert_eq!(attempt.err().as_deref(), Some("42501"));
    let attempt = connect_as(cluster, "pg1", &app.user, "wrong", "app").await;
    assert_eq!(attempt.err().as_deref(), Some("28P01"));

    let monitor = connect(cluster, "pg1", Login::Monitor).await;
    assert_eq!(refused(&monitor, "SELECT * FROM notes").await, "42501");
    assert_eq!(refused(&monitor, "CREATE TABLE public.mine ()").await, "42501");
    let seen = monitor.query("SELECT FROM pg_stat_replication WHERE state = 'streaming'", &[]).await.unwrap();
    assert_eq!(seen.len(), 2);
}

fn passwords_stay_in_closed_files(cluster: &LocalCluster, place: &Place) {
    let passfile = fs::read_to_string(place.dir().join("replication.pass")).unwrap();
    let mut secrets: Vec<String> = vec![passfile.trim_end().rsplit(':').next().unwrap().to_owned()];
    secrets.extend(
        [Login::Application, Login::Monitor, Login::Superuser].map(|it| cluster.credentials(it).password),
    );
    for (_, line) in command_lines() {
        assert!(!secrets.iter().any(|secret| line.contains(secret)), "a password is in an argument list");
    }
    let mut holders = Vec::new();
    let mut folders = vec![place.dir()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() && {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                secrets.iter().any(|secret| text.contains(secret))
            } {
                assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{}", path.display());
                holders.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    holders.sort();
    assert_eq!(holders, ["credentials.json", "replication.pass"]);
}

fn commands_complain_in_one_line(place: &Place) {
    assert!(complaint(&place.run(&["kill", "pg9"])).contains("the nodes are pg1, pg2, pg3"));
    assert!(complaint(&place.run(&["start", "pg2"])).contains("already running"));
    assert!(complaint(&place.run(&["up"])).contains("already running"));
    assert!(complaint(&run(place.temp.path(), &["status"])).contains("not a cluster directory"));
    // The directory above holds the cluster, so it is not empty, and nothing of it may be touched.
    assert!(complaint(&run(place.temp.path(), &["down", "--purge"])).contains("not a cluster directory"));
    assert!(complaint(&run(place.temp.path(), &["up"])).contains("not empty"));
    assert!(place.dir().join("cluster.json").exists());
}

fn shell_lines_name_every_node(cluster: &LocalCluster, place: &Place) {
    let output = place.run(&["env"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let url = |node: &str| cluster.url(node, Login::Application).unwrap();
    assert!(text.contains(&format!("export DATABASE_PRIMARY_URL='pg1={}'\n", url("pg1"))));
    assert!(text.contains(&format!("export DATABASE_REPLICA_1_URL='pg2={}'\n", url("pg2"))));
    assert!(text.contains(&format!("export DATABASE_REPLICA_2_URL='pg3={}'\n", url("pg3"))));
    assert!(text.contains("export DATABASE_PROBE_USER='monitor'\n"));
    let json: serde_json::Value = serde_json::from_slice(&place.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["nodes"][0]["role"], "primary");
}

#[tokio::test]
async fn a_crashed_cluster_comes_up_with_its_data() {
    let place = Place::new();
    let cluster = place.up(1).await;
    let primary = connect(&cluster, "pg1", Login::Application).await;
    primary
        .batch_execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")
        .await
        .unwrap();

    assert!(cluster.kill_all_blocking() > 2);
    assert_eq!(processes_in(&place.dir()), 0);
    assert!(place.dir().join("pg1/data/postmaster.pid").exists());
    let status = cluster.status().await;
    assert!(status.nodes.iter().all(|node| node.state == NodeState::Stopped));

    let cluster = place.up(7).await;
    assert_eq!(cluster.nodes().len(), 2);
    arrives(&connect(&cluster, "pg1", Login::Application).await, 1).await;
    arrives(&connect(&cluster, "pg2", Login::Application).await, 1).await;
    cluster.down(false).await.unwrap();
    assert_eq!(processes_in(&place.dir()), 0);
    assert!(place.dir().join("pg2/data/PG_VERSION").exists());
}

#[tokio::test]
async fn a_replica_that_was_killed_or_paused_catches_up() {
    let place = Place::new();
    let cluster = place.up(1).await;
    let primary = connect(&cluster, "pg1", Login::Application).await;
    primary.batch_execute("CREATE TABLE notes (id int PRIMARY KEY)").await.unwrap();

    cluster.kill("pg2").await.unwrap();
    assert_eq!(cluster.status().await.nodes[1].state, NodeState::Stopped);
    assert!(cluster.kill("pg2").await.is_err());
    primary.batch_execute("INSERT INTO notes VALUES (1)").await.unwrap();
    cluster.start("pg2").await.unwrap();
    let replica = connect(&cluster, "pg2", Login::Application).await;
    arrives(&replica, 1).await;

    cluster.pause("pg2").await.unwrap();
    assert_eq!(cluster.status().await.nodes[1].state, NodeState::Paused);
    primary.batch_execute("INSERT INTO notes VALUES (2)").await.unwrap();
    let silent = timeout(Duration::from_millis(300), replica.query("SELECT 1", &[])).await;
    assert!(silent.is_err(), "a paused node has answered");
    cluster.resume("pg2").await.unwrap();
    arrives(&replica, 2).await;

    cluster.stop("pg2").await.unwrap();
    assert!(cluster.stop("pg2").await.is_err());
    cluster.pause("pg1").await.unwrap();
    cluster.down(false).await.unwrap();
    assert_eq!(processes_in(&place.dir()), 0);
}

#[tokio::test]
async fn clusters_that_come_up_together_do_not_collide() {
    let (one, two) = (Place::new(), Place::new());
    let (first, second) = tokio::join!(one.up(0), two.up(0));
    assert_ne!(first.nodes()[0].port, second.nodes()[0].port);
    assert!(first.nodes()[0].port < 32_768);
    // Each cluster has passwords of its own.
    let foreign = second.credentials(Login::Application);
    let attempt = connect_as(&first, "pg1", &foreign.user, &foreign.password, "app").await;
    assert_eq!(attempt.err().as_deref(), Some("28P01"));
    first.down(true).await.unwrap();
    let alive = second.status().await;
    assert_eq!(alive.nodes[0].state, NodeState::Running);
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_is_left_running() {
    let place = Place::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error =
        LocalCluster::up(ClusterOptions { port, ..place.options(0) }, &SilentProgress).await.unwrap_err();
    assert!(matches!(error, UpError::Port(PortError::Taken { port: named, .. }) if named == port), "{error}");
    assert!(error.to_string().contains(&port.to_string()) && error.to_string().contains("--port 0"));
    assert_eq!(processes_in(&place.dir()), 0);
    assert!(!place.dir().join("pg1").exists());
}

#[tokio::test]
async fn a_server_that_cannot_start_is_quoted_and_nothing_is_left_running() {
    let place = Place::new();
    let cluster = place.up(1).await;
    cluster.kill_all_blocking();
    let file = place.dir().join("pg2/data/postgresql.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\nshared_buffers = 'much'\n")).unwrap();
    let error = LocalCluster::up(place.options(1), &SilentProgress).await.unwrap_err();
    assert!(error.to_string().contains("invalid value for parameter \"shared_buffers\""), "{error}");
    assert_eq!(processes_in(&place.dir()), 0);

    fs::write(&file, text).unwrap();
    place.up(1).await.down(true).await.unwrap();
}

#[tokio::test]
async fn an_interrupted_up_is_repaired_by_the_next() {
    let place = Place::new();
    // Each interrupt comes as soon as its file is there, so each falls into another step.
    for sign in
        ["pg1/data/PG_VERSION", "pg1/data/postmaster.pid", "pg2/data/PG_VERSION", "pg2/data/postmaster.pid"]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routing-cluster"));
        command.arg("--dir").arg(place.dir()).args(["up", "--port", "0", "--no-fsync"]).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        while !place.dir().join(sign).exists() {
            assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "no {sign}");
            sleep(Duration::from_millis(2)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    match LocalCluster::up(place.options(2), &SilentProgress).await {
        // The last interrupt may have come too late.
        Ok(_) | Err(UpError::AlreadyRunning { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    let cluster = LocalCluster::open(&place.dir()).await.unwrap();
    let status = cluster.status().await;
    assert!(status.nodes.iter().all(|node| node.state == NodeState::Running), "{status:?}");
    assert_eq!(cluster.primary().await.unwrap().name, "pg1");
}

#[tokio::test]
async fn a_dropped_up_leaves_nothing_running() {
    let place = Place::new();
    for milliseconds in [50, 300, 600] {
        let up = LocalCluster::up(place.options(1), &SilentProgress);
        let _ = timeout(Duration::from_millis(milliseconds), up)
            .await
            .map(|done| done.unwrap().kill_all_blocking());
        assert_eq!(processes_in(&place.dir()), 0, "after {milliseconds} ms");
    }
    place.up(1).await;
}

#[tokio::test]
async fn clusters_of_one_template_begin_alike_and_go_on_alone() {
    let (one, two, three) = (Place::new(), Place::new(), Place::new());
    let template = Some(one.temp.path().join("templates"));
    let options = |place: &Place| ClusterOptions { template: template.clone(), ..place.options(1) };
    // All at once: one of them makes the template, and whoever made it as well gives way.
    let (first, second) = tokio::join!(
        LocalCluster::up(options(&one), &SilentProgress),
        LocalCluster::up(options(&two), &SilentProgress)
    );
    let third = LocalCluster::up(options(&three), &SilentProgress).await.unwrap();
    let clusters = [first.unwrap(), second.unwrap(), third];
    for (number, cluster) in (1..).zip(&clusters) {
        let app = connect(cluster, "pg1", Login::Application).await;
        app.batch_execute(&format!("CREATE TABLE notes AS SELECT {number} AS id")).await.unwrap();
        arrives(&connect(cluster, "pg2", Login::Application).await, number).await;
    }
    let mut systems = Vec::new();
    for cluster in &clusters {
        let superuser = connect(cluster, "pg2", Login::Superuser).await;
        let system = "SELECT system_identifier FROM pg_control_system()";
        systems.push(superuser.query_one(system, &[]).await.unwrap().get::<_, i64>(0));
    }
    assert_eq!(systems, [systems[0]; 3]);
    let left: Vec<_> =
        fs::read_dir(template.as_ref().unwrap()).unwrap().flatten().map(|it| it.file_name()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // The cluster and nothing beside it.
    assert_eq!(fs::read_dir(two.temp.path()).unwrap().count(), 1);

    let four = Place::new();
    let durable = ClusterOptions { durable: true, ..options(&four) };
    let refused = LocalCluster::up(durable, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, UpError::DurableTemplate), "{refused}");
}
