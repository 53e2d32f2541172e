//! Recovery from an archive: what the server is told, and how far it comes.

use std::{fs, io, path::PathBuf, time::Duration};

use tokio::{
    process::Child,
    time::{Instant, sleep},
};

use crate::{
    archive::restore_command,
    backup::RFC3339,
    catalog::RestoreTarget,
    command::last_lines,
    credentials::Login,
    description::Backup,
    follow::timeline,
    link::read_unlinked,
    node::NodeRecord,
    operation::{Operation, OperationError, asked, files},
    position::Lsn,
    progress::Progress,
    provision::Provision,
    restore::{RestoreError, Restored},
    server::{self, ServerError},
    settings::{Setting, setting},
    sql::{Session, SqlError},
};

/// How long one attempt to connect to the recovering server may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two looks at how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often a person is told.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// The words with which PostgreSQL ends when the WAL ends before the target.
const NOT_REACHED: &str = "recovery ended before configured recovery target was reached";
/// The words before the time of the last transaction that it has replayed.
const LAST_COMMIT: &str = "last completed transaction was at log time ";
/// Settings that a copy brings along and that are not the new cluster's: whom it followed, who it waited for, where it
/// archived, and what an interrupted operation has set.
const FOREIGN: [&str; 5] =
    ["primary_", "synchronous_", "archive_", "restore_command", "default_transaction_read_only"];

/// What is replayed.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) backup: Backup,
    /// The directory of the archived WAL.
    pub(crate) wal: Option<PathBuf>,
    pub(crate) target: RestoreTarget,
}

impl Recovery {
    fn settings(&self) -> Vec<Setting> {
        // Without an archive nothing is fetched: the copy has the WAL that it needs.
        let fetch = self.wal.as_deref().map_or_else(|| "false".to_owned(), restore_command);
        let mut settings = vec![
            setting("restore_command", fetch, "the archive of the cluster that is restored"),
            setting("recovery_target_timeline", "latest", "through every change of the primary"),
            setting("recovery_target_action", "promote", "the target is where the new timeline begins"),
        ];
        let (name, value, why) = match self.target {
            RestoreTarget::End => return settings,
            RestoreTarget::BackupEnd => {
                ("recovery_target", "immediate".to_owned(), "nothing after the backup")
            }
            RestoreTarget::Time(moment) => {
                ("recovery_target_time", moment.in_settings(), "nothing after this moment")
            }
            RestoreTarget::Lsn(lsn) => {
                ("recovery_target_lsn", lsn.to_string(), "nothing after this position")
            }
        };
        settings.push(setting(name, value, why));
        if let RestoreTarget::Lsn(_) = self.target {
            let why = "a position is where a record begins, and that one came after it was read";
            settings.push(setting("recovery_target_inclusive", "off", why));
        }
        settings
    }
}

