//! Running the server's programs: as the right user, with a clean environment and a deadline.

use std::{
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use crate::{account::Account, binaries::Binaries};

/// Variables that programs may inherit. `PG*` variables of the caller would redirect them to another server.
const INHERITED: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "TMPDIR"];
/// A shell that runs a program and kills its whole process group when the process that holds the other end of its
/// standard input has ended, however it ended. Nothing else goes through that pipe. A program that is killed alone
/// may leave a child: `pg_basebackup` does.
const LEASH: &str = r#"exec 3<&0
"$@" </dev/null 3<&- &
program=$!
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
watch=$!
wait "$program"
status=$?
kill "$watch" 2>/dev/null
exit "$status""#;
/// Lines of a program's output, or of a log, that an error repeats.
const QUOTED_LINES: usize = 12;

/// Why a program of PostgreSQL did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The program did not even begin.
    #[error("could not run {program}")]
    Spawn {
        /// The program's name.
        program: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The program ended with an error.
    #[error("{program} failed ({status}){}", quoted(.output))]
    Failed {
        /// The program's name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote.
        output: String,
    },
    /// The program was ended because it took too long.
    #[error("{program} did not end within {} s and was killed{}", deadline.as_secs(), quoted(.output))]
    TimedOut {
        /// The program's name.
        program: String,
        /// How long it was allowed to run.
        deadline: Duration,
        /// The last lines that it wrote.
        output: String,
    },
}

/// Puts quoted lines below a message, or nothing when there are none.
pub(crate) fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(":\n{text}") }
}

/// The last lines of `text`, indented for an error message.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
    tail.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// What every program of one cluster shares.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    binaries: Binaries,
    account: Account,
    directory: PathBuf,
}

impl Tools {
    /// `directory` is the cluster's, in which the programs run: the caller's may be closed to their user.
    pub(crate) fn new(binaries: Binaries, account: Account, directory: PathBuf) -> Tools {
        Tools { binaries, account, directory }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Prepares a program of PostgreSQL; it dies when its future is dropped.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.prepared(&self.binaries.dir().join(program))
    }

    /// Prepares a program of PostgreSQL that also dies with this process: for work that may take hours, and that is
    /// worth nothing alone.
    pub(crate) fn leashed(&self, program: &str) -> Command {
        self.on_leash(self.binaries.dir().join(program).as_os_str())
    }

    /// The same for a program of the system.
    pub(crate) fn leashed_system(&self, program: &str) -> Command {
        self.on_leash(OsStr::new(program))
    }

    fn on_leash(&self, program: &OsStr) -> Command {
        let mut command = self.prepared(Path::new("/bin/sh"));
        command.args(["-c", LEASH, "sh"]).arg(program).stdin(Stdio::piped());
        command
    }

    fn prepared(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.directory).stdin(Stdio::null()).kill_on_drop(true);
        command.envs(INHERITED.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.env("HOME", &self.directory).env("LC_ALL", "C").env("TZ", "UTC");
        // The caller's Ctrl-C must reach neither a server nor a program that is half-way through its files.
        command.process_group(0);
        if let Some((uid, gid)) = self.account.switch() {
            command.gid(gid).uid(uid);
        }
        command
    }
}

/// Runs `command` to its end and returns what it wrote to standard output.
pub(crate) async fn run(mut command: Command, deadline: Duration) -> Result<String, CommandError> {
    let program = name(command.as_std());
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| CommandError::Spawn { program: program.clone(), source })?;
    // Waiting for a child closes its standard input, which is what a leash must outlive.
    let leash = child.stdin.take();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut output, mut complaints) = (Vec::new(), Vec::new());
    let ended = timeout(deadline, async {
        let read_output = async {
            if let Some(pipe) = &mut stdout {
                let _ = pipe.read_to_end(&mut output).await;
            }
        };
        let read_complaints = async {
            if let Some(pipe) = &mut stderr {
                let _ = pipe.read_to_end(&mut complaints).await;
            }
        };
        let ((), (), status) = tokio::join!(read_output, read_complaints, child.wait());
        status
    })
    .await;
    drop(leash);
    let output = String::from_utf8_lossy(&output).into_owned();
    let shown = |output: &str| {
        let complaints = String::from_utf8_lossy(&complaints);
        last_lines(if complaints.trim().is_empty() { output } else { &complaints })
    };
    match ended {
        Ok(Ok(status)) if status.success() => Ok(output),
        Ok(Ok(status)) => Err(CommandError::Failed { program, status, output: shown(&output) }),
        Ok(Err(source)) => Err(CommandError::Spawn { program, source }),
        Err(_) => {
            let _ = child.kill().await;
            Err(CommandError::TimedOut { program, deadline, output: shown(&output) })
        }
    }
}

/// The program that does the work, whatever runs it.
fn name(command: &std::process::Command) -> String {
    let mut arguments = command.get_args();
    let leashed = arguments.nth(1).is_some_and(|script| script == LEASH);
    let program = if leashed { arguments.nth(1) } else { None };
    let path = Path::new(program.unwrap_or_else(|| command.get_program()));
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).kill_on_drop(true);
        command
    }

    #[tokio::test]
    async fn a_failure_quotes_what_the_program_said() {
        let error = run(shell("echo out; echo why >&2; exit 3"), Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3):\n  why");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_and_quoted() {
        let error = run(shell("echo slow >&2; exec sleep 60"), Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(&error, CommandError::TimedOut { output, .. } if output == "  slow"), "{error}");
    }

    fn on_leash(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", LEASH, "sh", "/bin/sh", "-c", script]).stdin(Stdio::piped()).process_group(0);
        command
    }

    #[tokio::test]
    async fn a_leash_shows_only_what_it_holds() {
        let output = run(on_leash("echo out"), Duration::from_secs(10)).await.unwrap();
        assert_eq!(output, "out\n");
        let error = run(on_leash("echo why >&2; exit 3"), Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3):\n  why");
    }

    #[tokio::test]
    async fn a_program_on_a_leash_dies_with_whoever_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        // What counts is the program's child, too.
        let script = format!("sleep 60 & echo $! >'{0}.new'; mv '{0}.new' '{0}'; wait", file.display());
        let mut child = on_leash(&script).spawn().unwrap();
        let pid = loop {
            match std::fs::read_to_string(&file) {
                Ok(pid) => break pid.trim().to_owned(),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let runs = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        assert!(runs());
        // The end of this process would close the pipe like this.
        drop(child.stdin.take());
        let begun = tokio::time::Instant::now();
        while runs() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.wait().await.unwrap();
    }

    #[test]
    fn only_the_last_lines_are_quoted() {
        let text: String = (0..100).map(|n| format!("{n}\n\n")).collect();
        let tail = last_lines(&text);
        assert_eq!(tail.lines().count(), QUOTED_LINES);
        assert!(tail.ends_with("  99"));
    }
}
