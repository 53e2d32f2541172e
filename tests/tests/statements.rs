//! What `classify` calls a read, on real servers: the primary writes nothing and keeps nothing for it, and a standby runs it.

use routing_cluster::Login;
use routing_core::sql::StatementKind;
use routing_tests::{PRIMARY, REPLICAS, TestCluster};

#[expect(dead_code, reason = "what the table says of its groups is for its other readers")]
#[path = "../../routing-core/tests/sql/cases.rs"]
mod cases;

/// The tables and functions that the texts name, as far as they can be had.
const SCHEMA: &str = "
    CREATE TABLE stocks (id serial PRIMARY KEY, name text, country text, employees int, symbol text, note text);
    CREATE TABLE stock (id int, symbol text);
    CREATE TABLE t (a int, b int, c int, x int, y int, z int, id int, d xml, price$ int, a$1 int,
        \"update\" int, delete int, merge int, updated_at int, deleted int, inserts int, for_update int, into_x int,
        \"for update\" int, nextval int, \"nextval \" int, \"for\" int, \"into\" int, set int, reset int, show int, copy int,
        lock int, call int, begin int, start int, load int, notify int, prepare int, execute int, listen int, close int,
        move int, declare int, temp int, local int, share int, key int, no int, nowait int, locked int, skip int,
        setval int, currval int, pg_advisory int);
    CREATE TABLE u (a int, b int, x int);
    CREATE TABLE a (x int); CREATE TABLE b (x int); CREATE TABLE update (a int); CREATE TABLE merge (a int);
    CREATE TABLE temp (a int); CREATE TABLE \"insert\" (\"update\" int, \"delete\" int); CREATE TABLE t$ (price$ int, a$1 int);
    CREATE TABLE \"to\" (a int);
    INSERT INTO t (a) VALUES (1); INSERT INTO stocks (name) VALUES ('one');
    CREATE FUNCTION my_nextval(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION nextval_of(text) RETURNS int LANGUAGE sql AS 'SELECT 1';";

/// What the text has left in its session, and whether it was given a transaction identifier, which each write needs.
const LEFT: &str = "SELECT concat_ws(' ',
    (SELECT 'the transaction ' || pg_current_xact_id_if_assigned()::text),
    (SELECT string_agg('a lock', ' ') FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
    (SELECT string_agg('the statement ' || name, ' ') FROM pg_prepared_statements WHERE from_sql),
    (SELECT string_agg('the cursor ' || name, ' ') FROM pg_cursors WHERE name <> ''),
    (SELECT string_agg('the channel ' || channel, ' ') FROM pg_listening_channels() AS channel),
    (SELECT string_agg('the setting ' || name, ' ') FROM pg_settings WHERE source = 'session'))";

fn reads() -> Vec<&'static str> {
    let groups = cases::GROUPS.iter().filter(|group| group.kind == StatementKind::Read);
    let texts = groups.flat_map(|group| group.texts).copied();
    // The driver takes no rows of COPY by the simple protocol, and the text's own end of a transaction is none of a read.
    texts.filter(|text| !text.trim_start().to_ascii_uppercase().starts_with("COPY")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_a_read_writes_nothing_and_leaves_nothing_on_the_primary() {
    let cluster = TestCluster::start().await;
    cluster.sql(PRIMARY, SCHEMA).await;
    let (mut ran, mut wrong) = (0, Vec::new());
    for text in reads() {
        let database = cluster.database(PRIMARY, Login::Superuser).await;
        database.run("BEGIN").await.expect("begin");
        if database.run(text).await.is_ok() {
            ran += 1;
            let left: String = database.value(LEFT).await.expect("what is left");
            if !left.is_empty() {
                wrong.push(format!("{text:?} left {left}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{ran} of {} texts ran", reads().len());
    assert!(ran >= 80, "{ran} texts ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_standby_refuses_what_is_called_a_read_because_it_is_a_standby() {
    let cluster = TestCluster::start().await;
    cluster.sql(PRIMARY, SCHEMA).await;
    cluster.wait_replayed().await;
    let (mut ran, mut wrong) = (0, Vec::new());
    for text in reads() {
        let database = cluster.database(REPLICAS[0], Login::Superuser).await;
        match database.run(text).await {
            Ok(()) => ran += 1,
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                if ["25006", "55000", "0A000"].contains(&code.as_str()) {
                    wrong.push(format!("{text:?}: {error:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{ran} of {} texts ran", reads().len());
    assert!(ran >= 80, "{ran} texts ran");
}
