//! `join` and `promote --data-dir` against real servers: what they refuse and why, what they leave behind, what they prove.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    collections::BTreeMap,
    env, fs,
    hash::{BuildHasher as _, RandomState},
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use routing_cluster::{
    ClusterOptions, LocalCluster, Login, SilentProgress,
    host::{self, JoinError, JoinOptions, JoinedBy, PrimaryUrl, PromoteError},
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

/// Ten times what anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A primary in a cluster of its own, and a directory beside it for the standbys of this host.
struct Host {
    temp: TempDir,
    cluster: LocalCluster,
}

impl Host {
    async fn new(options: ClusterOptions) -> Host {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        // The servers' user must be able to enter it.
        let open = fs::Permissions::from_mode(0o755);
        let temp = tempfile::Builder::new().permissions(open).tempdir_in(root).unwrap();
        let dir = temp.path().join("cluster");
        let options = ClusterOptions { dir: dir.clone(), replicas: 0, port: 0, durable: false, ..options };
        match LocalCluster::up(options, &SilentProgress).await {
            Ok(cluster) => Host { temp, cluster },
            Err(error) => panic!("the primary does not come up: {error}"),
        }
    }

    async fn plain() -> Host {
        let program = env::current_exe().unwrap();
        let template = Some(program.parent().unwrap().join("cluster-templates"));
        Host::new(ClusterOptions { template, ..ClusterOptions::default() }).await
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn port(&self) -> u16 {
        self.cluster.nodes()[0].port
    }

    fn url(&self) -> String {
        format!("postgres://replicator@localhost:{}/", self.port())
    }

    fn passfile(&self) -> PathBuf {
        self.cluster.dir().join("replication.pass")
    }

    fn password(&self) -> String {
        fs::read_to_string(self.passfile()).unwrap().trim().rsplit_once(':').unwrap().1.to_owned()
    }

    /// The command, with nothing of this test's own environment that would speak of PostgreSQL.
    fn tool(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_routing-cluster"));
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PG") && name != "PG_BIN_DIR" || name == "PRIMARY_URL" {
                command.env_remove(&*name);
            }
        }
        command.env("HOME", self.temp.path());
        command
    }

    /// Joins by the name that is also the slot's and the directory's.
    fn joining(&self, name: &str, port: u16) -> Command {
        self.joining_at(&self.url(), name, port)
    }

    fn joining_at(&self, url: &str, name: &str, port: u16) -> Command {
        let mut command = self.tool();
        command.env("PGPASSFILE", self.passfile());
        command.args(["join", "--primary", url, "--slot", name, "--port", &port.to_string(), "--data-dir"]);
        command.arg(self.dir(name));
        command
    }

    fn promoting(&self, name: &str, more: &[&str]) -> Output {
        self.tool().args(["promote", "--data-dir"]).arg(self.dir(name)).args(more).output().unwrap()
    }

    async fn administer(&self, port: u16, statements: &[&str]) {
        let client = self.connect(port, Login::Superuser).await;
        for statement in statements {
            client.batch_execute(statement).await.unwrap();
        }
    }

    /// Connects, and waits for a server that is just starting.
    async fn connect(&self, port: u16, login: Login) -> Client {
        let it = self.cluster.credentials(login);
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user(&it.user).password(&it.password).dbname(&it.database);
        let begun = Instant::now();
        loop {
            match timeout(PATIENCE, config.connect(NoTls)).await.unwrap() {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(error) => assert!(begun.elapsed() < PATIENCE, "port {port}: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// One text from a server.
    async fn value(&self, port: u16, query: &str) -> String {
        let client = self.connect(port, Login::Superuser).await;
        let row = client.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// The server's slots as `name:active:reserved`.
    async fn slots(&self, port: u16) -> String {
        let slots =
            "SELECT coalesce(string_agg(slot_name || ':' || active || ':' || (restart_lsn IS NOT NULL), ' '
                     ORDER BY slot_name), '') FROM pg_replication_slots";
        self.value(port, slots).await
    }

    /// Waits until what is written on one server is read on the other.
    async fn replicates(&self, from: u16, to: u16) {
        let mark = format!("mark{}", random() % 1_000_000);
        self.administer(from, &[&format!("CREATE TABLE {mark} ()")]).await;
        let begun = Instant::now();
        while self.value(to, &format!("to_regclass('{mark}')")).await.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "nothing of port {from} arrives on port {to}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.temp.path()).unwrap().flatten() {
            end_server(&entry.path(), "-QUIT");
        }
        LocalCluster::kill_all_in(self.cluster.dir());
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// A free port below those of outgoing connections.
fn free_port() -> u16 {
    loop {
        let port = 10_000 + u16::try_from(random() % 22_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Signals the server of a data directory, if there is one, and waits for its end.
fn end_server(data_dir: &Path, signal: &str) {
    let Ok(lock) = fs::read_to_string(data_dir.join("postmaster.pid")) else { return };
    let pid = lock.lines().next().unwrap().to_owned();
    let serves = || {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(data_dir.to_str().unwrap())
    };
    let begun = std::time::SystemTime::now();
    while serves() && begun.elapsed().unwrap_or_default() < PATIENCE {
        let _ = Command::new("kill").args([signal, &pid]).status();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a command that must succeed has said.
fn report(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// What a command that must succeed has answered.
fn answer(output: &Output) -> String {
    report(output);
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn sorted(words: &str) -> Vec<&str> {
    let mut words: Vec<&str> = words.split_whitespace().collect();
    words.sort_unstable();
    words
}

/// What a command that must fail has said.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!output.status.success(), "{text}");
    text
}

/// Every file below a directory with its mode and content.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                open.push(entry.path());
            }
            let bytes = if metadata.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            found.insert(entry.path(), (metadata.mode(), bytes));
        }
    }
    found
}

/// The living processes whose arguments hold the text, with all of their arguments.
fn processes(text: &str) -> Vec<(String, String)> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let lines = pids.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).map(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&words).replace('\0', " "))
    });
    lines.filter(|(_, line)| line.contains(text)).collect()
}

/// Waits until the copy into the directory is under way.
async fn copying(child: &mut Child, data_dir: &Path) {
    let begun = Instant::now();
    let target = data_dir.join(".routing-cluster-join");
    while processes(target.to_str().unwrap()).is_empty() || !target.join("backup_label").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        assert!(begun.elapsed() < PATIENCE, "no copy begins");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_host_gets_a_standby_and_joining_again_changes_nothing() {
    let host = Host::plain().await;
    let (port, dir) = (free_port(), host.dir("s1"));
    host.administer(host.port(), &["CREATE TABLE notes AS SELECT 1 AS id"]).await;

    let text = report(&host.joining("s1", port).output().unwrap());
    let system = host.value(host.port(), "SELECT system_identifier FROM pg_control_system()").await;
    for expected in [
        "is a copy of",
        "through the slot s1",
        &system,
        "timeline 1",
        "DATABASE_REPLICA_1_URL",
        &port.to_string(),
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    host.replicates(host.port(), port).await;
    assert_eq!(host.slots(host.port()).await, "s1:true:true");
    let known = "SELECT string_agg(application_name || ' ' || state, ',') FROM pg_stat_replication";
    assert_eq!(host.value(host.port(), known).await, "s1 streaming");
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&dir).unwrap().uid(), fs::metadata(host.passfile()).unwrap().uid());
    let remains = contents(host.temp.path()).into_keys().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.contains("routing-cluster-join") || name.contains("pgpass") || name.contains(".join")
    });
    assert_eq!(remains.count(), 0);

    // The server has all of its user's groups: one of them may be the only one that reads its key.
    let lock = fs::read_to_string(dir.join("postmaster.pid")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", lock.lines().next().unwrap())).unwrap();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap().to_owned();
    let owner = fs::metadata(&dir).unwrap().uid().to_string();
    let user = Command::new("id").args(["--groups", "--", &owner]).output().unwrap();
    assert_eq!(sorted(&groups), sorted(&answer(&user)));

    let settings = fs::read(dir.join("postgresql.auto.conf")).unwrap();
    let running = fs::read(dir.join("postmaster.pid")).unwrap();
    let text = report(&host.joining("s1", port).output().unwrap());
    assert!(text.contains("streams already") && !text.contains("next:"), "{text}");
    assert_eq!(fs::read(dir.join("postgresql.auto.conf")).unwrap(), settings);
    assert_eq!(fs::read(dir.join("postmaster.pid")).unwrap(), running);

    // A stopped one is told where its primary is now, under another slot, and started.
    end_server(&dir, "-INT");
    let mut again = host.joining("s1", port);
    again.args(["--slot", "s9"]);
    assert!(again.output().unwrap().status.code() == Some(2), "one slot at a time");
    let url = PrimaryUrl::from_argument(&host.url().replace("localhost", "127.0.0.1")).unwrap();
    let options = JoinOptions {
        primary: url,
        data_dir: dir.clone(),
        slot: "s9".to_owned(),
        port: None,
        max_rate: None,
    };
    // Its password file is for `localhost`: the role's password is not known under this name.
    let refused = host::join(&options, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, JoinError::Upstream(_)), "{refused}");
    let secret = format!("postgres://replicator:{}@127.0.0.1:{}/", host.password(), host.port());
    let options = JoinOptions { primary: PrimaryUrl::from_secret(&secret).unwrap(), ..options };
    let joined = host::join(&options, &SilentProgress).await.unwrap();
    assert_eq!((joined.by, joined.port), (JoinedBy::Starting, Some(port)));
    assert!(joined.notes.iter().any(|note| note.contains("the slot s1")), "{:?}", joined.notes);
    assert_eq!(host.slots(host.port()).await, "s1:false:true s9:true:true");
    host.replicates(host.port(), port).await;
}

