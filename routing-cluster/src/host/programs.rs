//! PostgreSQL's programs on this host, run as the servers' user would run them.

use std::path::{Path, PathBuf};

use tokio::{process::Command, task::spawn_blocking};

use super::leash;
use crate::{account::Account, binaries::Binaries, binaries::BinariesError, command::Tools};

/// The programs of one release.
#[derive(Debug)]
pub(super) struct Programs {
    tools: Tools,
    dir: PathBuf,
    home: PathBuf,
    release: u32,
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
        let (release, dir) = (binaries.release(), binaries.dir().to_owned());
        let home = account.home().unwrap_or_else(|| directory.to_owned());
        Ok(Programs {
            tools: Tools::new(binaries, account.clone(), directory.to_owned()),
            dir,
            home,
            release,
        })
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
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = self.tools.command(program);
        command.env("HOME", &self.home);
        command
    }

    /// The same for a program that also dies with this process: for work that may take hours, and is worth nothing alone.
    pub(super) fn leashed(&self, program: &str) -> Command {
        leash::leashed(self.command("/bin/sh"), self.dir.join(program).as_os_str())
    }
}
