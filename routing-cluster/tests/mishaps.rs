//! What goes wrong under the tool: a full disk, a wrong password, damaged files, a kill in the middle. Each ends in one
//! clear message with the server's own words, and leaves nothing running.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use routing_cluster::{ClusterOptions, LocalCluster, NodeRole, SilentProgress, SyncMode};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Ten times what anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory for one cluster, in memory where there is room for it, whose servers end with it.
struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        // The servers' user must be able to enter it.
        let open = fs::Permissions::from_mode(0o755);
        Place { temp: tempfile::Builder::new().permissions(open).tempdir_in(root).unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("cluster")
    }

    async fn up(&self, replicas: u32) -> LocalCluster {
        let options = ClusterOptions { dir: self.dir(), replicas, port: 0, ..ClusterOptions::default() };
        LocalCluster::up(ClusterOptions { durable: false, ..options }, &SilentProgress).await.unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routing-cluster"));
        command.arg("--dir").arg(self.dir()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    async fn kill_after(&self, arguments: &[&str], milliseconds: u64) {
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(milliseconds)).await;
        let _ = child.kill();
        child.wait().unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LocalCluster::kill_all_in(&self.dir());
    }
}

/// What a command that must fail has said.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The command lines of all processes that mention the directory or work in it.
fn processes_in(dir: &Path) -> Vec<String> {
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    pids.filter_map(|process| {
        let line = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).into_owned();
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        (works_there || line.contains(dir.to_str().unwrap())).then_some(line)
    })
    .collect()
}

