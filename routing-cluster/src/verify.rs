//! Comparing what the nodes hold, table by table, at one position.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::LocalCluster,
    credentials::{Credentials, Login},
    node::NodeRecord,
    operation::{Operation, OperationError, asked},
    progress::Progress,
    sql::{Session, SqlError},
    status::parse_lsn,
};

/// How long one statement may take: a checksum reads a whole table.
const CHECKSUM: Duration = Duration::from_secs(3600);
/// How long a replica may take to replay the primary's position.
const REPLAY: Duration = Duration::from_secs(30);
/// How long a moment without writes is looked for.
const QUIET: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What one node holds of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSum {
    /// The number of rows.
    pub rows: i64,
    /// The sum of all rows' 64-bit hashes, in whatever order they stand.
    pub checksum: String,
}

/// A table that is not the same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The database.
    pub database: String,
    /// The table, with its schema.
    pub table: String,
    /// What each node holds, the primary first; `None` where the table is missing.
    pub nodes: Vec<(String, Option<TableSum>)>,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The nodes that were compared, the primary first.
    pub nodes: Vec<String>,
    /// The nodes that do not run and were left out.
    pub left_out: Vec<String>,
    /// The primary's position at which the last database was compared.
    pub position: String,
    /// How many tables were compared.
    pub tables: usize,
    /// The tables that differ; empty when the nodes agree.
    pub differences: Vec<Difference>,
}

/// Why the nodes were not compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// There is nothing to compare the primary with.
    #[error("no replica of {primary} runs: start one first")]
    NoReplica {
        /// The primary.
        primary: String,
    },
    /// A replica did not get as far as the primary.
    #[error("{node} did not replay up to {position} within {} s: see `status`, and `rejoin {node}` if it does not stream", REPLAY.as_secs())]
    Behind {
        /// The replica.
        node: String,
        /// The primary's position.
        position: String,
    },
    /// No moment was found at which all nodes see the same transactions.
    #[error("writes to the cluster went on, so the nodes were not compared: found no moment without an open writing transaction in {} s", QUIET.as_secs())]
    Writes,
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl LocalCluster {
    /// Compares every table of every database on all running nodes: rows and an order-independent checksum.
    ///
    /// All nodes are read in snapshots that show exactly the same transactions. Unlogged and temporary tables are left
    /// out, because replicas do not have them; so are large objects and sequences.
    ///
    /// # Errors
    ///
    /// Not exactly one node is the primary, no replica runs, one does not catch up, or writes go on all the
    /// time. Nodes that differ are no error but the result.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing: the primary's WAL gets one message a database, which holds no data.
    pub async fn verify(&self, progress: &dyn Progress) -> Result<Verification, VerifyError> {
        let operation = self.operation().await?;
        let primary = operation.primary().await?;
        let (mut nodes, mut left_out) = (vec![primary.clone()], Vec::new());
        for node in operation.nodes().into_iter().filter(|node| node.name != primary.name) {
            match operation.is_standby(&node).await {
                Ok(_) => nodes.push(node),
                Err(_) => left_out.push(node.name),
            }
        }
        if nodes.len() == 1 {
            return Err(VerifyError::NoReplica { primary: primary.name });
        }
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        let mut result = Verification {
            nodes: names,
            left_out,
            position: String::new(),
            tables: 0,
            differences: Vec::new(),
        };
        for database in operation.databases(&primary).await? {
            progress.step(&format!("comparing the database {database}"));
            operation.compare(&database, &nodes, &mut result).await?;
        }
        progress.finish(&result.summary());
        Ok(result)
    }
}

impl Verification {
    fn summary(&self) -> String {
        let left_out = match self.left_out.as_slice() {
            [] => String::new(),
            nodes => format!(" ({} left out: not running)", nodes.join(", ")),
        };
        let verdict = if self.differences.is_empty() { "agree" } else { "DIFFER" };
        format!("{} {verdict} at {}: {} tables{left_out}", self.nodes.join(", "), self.position, self.tables)
    }
}

type Sums = BTreeMap<String, TableSum>;

impl Operation<'_> {
    async fn databases(&self, primary: &NodeRecord) -> Result<Vec<String>, OperationError> {
        let session = self.session(primary).await?;
        let names =
            "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";
        let rows = session.rows("list the databases", names, &[]).await.map_err(asked(primary))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn compare(
        &self,
        database: &str,
        nodes: &[NodeRecord],
        result: &mut Verification,
    ) -> Result<(), VerifyError> {
        let superuser = self.passwords.credentials(Login::Superuser);
        let login = Credentials { database: database.to_owned(), ..superuser };
        let connected = nodes
            .iter()
            .map(|node| async { Session::connect(node.port, &login, CHECKSUM).await.map_err(asked(node)) });
        let sessions = try_join_all(connected).await?;
        result.position = same_snapshots(nodes, &sessions).await?;
        let sums = try_join_all(
            nodes
                .iter()
                .zip(&sessions)
                .map(|(node, session)| async { sums(session).await.map_err(asked(node)) }),
        )
        .await?;
        let (tables, differences) = differences(database, &result.nodes, &sums);
        result.tables += tables;
        result.differences.extend(differences);
        Ok(())
    }
}

