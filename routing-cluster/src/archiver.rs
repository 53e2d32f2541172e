//! What a primary says of its archiving.

use serde::Serialize;
use tokio_postgres::Row;

use crate::{
    sql::{Session, SqlError},
    status::NodeStatus,
};

/// A primary's archiving since its statistics were last reset, which a crash does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ArchiverStatus {
    /// How many files it has archived.
    pub archived: i64,
    /// The last file that it has archived.
    pub last_archived: Option<String>,
    /// How long ago that was, in seconds.
    pub last_archived_seconds: Option<f64>,
    /// How many attempts have failed.
    pub failures: i64,
    /// The file that the last failed attempt was for.
    pub last_failed: Option<String>,
    /// How long ago that was, in seconds.
    pub last_failed_seconds: Option<f64>,
    /// Files that wait to be archived; the server keeps them until they are.
    pub waiting: i64,
    /// Whether the last attempt has failed.
    pub failing: bool,
}

/// Asks a node; `None` when it archives nothing.
pub(crate) async fn archiver(session: &Session) -> Result<Option<ArchiverStatus>, SqlError> {
    let archiver = "SELECT archived_count, last_archived_wal,
            extract(epoch FROM clock_timestamp() - last_archived_time)::float8,
            failed_count, last_failed_wal,
            extract(epoch FROM clock_timestamp() - last_failed_time)::float8,
            (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
            coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false)
        FROM pg_stat_archiver WHERE current_setting('archive_mode') <> 'off'";
    let status = |row: &Row| ArchiverStatus {
        archived: row.get(0),
        last_archived: row.get(1),
        last_archived_seconds: row.get(2),
        failures: row.get(3),
        last_failed: row.get(4),
        last_failed_seconds: row.get(5),
        waiting: row.get(6),
        failing: row.get(7),
    };
    Ok(session.rows("ask for the archiver", archiver, &[]).await?.first().map(status))
}

/// What an operator does about archiving that fails, one sentence each.
pub(crate) fn remedies(nodes: &[NodeStatus]) -> Vec<String> {
    let remedy = |node: &NodeStatus| {
        let archiver = node.archiver.as_ref().filter(|archiver| archiver.failing)?;
        let (name, file) = (&node.name, archiver.last_failed.as_deref().unwrap_or("a file"));
        let (failures, waiting) = (archiver.failures, archiver.waiting);
        Some(format!(
            "{name} cannot archive {file} ({failures} attempts have failed, {waiting} files wait): its log says why; it keeps them and goes on trying"
        ))
    };
    nodes.iter().filter_map(remedy).collect()
}
