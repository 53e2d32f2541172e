//! Encrypted connections: that all are, whom they believe, and what is said when one does not come about.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use routing_cluster::Login;
use routing_core::{ConfigError, Consistency, Router, RouterConfig};
use routing_tests::{
    Database, Diesel, Eavesdropper, Handle, NODES, NodeView as _, Orm, PATIENCE, PRIMARY, REPLICAS, Readers,
    SeaOrm, TestCluster, eventually, reader, reader_on, reader_with, refusals, router, served_by, slowly,
    writer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

routing_tests::on_both! {
    every_connection_is_encrypted_to_a_verified_server,
    nothing_is_said_before_it_is_encrypted,
    a_url_without_a_mode_encrypts_where_the_server_offers_it,
    what_does_not_leave_the_machine_is_not_encrypted,
    lost_connections_and_servers_cost_no_read_an_error,
    a_dropped_request_leaves_no_busy_server_process,
    a_server_of_another_authority_is_not_believed_until_its_certificate_is_given,
    a_server_with_a_certificate_that_does_not_hold_is_told_from_one_that_is_down,
    a_server_that_demands_encryption_says_so_to_who_has_none,
    a_server_without_encryption_is_refused_where_it_is_demanded,
    a_certificate_of_our_own_is_shown_where_the_server_wants_one,
    a_server_that_falls_silent_while_encryption_begins_is_waited_for_no_longer_than_any_other,
    a_url_that_cannot_be_used_stops_the_start_and_names_what_is_wrong,
}

const ENCRYPTED: &str = "SELECT ssl::text || ' ' || version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// Fails where it is not encrypted.
const ASSERT_ENCRYPTED: &str =
    "DO $$ BEGIN ASSERT (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), 'plain'; END $$";

/// The plain connections of the application and the monitor to a node, and how many encrypted ones each has.
async fn connections(cluster: &TestCluster, node: &str) -> (String, i64, i64) {
    let sql = "SELECT coalesce(string_agg(usename || ' ' || application_name, ', ') FILTER (WHERE NOT ssl), '') || ';' \
         || count(*) FILTER (WHERE ssl AND usename = 'app') || ';' \
         || count(*) FILTER (WHERE ssl AND usename = 'monitor') \
         FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename IN ('app', 'monitor')";
    let said: String = cluster.value(node, sql).await;
    let parts: Vec<_> = said.split(';').collect();
    (parts[0].to_owned(), parts[1].parse().expect("a count"), parts[2].parse().expect("a count"))
}

/// Ends every session of the application and the monitor, so that new ones must be opened.
const END_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('app', 'monitor')";

/// Reads on every node, writes, a transaction, a stream and a plain connection.
async fn use_everything<O: Orm>(router: &Router<O>) {
    for node in REPLICAS {
        let db = reader_on(router, node).await;
        assert_eq!(db.text(ENCRYPTED).await.expect("a read"), "true TLSv1.3");
    }
    let strong = reader_with(router, Consistency::Strong);
    assert_eq!(strong.text(ENCRYPTED).await.expect("a read on the primary"), "true TLSv1.3");
    let db = writer(router);
    assert_eq!(db.text(ENCRYPTED).await.expect("a statement"), "true TLSv1.3");
    db.insert_note("tls", "kept").await.expect("a write");
    O::nested(&db, "tls").await.expect("nested transactions");
    let texts = db.transaction(&[ENCRYPTED, ENCRYPTED]).await.expect("a transaction");
    assert_eq!(texts, ["true TLSv1.3", "true TLSv1.3"]);
    // More than one record of TLS, and than one buffer of anything.
    let sql = "SELECT number, repeat('x', 1000) AS text FROM generate_series(1, 2000) AS number";
    let mut rows = O::rows(&reader(router), sql).await.expect("rows");
    let mut count = 0;
    while let Some(row) = rows.next().await {
        count += 1;
        assert_eq!(row.expect("a row").1.len(), 1_000);
    }
    assert_eq!(count, 2_000);
    let large = format!("SELECT length('{}')::text", "y".repeat(300_000));
    assert_eq!(reader(router).text(&large).await.expect("a long statement"), "300000");
    let plain = O::on_plain_connection(router, PATIENCE, &[ASSERT_ENCRYPTED]).await;
    assert_eq!(plain.expect("a connection to the primary"), PRIMARY);
}

async fn every_connection_is_encrypted_to_a_verified_server<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let router = cluster.router::<O>().await;
    use_everything(&router).await;
    assert_eq!(cluster.notes_by(PRIMARY, "tls").await, 3);
    for node in NODES {
        let (plain, app, monitor) = connections(&cluster, node).await;
        assert_eq!(plain, "", "{node}");
        assert!(app >= 1 && monitor == 1, "{node}: {app} of the application, {monitor} of the monitor");
    }
    // It would be there had anything asked for the process's own.
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}