/// Opens a snapshot on every node, all of which show the same transactions; returns the primary's position.
async fn same_snapshots(nodes: &[NodeRecord], sessions: &[Session]) -> Result<String, VerifyError> {
    let (Some((first, replicas)), Some((primary, others))) = (nodes.split_first(), sessions.split_first())
    else {
        return Err(VerifyError::Writes);
    };
    let sql = asked(first);
    // A commit that waits for a replica would wait in vain behind a slow one.
    primary.run("prepare", "SET synchronous_commit = local").await.map_err(&sql)?;
    let begun = Instant::now();
    loop {
        // A transaction that every replica gets to see: afterwards the newest is the same on all nodes.
        let message = "SELECT pg_logical_emit_message(true, 'routing-cluster', 'verify')";
        primary.run("write a message to the WAL", message).await.map_err(&sql)?;
        let own = snapshot(primary).await.map_err(&sql)?;
        let position = "SELECT pg_current_wal_flush_lsn()::text";
        let position: String = primary.value("ask for the position", position, &[]).await.map_err(&sql)?;
        let seen = try_join_all(replicas.iter().zip(others).map(|(node, session)| async {
            if !replays(session, &position).await.map_err(asked(node))? {
                return Err(VerifyError::Behind { node: node.name.clone(), position: position.clone() });
            }
            Ok(snapshot(session).await.map_err(asked(node))?)
        }))
        .await?;
        if own.0 == own.1 && seen.iter().all(|seen| *seen == own) {
            return Ok(position);
        }
        for (node, session) in nodes.iter().zip(sessions) {
            session.run("end the snapshot", "ROLLBACK").await.map_err(asked(node))?;
        }
        if begun.elapsed() > QUIET {
            return Err(VerifyError::Writes);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Opens a snapshot: the oldest transaction that it does not show, and the first that comes after it. When they
/// are equal, it shows everything before.
async fn snapshot(session: &Session) -> Result<(String, String), SqlError> {
    session.run("open a snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let bounds =
        "SELECT pg_snapshot_xmin(s)::text || ':' || pg_snapshot_xmax(s)::text FROM pg_current_snapshot() s";
    let bounds: String = session.value("ask for the snapshot", bounds, &[]).await?;
    let (oldest, next) = bounds.split_once(':').unwrap_or((&bounds, ""));
    Ok((oldest.to_owned(), next.to_owned()))
}

async fn replays(session: &Session, position: &str) -> Result<bool, SqlError> {
    let begun = Instant::now();
    loop {
        let replayed = "SELECT pg_last_wal_replay_lsn()::text";
        let replayed: Option<String> = session.value("ask for the position", replayed, &[]).await?;
        if replayed.as_deref().and_then(parse_lsn) >= parse_lsn(position) {
            return Ok(true);
        }
        if begun.elapsed() > REPLAY {
            return Ok(false);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Every table of the session's database, in its open snapshot.
async fn sums(session: &Session) -> Result<Sums, SqlError> {
    let tables = "SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated
          AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1";
    let mut sums = Sums::new();
    for row in session.rows("list the tables", tables, &[]).await? {
        let table: String = row.get(0);
        let sum = format!(
            "SELECT count(*), coalesce(sum(hashtextextended(ROW(t.*)::text, 0)::numeric), 0)::text FROM ONLY {table} t"
        );
        for row in session.rows("read a table", &sum, &[]).await? {
            sums.insert(table.clone(), TableSum { rows: row.get(0), checksum: row.get(1) });
        }
    }
    Ok(sums)
}

/// How many tables there are on any node, and those that are not the same on all.
fn differences(database: &str, nodes: &[String], sums: &[Sums]) -> (usize, Vec<Difference>) {
    let mut tables: Vec<&String> = sums.iter().flat_map(BTreeMap::keys).collect();
    tables.sort_unstable();
    tables.dedup();
    let count = tables.len();
    let differs = |table: &&String| {
        let mut held = sums.iter().map(|sums| sums.get(*table));
        let first = held.next();
        held.any(|other| Some(other) != first)
    };
    let difference = |table: &String| Difference {
        database: database.to_owned(),
        table: table.clone(),
        nodes: nodes.iter().zip(sums).map(|(node, sums)| (node.clone(), sums.get(table).cloned())).collect(),
    };
    (count, tables.into_iter().filter(differs).map(difference).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(tables: &[(&str, i64, &str)]) -> Sums {
        let sum = |rows, checksum: &str| TableSum { rows, checksum: checksum.to_owned() };
        tables.iter().map(|(table, rows, checksum)| ((*table).to_owned(), sum(*rows, checksum))).collect()
    }

    #[test]
    fn a_table_differs_by_count_by_checksum_or_by_absence() {
        let nodes = ["pg1".to_owned(), "pg2".to_owned()];
        let primary = held(&[("a", 1, "5"), ("b", 1, "5"), ("c", 0, "0"), ("d", 2, "7")]);
        let replica = held(&[("a", 1, "5"), ("b", 1, "6"), ("d", 1, "7"), ("e", 0, "0")]);
        let (tables, found) = differences("app", &nodes, &[primary.clone(), replica]);
        let named: Vec<&str> = found.iter().map(|it| it.table.as_str()).collect();
        assert_eq!((tables, named), (5, vec!["b", "c", "d", "e"]));
        assert_eq!(found[1].nodes[1], ("pg2".to_owned(), None));
        assert_eq!(differences("app", &nodes, &[primary.clone(), primary]).1, []);
    }
}