#[tokio::test]
async fn the_password_is_nowhere_but_in_its_file() {
    let host = Host::plain().await;
    let (port, dir, password) = (free_port(), host.dir("s1"), host.password());
    let mut joining = host.joining("s1", port);
    joining.env_remove("PGPASSFILE").env("PGPASSWORD", &password).args(["--max-rate", "8M"]);
    let mut child = joining.stderr(Stdio::piped()).spawn().unwrap();
    let mut seen_copying = false;
    while child.try_wait().unwrap().is_none() {
        assert_eq!(processes(&password), []);
        for (pid, _) in processes(".routing-cluster-join") {
            seen_copying = true;
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&environment).contains(&password), "the copy's environment");
        }
        sleep(Duration::from_millis(3)).await;
    }
    let text = report(&child.wait_with_output().unwrap());
    assert!(seen_copying && !text.contains(&password), "{text}");

    let file = host.dir("s1.pgpass");
    let holding = contents(host.temp.path()).into_iter().filter(|(path, (_, bytes))| {
        !path.starts_with(host.cluster.dir()) && String::from_utf8_lossy(bytes).contains(&password)
    });
    let holding: Vec<(PathBuf, u32)> = holding.map(|(path, (mode, _))| (path, mode & 0o777)).collect();
    assert_eq!(holding, [(file.clone(), 0o600)]);
    assert_eq!(fs::metadata(&file).unwrap().uid(), fs::metadata(&dir).unwrap().uid());

    // The standby finds its primary again by itself.
    host.cluster.stop("pg1").await.unwrap();
    host.cluster.start("pg1").await.unwrap();
    host.replicates(host.port(), port).await;

    let mut joining = host.tool();
    joining.env("PRIMARY_URL", format!("postgres://replicator:{password}@localhost:{}/", host.port()));
    joining.args(["join", "--slot", "s1", "--data-dir"]).arg(&dir);
    assert!(report(&joining.output().unwrap()).contains("streams already"));
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_touched() {
    let host = Host::plain().await;
    host.administer(
        host.port(),
        &["CREATE ROLE outsider LOGIN REPLICATION PASSWORD 'x'", "CREATE ROLE reader LOGIN PASSWORD 'x'"],
    )
    .await;
    let rules = host.cluster.nodes()[0].data_dir.join("pg_hba.conf");
    let text = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("{text}host replication reader 127.0.0.1/32 scram-sha-256\n")).unwrap();
    host.administer(host.port(), &["SELECT pg_reload_conf()"]).await;
    // The system takes its connections, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let port = host.port();
    let before: Vec<PathBuf> = contents(host.temp.path()).into_keys().collect();

    for (url, password, expected) in [
        (host.url(), "wrong", "did not accept the role or its password"),
        (host.url(), "", "did not accept the role or its password"),
        (
            "postgres://replicator@nowhere.invalid/".to_owned(),
            "x",
            "the name of nowhere.invalid, port 5432 leads nowhere",
        ),
        (format!("postgres://replicator@localhost:{}/", free_port()), "x", "nothing listens on localhost"),
        (format!("postgres://replicator@localhost:{silent_port}/"), "x", "no answer from localhost"),
        (format!("{}?sslmode=require", host.url()), "x", "no encrypted connection to localhost"),
        (format!("postgres://outsider@localhost:{port}/"), "x", "let no replication connection in"),
        (format!("postgres://reader@localhost:{port}/"), "x", "the role may not replicate"),
        (
            format!("postgres://replicator:{}@localhost:{port}/", host.password()),
            "",
            "can read it in the list of processes",
        ),
        (format!("postgres://localhost:{port}/"), "x", "names no role"),
        (format!("{}?nonsense=1", host.url()), "x", "nonsense"),
    ] {
        let mut joining = host.joining_at(&url, "s1", free_port());
        joining.env_remove("PGPASSFILE");
        if !password.is_empty() {
            joining.env("PGPASSWORD", password);
        }
        let said = complaint(&joining.output().unwrap());
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains(&host.password()), "{said}");
    }

    let missing = host.joining("s1", port).env("PGPASSFILE", "/nowhere").output().unwrap();
    assert!(complaint(&missing).contains("the password file /nowhere cannot be read"), "{missing:?}");
    for (argument, value, expected) in [
        ("Slot-1", "s1", "cannot name a slot"),
        ("s1", "no/parent", "does not exist"),
        ("s1", "cluster/cluster.json", "is not a directory"),
        ("s1", "cluster/pg1/data", "is a primary"),
        ("s1", "cluster", "is not empty and no data directory"),
    ] {
        let mut joining = host.tool();
        joining.env("PGPASSFILE", host.passfile()).args([
            "join",
            "--primary",
            &host.url(),
            "--slot",
            argument,
        ]);
        let said = complaint(&joining.arg("--data-dir").arg(host.dir(value)).output().unwrap());
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let mut joining = host.joining("s1", free_port());
    joining.env("PG_BIN_DIR", host.temp.path());
    assert!(complaint(&joining.output().unwrap()).contains("PG_BIN_DIR is"));
    assert_eq!(host.slots(port).await, "");
    let after: Vec<PathBuf> = contents(host.temp.path()).into_keys().collect();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_foreign_directory_stays_as_it_is() {
    let host = Host::plain().await;
    let (thesis, marked) = (host.dir("thesis"), host.dir("marked"));
    for dir in [&thesis, &marked] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("chapter.txt"), "the only copy").unwrap();
    }
    // Beside a marker that a killed call could have left before somebody put files there.
    let marker = r#"{"format":1,"slot":"marked","slot_before":"missing","system_identifier":"1","before":"absent","complete":false}"#;
    fs::write(marked.join(".routing-cluster-join.json"), marker).unwrap();
    for name in ["thesis", "marked"] {
        let before = contents(&host.dir(name));
        let said = complaint(&host.joining(name, free_port()).output().unwrap());
        assert!(said.contains("not empty") && said.contains("chapter.txt"), "{said}");
        assert_eq!(contents(&host.dir(name)), before);
    }
    assert_eq!(host.slots(host.port()).await, "");
}

