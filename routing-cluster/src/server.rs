//! Starting and stopping one server.

use std::{
    fs, io,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    command::{CommandError, Tools, last_lines, quoted, run},
    credentials::Credentials,
    node::NodeRecord,
    process,
    sql::{Session, SqlError},
};

/// How long a server may take to start: crash recovery replays at most `max_wal_size`.
const START_SECONDS: u64 = 120;
/// How long a fast shutdown may take; it waits for a checkpoint and for the standbys.
const STOP_SECONDS: u64 = 60;
/// `pg_ctl` is given this much longer than the deadline it was told, to report it itself.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at a server that is starting.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// The line of `postmaster.pid`, counted from 0, with what the server does.
const STATUS_LINE: usize = 7;
/// How long one attempt to connect to a starting server may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Why a server did not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The server ended, or was not ready in time.
    #[error("{node} did not start{}", quoted(.log))]
    Start {
        /// The node.
        node: String,
        /// The last lines of the server's own log.
        log: String,
        /// What the start command said, where the log does not say it better.
        source: Option<CommandError>,
    },
    /// The server runs but takes no connection.
    #[error("{node} started but did not accept connections within {START_SECONDS} s{}", quoted(.log))]
    NotAccepting {
        /// The node.
        node: String,
        /// The last lines of the server's own log.
        log: String,
        /// The last attempt's error.
        source: SqlError,
    },
    /// The server did not stop.
    #[error("{node} did not stop")]
    Stop {
        /// The node.
        node: String,
        /// What the stop command said.
        source: CommandError,
    },
    /// The server's processes could not be signalled.
    #[error("could not {doing} the processes of {node}")]
    Signal {
        /// What was tried.
        doing: &'static str,
        /// The node.
        node: String,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Starts the server and waits until it accepts connections. On an error it may still run: the caller
/// holds the guard that ends it.
pub(crate) async fn start(
    tools: &Tools,
    node: &NodeRecord,
    superuser: &Credentials,
) -> Result<(), ServerError> {
    let log_start = fs::metadata(&node.log_file).map_or(0, |metadata| metadata.len());
    remove_stale_locks(node);
    let mut command = tools.command("pg_ctl");
    command.args(["start", "--silent", "--wait", "--timeout", &START_SECONDS.to_string()]);
    command.arg("--pgdata").arg(&node.data_dir).arg("--log").arg(&node.log_file);
    let deadline = Duration::from_secs(START_SECONDS) + GRACE;
    if let Err(error) = run(command, deadline).await {
        let log = log_tail(&node.log_file, log_start);
        let explained = matches!(error, CommandError::Failed { .. }) && !log.is_empty();
        let source = (!explained).then_some(error);
        return Err(ServerError::Start { node: node.name.clone(), log, source });
    }
    // A standby counts as started before it lets anybody in.
    accepting(node, superuser).await.map_err(|source| ServerError::NotAccepting {
        node: node.name.clone(),
        log: log_tail(&node.log_file, log_start),
        source,
    })
}

async fn accepting(node: &NodeRecord, superuser: &Credentials) -> Result<(), SqlError> {
    let begun = Instant::now();
    loop {
        match Session::connect(node.port, superuser, ATTEMPT).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                let died = process::postmaster(&node.data_dir).is_none();
                if died || begun.elapsed() > Duration::from_secs(START_SECONDS) {
                    return Err(error);
                }
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Removes what a crashed server has left: its `postmaster.pid` and its socket's lock file. Both name a process
/// id, which may belong to somebody else by now (in a restarted container it usually does), or to a zombie
/// that nobody reaps; the server would take either for a live one and refuse to start.
pub(crate) fn remove_stale_locks(node: &NodeRecord) {
    if process::is_served(&node.data_dir) {
        return;
    }
    // Missing is the usual case; whatever else is wrong, the server's own start will say.
    let _ = fs::remove_file(node.data_dir.join("postmaster.pid"));
    if let Some(dir) = &node.socket_dir {
        let _ = fs::remove_file(dir.join(format!(".s.PGSQL.{}.lock", node.port)));
    }
}

/// Stops the server cleanly, also a paused one; does nothing when it does not run.
pub(crate) async fn stop(tools: &Tools, node: &NodeRecord) -> Result<(), ServerError> {
    if process::postmaster(&node.data_dir).is_none() {
        return Ok(());
    }
    resume(node).await?;
    let mut command = tools.command("pg_ctl");
    command.args(["stop", "--silent", "--mode", "fast", "--wait", "--timeout", &STOP_SECONDS.to_string()]);
    command.arg("--pgdata").arg(&node.data_dir);
    let deadline = Duration::from_secs(STOP_SECONDS) + GRACE;
    match run(command, deadline).await {
        Ok(_) => {
            // The server removes its lock file, which is what the command waits for, a moment before it ends.
            let begun = Instant::now();
            while process::is_served(&node.data_dir) && begun.elapsed() < GRACE {
                sleep(LOOK_AGAIN).await;
            }
            Ok(())
        }
        // It may have ended by itself just before.
        Err(_) if process::postmaster(&node.data_dir).is_none() => Ok(()),
        Err(source) => Err(ServerError::Stop { node: node.name.clone(), source }),
    }
}

/// Waits while the server starts or stops; one that is paused, or takes too long, is left to its fate.
pub(crate) async fn settled(node: &NodeRecord) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(STOP_SECONDS) {
        if process::postmaster(&node.data_dir).is_none_or(|process| process.is_paused()) {
            return;
        }
        let lock = fs::read_to_string(node.data_dir.join("postmaster.pid")).unwrap_or_default();
        // It appears with the first status, which comes after the process id.
        let status = lock.lines().nth(STATUS_LINE).unwrap_or("starting").trim();
        if !matches!(status, "starting" | "stopping") {
            return;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Kills all processes of the node at once; returns how many there were.
pub(crate) async fn kill(node: &NodeRecord) -> Result<usize, ServerError> {
    signal("kill", node, process::kill_family).await
}

/// Kills all processes of a node that will not start again.
pub(crate) async fn end(node: &NodeRecord) -> Result<usize, ServerError> {
    signal("kill", node, process::end_family).await
}

/// Lets every process of the node stand still.
pub(crate) async fn pause(node: &NodeRecord) -> Result<(), ServerError> {
    signal("pause", node, process::pause_family).await
}

/// Lets every process of the node go on.
pub(crate) async fn resume(node: &NodeRecord) -> Result<(), ServerError> {
    signal("resume", node, process::resume_family).await
}

async fn signal<T: Send + 'static>(
    doing: &'static str,
    node: &NodeRecord,
    send: fn(&Path) -> io::Result<T>,
) -> Result<T, ServerError> {
    let data_dir = node.data_dir.clone();
    let sent =
        spawn_blocking(move || send(&data_dir)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    sent.map_err(|source| ServerError::Signal { doing, node: node.name.clone(), source })
}

/// What the server wrote since `start`; old lines would explain an older failure.
pub(crate) fn log_tail(log_file: &Path, start: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(log_file)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(|_| String::new(), |bytes| last_lines(&String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_leaves_older_lines_out() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("pg.log");
        fs::write(&log, "old\nFATAL: new\n").unwrap();
        assert_eq!(log_tail(&log, 4), "  FATAL: new");
        assert_eq!(log_tail(&dir.path().join("none"), 0), "");
    }
}
