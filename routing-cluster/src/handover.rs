//! Handing over: the old primary takes no more writes, ends cleanly, and its replica is seen to have everything.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    change::READ_ONLY,
    command::run,
    condition::Condition,
    node::NodeRecord,
    operation::{Operation, OperationError, asked},
    progress::Progress,
    provision::ProvisionError,
    server,
    sql::SqlError,
    status::parse_lsn,
    switchover::SwitchoverError,
};

/// How long writing transactions may take to end before the switchover gives up.
pub(crate) const WRITERS: Duration = Duration::from_secs(10);
/// How long transactions that have not written yet are waited for; what still reads then is cut off.
const READERS: Duration = Duration::from_secs(3);
/// How long the replica may take to replay what the primary has written.
pub(crate) const REPLAY: Duration = Duration::from_secs(30);
/// `pg_controldata` reads one small file.
const CONTROL_DATA: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Operation<'_> {
    /// Ends the old primary so that `target` has everything that it wrote.
    pub(crate) async fn silence(
        &mut self,
        primary: &NodeRecord,
        target: &NodeRecord,
        progress: &dyn Progress,
    ) -> Result<(), SwitchoverError> {
        progress.step(&format!("letting the writes on {} end", primary.name));
        self.drain(primary).await?;
        progress.step(&format!("waiting until {} has replayed everything", target.name));
        let session = self.session(primary).await?;
        let position = "SELECT pg_current_wal_flush_lsn()::text";
        let position = session.value("ask for the position", position, &[]).await.map_err(asked(primary))?;
        self.replays(target, position, 0).await?;
        drop(session);
        progress.step(&format!("stopping {}", primary.name));
        self.state.set_condition(&primary.name, Condition::Deposed);
        self.save()?;
        server::stop(&self.tools, primary).await.map_err(OperationError::from)?;
        let last = self.last_checkpoint(primary).await?;
        // The checkpoint's own record begins there, so one byte more means that it has arrived.
        self.replays(target, last, 1).await
    }

    /// Lets no new transaction write, and waits for those that do.
    async fn drain(&self, primary: &NodeRecord) -> Result<(), SwitchoverError> {
        let sql = asked(primary);
        let session = self.session(primary).await?;
        let read_only = format!("ALTER SYSTEM SET {READ_ONLY} = on");
        for statement in [read_only.as_str(), "SELECT pg_reload_conf()"] {
            session.run("let no new transaction write", statement).await.map_err(&sql)?;
        }
        let begun = Instant::now();
        // A new connection that knows the setting shows that all older ones have been told, too.
        let since: String = loop {
            let fresh = self.session(primary).await?;
            let told = format!("SELECT current_setting('{READ_ONLY}') || clock_timestamp()::text");
            let told: String = fresh.value("ask for the setting", &told, &[]).await.map_err(&sql)?;
            if let Some(now) = told.strip_prefix("on") {
                break now.to_owned();
            }
            if begun.elapsed() > WRITERS {
                let silent = SqlError::Silent { doing: "reload the settings", deadline: WRITERS };
                return Err(sql(silent).into());
            }
            sleep(LOOK_AGAIN).await;
        };
        loop {
            let open = "SELECT count(*) FILTER (WHERE backend_xid IS NOT NULL),
                               count(*) FILTER (WHERE xact_start < $1::text::timestamptz)
                        FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            let rows = session.rows("ask for open transactions", open, &[&since]).await.map_err(&sql)?;
            let (writers, older): (i64, i64) = rows.first().map_or((0, 0), |row| (row.get(0), row.get(1)));
            if writers == 0 && (older == 0 || begun.elapsed() > READERS) {
                return Ok(());
            }
            if begun.elapsed() > WRITERS {
                return Err(SwitchoverError::Writers { primary: primary.name.clone(), writers });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the node has replayed `more` bytes beyond `position`.
    async fn replays(&self, node: &NodeRecord, position: String, more: u64) -> Result<(), SwitchoverError> {
        let wanted = parse_lsn(&position).unwrap_or(u64::MAX).saturating_add(more);
        let session = self.session(node).await?;
        let begun = Instant::now();
        loop {
            let replayed = "SELECT pg_last_wal_replay_lsn()::text";
            let replayed: Option<String> =
                session.value("ask for the position", replayed, &[]).await.map_err(asked(node))?;
            if replayed.as_deref().and_then(parse_lsn).is_some_and(|replayed| replayed >= wanted) {
                return Ok(());
            }
            if begun.elapsed() > REPLAY {
                return Err(SwitchoverError::NotReplayed { node: node.name.clone(), position });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Where the checkpoint of the clean end stands.
    pub(crate) async fn last_checkpoint(&self, node: &NodeRecord) -> Result<String, SwitchoverError> {
        let mut command = self.tools.command("pg_controldata");
        command.arg("--pgdata").arg(&node.data_dir);
        let text = run(command, CONTROL_DATA).await.map_err(|source| {
            let doing = "read the control file of";
            OperationError::from(ProvisionError::Program { doing, node: node.name.clone(), source })
        })?;
        let state = control_value(&text, "Database cluster state");
        match control_value(&text, "Latest checkpoint location") {
            position if state == "shut down" => Ok(position),
            _ => Err(SwitchoverError::NotClean { primary: node.name.clone(), state }),
        }
    }
}

/// One value of what `pg_controldata` prints, `name: value` a line.
pub(crate) fn control_value(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_is_read_by_name() {
        let text = "Database cluster state:               shut down\nLatest checkpoint location:           0/3000148\n";
        assert_eq!(control_value(text, "Latest checkpoint location"), "0/3000148");
        assert_eq!(control_value(text, "Database cluster state"), "shut down");
        assert_eq!(control_value("", "Database cluster state"), "unknown");
    }
}
