//! The operator's commands on real servers: promote, switch over, rejoin, add, remove, verify.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use routing_cluster::{
    AddReplicaError, ClusterOptions, Condition, LineProgress, LocalCluster, Login, NodeError, NodeRole,
    NodeState, PromoteError, RejoinError, Rejoined, RemoveReplicaError, SilentProgress, SwitchoverError,
    SyncMode, UpError,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

/// Ten times what anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory for one cluster, in memory where there is room for it, whose servers end with it.
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

    async fn up(&self, replicas: u32) -> LocalCluster {
        let options = ClusterOptions {
            dir: self.dir(),
            replicas,
            port: 0,
            durable: false,
            ..ClusterOptions::default()
        };
        LocalCluster::up(options, &SilentProgress).await.unwrap()
    }

    async fn up_again(&self) -> Result<LocalCluster, UpError> {
        let options = ClusterOptions { dir: self.dir(), ..ClusterOptions::default() };
        LocalCluster::up(options, &SilentProgress).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routing-cluster"));
        command.arg("--dir").arg(self.dir()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.dir());
    }
}

/// What a command that must succeed has written to standard output.
fn answer(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command that must fail has said.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn connect(cluster: &LocalCluster, node: &str, login: Login) -> Client {
    let it = cluster.credentials(login);
    let mut config = Config::new();
    config.host("127.0.0.1").port(cluster.node(node).unwrap().port);
    config.user(&it.user).password(&it.password).dbname(&it.database);
    let (client, connection) = timeout(PATIENCE, config.connect(NoTls)).await.unwrap().unwrap();
    tokio::spawn(connection);
    client
}

async fn sql(cluster: &LocalCluster, node: &str, statements: &str) {
    connect(cluster, node, Login::Application).await.batch_execute(statements).await.unwrap();
}

/// Statements of the superuser, one after the other.
async fn administer(cluster: &LocalCluster, node: &str, statements: &[&str]) {
    let client = connect(cluster, node, Login::Superuser).await;
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
}

async fn notes(cluster: &LocalCluster, node: &str) -> Vec<i32> {
    let client = connect(cluster, node, Login::Application).await;
    let rows = client.query("SELECT id FROM notes ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until the node's notes are these.
async fn has_notes(cluster: &LocalCluster, node: &str, expected: &[i32]) {
    let begun = Instant::now();
    loop {
        let found = notes(cluster, node).await;
        if found == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{node} has {found:?} instead of {expected:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Lets a replica receive nothing more.
async fn cut_off(cluster: &LocalCluster, node: &str) {
    administer(cluster, node, &["ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"]).await;
    let begun = Instant::now();
    while cluster.status().await.nodes.iter().any(|it| it.name == node && it.receiver.is_some()) {
        assert!(begun.elapsed() < PATIENCE, "{node} receives");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn with_notes(place: &Place, replicas: u32) -> LocalCluster {
    let cluster = place.up(replicas).await;
    sql(&cluster, "pg1", "CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)").await;
    for node in cluster.nodes() {
        has_table(&cluster, &node.name).await;
        has_notes(&cluster, &node.name, &[1]).await;
    }
    cluster
}

async fn has_table(cluster: &LocalCluster, node: &str) {
    let client = connect(cluster, node, Login::Application).await;
    let begun = Instant::now();
    while client.query("SELECT FROM notes", &[]).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "{node} has no table");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_promotion_keeps_what_was_received_and_the_old_primary_returns_by_rejoin() {
    let place = Place::new();
    let cluster = with_notes(&place, 2).await;
    cluster.kill("pg1").await.unwrap();

    let promotion = cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    eprintln!("promote after a crash: unwritable for {} ms", promotion.unwritable.as_millis());
    assert_eq!((promotion.timeline, promotion.deposed.as_slice()), (2, &["pg1".to_owned()][..]));
    assert_eq!(promotion.unfollowed, []);
    assert_eq!(notes(&cluster, "pg2").await, [1]);
    sql(&cluster, "pg2", "INSERT INTO notes VALUES (2)").await;
    has_notes(&cluster, "pg3", &[1, 2]).await;
    let status = cluster.status().await;
    assert_eq!((status.nodes[2].timeline, status.nodes[2].receiver.as_deref()), (Some(2), Some("streaming")));
    let again = cluster.promote("pg2", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(again, PromoteError::AlreadyPrimary { .. }), "{again}");

    // The deposed primary must not come back as a second one.
    let refused = cluster.start("pg1").await.unwrap_err();
    assert!(matches!(refused, NodeError::Unfit { .. }) && refused.to_string().contains("`rejoin pg1`"));
    let refused = place.up_again().await.unwrap_err();
    assert!(matches!(refused, UpError::Unfit { .. }) && refused.to_string().contains("`rejoin pg1`"));
    cluster.stop("pg3").await.unwrap();
    place.up_again().await.unwrap();
    let states: Vec<_> = cluster.status().await.nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [NodeState::Stopped, NodeState::Running, NodeState::Running]);

    let begun = Instant::now();
    let rejoined = cluster.rejoin("pg1", false, &SilentProgress).await.unwrap();
    eprintln!("rejoin by rewind: {} ms", begun.elapsed().as_millis());
    assert_eq!(rejoined, Rejoined::Rewound);
    has_notes(&cluster, "pg1", &[1, 2]).await;
    let again = cluster.rejoin("pg1", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(again, RejoinError::Follows { .. }), "{again}");
    let primary = cluster.rejoin("pg2", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(primary, RejoinError::IsPrimary { .. }), "{primary}");
    cluster.stop("pg1").await.unwrap();
    cluster.start("pg1").await.unwrap();
    assert_eq!(cluster.primary().await.unwrap().name, "pg2");
    assert!(!place.dir().join("rewind.pass").exists());
}

#[tokio::test]
async fn a_row_that_only_the_old_primary_had_is_gone_after_rejoin() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    for (way, base_backup) in [(Rejoined::Rewound, false), (Rejoined::Copied, true)] {
        let old = cluster.primary().await.unwrap().name.clone();
        let new = if old == "pg1" { "pg2" } else { "pg1" };
        // The replica is cut off while the primary acknowledges a row, and dies with it unsent.
        cut_off(&cluster, new).await;
        sql(&cluster, &old, "INSERT INTO notes VALUES (100)").await;
        cluster.kill(&old).await.unwrap();
        cluster.promote(new, false, &SilentProgress).await.unwrap();
        let known = notes(&cluster, new).await;
        let next = known.iter().max().unwrap() + 1;
        assert!(next < 100, "{known:?}");
        sql(&cluster, new, &format!("INSERT INTO notes VALUES ({next})")).await;

        let begun = Instant::now();
        assert_eq!(cluster.rejoin(&old, base_backup, &SilentProgress).await.unwrap(), way);
        eprintln!("rejoin {way:?}: {} ms", begun.elapsed().as_millis());
        let expected: Vec<i32> = (1..=next).collect();
        has_notes(&cluster, &old, &expected).await;
    }
}

#[tokio::test]
async fn a_paused_primary_is_killed_before_another_is_made() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    cluster.pause("pg1").await.unwrap();
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    let status = cluster.status().await;
    assert_eq!((status.nodes[0].state, status.nodes[1].role), (NodeState::Stopped, Some(NodeRole::Primary)));
}

#[tokio::test]
async fn a_primary_that_may_be_alive_elsewhere_is_not_replaced() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    cluster.kill("pg1").await.unwrap();
    // The same data served from another directory, as after a move that this machine's process table does not show.
    let moved = place.temp.path().join("moved");
    assert!(
        Command::new("cp").args(["-a"]).arg(place.dir().join("pg1")).arg(&moved).status().unwrap().success()
    );
    let data = moved.join("data");
    let log = moved.join("log");
    let stray = Stray::start(&data, &log);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", cluster.nodes()[0].port)).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "{}", fs::read_to_string(&log).unwrap());
        sleep(Duration::from_millis(20)).await;
    }

    let text = complaint(&place.run(&["promote", "pg2"]));
    assert!(text.contains("a server answers on its port"), "{text}");
    assert_eq!(cluster.status().await.nodes[1].role, Some(NodeRole::Replica));
    let forced = place.run(&["promote", "pg2", "--force"]);
    assert!(String::from_utf8_lossy(&forced.stderr).contains("DANGER"), "{forced:?}");
    assert!(forced.status.success());
    assert_eq!(cluster.status().await.nodes[1].role, Some(NodeRole::Primary));
    drop(stray);
}

/// A server outside the cluster's directory.
struct Stray(Child);

impl Stray {
    fn start(data: &Path, log: &Path) -> Stray {
        use std::os::unix::{fs::MetadataExt as _, process::CommandExt as _};
        let owner = fs::metadata(data).unwrap();
        let _ = fs::remove_file(data.join("postmaster.pid"));
        let log = fs::File::create(log).unwrap();
        let mut command = Command::new(server_binary());
        command.arg("-D").arg(data).args(["-c", "unix_socket_directories="]).stderr(log);
        command.gid(owner.gid()).uid(owner.uid()).current_dir(data);
        Stray(command.spawn().unwrap())
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server program that the clusters here run.
fn server_binary() -> PathBuf {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mut programs = pids.filter_map(|process| fs::read_link(process.join("exe")).ok());
    programs.find(|program| program.file_name().is_some_and(|name| name == "postgres")).unwrap()
}

#[tokio::test]
async fn a_replica_that_lacks_writes_is_not_promoted() {
    let place = Place::new();
    let cluster = with_notes(&place, 2).await;
    cut_off(&cluster, "pg3").await;
    let refused = cluster.promote("pg3", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, PromoteError::NotStreaming { .. }), "{refused}");
    sql(&cluster, "pg1", "INSERT INTO notes VALUES (2)").await;
    has_notes(&cluster, "pg2", &[1, 2]).await;
    cluster.kill("pg1").await.unwrap();
    let refused = cluster.promote("pg3", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(&refused, PromoteError::Behind { better, .. } if better == "pg2"), "{refused}");

    let promotion = cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    assert_eq!(promotion.unfollowed, []);
    has_notes(&cluster, "pg3", &[1, 2]).await;
}

#[tokio::test]
async fn an_interrupted_promote_and_rejoin_are_ended_by_the_next_call() {
    let place = Place::new();
    let cluster = with_notes(&place, 2).await;
    let mut row = 1;
    // Each interrupt falls into another step; the last ones come after the end.
    for milliseconds in [5, 30, 60, 80, 120, 200] {
        let old = cluster.primary().await.unwrap().name.clone();
        let new = if old == "pg1" { "pg2" } else { "pg1" };
        let mut child = place.spawn(&["promote", new]);
        sleep(Duration::from_millis(milliseconds)).await;
        let _ = child.kill();
        child.wait().unwrap();
        match cluster.promote(new, false, &SilentProgress).await {
            Ok(_) | Err(PromoteError::AlreadyPrimary { .. }) => {}
            Err(error) => panic!("after {milliseconds} ms: {error}: {error:?}"),
        }
        assert_eq!(cluster.primary().await.unwrap().name, new, "after {milliseconds} ms");
        row += 1;
        sql(&cluster, new, &format!("INSERT INTO notes VALUES ({row})")).await;

        let mut child = place.spawn(&["rejoin", &old]);
        sleep(Duration::from_millis(2 * milliseconds)).await;
        let _ = child.kill();
        child.wait().unwrap();
        match cluster.rejoin(&old, false, &SilentProgress).await {
            Ok(_) | Err(RejoinError::Follows { .. }) => {}
            Err(error) => panic!("after {milliseconds} ms: {error}: {error:?}"),
        }
        let expected: Vec<i32> = (1..=row).collect();
        for node in ["pg1", "pg2", "pg3"] {
            has_notes(&cluster, node, &expected).await;
        }
    }
}

#[tokio::test]
async fn up_goes_back_from_a_promotion_that_promoted_nobody() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    cluster.stop("pg1").await.unwrap();
    // The state that a kill between fencing and promotion leaves behind.
    let file = place.dir().join("cluster.json");
    let mut state: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    state["change"] = serde_json::json!({"kind": "promotion", "from": ["pg1"], "to": "pg2"});
    state["nodes"][0]["condition"] = "deposed".into();
    fs::write(&file, state.to_string()).unwrap();
    assert!(cluster.start("pg1").await.is_err());
    place.up_again().await.unwrap();
    assert_eq!(cluster.primary().await.unwrap().name, "pg1");
    sql(&cluster, "pg1", "INSERT INTO notes VALUES (2)").await;
    has_notes(&cluster, "pg2", &[1, 2]).await;
}

/// What a writer saw while the primary changed.
#[derive(Debug, Default)]
struct Written {
    acknowledged: Vec<i32>,
    refusals: Vec<String>,
}

/// Writes one row after the other, wherever it is taken, until it is told to stop.
async fn write(cluster: &LocalCluster, from: i32, stop: &std::sync::atomic::AtomicBool) -> Written {
    use std::sync::atomic::Ordering;
    let it = cluster.credentials(Login::Application);
    let ports: Vec<u16> = cluster.nodes().iter().map(|node| node.port).collect();
    let (mut written, mut client, mut id, mut turn) = (Written::default(), None::<Client>, from, 0);
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = client.as_ref().filter(|client| !client.is_closed()) else {
            let mut config = Config::new();
            config.host("127.0.0.1").port(ports[turn % ports.len()]);
            turn += 1;
            config.user(&it.user).password(&it.password).dbname(&it.database);
            match config.connect(NoTls).await {
                Ok((new, connection)) => {
                    tokio::spawn(connection);
                    client = Some(new);
                }
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
            continue;
        };
        match open.batch_execute(&format!("INSERT INTO notes VALUES ({id})")).await {
            Ok(()) => written.acknowledged.push(id),
            Err(error) => {
                written.refusals.push(code(&error));
                client = None;
            }
        }
        id += 1;
    }
    written
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

#[tokio::test]
async fn a_switchover_under_writers_loses_no_row() {
    let place = Place::new();
    let cluster = with_notes(&place, 2).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let change = async {
        sleep(Duration::from_millis(100)).await;
        let there = cluster.switchover("pg2", &SilentProgress).await;
        sleep(Duration::from_millis(100)).await;
        let back = cluster.switchover("pg1", &SilentProgress).await;
        sleep(Duration::from_millis(100)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (there, back)
    };
    let ((there, back), first, second) =
        tokio::join!(change, write(&cluster, 1_000, &stop), write(&cluster, 1_000_000, &stop));
    let (there, back) = (there.unwrap(), back.unwrap());
    eprintln!("switchover: {} and {} ms", there.unwritable.as_millis(), back.unwritable.as_millis());
    assert_eq!((there.deposed.len(), there.unfollowed.len(), there.timeline), (0, 0, 2));
    assert_eq!((back.deposed.len(), back.unfollowed.len(), back.timeline), (0, 0, 3));

    // Exactly the acknowledged rows are there: none is lost, and none was written without an answer.
    let mut expected: Vec<i32> = [vec![1], first.acknowledged, second.acknowledged].concat();
    expected.sort_unstable();
    assert!(expected.len() > 20, "{}", expected.len());
    for node in ["pg1", "pg2", "pg3"] {
        has_notes(&cluster, node, &expected).await;
    }
    for refusal in first.refusals.iter().chain(&second.refusals) {
        let known = ["25006", "57P01", "57P03", "connection closed"];
        assert!(known.contains(&refusal.as_str()), "{refusal}");
    }
    let status = cluster.status().await;
    let slots = |node: usize| status.nodes[node].slots.iter().map(|it| it.name.as_str()).collect::<Vec<_>>();
    assert_eq!((slots(0), slots(1), slots(2)), (vec!["pg2", "pg3"], vec![], vec![]));
    let again = cluster.switchover("pg1", &SilentProgress).await.unwrap_err();
    assert!(matches!(again, SwitchoverError::AlreadyPrimary { .. }), "{again}");
}

#[tokio::test]
async fn a_switchover_that_gives_up_leaves_everything_as_it_was() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    let mut writer = connect(&cluster, "pg1", Login::Application).await;
    let open = writer.transaction().await.unwrap();
    open.batch_execute("INSERT INTO notes VALUES (2)").await.unwrap();
    let refused = cluster.switchover("pg2", &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, SwitchoverError::Writers { writers: 1, .. }), "{refused}");
    open.commit().await.unwrap();
    sql(&cluster, "pg1", "INSERT INTO notes VALUES (3)").await;
    has_notes(&cluster, "pg2", &[1, 2, 3]).await;
    assert_eq!(cluster.primary().await.unwrap().name, "pg1");
}

#[tokio::test]
async fn an_interrupted_switchover_is_ended_by_the_next_call_or_taken_back_by_up() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    let mut row = 1;
    for (milliseconds, up) in [(10, false), (40, true), (70, false), (100, true), (150, false), (250, false)]
    {
        let old = cluster.primary().await.unwrap().name.clone();
        let new = if old == "pg1" { "pg2" } else { "pg1" };
        let mut child = place.spawn(&["switchover", new]);
        sleep(Duration::from_millis(milliseconds)).await;
        let _ = child.kill();
        child.wait().unwrap();
        if up {
            match place.up_again().await {
                Ok(_) | Err(UpError::AlreadyRunning { .. }) => {}
                Err(error) => panic!("after {milliseconds} ms: {error}: {error:?}"),
            }
        } else {
            match cluster.switchover(new, &SilentProgress).await {
                Ok(_) | Err(SwitchoverError::AlreadyPrimary { .. }) => {}
                Err(error) => panic!("after {milliseconds} ms: {error}: {error:?}"),
            }
        }
        let primary = cluster.primary().await.unwrap().name.clone();
        row += 1;
        sql(&cluster, &primary, &format!("INSERT INTO notes VALUES ({row})")).await;
        let other = if primary == "pg1" { "pg2" } else { "pg1" };
        // After a promotion `up` leaves the old primary to `rejoin`.
        let _ = cluster.rejoin(other, false, &SilentProgress).await;
        let expected: Vec<i32> = (1..=row).collect();
        for node in ["pg1", "pg2"] {
            has_notes(&cluster, node, &expected).await;
        }
    }
}

#[tokio::test]
async fn commits_wait_for_a_replica_whoever_is_the_primary() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    assert!(place.run(&["up", "--sync", "remote-apply"]).status.success());
    let settings = |node: &'static str| {
        let cluster = &cluster;
        async move {
            let client = connect(cluster, node, Login::Superuser).await;
            let query =
                "SELECT current_setting('synchronous_standby_names'), current_setting('synchronous_commit')";
            let row = client.query_one(query, &[]).await.unwrap();
            (row.get::<_, String>(0), row.get::<_, String>(1))
        }
    };
    let waiting = ("ANY 1 (*)".to_owned(), "remote_apply".to_owned());
    let begun = Instant::now();
    while settings("pg1").await != waiting || settings("pg2").await != waiting {
        assert!(begun.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    // A row that was acknowledged is there at once.
    for id in 2..30 {
        sql(&cluster, "pg1", &format!("INSERT INTO notes VALUES ({id})")).await;
        assert!(notes(&cluster, "pg2").await.contains(&id));
    }
    cluster.switchover("pg2", &SilentProgress).await.unwrap();
    assert_eq!(settings("pg2").await, waiting);
    sql(&cluster, "pg2", "INSERT INTO notes VALUES (30)").await;
    assert!(notes(&cluster, "pg1").await.contains(&30));

    cluster.stop("pg1").await.unwrap();
    let refused = cluster.set_sync(SyncMode::Quorum, &SilentProgress).await.unwrap_err();
    assert!(refused.to_string().contains("no replica streams"), "{refused}");
    cluster.set_sync(SyncMode::Off, &SilentProgress).await.unwrap();
    sql(&cluster, "pg2", "INSERT INTO notes VALUES (31)").await;
    // A node that was stopped meanwhile learns it when it starts.
    cluster.start("pg1").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(settings("pg1").await, (String::new(), "on".to_owned()));
}

async fn slots(cluster: &LocalCluster, node: &str) -> Vec<String> {
    let client = connect(cluster, node, Login::Superuser).await;
    let rows =
        client.query("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn replicas_come_and_go() {
    let place = Place::new();
    let mut cluster = with_notes(&place, 1).await;
    let added = cluster.add_replica(None, None, &SilentProgress).await.unwrap();
    assert_eq!((added.name.as_str(), cluster.nodes().len()), ("pg3", 3));
    assert!(added.port > cluster.nodes()[1].port);
    cluster.add_replica(Some("far"), Some("pg2"), &SilentProgress).await.unwrap();
    has_notes(&cluster, "far", &[1]).await;
    assert_eq!(slots(&cluster, "pg1").await, ["pg2", "pg3"]);
    assert_eq!(slots(&cluster, "pg2").await, ["far"]);

    let taken = cluster.add_replica(Some("pg3"), None, &SilentProgress).await.unwrap_err();
    assert!(matches!(taken, AddReplicaError::Exists { .. }), "{taken}");
    for name in ["run", "lock", "../x", "Pg"] {
        let bad = cluster.add_replica(Some(name), None, &SilentProgress).await.unwrap_err();
        assert!(
            matches!(bad, AddReplicaError::Exists { .. } | AddReplicaError::BadName { .. }),
            "{name}: {bad}"
        );
    }
    let needed = cluster.remove_replica("pg2", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(&needed, RemoveReplicaError::HasFollowers { .. }), "{needed}");
    assert!(needed.to_string().contains("far streams from pg2"), "{needed}");
    let primary = cluster.remove_replica("pg1", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(primary, RemoveReplicaError::IsPrimary { .. }), "{primary}");

    // A cascading replica follows its upstream onto the new timeline, whoever the primary is.
    cluster.switchover("pg3", &SilentProgress).await.unwrap();
    sql(&cluster, "pg3", "INSERT INTO notes VALUES (2)").await;
    for node in ["pg1", "pg2", "far"] {
        has_notes(&cluster, node, &[1, 2]).await;
    }
    assert_eq!(slots(&cluster, "pg3").await, ["pg1", "pg2"]);
    assert_eq!(slots(&cluster, "pg1").await, [""; 0]);
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    has_notes(&cluster, "far", &[1, 2]).await;

    cluster.remove_replica("far", false, &SilentProgress).await.unwrap();
    assert_eq!(slots(&cluster, "pg2").await, ["pg1"]);
    assert!(place.dir().join("far/data/PG_VERSION").exists());
    // The deposed primary may go, too, and with it its data.
    answer(&place.run(&["remove-replica", "pg3", "--purge"]));
    assert!(!place.dir().join("pg3").exists());
    assert!(complaint(&place.run(&["remove-replica", "pg3"])).contains("the nodes are pg1, pg2"));
    answer(&place.run(&["add-replica"]));
    let cluster = LocalCluster::open(&place.dir()).await.unwrap();
    has_notes(&cluster, "pg3", &[1, 2]).await;
}

#[tokio::test]
async fn an_interrupted_addition_is_ended_by_the_next_call_or_by_up() {
    let place = Place::new();
    let mut cluster = with_notes(&place, 1).await;
    for sign in ["pg3/data", "pg3/data/PG_VERSION", "pg3/data/postmaster.pid"] {
        let mut child = place.spawn(&["add-replica", "pg3", "--from", "pg2"]);
        let begun = Instant::now();
        while !place.dir().join(sign).exists() {
            assert!(begun.elapsed() < PATIENCE, "no {sign}");
            sleep(Duration::from_millis(2)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if sign.ends_with("pid") {
            match place.up_again().await {
                Ok(_) | Err(UpError::AlreadyRunning { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            cluster = LocalCluster::open(&place.dir()).await.unwrap();
        } else {
            cluster.add_replica(Some("pg3"), Some("pg2"), &SilentProgress).await.unwrap();
        }
        has_notes(&cluster, "pg3", &[1]).await;
        assert_eq!(slots(&cluster, "pg2").await, ["pg3"]);
        assert_eq!(slots(&cluster, "pg1").await, ["pg2"]);
        cluster.remove_replica("pg3", true, &SilentProgress).await.unwrap();
        assert_eq!(slots(&cluster, "pg2").await, [""; 0]);
    }
}

#[tokio::test]
async fn nodes_agree_until_one_of_them_is_damaged() {
    let place = Place::new();
    let cluster = with_notes(&place, 2).await;
    sql(
        &cluster,
        "pg1",
        "CREATE TABLE words (t text); INSERT INTO words SELECT 'honest' || i FROM generate_series(1, 500) i;
         CREATE UNLOGGED TABLE fleeting (id int); CREATE TABLE \"Odd name\" ()",
    )
    .await;
    let agreed = cluster.verify(&SilentProgress).await.unwrap();
    assert_eq!((agreed.tables, agreed.differences.len(), agreed.nodes.len()), (3, 0, 3));
    // A transaction that was given up leaves no trace that would look like a write.
    let client = connect(&cluster, "pg1", Login::Application).await;
    client.batch_execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK").await.unwrap();
    answer(&place.run(&["verify"]));

    // One bit of a row flips on the disk of one replica.
    administer(&cluster, "pg1", &["CHECKPOINT"]).await;
    answer(&place.run(&["verify"]));
    administer(&cluster, "pg2", &["CHECKPOINT"]).await;
    let file: String = client.query_one("SELECT pg_relation_filepath('words')", &[]).await.unwrap().get(0);
    cluster.stop("pg2").await.unwrap();
    let file = place.dir().join("pg2/data").join(file);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(6).position(|window| window == b"honest").unwrap();
    bytes[at] = b'H';
    fs::write(&file, bytes).unwrap();
    cluster.start("pg2").await.unwrap();
    let text = complaint(&place.run(&["verify"]));
    assert!(text.contains("pg2") && text.contains("invalid page"), "{text}");
    administer(
        &cluster,
        "pg2",
        &["ALTER SYSTEM SET ignore_checksum_failure = on", "SELECT pg_reload_conf()"],
    )
    .await;
    let output = place.run(&["verify"]);
    assert!(complaint(&output).contains("1 tables differ"), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("public.words") && text.contains("pg2 has 500 rows"), "{text}");

    assert_eq!(cluster.rejoin("pg2", true, &SilentProgress).await.unwrap(), Rejoined::Copied);
    answer(&place.run(&["verify"]));

    let mut writer = connect(&cluster, "pg1", Login::Application).await;
    let open = writer.transaction().await.unwrap();
    open.batch_execute("INSERT INTO notes VALUES (2)").await.unwrap();
    assert!(complaint(&place.run(&["verify"])).contains("writes to the cluster went on"));
    drop(open);
}

#[tokio::test]
async fn leftover_and_lost_slots_are_named_with_their_remedy() {
    let place = Place::new();
    let cluster = with_notes(&place, 2).await;
    administer(
        &cluster,
        "pg1",
        &[
            "SELECT pg_create_physical_replication_slot('gone', true)",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '2MB'",
            "ALTER SYSTEM SET wal_keep_size = 0",
            "ALTER SYSTEM SET min_wal_size = '2MB'",
            "SELECT pg_reload_conf()",
        ],
    )
    .await;
    let status = cluster.status().await;
    let slot = |name: &str| status.nodes[0].slots.iter().find(|slot| slot.name == name).unwrap();
    assert!(slot("gone").leftover && !slot("pg2").leftover && slot("gone").retained_bytes.is_some());
    assert_eq!(status.remedies.len(), 1, "{:?}", status.remedies);
    assert!(status.remedies[0].contains("pg_drop_replication_slot('gone')"), "{:?}", status.remedies);

    cluster.stop("pg3").await.unwrap();
    let fill = "SELECT pg_logical_emit_message(false, 'x', repeat('x', 900000))";
    let begun = Instant::now();
    loop {
        administer(&cluster, "pg1", &[fill, "SELECT pg_switch_wal()", "CHECKPOINT"]).await;
        let status = cluster.status().await;
        let slot = status.nodes[0].slots.iter().find(|slot| slot.name == "pg3").unwrap();
        if slot.wal_status.as_deref() == Some("lost") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        // The other replica must keep up, or its slot is lost, too.
        while cluster.status().await.nodes[1].lag_bytes != Some(0) {
            assert!(begun.elapsed() < PATIENCE, "pg2 lags");
            sleep(Duration::from_millis(10)).await;
        }
    }
    let text = answer(&place.run(&["status"]));
    assert!(text.contains("slot of pg3 on pg1 is lost") && text.contains("`rejoin pg3`"), "{text}");
    cluster.start("pg3").await.unwrap();
    let rejoined = cluster.rejoin("pg3", false, &SilentProgress).await.unwrap();
    assert_eq!(rejoined, Rejoined::Copied);
    administer(&cluster, "pg1", &["SELECT pg_drop_replication_slot('gone')"]).await;
    assert_eq!(cluster.status().await.remedies, [""; 0]);
    cluster.kill("pg1").await.unwrap();
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    assert!(answer(&place.run(&["status"])).contains("! pg1 is a deposed primary: `rejoin pg1`"));
}

#[tokio::test]
async fn a_replica_that_was_away_during_a_promotion_follows_when_it_is_back() {
    let place = Place::new();
    let cluster = with_notes(&place, 3).await;
    assert!(place.run(&["up", "--sync", "quorum"]).status.success());
    cluster.stop("pg3").await.unwrap();
    cluster.pause("pg4").await.unwrap();
    cluster.kill("pg1").await.unwrap();
    let output = place.run(&["promote", "pg2"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("pg3 does not follow yet: it is stopped"), "{text}");
    assert!(text.contains("pg4 does not follow yet: it is paused"), "{text}");
    assert!(text.contains("COMMITS WAIT"), "{text}");

    assert!(place.run(&["up", "--sync", "off"]).status.success());
    sql(&cluster, "pg2", "INSERT INTO notes VALUES (2)").await;
    cluster.resume("pg4").await.unwrap();
    // It may have received, or still find in its socket, what the new primary never did: then it is rewound.
    let rejoined = cluster.rejoin("pg4", false, &LineProgress).await.unwrap();
    assert!(matches!(rejoined, Rejoined::Repointed | Rejoined::Rewound), "{rejoined:?}");
    has_notes(&cluster, "pg3", &[1, 2]).await;
    has_notes(&cluster, "pg4", &[1, 2]).await;
    assert_eq!(slots(&cluster, "pg2").await, ["pg3", "pg4"]);

    // Of a stopped cluster, the deposed node is not the primary.
    LocalCluster::open(&place.dir()).await.unwrap().down(false).await.unwrap();
    let lines = answer(&place.run(&["env"]));
    assert!(lines.contains("DATABASE_PRIMARY_URL='pg2="), "{lines}");
}

#[tokio::test]
async fn an_interrupted_base_backup_of_a_rejoin_is_ended_by_the_next_call() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    cluster.kill("pg1").await.unwrap();
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    for milliseconds in [30, 80, 150] {
        let mut child = place.spawn(&["rejoin", "pg1", "--base-backup"]);
        sleep(Duration::from_millis(milliseconds)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        if cluster.status().await.nodes[0].condition != Condition::Sound {
            assert!(matches!(
                cluster.start("pg1").await,
                Err(NodeError::Unfit { .. } | NodeError::AlreadyRunning { .. })
            ));
        }
    }
    match cluster.rejoin("pg1", false, &SilentProgress).await {
        // Rewound where every interrupt came before the copy had begun.
        Ok(_) | Err(RejoinError::Follows { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
    has_notes(&cluster, "pg1", &[1]).await;
    assert_eq!(cluster.status().await.remedies, [""; 0]);
}

#[tokio::test]
async fn writes_that_only_a_cleanly_stopped_primary_has_are_not_given_up() {
    let place = Place::new();
    let cluster = with_notes(&place, 1).await;
    cut_off(&cluster, "pg2").await;
    sql(&cluster, "pg1", "INSERT INTO notes VALUES (2)").await;
    cluster.stop("pg1").await.unwrap();
    let refused = cluster.promote("pg2", false, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, PromoteError::LacksEnd { .. }), "{refused}");
    assert!(answer(&place.run(&["status"])).contains("the promotion of pg2 was interrupted"));
    place.up_again().await.unwrap();
    assert_eq!(notes(&cluster, "pg1").await, [1, 2]);
    assert_eq!(cluster.rejoin("pg2", false, &SilentProgress).await.unwrap(), Rejoined::Repointed);
    has_notes(&cluster, "pg2", &[1, 2]).await;
    // One that has everything may take over from a primary that was stopped by hand.
    cluster.stop("pg1").await.unwrap();
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
}

#[tokio::test]
async fn of_two_primaries_the_promoted_one_remains() {
    let place = Place::new();
    let cluster = with_notes(&place, 2).await;
    // Somebody promotes by hand, past this tool.
    administer(&cluster, "pg2", &["SELECT pg_promote()"]).await;
    sql(&cluster, "pg1", "INSERT INTO notes VALUES (100)").await;
    sql(&cluster, "pg2", "INSERT INTO notes VALUES (2)").await;
    assert!(answer(&place.run(&["status"])).contains("pg1 and pg2 are primaries at the same time"));
    has_notes(&cluster, "pg3", &[1, 100]).await;
    let promotion = cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    assert_eq!(promotion.deposed, ["pg1"]);
    for node in ["pg1", "pg3"] {
        if cluster.rejoin(node, false, &SilentProgress).await.is_ok() {
            has_notes(&cluster, node, &[1, 2]).await;
        }
    }
    answer(&place.run(&["verify"]));
}

#[tokio::test]
async fn a_copy_that_fails_leaves_the_old_data_where_it_was() {
    let place = Place::new();
    let cluster = place.up(1).await;
    sql(&cluster, "pg1", "CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)").await;
    has_notes(&cluster, "pg2", &[1]).await;
    let data_dir = cluster.node("pg2").unwrap().data_dir.clone();
    let pass = fs::read_to_string(cluster.dir().join("replication.pass")).unwrap();
    let password = pass.trim().rsplit(':').next().unwrap();

    administer(&cluster, "pg1", &["ALTER ROLE replicator PASSWORD 'another'"]).await;
    let refused = complaint(&place.run(&["rejoin", "pg2", "--base-backup"]));
    assert!(refused.contains("password authentication failed for user \"replicator\""), "{refused}");
    assert!(!refused.contains(password), "{refused}");
    // What it had may be the last that is left.
    assert!(data_dir.join("PG_VERSION").exists());
    assert!(!data_dir.with_extension("old").exists());

    administer(&cluster, "pg1", &[&format!("ALTER ROLE replicator PASSWORD '{password}'")]).await;
    cluster.rejoin("pg2", false, &SilentProgress).await.unwrap();
    has_notes(&cluster, "pg2", &[1]).await;
    assert!(!data_dir.with_extension("old").exists());
}