#[tokio::test]
async fn another_system_and_a_taken_slot_are_refused() {
    let (host, other) = (Host::plain().await, Host::new(ClusterOptions::default()).await);
    report(&host.joining("s1", free_port()).output().unwrap());

    // The same slot from another directory, as by a copied set-up script.
    let mut joining = host.tool();
    joining.env("PGPASSFILE", host.passfile()).args(["join", "--primary", &host.url(), "--slot", "s1"]);
    let said = complaint(&joining.arg("--data-dir").arg(host.dir("s2")).output().unwrap());
    assert!(said.contains("the slot s1") && said.contains("in use by another standby"), "{said}");
    assert!(!host.dir("s2").exists());

    end_server(&host.dir("s1"), "-INT");
    let before = contents(&host.dir("s1"));
    let mut joining = host.joining_at(&other.url(), "s1", free_port());
    joining.env("PGPASSFILE", other.passfile());
    let said = complaint(&joining.output().unwrap());
    for server in [&host, &other] {
        let system = server.value(server.port(), "SELECT system_identifier FROM pg_control_system()").await;
        assert!(said.contains(&system), "{system}: {said}");
    }
    assert_eq!(contents(&host.dir("s1")), before);
    assert_eq!(other.slots(other.port()).await, "");
}

#[tokio::test]
async fn a_primary_without_room_is_named_as_such_and_nothing_is_left() {
    let host = Host::plain().await;
    host.administer(
        host.port(),
        &[
            "ALTER SYSTEM SET max_replication_slots = 1",
            "ALTER SYSTEM SET max_wal_senders = 1",
            "SELECT pg_create_physical_replication_slot('of_others')",
        ],
    )
    .await;
    host.cluster.stop("pg1").await.unwrap();
    host.cluster.start("pg1").await.unwrap();
    let said = complaint(&host.joining("s1", free_port()).output().unwrap());
    assert!(said.contains("no room for the two connections") && said.contains("max_wal_senders"), "{said}");

    host.administer(host.port(), &["ALTER SYSTEM SET max_wal_senders = 5"]).await;
    host.cluster.stop("pg1").await.unwrap();
    host.cluster.start("pg1").await.unwrap();
    let said = complaint(&host.joining("s1", free_port()).output().unwrap());
    assert!(said.contains("no room for another slot"), "{said}");
    assert!(!host.dir("s1").exists());
    assert_eq!(host.slots(host.port()).await, "of_others:false:false");
}

