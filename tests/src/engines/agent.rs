//! A process that a test has started.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;

use crate::engines::place::SERVERS_USER;
use crate::process::{Signal, signal};

/// A process of the servers' user. Dropping it kills it, and nothing that it has started.
#[derive(Debug)]
pub struct Agent(Child);

impl Agent {
    /// Starts a program that works in a directory and writes to a log file there.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start<A: AsRef<OsStr>>(
        dir: &Path,
        log: &str,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        variables: &[(&str, &str)],
    ) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(dir.join(log)).expect("a log file");
        let mut command = as_servers(dir, program);
        command.args(arguments).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log file")).stderr(log);
        // A signal to the test's own group is not meant for it.
        command.process_group(0);
        Self(command.spawn().unwrap_or_else(|error| panic!("{program} does not start: {error}")))
    }

    /// Runs a program to its end and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(dir: &Path, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let mut command = as_servers(dir, program);
        let ran = command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output();
        let ran = ran.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (output, errors) = (said(&ran.stdout), said(&ran.stderr));
        assert!(ran.status.success(), "{program} {arguments:?}: {output}{errors}");
        output
    }

    /// Its number.
    ///
    /// # Panics
    /// Never: no system has numbers that large.
    #[must_use]
    pub fn id(&self) -> i32 {
        i32::try_from(self.0.id()).expect("the number of a process")
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) {
        signal(self.id(), which);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command of the servers' user, with nothing of the test's environment: `PGPASSWORD` would beat every password file.
fn as_servers(dir: &Path, program: &str) -> Command {
    let mut command = if Uid::effective().is_root() {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={SERVERS_USER}")).arg(format!("--regid={SERVERS_USER}"));
        command.args(["--init-groups", "--", program]);
        command
    } else {
        Command::new(program)
    };
    let path = std::env::var("PATH").unwrap_or_default();
    command.env_clear().env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command.env("HOME", dir).current_dir(dir);
    command
}