/// SSLRequest, then the head of a record of TLS that begins a handshake.
const BEGINNING: [u8; 10] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f, 0x16, 0x03];

async fn nothing_is_said_before_it_is_encrypted<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let mut on_the_way = Vec::new();
    let mut config = cluster.config();
    for node in &mut config.nodes {
        let eavesdropper = Eavesdropper::start(cluster.port(&node.name)).await.expect("a free port");
        node.url = cluster.url(eavesdropper.port(), Login::Application);
        node.probe_url = Some(cluster.url(eavesdropper.port(), Login::Monitor));
        on_the_way.push(eavesdropper);
    }
    let router = router::<O>(config).await;
    use_everything(&router).await;
    let before: usize = on_the_way.iter().map(|one| one.heard().len()).sum();

    // The request to end an abandoned statement has a connection of its own, with a secret on it.
    let db = writer(&router);
    let waiting = tokio::spawn(async move { db.text(&slowly(600.0)).await });
    // Not one of the statements that set the connection up.
    let runs = "wait_event = 'PgSleep'";
    eventually(PATIENCE, "it runs", async || cluster.app_processes(PRIMARY, runs).await == 1).await;
    waiting.abort();
    eventually(PATIENCE, "it is ended", async || {
        cluster.app_processes(PRIMARY, "state = 'active'").await == 0
    })
    .await;
    let heard: Vec<_> = on_the_way.iter().flat_map(Eavesdropper::heard).collect();
    assert!(heard.len() > before, "the end of a statement is asked for on a new connection");
    for begun in heard {
        assert!(begun.starts_with(&BEGINNING), "{begun:02x?}");
    }
}

async fn a_url_without_a_mode_encrypts_where_the_server_offers_it<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    for parameters in ["", "sslmode=prefer", "sslmode=allow", "sslmode=require"] {
        let router = router::<O>(cluster.config_with(parameters)).await;
        let db = writer(&router);
        assert_eq!(db.text(ENCRYPTED).await.expect("a statement"), "true TLSv1.3", "{parameters}");
        assert_eq!(connections(&cluster, PRIMARY).await.0, "", "{parameters}");
        router.close();
    }
    // Every other test of servers without encryption is one of URLs without a mode.
}

async fn what_does_not_leave_the_machine_is_not_encrypted<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let mut config = cluster.config();
    for node in &mut config.nodes {
        let server = cluster.servers().node(&node.name).expect("a node of the cluster");
        let directory = server.socket_dir.as_ref().expect("a short path").display().to_string();
        let directory = directory.replace('/', "%2F");
        let url = |login| {
            let login = cluster.servers().credentials(login);
            let url = format!(
                "postgres://{}:{}@{directory}:{}/{}?sslmode=require",
                login.user, login.password, server.port, login.database
            );
            url.parse().expect("a well-formed URL")
        };
        node.url = url(Login::Application);
        node.probe_url = Some(url(Login::Monitor));
    }
    let router = router::<O>(config).await;
    let sql = "SELECT coalesce(client_addr::text, 'socket') || ' ' || ssl::text \
         FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE pid = pg_backend_pid()";
    assert_eq!(writer(&router).text(sql).await.expect("a statement"), "socket false");
}