#[tokio::test]
async fn a_failed_copy_leaves_the_directory_and_the_slot_as_they_were() {
    let host = Host::plain().await;
    host.administer(
        host.port(),
        &[
            "SELECT pg_create_physical_replication_slot('hollow')",
            "SELECT pg_create_physical_replication_slot('kept', true)",
        ],
    )
    .await;
    let empty = host.dir("kept");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o750)).unwrap();
    let owner = fs::metadata(&empty).unwrap().uid();
    for name in ["made", "hollow", "kept"] {
        let joining = host.joining(name, free_port());
        // No file may become as large as a segment of WAL.
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", "ulimit -f 1000; exec \"$@\"", "sh"]).arg(joining.get_program());
        limited.args(joining.get_args()).env("PGPASSWORD", host.password()).env("HOME", host.temp.path());
        let said = complaint(&limited.output().unwrap());
        assert!(said.contains("the primary was not copied"), "{said}");
        assert!(!host.dir(&format!("{name}.pgpass")).exists());
    }
    assert!(!host.dir("made").exists() && !host.dir("hollow").exists());
    assert_eq!(contents(&empty), BTreeMap::new());
    let now = fs::metadata(&empty).unwrap();
    assert_eq!((now.mode() & 0o777, now.uid()), (0o750, owner));
    assert_eq!(host.slots(host.port()).await, "hollow:false:false kept:false:true");
    assert_eq!(
        processes(host.temp.path().to_str().unwrap()).iter().filter(|it| it.1.contains("backup")).count(),
        0
    );
    for name in ["hollow", "kept"] {
        report(&host.joining(name, free_port()).output().unwrap());
    }
    assert_eq!(host.slots(host.port()).await, "hollow:true:true kept:true:true");
}