async fn ends_everything_in(dir: &Path) {
    let begun = Instant::now();
    loop {
        let left = processes_in(dir);
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{left:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Runs the command with a disk of its own that has this much room; the disk goes with its last process. Mounting it
/// takes root.
fn on_a_small_disk(place: &Place, megabytes: u32, arguments: &str) -> Output {
    let script = format!(
        "mount -t tmpfs -o mode=755,size={megabytes}m tmpfs {place} && exec {program} --dir {place}/cluster {arguments}",
        place = place.temp.path().display(),
        program = env!("CARGO_BIN_EXE_routing-cluster"),
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("unshare:") && !said.contains("mount:"), "this test must run as root: {said}");
    output
}

#[tokio::test]
async fn a_full_disk_is_named_whenever_it_fills() {
    // Too small for the primary, for its first start, and for the copies.
    for (megabytes, program) in [(12, "initdb"), (26, ""), (60, "")] {
        let place = Place::new();
        let flags = "up --no-fsync --port 0 --replicas 3";
        let refused = complaint(&on_a_small_disk(&place, megabytes, flags));
        assert!(refused.contains("No space left on device"), "{megabytes} MB: {refused}");
        assert!(refused.contains(program), "{megabytes} MB: {refused}");
        ends_everything_in(&place.dir()).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_the_servers_own_words_and_never_shown() {
    let place = Place::new();
    let cluster = place.up(1).await;
    let file = cluster.dir().join("credentials.json");
    let mut passwords: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let wrong = "0123456789abcdef";
    passwords["superuser"] = wrong.into();
    passwords["monitor"] = wrong.into();
    fs::write(&file, passwords.to_string()).unwrap();
    for arguments in
        [&["verify"][..], &["switchover", "pg2"], &["rejoin", "pg2"], &["add-replica"], &["promote", "pg2"]]
    {
        let refused = complaint(&place.run(arguments));
        assert!(refused.contains("password authentication failed for user"), "{arguments:?}: {refused}");
        assert!(!refused.contains(wrong), "{arguments:?}: {refused}");
    }
    let status = place.run(&["status"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("password authentication failed") && !status.contains(wrong), "{status}");
    // Nobody was stopped or promoted on the way.
    let status = LocalCluster::open(&place.dir()).await.unwrap();
    for node in status.nodes() {
        assert_eq!(node.starts_as_standby(), node.name == "pg2");
    }
}

#[tokio::test]
async fn a_damaged_data_directory_is_quoted_and_left_alone() {
    let place = Place::new();
    let cluster = place.up(1).await;
    cluster.stop("pg1").await.unwrap();
    let control = cluster.node("pg1").unwrap().data_dir.join("global/pg_control");
    let sound = fs::read(&control).unwrap();
    let mut damaged = sound.clone();
    damaged[..64].fill(0);
    fs::write(&control, &damaged).unwrap();
    for arguments in [&["start", "pg1"][..], &["up"]] {
        let refused = complaint(&place.run(arguments));
        assert!(
            refused.contains("pg1 did not start") && refused.contains("database files are incompatible"),
            "{refused}"
        );
    }
    assert_eq!(fs::read(&control).unwrap(), damaged);
    fs::write(&control, &sound).unwrap();
    cluster.start("pg1").await.unwrap();

    cluster.stop("pg2").await.unwrap();
    let version = cluster.node("pg2").unwrap().data_dir.join("PG_VERSION");
    fs::remove_file(&version).unwrap();
    let refused = complaint(&place.run(&["start", "pg2"]));
    assert!(
        refused.contains("pg2 did not start") && refused.contains("is not a database cluster directory"),
        "{refused}"
    );
    // The remedy for a replica's data is to copy it anew.
    cluster.rejoin("pg2", true, &SilentProgress).await.unwrap();
}

#[tokio::test]
async fn missing_programs_are_named_before_anything_is_touched() {
    let place = Place::new();
    let cluster = place.up(0).await;
    let empty = place.temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let run = |arguments: &[&str]| place.command(arguments).env("PG_BIN_DIR", &empty).output().unwrap();
    for arguments in [&["up"][..], &["stop", "pg1"], &["add-replica"], &["verify"]] {
        let refused = complaint(&run(arguments));
        assert!(
            refused.contains("PG_BIN_DIR is") && refused.contains("no program postgres"),
            "{arguments:?}: {refused}"
        );
    }
    assert_eq!(cluster.primary().await.unwrap().name, "pg1");
}

#[tokio::test]
async fn a_kill_while_a_replica_is_removed_or_commits_are_made_to_wait_is_ended_by_the_next_call() {
    let place = Place::new();
    place.up(2).await;
    for milliseconds in [2, 10, 20, 40, 80, 160] {
        place.kill_after(&["up", "--sync", "quorum"], milliseconds).await;
        let cluster = LocalCluster::open(&place.dir()).await.unwrap();
        cluster.set_sync(SyncMode::Quorum, &SilentProgress).await.unwrap();
        cluster.set_sync(SyncMode::Off, &SilentProgress).await.unwrap();

        place.kill_after(&["verify"], milliseconds).await;
        assert_eq!(cluster.verify(&SilentProgress).await.unwrap().differences, []);

        place.kill_after(&["remove-replica", "pg3", "--purge"], milliseconds).await;
        let mut cluster = LocalCluster::open(&place.dir()).await.unwrap();
        if cluster.node("pg3").is_ok() {
            cluster.remove_replica("pg3", true, &SilentProgress).await.unwrap();
        }
        assert!(!place.dir().join("pg3").exists(), "after {milliseconds} ms");
        let status = cluster.status().await;
        let slots: Vec<_> = status.nodes.iter().flat_map(|node| &node.slots).map(|slot| &slot.name).collect();
        assert_eq!(slots, ["pg2"], "after {milliseconds} ms");
        assert!(status.remedies.is_empty(), "after {milliseconds} ms: {:?}", status.remedies);
        cluster.add_replica(Some("pg3"), None, &SilentProgress).await.unwrap();
    }
    let status = LocalCluster::open(&place.dir()).await.unwrap().status().await;
    let replicas = status.nodes.iter().filter(|node| node.role == Some(NodeRole::Replica));
    assert_eq!(replicas.count(), 2);
}