async fn lost_connections_and_servers_cost_no_read_an_error<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let router = cluster.router::<O>().await;
    let readers = Readers::start(&router, 8);
    readers.go_on(50).await;
    for node in REPLICAS {
        cluster.sql(node, END_SESSIONS).await;
        readers.go_on(50).await;
    }
    cluster.kill("pg3").await;
    readers.go_on(100).await;
    cluster.start_node("pg3").await;
    readers.go_on_at("pg3", 10).await;
    let tally = readers.stop().await;
    assert_eq!(tally.errors, Vec::<String>::new());

    // A write whose answer is lost is known to be one.
    let db = writer(&router);
    let lost = tokio::spawn(async move { db.text(&slowly(600.0)).await });
    // Not one of the statements that set the connection up.
    let runs = "wait_event = 'PgSleep'";
    eventually(PATIENCE, "it runs", async || cluster.app_processes(PRIMARY, runs).await == 1).await;
    cluster.kill(PRIMARY).await;
    let error = lost.await.expect("no panic").expect_err("its server is gone");
    assert!(O::is_commit_unknown(&error), "{error}");
}

async fn a_dropped_request_leaves_no_busy_server_process<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let config = RouterConfig { read_pool_size: 2, write_pool_size: 2, ..cluster.config() };
    let router = router::<O>(config).await;
    for _ in 0..5 {
        let (read, write) = (reader_on(&router, "pg2").await, writer(&router));
        let reading = tokio::spawn(async move { read.text(&slowly(600.0)).await });
        let insert = "INSERT INTO note (author, text) VALUES ('dropped', 'undone') RETURNING text";
        let writing = tokio::spawn(async move { write.transaction(&[insert, &slowly(600.0)]).await });
        for node in ["pg2", PRIMARY] {
            eventually(PATIENCE, "its last statement runs", async || {
                cluster.app_processes(node, "wait_event = 'PgSleep'").await == 1
            })
            .await;
        }
        reading.abort();
        writing.abort();
        for node in ["pg2", PRIMARY] {
            eventually(PATIENCE, "its process is free", async || {
                cluster.app_processes(node, "state <> 'idle'").await == 0
            })
            .await;
        }
    }
    assert_eq!(cluster.notes_by(PRIMARY, "dropped").await, 0);
    assert_eq!(served_by(&writer(&router)).await.expect("a statement"), PRIMARY);
}