/// Writes what the copied data directory needs to recover when it starts.
pub(crate) fn prepare(provision: &Provision<'_>, node: &NodeRecord, recovery: &Recovery) -> io::Result<()> {
    let (account, data_dir) = (provision.tools.account(), &node.data_dir);
    match fs::remove_file(data_dir.join("backup_manifest")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let path = data_dir.join("postgresql.auto.conf");
    let text = read_unlinked(&path)?;
    account.write(&path, &own_settings(&text))?;
    account.write(&data_dir.join("pg_hba.conf"), &provision.access.rules())?;
    provision.configure_with(node, false, recovery.settings())?;
    account.write(&data_dir.join("recovery.signal"), "")
}

/// What `ALTER SYSTEM` has set, without what is another cluster's.
fn own_settings(text: &str) -> String {
    let own = text.lines().filter(|line| !FOREIGN.iter().any(|name| line.trim_start().starts_with(name)));
    own.flat_map(|line| [line, "\n"]).collect()
}

impl Operation<'_> {
    /// Starts the prepared node, waits until it has left its recovery, sees it take a write, and stops it.
    pub(crate) async fn recover(
        &self,
        node: &NodeRecord,
        recovery: &Recovery,
        progress: &dyn Progress,
    ) -> Result<Restored, RestoreError> {
        progress.step(&format!("replaying the WAL up to {}", recovery.target));
        let mut server = self.supervised(node).map_err(files("start", node))?;
        let session = loop {
            let superuser = self.passwords.credentials(Login::Superuser);
            match Session::connect(node.port, &superuser, ATTEMPT).await {
                Ok(session) => break session,
                Err(error) if has_ended(&mut server) => return Err(ended(node, recovery, error)),
                // It first replays the WAL of the backup itself, which has no time limit either.
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        };
        let (lsn, time) = match replayed(&session, progress).await {
            Ok(reached) => reached,
            Err(error) => {
                return Err(match ends_soon(&mut server).await {
                    true => ended(node, recovery, error),
                    false => asked(node)(error).into(),
                });
            }
        };
        let sql = asked(node);
        session.run("write", "SET synchronous_commit = local").await.map_err(&sql)?;
        session.run("write", "SELECT pg_current_xact_id()").await.map_err(&sql)?;
        let timeline = timeline(&session).await.map_err(&sql)?;
        let odd = |_| sql(SqlError::Statement { doing: "tell the position", answer: lsn.clone() });
        let reached: Lsn = lsn.parse().map_err(odd)?;
        let time = time.and_then(|time| time.parse().ok());
        drop(session);
        server::stop(&self.tools, node).await.map_err(OperationError::from)?;
        drop(server);
        Ok(Restored { backup: recovery.backup.clone(), time, lsn: reached, timeline })
    }

    /// Starts the server as a child that dies with this process, however it ends: half a recovery is worth nothing.
    fn supervised(&self, node: &NodeRecord) -> io::Result<Child> {
        self.tools.account().write(&node.log_file, "")?;
        let log = fs::File::options().append(true).open(&node.log_file)?;
        let mut command = self.tools.leashed("postgres");
        command.arg("-D").arg(&node.data_dir).stdout(log.try_clone()?).stderr(log);
        command.spawn()
    }
}

/// A session ends a moment before the server that has closed it.
async fn ends_soon(server: &mut Child) -> bool {
    let begun = Instant::now();
    while !has_ended(server) && begun.elapsed() < ATTEMPT {
        sleep(LOOK_AGAIN).await;
    }
    has_ended(server)
}

fn has_ended(server: &mut Child) -> bool {
    !matches!(server.try_wait(), Ok(None))
}

/// Waits until the server has left its recovery; returns the last position and the last commit that it has replayed.
async fn replayed(session: &Session, progress: &dyn Progress) -> Result<(String, Option<String>), SqlError> {
    let mut told = Instant::now();
    loop {
        // Both keep their values after the recovery.
        let reached = format!(
            "SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn()::text, ''),
                    to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', '{RFC3339}')"
        );
        let rows = session.rows("ask for the recovery", &reached, &[]).await?;
        if let Some(row) = rows.first() {
            let (recovers, lsn, time): (bool, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
            if !recovers {
                return Ok((lsn, time));
            }
            if told.elapsed() > TELL_AGAIN {
                told = Instant::now();
                let time = time.map_or_else(String::new, |time| format!(", {time}"));
                progress.step(&format!("replaying the WAL: it has come to {lsn}{time}"));
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Why the server has ended, by its own log.
fn ended(node: &NodeRecord, recovery: &Recovery, error: SqlError) -> RestoreError {
    let text = fs::read_to_string(&node.log_file).unwrap_or_default();
    if !text.contains(NOT_REACHED) {
        let (node, log) = (node.name.clone(), last_lines(&text));
        return RestoreError::Recovery(match log.is_empty() {
            false => ServerError::Start { node, log, source: None },
            true => ServerError::NotAccepting { node, log, source: error },
        });
    }
    let lines = text.lines().filter(|line| line.contains(NOT_REACHED));
    let log = last_lines(&lines.collect::<Vec<_>>().join("\n"));
    RestoreError::NotReached { target: recovery.target, last: last_commit(&text), log }
}

fn last_commit(log: &str) -> Option<String> {
    let last = log.lines().filter_map(|line| line.split_once(LAST_COMMIT)).next_back();
    last.map(|(_, time)| time.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_old_cluster_are_left_out() {
        let text = "# Do not edit\nwork_mem = '8MB'\nprimary_conninfo = 'x'\nsynchronous_standby_names = 'ANY 1 (*)'\n\
                    archive_command = 'y'\ndefault_transaction_read_only = 'on'\n";
        assert_eq!(own_settings(text), "# Do not edit\nwork_mem = '8MB'\n");
    }

    #[test]
    fn the_log_tells_the_last_commit() {
        let log = "2026 LOG:  redo done at 0/5000060\n2026 LOG:  last completed transaction was at log time 2026-03-01 12:00:00.5+00\n";
        assert_eq!(last_commit(log).as_deref(), Some("2026-03-01 12:00:00.5+00"));
        assert_eq!(last_commit(""), None);
    }
}
