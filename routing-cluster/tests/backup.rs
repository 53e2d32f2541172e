//! Archive, backup and restore on real servers: what comes back after a cluster was destroyed.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use routing_cluster::{
    ArchiveError, Backup, BackupError, BackupOptions, ClusterOptions, LocalCluster, Login, Lsn, Moment,
    NodeRole, RejoinError, Rejoined, RestoreError, RestoreOptions, RestoreTarget, Restored, SilentProgress,
    SourceError, UpError,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

/// Ten times what anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory for one cluster, what it archives, and what is restored from it; all servers end with it.
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

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn options(&self, name: &str, replicas: u32, archive: bool) -> ClusterOptions {
        let dir = self.path(name);
        ClusterOptions { dir, replicas, port: 0, durable: false, archive, ..ClusterOptions::default() }
    }

    async fn up(&self, replicas: u32) -> LocalCluster {
        LocalCluster::up(self.options("cluster", replicas, true), &SilentProgress).await.unwrap()
    }

    /// Restores the cluster's newest fitting backup into a new directory.
    async fn restore(&self, target: RestoreTarget) -> Result<(LocalCluster, Restored), RestoreError> {
        let mut options = RestoreOptions::new(self.path("cluster-archive"));
        (options.dir, options.port, options.target) = (self.path("restored"), 0, target);
        LocalCluster::restore(&options, &SilentProgress).await
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routing-cluster"));
        command.arg("--dir").arg(self.path(name)).args(arguments);
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name, arguments).output().unwrap()
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Child {
        self.command(name, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn archived(&self) -> Vec<String> {
        names(&self.path("cluster-archive/wal"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.temp.path()).unwrap().flatten() {
            LocalCluster::kill_all_in(&entry.path());
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A small disk, mounted until it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, megabytes: u32) -> Disk {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m,mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        let mounted = mounted.unwrap();
        assert!(mounted.status.success(), "a small disk is mounted, which needs root: {mounted:?}");
        Disk(at.to_owned())
    }

    fn fill(&self) {
        let ballast = Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(self.ballast()).output();
        assert!(String::from_utf8_lossy(&ballast.unwrap().stderr).contains("No space left"));
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }

    fn ballast(&self) -> String {
        format!("of={}", self.0.join("ballast").display())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
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

async fn ask(cluster: &LocalCluster, node: &str, question: &str) -> String {
    let client = connect(cluster, node, Login::Superuser).await;
    let row = client.query_one(&format!("SELECT ({question})::text"), &[]).await.unwrap();
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// The moment and the position after everything that was written up to now.
async fn now(cluster: &LocalCluster, node: &str) -> (Moment, Lsn) {
    let moment = ask(cluster, node, "clock_timestamp()").await.parse().unwrap();
    (moment, ask(cluster, node, "pg_current_wal_lsn()").await.parse().unwrap())
}

async fn create(cluster: &LocalCluster) {
    sql(cluster, "pg1", "CREATE TABLE notes (id int PRIMARY KEY)").await;
}

async fn insert(cluster: &LocalCluster, node: &str, id: i32) {
    sql(cluster, node, &format!("INSERT INTO notes VALUES ({id})")).await;
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

/// Ends the current WAL file and waits until the archive has everything.
async fn archive_all(cluster: &LocalCluster, node: &str) {
    ask(cluster, node, "pg_switch_wal()").await;
    let begun = Instant::now();
    loop {
        let status = cluster.status().await;
        let archiver = status.nodes.iter().find(|it| it.name == node).unwrap().archiver.clone().unwrap();
        if archiver.waiting == 0 && !archiver.failing {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{archiver:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn backup(cluster: &LocalCluster) -> Backup {
    cluster.backup(&BackupOptions::default(), &SilentProgress).await.unwrap()
}

/// PostgreSQL's programs, of which the one that verifies backups ends at once.
fn broken_verifier(place: &Place) -> PathBuf {
    // A server of this place: others on the machine may be of another release.
    let pids = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
    let ours = |process: &PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(place.path("").to_str().unwrap())
    };
    let mut programs = pids.filter(ours).filter_map(|process| fs::read_link(process.join("exe")).ok());
    let server = programs.find(|program| program.ends_with("bin/postgres")).unwrap();
    let dir = place.path("bin");
    fs::create_dir(&dir).unwrap();
    for entry in fs::read_dir(server.parent().unwrap()).unwrap().flatten() {
        std::os::unix::fs::symlink(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    // Siblings are looked for where this one really is.
    fs::remove_file(dir.join("postgres")).unwrap();
    fs::copy(&server, dir.join("postgres")).unwrap();
    fs::remove_file(dir.join("pg_verifybackup")).unwrap();
    fs::write(dir.join("pg_verifybackup"), "#!/bin/sh\nkill -SEGV $$\n").unwrap();
    fs::set_permissions(dir.join("pg_verifybackup"), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// How many processes mention the directory in their arguments.
fn processes_in(dir: &Path) -> usize {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let lines = pids.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(dir.to_str().unwrap())).count()
}

/// Takes a backup while the archiver stands still until the backup has its name; returns what was archived in the end.
async fn backup_with_a_slow_archiver(place: &Place, cluster: &LocalCluster) -> (Backup, Vec<String>) {
    let archiver = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'";
    let archiver = ask(cluster, "pg1", archiver).await;
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, archiver.as_str()]).status().unwrap().success());
    };
    signal("-STOP");
    let folder = place.path("cluster-archive/backups");
    let go_on = async {
        let begun = Instant::now();
        while !folder.exists() || names(&folder).iter().all(|name| name.starts_with('.')) {
            assert!(begun.elapsed() < PATIENCE, "no backup");
            sleep(Duration::from_millis(5)).await;
        }
        signal("-CONT");
    };
    let copied = async {
        let copied = backup(cluster).await;
        (copied, place.archived())
    };
    tokio::join!(copied, go_on).0
}

#[tokio::test]
async fn a_destroyed_cluster_comes_back_at_a_moment_a_position_or_the_end() {
    let place = Place::new();
    let cluster = place.up(1).await;
    let before = now(&cluster, "pg1").await.0;
    create(&cluster).await;
    insert(&cluster, "pg1", 1).await;
    let (copied, archived) = backup_with_a_slow_archiver(&place, &cluster).await;
    assert!(before < copied.started && copied.started < copied.stopped);
    let last = ask(&cluster, "pg1", &format!("pg_walfile_name('{}')", copied.stop_lsn)).await;
    assert!(archived.contains(&last), "{last}: {archived:?}");
    insert(&cluster, "pg1", 2).await;
    let (moment, position) = now(&cluster, "pg1").await;
    insert(&cluster, "pg1", 3).await;
    archive_all(&cluster, "pg1").await;
    // Acknowledged, and never archived: that is what a lost disk takes.
    insert(&cluster, "pg1", 4).await;
    let secret = cluster.credentials(Login::Application).password;
    cluster.down(true).await.unwrap();
    assert!(!place.path("cluster").exists());

    for (target, expected) in [
        (RestoreTarget::Time(moment), &[1, 2][..]),
        (RestoreTarget::Lsn(position), &[1, 2]),
        (RestoreTarget::BackupEnd, &[1]),
        (RestoreTarget::End, &[1, 2, 3]),
    ] {
        let (restored, reached) = place.restore(target).await.unwrap();
        assert_eq!(notes(&restored, "pg1").await, expected, "{target}");
        assert_eq!((reached.timeline, reached.backup.label == copied.label), (2, true), "{target}");
        match target {
            RestoreTarget::Time(_) => assert!(reached.time.unwrap() <= moment, "{reached:?}"),
            RestoreTarget::Lsn(_) => assert_eq!(reached.lsn, position),
            RestoreTarget::BackupEnd => assert_eq!((reached.time, reached.lsn), (None, copied.stop_lsn)),
            _ => assert!(reached.time.unwrap() > moment && reached.lsn > position, "{reached:?}"),
        }
        // An ordinary cluster without a trace of its recovery, and without a way to the old archive.
        let left = "SELECT count(*) FROM pg_settings WHERE (name LIKE 'recovery_target%' AND source = 'configuration file')
            OR (name IN ('restore_command', 'archive_command') AND setting NOT IN ('', '(disabled)')) OR pending_restart";
        assert_eq!(ask(&restored, "pg1", left).await, "0", "{target}");
        assert!(!place.path("restored/pg1/data/recovery.signal").exists());
        assert_eq!(restored.credentials(Login::Application).password, secret);
        insert(&restored, "pg1", 100).await;
        if target == RestoreTarget::End {
            let mut restored = restored;
            restored.add_replica(None, None, &SilentProgress).await.unwrap();
            has_notes(&restored, "pg2", &[1, 2, 3, 100]).await;
            restored.promote("pg2", false, &SilentProgress).await.unwrap();
            restored.rejoin("pg1", false, &SilentProgress).await.unwrap();
            assert_eq!(restored.status().await.remedies, [""; 0]);
            restored.down(true).await.unwrap();
        } else {
            restored.down(true).await.unwrap();
        }
    }

    // What does not lead anywhere is refused with what does, and leaves nothing behind.
    let early = place.restore(RestoreTarget::Time(before)).await.unwrap_err();
    assert!(matches!(early, RestoreError::Source(SourceError::TooEarly { .. })), "{early}");
    assert!(early.to_string().contains(&copied.stopped.to_string()), "{early}");
    let early = place.restore(RestoreTarget::Lsn("0/1".parse().unwrap())).await.unwrap_err();
    assert!(early.to_string().contains(&copied.stop_lsn.to_string()), "{early}");
    let late = place.restore(RestoreTarget::Time("2999-01-01T00:00:00Z".parse().unwrap())).await.unwrap_err();
    assert!(matches!(late, RestoreError::NotReached { last: Some(_), .. }), "{late}");
    assert!(late.to_string().contains("recovery ended before configured recovery target"), "{late}");
    let late = place.restore(RestoreTarget::Lsn("F/0".parse().unwrap())).await.unwrap_err();
    assert!(matches!(late, RestoreError::NotReached { .. }), "{late}");
    assert!(!place.path("restored").exists());
    fs::create_dir(place.path("restored")).unwrap();
    fs::write(place.path("restored/thesis.txt"), "").unwrap();
    let full = place.restore(RestoreTarget::End).await.unwrap_err();
    assert!(full.to_string().contains("not empty"), "{full}");
    assert_eq!(names(&place.path("restored")), ["thesis.txt"]);
}

#[tokio::test]
async fn a_restore_passes_through_the_changes_of_the_primary() {
    let place = Place::new();
    let cluster = place.up(1).await;
    create(&cluster).await;
    backup(&cluster).await;
    insert(&cluster, "pg1", 1).await;
    archive_all(&cluster, "pg1").await;
    // The archive is away while the primary writes on, and the primary dies before it is back.
    let (marker, away) = (place.path("cluster-archive/archive.json"), place.path("away"));
    fs::rename(&marker, &away).unwrap();
    for id in 2..6 {
        insert(&cluster, "pg1", id).await;
        ask(&cluster, "pg1", "pg_switch_wal()").await;
    }
    has_notes(&cluster, "pg2", &[1, 2, 3, 4, 5]).await;
    cluster.kill("pg1").await.unwrap();
    fs::rename(&away, &marker).unwrap();
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    let (moment, _) = now(&cluster, "pg2").await;
    insert(&cluster, "pg2", 6).await;
    archive_all(&cluster, "pg2").await;
    let status = cluster.status().await;
    assert_eq!((status.nodes[0].archiver.is_none(), status.nodes[1].role), (true, Some(NodeRole::Primary)));
    assert!(place.archived().contains(&"00000002.history".to_owned()), "{:?}", place.archived());

    // The old primary returns and takes over again: the archive goes on with it.
    cluster.rejoin("pg1", false, &SilentProgress).await.unwrap();
    cluster.switchover("pg1", &SilentProgress).await.unwrap();
    insert(&cluster, "pg1", 7).await;
    archive_all(&cluster, "pg1").await;
    assert!(place.archived().contains(&"00000003.history".to_owned()), "{:?}", place.archived());
    let late = backup(&cluster).await;
    insert(&cluster, "pg1", 8).await;
    // A clean stop archives what is left.
    cluster.down(false).await.unwrap();
    LocalCluster::open(&place.path("cluster")).await.unwrap().down(true).await.unwrap();

    // From the backup on the first timeline, across both changes.
    fs::rename(&late.dir, place.path("late")).unwrap();
    for (target, expected) in
        [(RestoreTarget::Time(moment), &[1, 2, 3, 4, 5][..]), (RestoreTarget::End, &[1, 2, 3, 4, 5, 6, 7, 8])]
    {
        let (restored, reached) = place.restore(target).await.unwrap();
        assert_eq!((notes(&restored, "pg1").await, reached.timeline), (expected.to_vec(), 4), "{target}");
        restored.down(true).await.unwrap();
    }
    // From the newest, which needs no more than what came after it; a backup may be moved.
    let mut options = RestoreOptions::new(place.path("late"));
    (options.dir, options.port, options.archive) = (place.path("restored"), 0, true);
    let (restored, _) = LocalCluster::restore(&options, &SilentProgress).await.unwrap();
    assert_eq!(notes(&restored, "pg1").await, [1, 2, 3, 4, 5, 6, 7, 8]);

    // It archives, too, elsewhere; and a restored cluster can be restored.
    let own = place.path("restored-archive");
    assert_eq!(restored.status().await.archive, Some(own.clone()));
    backup(&restored).await;
    insert(&restored, "pg1", 9).await;
    archive_all(&restored, "pg1").await;
    let held = place.archived();
    restored.down(true).await.unwrap();
    options.from = own;
    let (again, reached) = LocalCluster::restore(&options, &SilentProgress).await.unwrap();
    assert_eq!((notes(&again, "pg1").await.len(), reached.timeline), (9, 5));
    assert_eq!(again.status().await.archive, Some(place.path("restored-archive-2")));
    assert_eq!(place.archived(), held);
}

#[tokio::test]
async fn an_archive_that_is_full_loses_nothing_and_goes_on_when_there_is_room() {
    let place = Place::new();
    let disk = Disk::mount(&place.path("cluster-archive"), 24);
    let cluster = place.up(0).await;
    let to = place.path("backups");
    let options = BackupOptions { to: Some(to.clone()), keep: None };
    cluster.backup(&options, &SilentProgress).await.unwrap();
    create(&cluster).await;
    archive_all(&cluster, "pg1").await;

    disk.fill();
    let held = place.archived();
    let begun = Instant::now();
    let mut id = 0;
    let failing = loop {
        id += 1;
        insert(&cluster, "pg1", id).await;
        ask(&cluster, "pg1", "pg_switch_wal()").await;
        let status = cluster.status().await;
        if status.nodes[0].archiver.as_ref().is_some_and(|it| it.failing && it.waiting >= 5) {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
        sleep(Duration::from_millis(100)).await;
    };
    let archiver = failing.nodes[0].archiver.clone().unwrap();
    let file = archiver.last_failed.unwrap();
    assert_eq!(failing.remedies.len(), 1, "{failing:?}");
    assert!(failing.remedies[0].contains(&format!("pg1 cannot archive {file}")), "{failing:?}");
    let text = answer(&place.run("cluster", &["status"]));
    assert!(text.contains("failures, the last with ") && text.contains("! pg1 cannot archive"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&answer(&place.run("cluster", &["status", "--json"]))).unwrap();
    assert_eq!(json["nodes"][0]["archiver"]["failing"], true, "{json}");
    let log = fs::read_to_string(&cluster.nodes()[0].log_file).unwrap();
    assert!(log.contains("No space left on device"), "{log}");
    // Neither a file under its own name nor half of one.
    assert_eq!(place.archived(), held);
    // A backup does not need the archive.
    cluster.backup(&options, &SilentProgress).await.unwrap();

    disk.free();
    archive_all(&cluster, "pg1").await;
    let status = cluster.status().await;
    assert_eq!(status.remedies, [""; 0]);
    assert!(place.archived().contains(&file), "{:?}", place.archived());
    cluster.down(true).await.unwrap();
    let mut options = RestoreOptions::new(to);
    (options.dir, options.port) = (place.path("restored"), 0);
    let (restored, _) = LocalCluster::restore(&options, &SilentProgress).await.unwrap();
    assert_eq!(notes(&restored, "pg1").await, (1..=id).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_archive_takes_a_file_whole_and_once() {
    let place = Place::new();
    let cluster = place.up(0).await;
    let archive = |path: &Path, name: &str| {
        let mut command = Command::new("sh");
        command.arg(place.path("cluster/archive-wal")).arg(path).arg(name);
        command.stderr(Stdio::piped());
        command
    };
    let (source, other) = (place.path("source"), place.path("other"));
    fs::write(&source, "content").unwrap();
    fs::write(&other, "another").unwrap();
    let held = place.path("cluster-archive/wal/0000000900000000000000AA");
    let name = "0000000900000000000000AA";
    for _ in 0..2 {
        assert!(archive(&source, name).status().unwrap().success());
        assert_eq!(fs::read_to_string(&held).unwrap(), "content");
    }
    let refused = archive(&other, name).output().unwrap();
    assert!(complaint(&refused).contains("other content"), "{refused:?}");
    assert_eq!(fs::read_to_string(&held).unwrap(), "content");

    // Killed in the middle: what is read from a pipe comes when the test says.
    let (pipe, name) = (place.path("pipe"), "0000000900000000000000AB");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut killed = archive(&pipe, name).spawn().unwrap();
    let mut writer = fs::File::options().write(true).open(&pipe).unwrap();
    std::io::Write::write_all(&mut writer, b"half").unwrap();
    let begun = Instant::now();
    let halves = || place.archived().into_iter().filter(|it| it.starts_with(".00000009")).collect::<Vec<_>>();
    while halves().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no unfinished file");
        sleep(Duration::from_millis(5)).await;
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    drop(writer);
    assert!(!place.archived().contains(&name.to_owned()));
    assert!(archive(&source, name).status().unwrap().success());
    assert_eq!(halves(), [""; 0]);
    assert_eq!(fs::read_to_string(place.path("cluster-archive/wal").join(name)).unwrap(), "content");

    // An archive that is not there, or another's, takes nothing.
    fs::remove_file(place.path("cluster-archive/archive.json")).unwrap();
    let refused = archive(&source, "0000000900000000000000AC").output().unwrap();
    assert!(complaint(&refused).contains("not this cluster's archive"), "{refused:?}");
    let again = async |cluster: LocalCluster| {
        cluster.down(false).await.unwrap();
        LocalCluster::up(place.options("cluster", 0, false), &SilentProgress).await.unwrap()
    };
    let cluster = again(cluster).await;
    assert!(!place.path("cluster-archive/archive.json").exists());
    // One that was taken away is begun anew.
    fs::rename(place.path("cluster-archive"), place.path("away")).unwrap();
    let cluster = again(cluster).await;
    archive_all(&cluster, "pg1").await;
    assert!(!place.archived().is_empty());
}

#[tokio::test]
async fn an_archive_belongs_to_one_cluster() {
    let place = Place::new();
    // Switched on for a cluster that exists.
    let options = |name, archive| place.options(name, 1, archive);
    let cluster = LocalCluster::up(options("cluster", false), &SilentProgress).await.unwrap();
    create(&cluster).await;
    let running = LocalCluster::up(options("cluster", true), &SilentProgress).await.unwrap_err();
    assert!(matches!(running, UpError::Archive(ArchiveError::Running)), "{running}");
    cluster.down(false).await.unwrap();
    let cluster = LocalCluster::up(options("cluster", true), &SilentProgress).await.unwrap();
    archive_all(&cluster, "pg1").await;
    cluster.promote("pg2", false, &SilentProgress).await.unwrap();
    insert(&cluster, "pg2", 1).await;
    archive_all(&cluster, "pg2").await;
    assert!(place.archived().contains(&"00000002.history".to_owned()));
    cluster.down(true).await.unwrap();

    // The next cluster in the same place does not mix its WAL with that.
    let foreign = LocalCluster::up(options("cluster", true), &SilentProgress).await.unwrap_err();
    assert!(matches!(&foreign, UpError::Archive(ArchiveError::Foreign { .. })), "{foreign}");
    assert!(foreign.to_string().contains("system identifier"), "{foreign}");
    let cluster = LocalCluster::up(options("cluster", false), &SilentProgress).await.unwrap();
    cluster.down(false).await.unwrap();
    let foreign = LocalCluster::up(options("cluster", true), &SilentProgress).await.unwrap_err();
    assert!(matches!(&foreign, UpError::Archive(ArchiveError::Foreign { .. })), "{foreign}");
    fs::rename(place.path("cluster-archive"), place.path("old-archive")).unwrap();
    let cluster = LocalCluster::up(options("cluster", true), &SilentProgress).await.unwrap();
    archive_all(&cluster, "pg1").await;
}

#[tokio::test]
async fn a_standby_whose_slot_was_lost_catches_up_from_the_archive() {
    let place = Place::new();
    let cluster = place.up(1).await;
    create(&cluster).await;
    let primary = connect(&cluster, "pg1", Login::Superuser).await;
    for setting in ["max_slot_wal_keep_size = '2MB'", "wal_keep_size = 0", "min_wal_size = '2MB'"] {
        primary.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    primary.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    cluster.stop("pg2").await.unwrap();
    let begun = Instant::now();
    let mut id = 0;
    while ask(&cluster, "pg1", "SELECT wal_status FROM pg_replication_slots").await != "lost" {
        assert!(begun.elapsed() < PATIENCE, "the slot is not lost");
        id += 1;
        insert(&cluster, "pg1", id).await;
        ask(&cluster, "pg1", "pg_logical_emit_message(false, 'x', repeat('x', 900000))").await;
        ask(&cluster, "pg1", "pg_switch_wal()").await;
        primary.batch_execute("CHECKPOINT").await.unwrap();
    }
    archive_all(&cluster, "pg1").await;
    cluster.start("pg2").await.unwrap();
    has_notes(&cluster, "pg2", &(1..=id).collect::<Vec<_>>()).await;
    // Nothing has to be copied: it streams again, with its old slot or, where a release does not allow that, a new one.
    match cluster.rejoin("pg2", false, &SilentProgress).await {
        Ok(Rejoined::Repointed) | Err(RejoinError::Follows { .. }) => {}
        other => panic!("{other:?}"),
    }
    insert(&cluster, "pg1", 0).await;
    has_notes(&cluster, "pg2", &(0..=id).collect::<Vec<_>>()).await;
    assert_eq!(cluster.status().await.remedies, [""; 0]);
}

/// Kills the command when `there` says that it is in the middle of something.
async fn kill_when(mut child: Child, there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended before");
        assert!(begun.elapsed() < PATIENCE, "it does not come so far");
        sleep(Duration::from_millis(1)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Nothing that works in the directory outlives the command that has started it.
async fn nobody_works_in(dir: &Path) {
    let begun = Instant::now();
    while processes_in(dir) > 0 {
        assert!(begun.elapsed() < PATIENCE, "processes are left");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_interrupted_backup_is_no_backup_and_the_next_one_removes_it() {
    let place = Place::new();
    let cluster = place.up(0).await;
    create(&cluster).await;
    insert(&cluster, "pg1", 1).await;
    let folder = place.path("cluster-archive/backups");
    let in_unfinished = |sign: &'static str| {
        let folder = folder.clone();
        move || {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut unfinished = entries.filter(|it| it.file_name().to_string_lossy().contains("unfinished"));
            unfinished.any(|it| it.path().join(sign).exists())
        }
    };
    // While it is copied, and while it is verified.
    for sign in ["data/PG_VERSION", "data/backup_manifest"] {
        kill_when(place.spawn("cluster", &["backup"]), in_unfinished(sign)).await;
        nobody_works_in(&folder).await;
        assert_eq!(cluster.backups().unwrap(), []);
        let refused = place.restore(RestoreTarget::End).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Source(SourceError::NoBackup { .. })), "{refused}");
    }
    let made = backup(&cluster).await;
    assert_eq!(cluster.backups().unwrap(), std::slice::from_ref(&made));
    assert_eq!(names(&folder), [".lock", made.label.as_str()]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&made.dir), mode(&made.dir.join("credentials.json"))), (0o700, 0o600));
    let listed = answer(&place.run("cluster", &["backup", "--list"]));
    assert!(listed.contains(&made.label) && listed.contains(&made.stopped.to_string()), "{listed}");

    // One at a time in one folder.
    let held = fs::File::open(folder.join(".lock")).unwrap();
    held.lock().unwrap();
    let busy = cluster.backup(&BackupOptions::default(), &SilentProgress).await.unwrap_err();
    assert!(matches!(busy, BackupError::Busy { .. }), "{busy}");
    drop(held);

    // A full disk is one message with the program's own words, and nothing is left on it.
    let disk = Disk::mount(&place.path("small"), 16);
    let small = place.path("small").display().to_string();
    let text = complaint(&place.run("cluster", &["backup", "--to", &small]));
    assert!(text.contains("no backup was made in") && text.contains("No space left on device"), "{text}");
    assert_eq!(text.matches("error: no").count(), 1, "{text}");
    assert_eq!(names(&disk.0), [".lock"]);
    let dir = format!("{small}/restored");
    let from = made.dir.display().to_string();
    let output = place.run("small/restored", &["restore", "--from", &from, "--port", "0"]);
    let text = complaint(&output);
    assert!(text.contains("could not copy the backup") && text.contains("No space left on device"), "{text}");
    assert!(!Path::new(&dir).exists());

    // Nothing that cannot be verified is made, or believed.
    let programs = broken_verifier(&place);
    for arguments in [&["backup"][..], &["restore", "--from", &from]] {
        let name = if arguments[0] == "backup" { "cluster" } else { "restored" };
        let mut command = place.command(name, arguments);
        let text = complaint(&command.env("PG_BIN_DIR", &programs).output().unwrap());
        assert!(text.contains("the program that verifies backups does not run"), "{text}");
    }
    assert_eq!(names(&folder), [".lock", made.label.as_str()]);

    // A byte that has changed is found, and its file is named.
    let data = made.dir.join("data");
    let file = data.join("global/1262");
    let mut bytes = fs::read(&file).unwrap();
    bytes[4000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let damaged = place.run("restored", &["restore", "--from", &from, "--port", "0"]);
    let text = complaint(&damaged);
    assert!(text.contains("is damaged") && text.contains("global/1262"), "{text}");
    fs::write(made.dir.join("backup.json"), "{").unwrap();
    let text = complaint(&place.run("restored", &["restore", "--from", &from]));
    assert!(text.contains(&from), "{text}");
    assert!(!place.path("restored").exists());
}

#[tokio::test]
async fn an_interrupted_restore_is_repeated_and_nothing_takes_its_place() {
    let place = Place::new();
    let cluster = place.up(0).await;
    create(&cluster).await;
    insert(&cluster, "pg1", 1).await;
    backup(&cluster).await;
    for id in 2..40 {
        insert(&cluster, "pg1", id).await;
        ask(&cluster, "pg1", "pg_switch_wal()").await;
    }
    archive_all(&cluster, "pg1").await;
    let from = place.path("cluster-archive").display().to_string();
    let arguments = ["restore", "--from", &from, "--port", "0"];
    let dir = place.path("restored");
    // While it is copied, while it recovers, and when it has left its recovery.
    for sign in ["pg1/data/base", "pg1/data/postmaster.pid", "pg1/data/pg_wal/00000002.history"] {
        kill_when(place.spawn("restored", &arguments), || dir.join(sign).exists()).await;
        nobody_works_in(&dir).await;
        let refused = LocalCluster::up(place.options("restored", 0, false), &SilentProgress).await;
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, UpError::Restoring { .. }), "{sign}: {refused}");
        let status = answer(&place.run("restored", &["status"]));
        assert!(status.contains("! the restore from") && status.contains("was interrupted"), "{status}");
    }
    answer(&place.run("restored", &["down", "--purge"]));
    assert!(!dir.exists());
    kill_when(place.spawn("restored", &arguments), || dir.join("pg1/data/postmaster.pid").exists()).await;
    let (restored, _) = place.restore(RestoreTarget::End).await.unwrap();
    assert_eq!(notes(&restored, "pg1").await, (1..40).collect::<Vec<_>>());
    assert_eq!(restored.status().await.remedies, [""; 0]);
    let exists = place.restore(RestoreTarget::End).await.unwrap_err();
    assert!(matches!(exists, RestoreError::Exists { .. }), "{exists}");
    assert_eq!(notes(&restored, "pg1").await.len(), 39);
}

#[tokio::test]
async fn expiry_leaves_what_the_kept_backups_need_and_a_hole_is_named() {
    let place = Place::new();
    let cluster = place.up(0).await;
    create(&cluster).await;
    let mut made = Vec::new();
    for id in 1..4 {
        made.push(backup(&cluster).await);
        insert(&cluster, "pg1", id).await;
        archive_all(&cluster, "pg1").await;
    }
    let needed = made[1].first_wal.clone();
    assert!(place.archived().contains(&made[0].first_wal));
    // Somebody else's backups in the same folder are not this cluster's to remove.
    let foreign = place.path("cluster-archive/backups/foreign");
    fs::create_dir(&foreign).unwrap();
    let description = fs::read_to_string(made[0].dir.join("backup.json")).unwrap();
    fs::write(foreign.join("backup.json"), description.replace(&made[0].system_identifier, "1")).unwrap();
    let options = BackupOptions { to: None, keep: Some(3) };
    cluster.backup(&options, &SilentProgress).await.unwrap();
    let left: Vec<PathBuf> = cluster.backups().unwrap().into_iter().map(|it| it.dir).collect();
    assert_eq!((left.len(), left.contains(&made[0].dir)), (4, false), "{left:?}");
    assert_eq!(place.archived().iter().find(|name| name.len() == 24), Some(&needed));
    let several = place.restore(RestoreTarget::End).await.unwrap_err();
    assert!(matches!(several, RestoreError::Source(SourceError::SeveralClusters { .. })), "{several}");
    fs::remove_dir_all(foreign).unwrap();

    let mut options = RestoreOptions::new(&made[1].dir);
    (options.dir, options.port) = (place.path("restored"), 0);
    let restore = async |options: &RestoreOptions| LocalCluster::restore(options, &SilentProgress).await;
    let (restored, _) = restore(&options).await.unwrap();
    assert_eq!(notes(&restored, "pg1").await, [1, 2, 3]);
    restored.down(true).await.unwrap();

    // A recovery would end at the hole and say nothing.
    let lost = place.path("cluster-archive/wal").join(&made[2].first_wal);
    fs::rename(&lost, place.path("lost")).unwrap();
    let hole = restore(&options).await.unwrap_err();
    let named = matches!(&hole, RestoreError::Source(SourceError::Hole { missing, .. }) if *missing == made[2].first_wal);
    assert!(named, "{hole}");
    fs::rename(place.path("lost"), lost).unwrap();

    // Without its archive a backup leads to its own end, when that is asked for.
    fs::rename(place.path("cluster-archive"), place.path("elsewhere")).unwrap();
    fs::rename(place.path("elsewhere/backups"), place.path("backups")).unwrap();
    options.from = place.path("backups").join(&made[1].label);
    let gone = restore(&options).await.unwrap_err();
    assert!(matches!(gone, RestoreError::Source(SourceError::ArchiveGone { .. })), "{gone}");
    options.target = RestoreTarget::BackupEnd;
    let (restored, _) = restore(&options).await.unwrap();
    assert_eq!(notes(&restored, "pg1").await, [1]);

    // So does one of a cluster that never had any.
    create_and_back_up_without_archive(&place, &mut options).await;
    restored.down(true).await.unwrap();
    let (restored, _) = restore(&options).await.unwrap();
    assert_eq!(notes(&restored, "pg1").await, [1]);
    restored.down(true).await.unwrap();
    options.target = RestoreTarget::Time("2999-01-01T00:00:00Z".parse().unwrap());
    let none = restore(&options).await.unwrap_err();
    assert!(matches!(none, RestoreError::Source(SourceError::NoArchive { .. })), "{none}");
}

async fn create_and_back_up_without_archive(place: &Place, options: &mut RestoreOptions) {
    let plain = LocalCluster::up(place.options("plain", 0, false), &SilentProgress).await.unwrap();
    create(&plain).await;
    insert(&plain, "pg1", 1).await;
    options.from = backup(&plain).await.dir;
    options.target = RestoreTarget::End;
    assert_eq!(options.from.parent().unwrap(), place.path("plain-archive/backups"));
}

#[tokio::test]
async fn an_encrypted_cluster_is_restored_encrypted() {
    let place = Place::new();
    let options = ClusterOptions { tls: true, ..place.options("cluster", 0, true) };
    let cluster = LocalCluster::up(options, &SilentProgress).await.unwrap();
    let old = fs::read_to_string(cluster.root_certificate().unwrap()).unwrap();
    backup(&cluster).await;
    cluster.down(true).await.unwrap();
    let (restored, _) = place.restore(RestoreTarget::End).await.unwrap();
    // Its own authority vouches for it: the old one's key went with the old cluster.
    assert_ne!(fs::read_to_string(restored.root_certificate().unwrap()).unwrap(), old);
    assert_eq!(restored.status().await.nodes[0].role, Some(NodeRole::Primary));
    let it = restored.credentials(Login::Application);
    let mut config = Config::new();
    config.host("127.0.0.1").port(restored.nodes()[0].port);
    config.user(&it.user).password(&it.password).dbname(&it.database);
    let plain = config.connect(NoTls).await.err().unwrap();
    assert_eq!(plain.code().unwrap().code(), "28000", "{plain}");
}
