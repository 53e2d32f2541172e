//! The base backup: copying the primary, with its progress, and giving up as soon as it cannot succeed.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStderr},
    time::timeout,
};

use super::{conninfo::Conninfo, password::Password, programs::Programs};
use crate::{
    command::{CommandError, last_lines},
    progress::Progress,
};

/// How long `pg_basebackup` may say nothing before it counts as hung: it waits for the primary's checkpoint first, and
/// flushes everything at the end.
const SILENCE: Duration = Duration::from_secs(1800);
/// A connection that is broken without a word is noticed after 60 s and 6 probes 10 s apart; the system's default is hours.
const KEEPALIVES: [(&str, &str); 3] =
    [("keepalives_idle", "60"), ("keepalives_interval", "10"), ("keepalives_count", "6")];
/// How many percent lie between two reports of the progress.
const REPORTED: u64 = 10;
/// Lines of the program that are kept for an error.
const KEPT_LINES: usize = 50;
const PROGRAM: &str = "pg_basebackup";

/// Why the primary was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The primary is larger than what is free here.
    #[error(
        "the primary's data are {needed_kb} kB, and {} has {free_kb} kB free: make room, or choose another directory",
        path.display()
    )]
    NoSpace {
        /// The data directory.
        path: PathBuf,
        /// What the primary estimates, without the WAL that is written during the copy, in kB.
        needed_kb: u64,
        /// What is free on the directory's file system, in kB.
        free_kb: u64,
    },
    /// `pg_basebackup` failed, or hung.
    #[error(transparent)]
    Program(#[from] CommandError),
}

/// What is copied, and where to.
#[derive(Debug)]
pub(super) struct Copy<'a> {
    pub(super) programs: &'a Programs,
    pub(super) conninfo: &'a Conninfo,
    pub(super) password: &'a Password,
    pub(super) slot: &'a str,
    pub(super) max_rate: Option<&'a str>,
    pub(super) data_dir: &'a Path,
    pub(super) target: &'a Path,
}

impl Copy<'_> {
    /// Copies the primary. What is there when it fails, the caller removes.
    pub(super) async fn run(&self, progress: &dyn Progress) -> Result<(), CopyError> {
        let mut command = self.programs.leashed(PROGRAM);
        let mut conninfo = self.conninfo.clone();
        for (keyword, value) in KEEPALIVES {
            conninfo.set_default(keyword, value);
        }
        conninfo.set("application_name", &format!("{} base backup", self.slot));
        if let Password::File(file) = self.password {
            command.env("PGPASSFILE", file);
        }
        command.arg("--dbname").arg(conninfo.render()).arg("--pgdata").arg(self.target);
        // It is a standby from its first moment on: nothing can start it as a second primary.
        command.args(["--write-recovery-conf", "--wal-method", "stream", "--slot", self.slot]);
        command.args(["--checkpoint", "fast", "--no-password", "--progress"]);
        if let Some(rate) = self.max_rate {
            command.args(["--max-rate", rate]);
        }
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let spawn = |source| CommandError::Spawn { program: PROGRAM.to_owned(), source };
        let mut child = spawned.map_err(spawn)?;
        // Waiting for a child closes its standard input, which is what the leash must outlive.
        let leash = child.stdin.take();
        let said = match child.stderr.take() {
            Some(stderr) => self.listen(&mut child, stderr, progress).await?,
            None => String::new(),
        };
        let status = child.wait().await.map_err(spawn)?;
        drop(leash);
        if status.success() {
            return Ok(());
        }
        let output = last_lines(&said);
        Err(CommandError::Failed { program: PROGRAM.to_owned(), status, output }.into())
    }

    /// Reads what the program says until its end; returns what is not progress.
    async fn listen(
        &self,
        child: &mut Child,
        stderr: ChildStderr,
        progress: &dyn Progress,
    ) -> Result<String, CopyError> {
        let mut lines = BufReader::new(stderr).split(b'\n');
        let mut said: Vec<String> = Vec::new();
        let mut reported = None;
        loop {
            let line = match timeout(SILENCE, lines.next_segment()).await {
                Ok(Ok(Some(line))) => String::from_utf8_lossy(&line).into_owned(),
                Ok(_) => return Ok(said.join("\n")),
                Err(_) => {
                    let _ = child.kill().await;
                    let (program, output) = (PROGRAM.to_owned(), last_lines(&said.join("\n")));
                    return Err(CommandError::TimedOut { program, deadline: SILENCE, output }.into());
                }
            };
            let Some(measure) = line.rsplit('\r').find_map(Measure::parse) else {
                said.push(line);
                said.drain(..said.len().saturating_sub(KEPT_LINES));
                continue;
            };
            if reported.is_none()
                && let Err(error) = self.check_space(measure)
            {
                let _ = child.kill().await;
                return Err(error);
            }
            let part = measure.percent() / REPORTED;
            if reported != Some(part) {
                reported = Some(part);
                progress.step(&format!("copying: {}", measure.words()));
            }
        }
    }

    fn check_space(&self, measure: Measure) -> Result<(), CopyError> {
        // Tablespaces lie on other file systems, and the estimate does not divide them.
        if measure.tablespaces > 1 {
            return Ok(());
        }
        let Ok(free_kb) = free_kb(self.data_dir) else { return Ok(()) };
        if measure.total_kb.saturating_sub(measure.done_kb) > free_kb {
            let path = self.data_dir.to_owned();
            return Err(CopyError::NoSpace { path, needed_kb: measure.total_kb, free_kb });
        }
        Ok(())
    }
}

/// What is free for users without privileges, in kB.
fn free_kb(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    // Their types differ between systems.
    let bytes = u128::from(found.blocks_available()) * u128::from(found.fragment_size());
    Ok(u64::try_from(bytes / 1024).unwrap_or(u64::MAX))
}

/// One line of progress: `12345/67890 kB (18%), 0/1 tablespace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measure {
    done_kb: u64,
    total_kb: u64,
    tablespaces: u64,
}

impl Measure {
    fn parse(line: &str) -> Option<Measure> {
        let (sizes, rest) = line.trim().split_once(" kB (")?;
        let (done, total) = sizes.split_once('/')?;
        let (_, rest) = rest.split_once("), ")?;
        let (_, rest) = rest.split_once('/')?;
        let tablespaces = rest.split_whitespace().next()?.parse().ok()?;
        Some(Measure { done_kb: done.parse().ok()?, total_kb: total.parse().ok()?, tablespaces })
    }

    fn percent(self) -> u64 {
        // The estimate may be too low, and 100 is for the end.
        self.done_kb.saturating_mul(100).checked_div(self.total_kb).unwrap_or(0).min(99)
    }

    fn words(self) -> String {
        let megabytes = |kb: u64| kb / 1024;
        format!("{} % of {} MB", self.percent(), megabytes(self.total_kb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_is_a_measure() {
        let line = "  12345/ 67890 kB (18%), 0/2 tablespaces (...l/15/data/base/1/2610)".replace("/ ", "/");
        let measure = Measure::parse(&line).unwrap();
        assert_eq!(measure, Measure { done_kb: 12_345, total_kb: 67_890, tablespaces: 2 });
        assert_eq!((measure.percent(), measure.words().as_str()), (18, "18 % of 66 MB"));
        assert_eq!(Measure::parse("pg_basebackup: error: x"), None);
        let beyond = Measure::parse("70000/67890 kB (100%), 1/1 tablespace").unwrap();
        assert_eq!(beyond.percent(), 99);
        assert_eq!(Measure { total_kb: 0, ..beyond }.percent(), 0);
    }
}