/// An authority of ours, in files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a host, or for a client of this name, and its key.
    fn sign(&self, name: &str, until: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// Gives a server another certificate, in the files that it has. It takes effect soon.
async fn certify(
    cluster: &TestCluster,
    node: &str,
    superuser: &Database,
    (certificate, key): (String, String),
) {
    let dir = cluster.servers().dir().join(node);
    fs::write(dir.join("server.crt"), certificate).expect("the server's certificate");
    fs::write(dir.join("server.key"), key).expect("the server's key");
    superuser.run("SELECT pg_reload_conf()").await.expect("a superuser may");
}

/// Has a server read its configuration again, and waits until it has.
async fn reload(cluster: &TestCluster, node: &str) {
    let loaded = "SELECT extract(epoch FROM pg_conf_load_time())::text";
    let before: String = cluster.value(node, loaded).await;
    cluster.sql(node, "SELECT pg_reload_conf()").await;
    eventually(PATIENCE, "the configuration is read", async || {
        cluster.value::<String>(node, loaded).await != before
    })
    .await;
}

fn files() -> (tempfile::TempDir, impl Fn(&str, &str) -> PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_owned();
    let write = move |name: &str, content: &str| {
        fs::write(path.join(name), content).expect("a file");
        path.join(name)
    };
    (dir, write)
}

/// Waits until a node is refused for a reason with these words; returns it.
async fn refused<O: Orm>(router: &Router<O>, node: &str, words: &str) -> String {
    let mut said = String::new();
    eventually(PATIENCE, &format!("{node} is refused: {words}"), async || {
        said = router.node(node).refused.unwrap_or_default();
        said.contains(words)
    })
    .await;
    said
}

async fn a_server_of_another_authority_is_not_believed_until_its_certificate_is_given<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let ours =
        fs::read_to_string(cluster.servers().root_certificate().expect("an authority")).expect("its file");
    let (_dir, write) = files();
    let root = write("root.crt", &ours);
    let router =
        router::<O>(cluster.config_with(&format!("sslmode=verify-full&sslrootcert={}", root.display())))
            .await;
    assert_eq!(served_by(&writer(&router)).await.expect("a statement"), PRIMARY);

    // The file is read for each connection.
    for (stranger, words) in
        [("stranger", "no authority of sslrootcert"), ("routing-cluster authority", "same name")]
    {
        write("root.crt", &Authority::new(stranger).certificate);
        for node in NODES {
            cluster.sql(node, END_SESSIONS).await;
        }
        for node in NODES {
            let said = refused(&router, node, words).await;
            let place =
                format!("no encrypted connection to 127.0.0.1:{} (sslmode=verify-full)", cluster.port(node));
            assert!(said.contains(&place), "{said}");
        }
        let error = served_by(&reader(&router)).await.expect_err("nobody is believed");
        let words = O::route_error(&error).and_then(refusals).expect("a refusal of the router").to_string();
        assert!(words.contains("sslrootcert"), "{words}");
        write("root.crt", &ours);
        eventually(PATIENCE, "all serve again", async || NODES.iter().all(|node| router.serves(node))).await;
    }
    // A file that is gone is no fault of the servers.
    fs::remove_file(&root).expect("a file");
    cluster.sql("pg2", END_SESSIONS).await;
    let said = refused(&router, "pg2", "sslrootcert=").await;
    assert!(said.contains(&root.display().to_string()) && said.contains("No such file"), "{said}");
    write("root.crt", &ours);
    eventually(PATIENCE, "it serves again", async || router.serves("pg2")).await;
}

async fn a_server_with_a_certificate_that_does_not_hold_is_told_from_one_that_is_down<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let (_dir, write) = files();
    let authority = Authority::new("ours");
    let both = fs::read_to_string(cluster.servers().root_certificate().expect("an authority"))
        .expect("its file")
        + &authority.certificate;
    let root = write("root.crt", &both);
    let config = cluster.config_with(&format!("sslmode=verify-full&sslrootcert={}", root.display()));
    let router = router::<O>(config).await;
    // From before, since this test's own connections believe the cluster's authority alone.
    let superuser = cluster.database("pg2", Login::Superuser).await;
    for (name, until, words) in [
        ("db.example.com", 2099, ["db.example.com", "connect by a name"]),
        ("127.0.0.1", 2001, ["expired", "renew it"]),
    ] {
        certify(&cluster, "pg2", &superuser, authority.sign(name, until)).await;
        eventually(PATIENCE, "new connections are refused", async || {
            superuser.run(END_SESSIONS).await.expect("a superuser may");
            words.iter().all(|words| router.refuses("pg2", words))
        })
        .await;
        assert_eq!(served_by(&reader(&router)).await.expect("the other serves"), "pg3");
        assert!(router.refuses("pg2", "sslmode=verify-full"));
        certify(&cluster, "pg2", &superuser, authority.sign("127.0.0.1", 2099)).await;
        eventually(PATIENCE, "it serves again", async || router.serves("pg2")).await;
    }
}

