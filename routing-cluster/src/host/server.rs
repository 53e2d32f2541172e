//! The server of a data directory on this host: starting it, stopping it, telling it to read its settings again, its log.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::process::Command;

use super::{configuration::Place, programs::Programs};
use crate::{command::CommandError, process, server::log_tail};

/// How long a server may take to start: before it replays anything it may flush every file.
const START_SECONDS: u64 = 600;
/// How long a fast shutdown may take.
const STOP_SECONDS: u64 = 60;
/// How long a reload, or reading a setting, may take.
const QUICK: Duration = Duration::from_secs(15);
/// `pg_ctl` is given this much longer than the deadline it was told, to report it itself.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of `postmaster.pid`, counted from 0: the port, the directory of the socket.
const PORT_LINE: usize = 3;
const SOCKET_LINE: usize = 4;

/// A server's place and what runs it.
#[derive(Debug)]
pub(super) struct HostServer<'a> {
    pub(super) programs: &'a Programs,
    pub(super) data_dir: &'a Path,
    pub(super) place: Place,
}

impl HostServer<'_> {
    /// Where the server writes until its own logging begins, and for good when that is not switched on.
    fn log_file(&self) -> PathBuf {
        self.data_dir.join("log/routing-cluster.log")
    }

    /// Starts it and waits until it replays, or accepts connections.
    pub(super) async fn start(&self) -> Result<(), CommandError> {
        let log = self.log_file();
        if let Some(folder) = log.parent() {
            // If that fails, the server's own start says why.
            let _ = fs::DirBuilder::new().mode(0o700).create(folder);
            let _ = self.programs.account().own_path(folder);
        }
        let prepare = |pg_ctl: &mut Command| {
            pg_ctl.args(["start", "--silent", "--wait", "--timeout", &START_SECONDS.to_string()]);
            pg_ctl.arg("--pgdata").arg(self.data_dir).arg("--log").arg(log);
            if let Some(option) = self.place.option() {
                pg_ctl.arg("--options").arg(format!("-c \"{}\"", option.display()));
            }
        };
        self.pg_ctl(prepare, Duration::from_secs(START_SECONDS) + GRACE).await
    }

    async fn pg_ctl(
        &self,
        prepare: impl FnOnce(&mut Command),
        deadline: Duration,
    ) -> Result<(), CommandError> {
        self.programs.run("pg_ctl", prepare, deadline).await.map(drop)
    }

    /// Ends its recovery, and waits until it is a primary, or so many seconds.
    pub(super) async fn promote(&self, seconds: u64) -> Result<(), CommandError> {
        let prepare = |pg_ctl: &mut Command| {
            pg_ctl.args(["promote", "--silent", "--wait", "--timeout", &seconds.to_string()]);
            pg_ctl.arg("--pgdata").arg(self.data_dir);
        };
        self.pg_ctl(prepare, Duration::from_secs(seconds) + GRACE).await
    }

    /// Stops it, cleanly if it can be; whatever is left then is killed.
    pub(super) async fn stop(&self) {
        let prepare = |pg_ctl: &mut Command| {
            pg_ctl.args(["stop", "--silent", "--mode", "fast", "--timeout", &STOP_SECONDS.to_string()]);
            pg_ctl.arg("--pgdata").arg(self.data_dir);
        };
        let stopped = self.pg_ctl(prepare, Duration::from_secs(STOP_SECONDS) + GRACE).await;
        if stopped.is_err() || process::is_served(self.data_dir) {
            // What survives that, nobody can stop.
            let _ = process::kill_family(self.data_dir);
        }
    }

    /// Lets the running server read its settings again.
    pub(super) async fn reload(&self) -> Result<(), CommandError> {
        let prepare = |pg_ctl: &mut Command| {
            pg_ctl.args(["reload", "--silent", "--pgdata"]).arg(self.data_dir);
        };
        self.pg_ctl(prepare, QUICK).await
    }

    /// A setting as the configuration files have it.
    pub(super) async fn setting(&self, name: &str) -> Result<String, CommandError> {
        let prepare = |postgres: &mut Command| {
            postgres.args(["-C", name, "-D"]).arg(self.data_dir);
            if let Some(option) = self.place.option() {
                postgres.arg("-c").arg(option);
            }
        };
        let value = self.programs.run("postgres", prepare, QUICK).await?;
        Ok(value.trim_end_matches('\n').to_owned())
    }

    /// What the server has written since `start`, which is a length of its first log and a moment.
    pub(super) async fn log_since(&self, start: &LogStart) -> String {
        let first = log_tail(&self.log_file(), start.length);
        match self.collected(start.moment).await {
            Some(file) => log_tail(&file, 0),
            None => first,
        }
    }

    pub(super) fn log_start(&self) -> LogStart {
        let length = fs::metadata(self.log_file()).map_or(0, |metadata| metadata.len());
        LogStart { length, moment: SystemTime::now() }
    }

    /// The newest file of the server's own log, if it has been written to since.
    async fn collected(&self, since: SystemTime) -> Option<PathBuf> {
        if self.setting("logging_collector").await.ok()? != "on" {
            return None;
        }
        let folder = self.data_dir.join(self.setting("log_directory").await.ok()?);
        let files = fs::read_dir(folder).ok()?.flatten();
        let written = files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())));
        let own = self.log_file();
        let newest = written.filter(|(moment, path)| *moment >= since && *path != own).max();
        newest.map(|(_, path)| path)
    }

    /// The running server's port and the directory of its socket, which is empty when it has none.
    pub(super) fn address(&self) -> Option<(u16, String)> {
        let text = fs::read_to_string(self.data_dir.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some((lines.get(PORT_LINE)?.parse().ok()?, (*lines.get(SOCKET_LINE)?).to_owned()))
    }
}

/// Where a log ended when something began.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogStart {
    length: u64,
    moment: SystemTime,
}