#[tokio::test]
async fn a_slot_that_has_lost_its_wal_is_made_anew_and_a_quiet_process_list_is_no_hindrance() {
    let host = Host::plain().await;
    host.administer(
        host.port(),
        &[
            "SELECT pg_create_physical_replication_slot('s1', true)",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '2MB'",
            "ALTER SYSTEM SET wal_keep_size = 0",
            "ALTER SYSTEM SET min_wal_size = '2MB'",
            "ALTER SYSTEM SET update_process_title = off",
            "SELECT pg_reload_conf()",
        ],
    )
    .await;
    let fill = "SELECT pg_logical_emit_message(false, 'x', repeat('x', 900000))";
    let begun = Instant::now();
    while host.value(host.port(), "SELECT wal_status FROM pg_replication_slots").await != "lost" {
        assert!(begun.elapsed() < PATIENCE, "the slot loses nothing");
        host.administer(host.port(), &[fill, "SELECT pg_switch_wal()", "CHECKPOINT"]).await;
    }
    let port = free_port();
    report(&host.joining("s1", port).output().unwrap());
    assert_eq!(host.slots(host.port()).await, "s1:true:true");
    assert_ne!(host.value(host.port(), "SELECT wal_status FROM pg_replication_slots").await, "lost");
    assert!(report(&host.joining("s1", port).output().unwrap()).contains("streams already"));
    host.replicates(host.port(), port).await;
}

#[tokio::test]
async fn a_standby_that_cannot_stream_is_said_to_and_left_as_it_was() {
    let host = Host::plain().await;
    let (port, dir) = (free_port(), host.dir("s1"));
    report(&host.joining("s1", port).output().unwrap());
    end_server(&dir, "-INT");
    let begun = Instant::now();
    while host.slots(host.port()).await != "s1:false:true" {
        assert!(begun.elapsed() < PATIENCE, "the slot stays in use");
        sleep(Duration::from_millis(20)).await;
    }
    host.administer(
        host.port(),
        &[
            "SELECT pg_drop_replication_slot('s1')",
            "ALTER SYSTEM SET wal_keep_size = 0",
            "ALTER SYSTEM SET min_wal_size = '2MB'",
            "ALTER SYSTEM SET max_wal_size = '2MB'",
            "SELECT pg_reload_conf()",
        ],
    )
    .await;
    let needed =
        host.value(host.port(), "SELECT min(name) FROM pg_ls_waldir() WHERE length(name) = 24").await;
    let fill = "SELECT pg_logical_emit_message(false, 'x', repeat('x', 900000))";
    while host.value(host.port(), "SELECT min(name) FROM pg_ls_waldir() WHERE length(name) = 24").await
        == needed
        || host.value(host.port(), "SELECT pg_current_wal_lsn() < '0/2000000'").await == "true"
    {
        assert!(begun.elapsed() < PATIENCE, "no WAL goes");
        host.administer(host.port(), &[fill, "SELECT pg_switch_wal()", "CHECKPOINT"]).await;
    }
    let before = fs::read(dir.join("postgresql.auto.conf")).unwrap();
    let mut joining = host.joining("s1", port);
    joining.env_remove("PGPASSFILE").env("PGPASSWORD", host.password());
    let said = complaint(&joining.output().unwrap());
    assert!(said.contains("does not stream from") && said.contains("has already been removed"), "{said}");
    assert_eq!(processes(dir.to_str().unwrap()), []);
    assert_eq!(fs::read(dir.join("postgresql.auto.conf")).unwrap(), before);
    assert_eq!(host.slots(host.port()).await, "");
    assert!(!host.dir("s1.pgpass").exists());
}