async fn a_server_that_demands_encryption_says_so_to_who_has_none<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let mut config = cluster.config_with("sslmode=disable");
    config.acquire_deadline = Duration::from_secs(2);
    config.write_wait = Duration::from_secs(1);
    let secrets =
        [Login::Application, Login::Monitor].map(|login| cluster.servers().credentials(login).password);
    let locked_out = Router::<O>::start(config, O::Options::default()).expect("a valid configuration");
    let said = refused(&locked_out, "pg2", "no pg_hba.conf entry").await;
    assert!(said.contains("SQLSTATE 28000") && said.contains("not encrypted (sslmode=disable)"), "{said}");
    assert!(secrets.iter().all(|secret| !said.contains(secret)), "{said}");
    let error = served_by(&reader(&locked_out)).await.expect_err("no one is let in");
    let words = O::route_error(&error).and_then(refusals).expect("a refusal of the router").to_string();
    assert!(words.contains("28000"), "{words}");

    // The monitor is let in, the application is not.
    let mut config = cluster.config();
    config.acquire_deadline = Duration::from_secs(2);
    config.write_wait = Duration::from_secs(1);
    for node in &mut config.nodes {
        node.url = cluster.url_with(cluster.port(&node.name), Login::Application, "sslmode=disable");
    }
    let half = router::<O>(config).await;
    let error = served_by(&reader(&half)).await.expect_err("no one is let in");
    let words = O::route_error(&error).and_then(refusals).expect("a refusal of the router").to_string();
    assert!(words.contains("refusing") || words.contains("breaker open"), "{words}");
}

async fn a_server_without_encryption_is_refused_where_it_is_demanded<O: Orm>() {
    let cluster = TestCluster::start().await;
    let config = cluster.config_with("sslmode=require");
    let router = Router::<O>::start(config, O::Options::default()).expect("a valid configuration");
    for node in NODES {
        let said = refused(&router, node, "offers no encryption").await;
        assert!(said.contains("(sslmode=require)") && said.contains("set ssl = on"), "{said}");
    }
    served_by(&reader(&router)).await.expect_err("nobody encrypts");
    let names = NODES.map(|node| cluster.app_processes(node, "true"));
    for plain in names {
        assert_eq!(plain.await, 0, "nothing is said in plain");
    }
}

async fn a_certificate_of_our_own_is_shown_where_the_server_wants_one<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let (_dir, write) = files();
    let authority = Authority::new("clients");
    let (certificate, key) = authority.sign("app", 2099);
    let shown = format!(
        "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        cluster.servers().root_certificate().expect("an authority").display(),
        write("app.crt", &certificate).display(),
        write("app.key", &key).display(),
    );
    let (certificate, key) = Authority::new("strangers").sign("app", 2099);
    let stranger = format!(
        "sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        cluster.servers().root_certificate().expect("an authority").display(),
        write("stranger.crt", &certificate).display(),
        write("stranger.key", &key).display(),
    );
    let clients = cluster.servers().dir().join("pg2/data/clients.crt");
    fs::write(&clients, &authority.certificate).expect("a file of the server's");
    cluster.set("pg2", "ssl_ca_file", "clients.crt").await;
    let rules = cluster.servers().dir().join("pg2/data/pg_hba.conf");
    let ours = fs::read_to_string(&rules).expect("the rules");
    let wanted =
        "hostssl all app,monitor 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n".to_owned() + &ours;
    fs::write(&rules, wanted).expect("the rules");
    reload(&cluster, "pg2").await;

    let without = Router::<O>::start(cluster.config(), O::Options::default()).expect("a valid configuration");
    let said = refused(&without, "pg2", "client certificate").await;
    assert!(said.contains("28000"), "{said}");
    let unknown = Router::<O>::start(cluster.config_with(&stranger), O::Options::default())
        .expect("a valid configuration");
    let said = refused(&unknown, "pg2", "UnknownCA").await;
    assert!(said.contains("no encrypted connection to"), "{said}");

    let known = router::<O>(cluster.config_with(&shown)).await;
    let db = reader_on(&known, "pg2").await;
    let sql = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(db.text(sql).await.expect("a read").contains("CN=app"));
}

