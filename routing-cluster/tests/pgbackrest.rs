//! The files of `ops/pgbackrest` on real servers: archive, back up, destroy, restore; with a local repository, and with one
//! in S3.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use routing_cluster::{ClusterOptions, LocalCluster, Login, SilentProgress};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

/// Ten times what anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The files that are shipped.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/pgbackrest");

/// A program that a script installs.
fn program(variable: &str, default: &str, script: &str) -> PathBuf {
    let named = std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
    let found = Command::new(&named).arg("--help").output();
    assert!(found.is_ok(), "{} does not run: scripts/{script} installs it", named.display());
    named
}

/// A shipped file with other values for some options; each must be there, so that what runs is what is shipped.
fn rendered(file: &str, options: &[(&str, String)]) -> String {
    let mut text = fs::read_to_string(Path::new(SHIPPED).join(file)).unwrap();
    for (option, value) in options {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{option}=")));
        let line = lines.map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(line.len(), 1, "{option} stands {} times in {file}", line.len());
        text = text.replace(&line[0], &format!("{option}={value}"));
    }
    text
}

/// A cluster of one node that archives with pgBackRest.
struct Place {
    temp: TempDir,
    cluster: LocalCluster,
    program: PathBuf,
    owner: (u32, u32),
}

impl Place {
    async fn new() -> Place {
        let program = program("PGBACKREST", "pgbackrest", "ensure-pgbackrest");
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        // The servers' user must be able to enter it.
        let open = fs::Permissions::from_mode(0o755);
        let temp = tempfile::Builder::new().permissions(open).tempdir_in(root).unwrap();
        let options = ClusterOptions { replicas: 0, port: 0, durable: false, ..ClusterOptions::default() };
        let options = ClusterOptions { dir: temp.path().join("cluster"), ..options };
        let cluster = LocalCluster::up(options, &SilentProgress).await.unwrap();
        let owner = fs::metadata(&cluster.nodes()[0].data_dir).unwrap();
        let place = Place { temp, cluster, program, owner: (owner.uid(), owner.gid()) };
        let node = place.cluster.nodes()[0].clone();
        for dir in ["repository", "spool", "log", "lock"] {
            place.own_dir(dir);
        }
        place.own_dir("conf.d");
        let path = |name: &str| place.path(name).display().to_string();
        let options = [
            ("repo1-path", path("repository")),
            ("spool-path", path("spool")),
            ("log-path", path("log")),
            ("lock-path", path("lock")),
            ("pg1-path", node.data_dir.display().to_string()),
            ("pg1-port", node.port.to_string()),
            ("pg1-socket-path", node.socket_dir.unwrap().display().to_string()),
        ];
        place.own_file("pgbackrest.conf", &rendered("pgbackrest.conf", &options));
        let password = place.cluster.credentials(Login::Superuser).password;
        place.own_file(".pgpass", &format!("*:*:*:postgres:{password}\n"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn own_dir(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        chown(self.path(name), Some(self.owner.0), Some(self.owner.1)).unwrap();
    }

    /// Writes a file of the servers' user that nobody else can read.
    fn own_file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }

    /// Lets the server archive; the command is the one of the guide.
    async fn archive(&self) {
        let guide = fs::read_to_string(Path::new(SHIPPED).join("README.md")).unwrap();
        let command = "pgbackrest --stanza=main archive-push %p";
        assert!(guide.contains(&format!("archive_command = '{command}'")), "the guide has another command");
        let files = format!(
            "{} --config={} --config-include-path={}",
            self.program.display(),
            self.path("pgbackrest.conf").display(),
            self.path("conf.d").display()
        );
        let command = command.replace("pgbackrest", &files);
        let client = self.connect(Login::Superuser).await;
        client.batch_execute("ALTER SYSTEM SET archive_mode = on").await.unwrap();
        let set = format!("ALTER SYSTEM SET archive_command = '{command}'");
        client.batch_execute(&set).await.unwrap();
        self.cluster.stop("pg1").await.unwrap();
        self.cluster.start("pg1").await.unwrap();
    }

    /// Runs pgBackRest as the servers' user; returns what it wrote.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.arg("--stanza=main").arg("--config").arg(self.path("pgbackrest.conf"));
        command.arg("--config-include-path").arg(self.path("conf.d")).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.temp.path()).current_dir(self.temp.path());
        command.env("PGPASSFILE", self.path(".pgpass"));
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.gid(self.owner.1).uid(self.owner.0);
        }
        let begun = Instant::now();
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        eprintln!("pgbackrest {arguments:?}: {} ms", begun.elapsed().as_millis());
        let shown = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "pgbackrest {arguments:?}:\n{shown}");
        text
    }

    /// The kinds of backups that a repository has.
    fn backups(&self, repository: u32) -> Vec<String> {
        let info = self.run(&["info", "--output=json", &format!("--repo={repository}")]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let backups = info[0]["backup"].as_array().unwrap();
        backups.iter().map(|backup| backup["type"].as_str().unwrap().to_owned()).collect()
    }

    async fn connect(&self, login: Login) -> Client {
        let it = self.cluster.credentials(login);
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.cluster.nodes()[0].port);
        config.user(&it.user).password(&it.password).dbname(&it.database);
        let (client, connection) = timeout(PATIENCE, config.connect(NoTls)).await.unwrap().unwrap();
        tokio::spawn(connection);
        client
    }

    async fn sql(&self, statements: &str) {
        self.connect(Login::Application).await.batch_execute(statements).await.unwrap();
    }

    async fn notes(&self) -> Vec<i32> {
        let client = self.connect(Login::Application).await;
        let rows = client.query("SELECT id FROM notes ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The server dies and its data with it.
    async fn destroy(&self) {
        self.cluster.kill("pg1").await.unwrap();
        let data = &self.cluster.nodes()[0].data_dir;
        fs::remove_dir_all(data).unwrap();
        fs::create_dir(data).unwrap();
        fs::set_permissions(data, fs::Permissions::from_mode(0o700)).unwrap();
        chown(data, Some(self.owner.0), Some(self.owner.1)).unwrap();
    }

    /// Starts the restored server and waits until it takes writes.
    async fn recovers(&self) {
        self.cluster.start("pg1").await.unwrap();
        let begun = Instant::now();
        loop {
            let client = self.connect(Login::Superuser).await;
            let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap();
            if !row.get::<_, bool>(0) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it stays in recovery");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cluster.kill_all_blocking();
        // The processes that push and fetch WAL outlive their server, and would make their directories again.
        while let Some(process) = process_of(self.temp.path()) {
            let _ = Command::new("kill").args(["-KILL", &process]).status();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The id of a process of pgBackRest that works for this test.
fn process_of(dir: &Path) -> Option<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let of_dir = |process: &fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("pgbackrest") && line.contains(dir.to_str().unwrap())
    };
    let mut found = processes.filter(of_dir).filter_map(|process| process.file_name().into_string().ok());
    found.find(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

#[tokio::test]
async fn the_shipped_configuration_restores_a_destroyed_server_to_a_moment() {
    let place = Place::new().await;
    place.run(&["stanza-create"]);
    place.archive().await;
    place.run(&["check"]);
    place.sql("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)").await;
    place.run(&["--type=full", "backup"]);
    place.sql("INSERT INTO notes VALUES (2)").await;
    place.run(&["--type=diff", "backup"]);
    place.sql("INSERT INTO notes VALUES (3)").await;
    place.run(&["--type=incr", "backup"]);
    assert_eq!(place.backups(1), ["full", "diff", "incr"]);
    place.sql("INSERT INTO notes VALUES (4)").await;
    let client = place.connect(Login::Superuser).await;
    let moment: String = client.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap().get(0);
    place.sql("INSERT INTO notes VALUES (5)").await;
    place.run(&["check"]);

    place.destroy().await;
    place.run(&["--type=time", &format!("--target={moment}"), "--target-action=promote", "restore"]);
    place.recovers().await;
    assert_eq!(place.notes().await, [1, 2, 3, 4]);
    // It goes on in the same stanza, on its new timeline, and what the retention no longer covers goes.
    place.sql("INSERT INTO notes VALUES (6)").await;
    place.run(&["check"]);
    place.run(&["--type=full", "--repo1-retention-full=1", "backup"]);
    assert_eq!(place.backups(1), ["full"]);
    place.run(&["verify"]);
    place.destroy().await;
    place.run(&["restore"]);
    place.recovers().await;
    assert_eq!(place.notes().await, [1, 2, 3, 4, 6]);
}

/// An S3 server with TLS, which ends with the test.
struct Store {
    server: Child,
    port: u16,
}

impl Store {
    /// Starts it with a certificate of an authority of its own, whose certificate is left in `ca.crt`, and makes a bucket.
    fn start(place: &Place, bucket: &str) -> Store {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../.moto/bin/python");
        let python = program("MOTO_PYTHON", default, "ensure-moto");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let root = place.path("ca.crt");
        fs::write(&root, authority.pem()).unwrap();
        fs::write(place.path("s3.crt"), certificate.pem()).unwrap();
        fs::write(place.path("s3.key"), key.serialize_pem()).unwrap();
        let mut command = Command::new(&python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3_server.py"));
        command.arg(place.path("s3.crt")).arg(place.path("s3.key")).arg(bucket);
        command.stdout(Stdio::piped()).stderr(fs::File::create(place.path("s3.log")).unwrap());
        let mut server = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let port = said.trim().parse();
        let log = || fs::read_to_string(place.path("s3.log")).unwrap();
        Store { server, port: port.unwrap_or_else(|_| panic!("the S3 server did not start: {}", log())) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test]
async fn the_shipped_second_repository_restores_when_the_first_is_lost_too() {
    let place = Place::new().await;
    let store = Store::start(&place, "backups");
    let options = [
        ("repo2-s3-bucket", "backups".to_owned()),
        ("repo2-s3-region", "us-east-1".to_owned()),
        ("repo2-s3-endpoint", "localhost".to_owned()),
        ("repo2-storage-port", store.port.to_string()),
        ("#repo2-storage-ca-file", place.path("ca.crt").display().to_string()),
    ];
    let second =
        rendered("conf.d/repo2-s3.conf", &options).replace("#repo2-storage-ca-file", "repo2-storage-ca-file");
    place.own_file("conf.d/repo2-s3.conf", &second);
    let secrets = rendered(
        "conf.d/secrets.conf.example",
        &[
            ("repo2-cipher-pass", "a passphrase of the test".to_owned()),
            ("repo2-s3-key", "k".to_owned()),
            ("repo2-s3-key-secret", "s".to_owned()),
        ],
    );
    place.own_file("conf.d/secrets.conf", &secrets);
    place.run(&["stanza-create"]);
    place.archive().await;
    place.run(&["check"]);
    place.sql("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)").await;
    place.run(&["--repo=2", "--type=full", "backup"]);
    place.sql("INSERT INTO notes VALUES (2)").await;
    place.run(&["--repo=2", "--type=incr", "backup"]);
    assert_eq!(place.backups(2), ["full", "incr"]);
    place.sql("INSERT INTO notes VALUES (3)").await;
    place.run(&["check"]);

    place.destroy().await;
    fs::remove_dir_all(place.path("repository")).unwrap();
    place.run(&["--repo=2", "restore"]);
    place.recovers().await;
    assert_eq!(place.notes().await, [1, 2, 3]);
    // What lies in the store is encrypted: no file there begins as a file of PostgreSQL or of pgBackRest does.
    let listed = place.run(&["--repo=2", "--recurse", "repo-ls", "backup/main"]);
    assert!(listed.contains("backup.manifest"), "{listed}");
    let raw = place.run(&["--repo=2", "--raw", "repo-get", "backup/main/backup.info"]);
    assert!(raw.starts_with("Salted__"), "{raw}");
}