#[tokio::test]
async fn a_mount_point_is_filled_and_a_full_one_is_left_empty() {
    let host = Host::plain().await;
    let (dir, port) = (host.dir("s1"), free_port());
    fs::create_dir(&dir).unwrap();
    let joining = host.joining("s1", port);
    // A mount that only this script sees, and that ends with it.
    let script = r#"set -u; dir=$1; shift
mount -t tmpfs -o mode=0755,size=8m none "$dir" && "$@" --max-rate 2M; echo "small: $? $(ls -A "$dir" | wc -l) $(stat -c '%a %u' "$dir")"
umount "$dir" && mount -t tmpfs -o mode=0755,nr_inodes=200 none "$dir" && "$@"; echo "crowded: $? $(ls -A "$dir" | wc -l) $(stat -c '%a %u' "$dir")"
umount "$dir" && mount -t tmpfs -o mode=0755 none "$dir" && "$@"; echo "large: $?"
read -r pid < "$dir/postmaster.pid" && kill -QUIT "$pid" && while [ -e "/proc/$pid/cwd" ]; do sleep 0.05; done"#;
    let own = nix_uid();
    let namespace: &[&str] =
        if own == 0 { &["--mount"] } else { &["--user", "--map-current-user", "--keep-caps", "--mount"] };
    let mut mounting = Command::new("unshare");
    mounting.args(namespace).args(["/bin/sh", "-c", script, "sh"]).arg(&dir).arg(joining.get_program());
    mounting.args(joining.get_args()).env("PGPASSFILE", host.passfile()).env("HOME", host.temp.path());
    let output = mounting.output().expect("unshare is missing: install util-linux");
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("small: 1 0 755 {own}")), "{said}{complained}");
    assert!(complained.contains("kB free"), "{complained}");
    assert!(said.contains(&format!("crowded: 1 0 755 {own}")), "{said}{complained}");
    assert!(complained.contains("No space left on device"), "{complained}");
    assert!(said.contains("large: 0"), "{said}{complained}");
    assert!(complained.contains("is a copy of"), "{complained}");
}

/// The user of this process.
fn nix_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

#[tokio::test]
async fn a_call_that_was_killed_while_copying_is_ended_by_the_next_one() {
    let host = Host::plain().await;
    let (port, dir) = (free_port(), host.dir("s1"));
    let slowly = || {
        let mut joining = host.joining("s1", port);
        joining.args(["--max-rate", "64k"]).stdout(Stdio::null()).stderr(Stdio::null());
        joining.spawn().unwrap()
    };
    let mut child = slowly();
    copying(&mut child, &dir).await;
    let said = complaint(&host.joining("s1", port).output().unwrap());
    assert!(said.contains("another command is working on"), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(dir.join(".routing-cluster-join.json").exists());
    // What it has started dies with it.
    let begun = Instant::now();
    while !processes(dir.to_str().unwrap()).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", processes(dir.to_str().unwrap()));
        sleep(Duration::from_millis(20)).await;
    }

    // Interrupted, the next call takes all of it back, also the slot that the first one has made.
    let mut child = slowly();
    copying(&mut child, &dir).await;
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert!(!dir.exists());
    assert_eq!(processes(dir.to_str().unwrap()), []);
    assert_eq!(host.slots(host.port()).await, "");

    let mut child = slowly();
    copying(&mut child, &dir).await;
    child.kill().unwrap();
    child.wait().unwrap();
    // Another slot this time: nobody would ever drop the first one.
    let mut joining = host.tool();
    joining.env("PGPASSFILE", host.passfile()).args(["join", "--primary", &host.url(), "--slot", "s2"]);
    joining.args(["--port", &port.to_string(), "--data-dir"]).arg(&dir);
    report(&joining.output().unwrap());
    assert_eq!(host.slots(host.port()).await, "s2:true:true");
    assert!(!dir.join(".routing-cluster-join.json").exists() && !dir.join(".routing-cluster-join").exists());
    host.replicates(host.port(), port).await;
}

#[tokio::test]
async fn a_call_that_was_killed_anywhere_is_ended_by_the_next_one() {
    let host = Host::plain().await;
    let port = free_port();
    // Each kill falls into another step; the last ones come after the end.
    for milliseconds in [100, 250, 400, 550, 700, 850, 1000, 1200] {
        let mut child = host.joining("s1", port).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(milliseconds)).await;
        let _ = child.kill();
        child.wait().unwrap();
        report(&host.joining("s1", port).output().unwrap());
        assert_eq!(host.slots(host.port()).await, "s1:true:true", "after {milliseconds} ms");
        host.replicates(host.port(), port).await;
        end_server(&host.dir("s1"), "-INT");
        fs::remove_dir_all(host.dir("s1")).unwrap();
        let begun = Instant::now();
        while host.slots(host.port()).await != "s1:false:true" {
            assert!(begun.elapsed() < PATIENCE, "the slot stays in use");
            sleep(Duration::from_millis(20)).await;
        }
        host.administer(host.port(), &["SELECT pg_drop_replication_slot('s1')"]).await;
    }
}