async fn a_server_that_falls_silent_while_encryption_begins_is_waited_for_no_longer_than_any_other<O: Orm>() {
    let cluster = TestCluster::start_encrypted().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let silent = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 8];
            if client.read_exact(&mut request).await.is_ok() && client.write_all(b"S").await.is_ok() {
                held.push(client);
            }
        }
    });
    let mut config = cluster.config();
    config.connect_timeout = Duration::from_millis(500);
    config.checkout_timeout = Duration::from_millis(300);
    for node in &mut config.nodes {
        if node.name != "pg3" {
            node.url = cluster.url(silent, Login::Application);
        }
    }
    let router = router::<O>(config).await;
    for _ in 0..20 {
        assert_eq!(served_by(&reader(&router)).await.expect("another serves"), "pg3");
    }
    eventually(PATIENCE, "connections are given up", async || {
        let _ = served_by(&reader(&router)).await;
        router.node("pg2").breaker != "closed"
    })
    .await;
    let plain = timeout(PATIENCE, O::on_plain_connection(&router, PATIENCE, &[])).await;
    plain.expect("it ends in time").expect_err("no connection comes about");
}

fn start<O: Orm>(config: RouterConfig) -> String {
    let error = Router::<O>::start(config, O::Options::default()).expect_err("it does not start");
    assert!(matches!(error, ConfigError::Backend { .. }), "{error}");
    error.to_string()
}

fn config(parameters: &str, probe_parameters: &str) -> RouterConfig {
    let url = |parameters: &str| {
        format!("postgres://app:hunter2@127.0.0.1:1/app?{parameters}").parse().expect("a URL")
    };
    let node = routing_core::NodeConfig {
        probe_url: Some(url(probe_parameters)),
        ..routing_core::NodeConfig::new("pg1", url(parameters))
    };
    RouterConfig { nodes: vec![node], ..RouterConfig::default() }
}

async fn a_url_that_cannot_be_used_stops_the_start_and_names_what_is_wrong<O: Orm>() {
    let (dir, write) = files();
    let missing = format!("sslmode=verify-full&sslrootcert={}", dir.path().join("missing.crt").display());
    let empty = format!("sslmode=verify-full&sslrootcert={}", write("empty.crt", "").display());
    for (parameters, words) in [
        ("sslmode=strict", "sslmode=\"strict\" does not exist; it is one of disable, allow, prefer"),
        ("sslmode=verify-full", "name its file by sslrootcert"),
        (&missing, "missing.crt: No such file"),
        (&empty, "empty.crt: it holds no certificate"),
        ("sslcrl=/crl", "sslcrl"),
    ] {
        for said in [start::<O>(config(parameters, "")), start::<O>(config("", parameters))] {
            assert!(said.contains("pg1") && said.contains(words) && !said.contains("hunter2"), "{said}");
        }
    }
}

#[tokio::test]
async fn what_sqlx_cannot_do_is_refused_when_the_router_starts() {
    let cluster = TestCluster::start_encrypted().await;
    let root = cluster.servers().root_certificate().expect("an authority");
    for (parameters, words) in [
        (format!("sslmode=verify-ca&sslrootcert={}", root.display()), "verify-full"),
        (format!("sslmode=require&sslrootcert={}", root.display()), "verify-full"),
        ("sslmode=require&channel_binding=require".to_owned(), "channel_binding=require"),
    ] {
        let said = start::<SeaOrm>(config(&parameters, ""));
        assert!(said.contains("SeaORM") && said.contains(words), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn diesel_binds_passwords_to_the_connection_and_can_leave_the_host_out() {
    let cluster = TestCluster::start_encrypted().await;
    let root = cluster.servers().root_certificate().expect("an authority");
    let root = fs::read_to_string(root).expect("its file");
    let (_dir, write) = files();
    let authority = Authority::new("ours");
    let root = write("root.crt", &(root + &authority.certificate));
    for node in NODES {
        let superuser = cluster.database(node, Login::Superuser).await;
        certify(&cluster, node, &superuser, authority.sign("db.example.com", 2099)).await;
    }
    let parameters = format!("sslmode=verify-ca&sslrootcert={}&channel_binding=require", root.display());
    let router = router::<Diesel>(cluster.config_with(&parameters)).await;
    assert_eq!(writer(&router).text(ENCRYPTED).await.expect("a statement"), "true TLSv1.3");
}
