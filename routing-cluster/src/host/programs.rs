//! PostgreSQL's programs on this host, run as the servers' user would run them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, task::spawn_blocking};

use crate::{
    account::Account,
    binaries::{Binaries, BinariesError},
    command::{CommandError, Tools, run},
};

/// Becomes another user with all of that user's groups, one of which may be the only one that reads the server's key
/// (Debian's `ssl-cert`). Part of util-linux; without it, the groups are left out.
const SWITCH: &str = "setpriv";

/// The programs of one release.
#[derive(Debug)]
pub(super) struct Programs {
    tools: Tools,
    home: PathBuf,
    release: u32,
    switch: Option<PathBuf>,
}

impl Programs {
    /// The newest release of this host, or exactly `release`. They run in `directory`, which the account may enter.
    pub(super) async fn find(
        release: Option<u32>,
        account: &Account,
        directory: &Path,
    ) -> Result<Programs, BinariesError> {
        let found = spawn_blocking(move || release.map_or_else(Binaries::find, Binaries::find_release)).await;
        // Only a runtime that shuts down cancels the task, and then nobody reads this.
        let binaries = found.unwrap_or(Err(BinariesError::Missing { too_old: Vec::new() }))?;
        if !binaries.dir().join("psql").is_file() {
            return Err(BinariesError::NoClient { dir: binaries.dir().to_owned() });
        }
        let release = binaries.release();
        let home = account.home();
        // A user whom the system does not know has no groups to take along.
        let switch = home.as_ref().and_then(|_| on_path(SWITCH));
        let home = home.unwrap_or_else(|| directory.to_owned());
        let tools = Tools::new(binaries, account.clone(), directory.to_owned());
        Ok(Programs { tools, home, release, switch })
    }

    /// The major release.
    pub(super) fn release(&self) -> u32 {
        self.release
    }

    pub(super) fn account(&self) -> &Account {
        self.tools.account()
    }

    /// Prepares a program; it dies when its future is dropped. The home is the servers' user's own: certificates are looked
    /// for there, by the server as well.
    fn command(&self, program: &str) -> Command {
        let mut command = self.with_groups(self.tools.command(program));
        command.env("HOME", &self.home);
        command
    }

    /// The same command as the same user, but with the user's groups.
    fn with_groups(&self, prepared: Command) -> Command {
        let (Some(switch), Some((uid, gid))) = (&self.switch, self.account().switch()) else {
            return prepared;
        };
        let prepared = prepared.as_std();
        let mut command = Command::new(switch);
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).args(["--init-groups", "--"]);
        command.arg(prepared.get_program()).args(prepared.get_args());
        command.env_clear().envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(prepared.get_current_dir().unwrap_or_else(|| Path::new("/")));
        command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        command
    }

    /// Runs a program to its end and returns what it wrote to standard output. Errors name it, whatever it was started by.
    pub(super) async fn run(
        &self,
        program: &str,
        prepare: impl FnOnce(&mut Command),
        deadline: Duration,
    ) -> Result<String, CommandError> {
        let mut command = self.command(program);
        prepare(&mut command);
        let program = program.to_owned();
        run(command, deadline).await.map_err(|error| match error {
            CommandError::Spawn { source, .. } => CommandError::Spawn { program, source },
            CommandError::Failed { status, output, .. } => CommandError::Failed { program, status, output },
            CommandError::TimedOut { deadline, output, .. } => {
                CommandError::TimedOut { program, deadline, output }
            }
        })
    }

    /// Prepares a program that also dies with this process: for work that may take hours, and is worth nothing alone. Its
    /// standard input is the leash.
    pub(super) fn leashed(&self, program: &str) -> Command {
        let mut command = self.with_groups(self.tools.leashed(program));
        command.env("HOME", &self.home).stdin(Stdio::piped());
        command
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