#[tokio::test]
async fn a_standby_of_an_encrypted_primary_joins_as_its_url_asks() {
    let host = Host::new(ClusterOptions { tls: true, ..ClusterOptions::default() }).await;
    let port = free_port();
    let ca = host.cluster.root_certificate().unwrap();
    let wrong = host.cluster.dir().join("pg1/server.crt");
    for (query, expected) in [
        ("sslmode=disable".to_owned(), "let no replication connection in"),
        (format!("sslmode=verify-full&sslrootcert={}", wrong.display()), "certificate verify failed"),
        ("sslmode=verify-full&sslrootcert=/nowhere.crt".to_owned(), "no encrypted connection"),
    ] {
        let said =
            complaint(&host.joining_at(&format!("{}?{query}", host.url()), "s1", port).output().unwrap());
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!host.dir("s1").exists());

    // The copied configuration names a certificate beside the data directory, which this host does not have yet.
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", host.url(), ca.display());
    let said = complaint(&host.joining_at(&url, "s1", port).output().unwrap());
    assert!(said.contains("is complete and stays") && said.contains("server.crt"), "{said}");
    assert_eq!(processes(host.dir("s1").to_str().unwrap()), []);
    let owner = fs::metadata(host.dir("s1")).unwrap();
    for file in ["server.crt", "server.key"] {
        fs::copy(host.cluster.dir().join("pg1").join(file), host.dir(file)).unwrap();
        chown(host.dir(file), Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let mut joining = host.joining_at(&host.url(), "s1", port);
    joining.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &ca);
    assert!(report(&joining.output().unwrap()).contains("was started and streams"));
    let settings = fs::read_to_string(host.dir("s1").join("postgresql.auto.conf")).unwrap();
    assert!(settings.contains("sslmode=verify-full sslrootcert="), "{settings}");
}

#[tokio::test]
async fn a_primary_with_its_configuration_elsewhere_gets_a_standby_all_the_same() {
    let host = Host::plain().await;
    let data_dir = host.cluster.nodes()[0].data_dir.clone();
    host.administer(host.port(), &["ALTER SYSTEM SET max_connections = 120"]).await;
    host.cluster.stop("pg1").await.unwrap();
    // As the packages of Debian have it.
    let etc = host.dir("etc");
    fs::create_dir(&etc).unwrap();
    for file in ["postgresql.conf", "cluster.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(data_dir.join(file), etc.join(file)).unwrap();
    }
    let line = |name: &str, file: &Path| format!("{name} = '{}'\n", file.display());
    let text = fs::read_to_string(etc.join("postgresql.conf")).unwrap()
        + &line("hba_file", &etc.join("pg_hba.conf"))
        + &line("ident_file", &etc.join("pg_ident.conf"))
        + &line("data_directory", &data_dir);
    fs::write(etc.join("postgresql.conf"), text).unwrap();
    let primary = Stray::start(&data_dir, &["-c", &format!("config_file={}/postgresql.conf", etc.display())]);
    host.administer(host.port(), &["CREATE TABLE notes ()"]).await;

    let port = free_port();
    let text = report(&host.joining("s1", port).output().unwrap());
    assert!(text.contains("a minimal one"), "{text}");
    let written = fs::read_to_string(host.dir("s1").join("postgresql.conf")).unwrap();
    assert!(written.contains("max_connections = '120'"), "{written}");
    assert!(report(&host.joining("s1", port).output().unwrap()).contains("streams already"));

    // The standby's own configuration moves out, too; how it was started says where to.
    end_server(&host.dir("s1"), "-INT");
    let outside = etc.join("standby.conf");
    fs::rename(host.dir("s1").join("postgresql.conf"), &outside).unwrap();
    let rules = line("hba_file", &etc.join("pg_hba.conf")) + &line("ident_file", &etc.join("pg_ident.conf"));
    let text = fs::read_to_string(&outside).unwrap() + &rules + &line("data_directory", &host.dir("s1"));
    fs::write(&outside, text).unwrap();
    let standby = Stray::start(&host.dir("s1"), &["-c", &format!("config_file={}", outside.display())]);
    host.connect(port, Login::Superuser).await;
    assert!(report(&host.joining("s1", port).output().unwrap()).contains("streams already"));
    drop(standby);
    assert!(report(&host.joining("s1", port).output().unwrap()).contains("was started"));
    assert!(!host.dir("s1").join("postgresql.conf").exists());

    // The old primary, seen from the standby, runs with a configuration of its own.
    let said = complaint(&host.promoting("s1", &[]));
    assert!(said.contains("runs and is a primary"), "{said}");
    drop(primary);
    assert!(report(&host.promoting("s1", &[])).contains("timeline 2"));
}

/// A server that the cluster does not know of.
struct Stray(Child);

impl Stray {
    fn start(data_dir: &Path, options: &[&str]) -> Stray {
        use std::os::unix::process::CommandExt as _;
        let owner = fs::metadata(data_dir).unwrap();
        let program = env::var_os("PG_BIN_DIR").map(|dir| Path::new(&dir).join("postgres"));
        let mut command = Command::new(program.unwrap_or_else(packaged_postgres));
        command.arg("-D").arg(data_dir).args(options).current_dir("/").stderr(Stdio::null());
        command.gid(owner.gid()).uid(owner.uid());
        Stray(command.spawn().unwrap())
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-QUIT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// The server program that the clusters here run.
fn packaged_postgres() -> PathBuf {
    let releases = fs::read_dir("/usr/lib/postgresql").unwrap().flatten();
    let programs = releases.map(|release| release.path().join("bin/postgres"));
    programs
        .filter(|program| program.exists())
        .max()
        .expect("no server: install postgresql, or set PG_BIN_DIR")
}

#[tokio::test]
async fn a_standby_takes_over_when_its_primary_is_seen_to_be_dead() {
    let host = Host::plain().await;
    let (first, second) = (free_port(), free_port());
    report(&host.joining("s1", first).output().unwrap());
    report(&host.joining("s2", second).output().unwrap());

    let said = complaint(&host.promoting("s1", &[]));
    assert!(said.contains(&host.port().to_string()) && said.contains("pg_ctl stop"), "{said}");
    // Not even by force: this would be the split brain that it is there to prevent.
    complaint(&host.promoting("s1", &["--force"]));
    assert_eq!(host.value(first, "SELECT pg_is_in_recovery()").await, "true");

    host.cluster.kill("pg1").await.unwrap();
    let said = report(&host.promoting("s1", &[]));
    assert!(said.contains("is the primary now, on timeline 2") && said.contains("join"), "{said}");
    assert!(!said.contains("DANGER"), "{said}");
    host.administer(first, &["CREATE TABLE after_promotion ()"]).await;
    let said = report(&host.promoting("s1", &[]));
    assert!(said.contains("is a primary already, on timeline 2"), "{said}");
    let promoted = host::promote(&host.dir("s1"), false, &SilentProgress).await.unwrap();
    assert!(promoted.already && promoted.timeline == 2, "{promoted:?}");

    // The other standby follows the new primary without a restart; the old primary does not come back as it is.
    let url = format!("postgres://replicator@localhost:{first}/");
    let running = fs::read(host.dir("s2").join("postmaster.pid")).unwrap();
    let said = report(&host.joining_at(&url, "s2", second).output().unwrap());
    assert!(said.contains("now streams from") && said.contains("timeline 2"), "{said}");
    assert_eq!(fs::read(host.dir("s2").join("postmaster.pid")).unwrap(), running);
    host.replicates(first, second).await;
    assert_eq!(host.slots(first).await, "s2:true:true");
    let mut joining = host.tool();
    joining.env("PGPASSFILE", host.passfile()).args([
        "join",
        "--primary",
        &url,
        "--slot",
        "s3",
        "--data-dir",
    ]);
    let old = host.cluster.nodes()[0].data_dir.clone();
    let before = contents(&old);
    let said = complaint(&joining.arg(&old).output().unwrap());
    assert!(said.contains("was a primary of the same system") && said.contains("pg_rewind"), "{said}");
    assert_eq!(contents(&old), before);
}

#[tokio::test]
async fn a_standby_does_not_take_over_while_its_primary_may_run() {
    let host = Host::plain().await;
    let (first, second) = (free_port(), free_port());
    report(&host.joining("s1", first).output().unwrap());
    let url = format!("postgres://replicator@localhost:{first}/");
    let said = report(&host.joining_at(&url, "s2", second).output().unwrap());
    assert!(said.contains("is a standby itself"), "{said}");
    host.replicates(host.port(), second).await;

    let refused = host::promote(&host.dir("s2"), false, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, PromoteError::Cascade { .. }), "{refused}");
    let refused = host::promote(&host.dir("none"), false, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, PromoteError::NotADataDirectory { .. }), "{refused}");
    let refused = host::promote(host.temp.path(), false, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, PromoteError::NotADataDirectory { .. }), "{refused}");
    end_server(&host.dir("s2"), "-INT");
    let refused = host::promote(&host.dir("s2"), false, &SilentProgress).await.unwrap_err();
    assert!(matches!(refused, PromoteError::NotRunning { standby: true, .. }), "{refused}");

    // Let in over the socket, the command says what is not replayed yet.
    let rules = host.dir("s1").join("pg_hba.conf");
    let text = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("local all all trust\n{text}")).unwrap();
    host.administer(first, &["SELECT pg_reload_conf()", "SELECT pg_wal_replay_pause()"]).await;
    host.administer(host.port(), &["CREATE TABLE not_replayed ()"]).await;

    host.cluster.pause("pg1").await.unwrap();
    let said = complaint(&host.promoting("s1", &[]));
    assert!(
        said.contains("not certain") && said.contains("no answer from") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(host.value(first, "SELECT pg_is_in_recovery()").await, "true");
    let said = report(&host.promoting("s1", &["--force"]));
    assert!(said.contains("DANGER: it is not certain") && said.contains("timeline 2"), "{said}");
    assert!(said.contains("WARNING: replay is paused"), "{said}");
    host.administer(first, &["INSERT INTO not_replayed DEFAULT VALUES"]).await;
    host.cluster.kill("pg1").await.unwrap();
}

#[tokio::test]
async fn the_two_forms_of_promote_exclude_each_other() {
    let host = Host::plain().await;
    let both = host.tool().args(["promote", "pg1", "--data-dir", "/x"]).output().unwrap();
    assert!(complaint(&both).contains("cannot be used with"), "{both:?}");
    let neither = host.tool().arg("promote").output().unwrap();
    assert!(complaint(&neither).contains("--data-dir"), "{neither:?}");
}
