//! Why a standby was not promoted.

use std::path::PathBuf;

use super::{conninfo::InvalidConninfo, data_directory::DataDirectoryError, refusal::UpstreamError};
use crate::{
    binaries::BinariesError,
    command::{CommandError, quoted},
};

/// Why a standby was not promoted. Except for [`PromoteError::NotPromoted`], nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromoteError {
    /// There is no server's data.
    #[error("{} is no data directory: give the standby's with --data-dir", path.display())]
    NotADataDirectory {
        /// The path.
        path: PathBuf,
    },
    /// No server runs on it.
    #[error("no server runs on {}: {}", path.display(), not_running(*.standby))]
    NotRunning {
        /// The data directory.
        path: PathBuf,
        /// Whether it would start as a standby.
        standby: bool,
    },
    /// The data directory cannot be worked on.
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// A program of PostgreSQL failed.
    #[error("could not {doing} {}", path.display())]
    Program {
        /// What was tried.
        doing: &'static str,
        /// The data directory.
        path: PathBuf,
        /// What the program said.
        source: CommandError,
    },
    /// Where the old primary is cannot be read.
    #[error("the standby's primary_conninfo cannot be read: {0}")]
    Conninfo(InvalidConninfo),
    /// The standby names no primary.
    #[error(
        "the standby was not promoted: its primary_conninfo names no primary, so it is not certain that it has stopped; `--force` promotes it all the same"
    )]
    NoPrimary,
    /// The old primary answers.
    #[error(
        "the standby was not promoted: its primary at {at} runs and is a primary, so there would be two; stop it there first (pg_ctl stop -m fast, or its service manager), which also sends its last writes here"
    )]
    OldPrimaryRuns {
        /// Host and port.
        at: String,
    },
    /// The server that the standby follows is a standby, too.
    #[error(
        "the standby was not promoted: {at}, which it follows, is a standby itself, and their primary may go on; promote that one, or this one with `--force`"
    )]
    Cascade {
        /// Host and port.
        at: String,
    },
    /// Another system's server answers where the old primary should be.
    #[error(
        "the standby was not promoted: the server at {at} is of another system ({identifier}), so it is not certain that the old primary has stopped; `--force` promotes it all the same"
    )]
    Stranger {
        /// Host and port.
        at: String,
        /// That server's system identifier.
        identifier: String,
    },
    /// Nothing proves that the old primary has stopped.
    #[error(
        "the standby was not promoted: it is not certain that its primary at {at} has stopped; make sure of it (power it off, or cut it off), then promote with `--force`"
    )]
    Unknown {
        /// Host and port.
        at: String,
        /// Why it is not certain.
        source: UpstreamError,
    },
    /// The server was told to promote, and has not become a primary in time.
    #[error("the server on {} did not become a primary: {said}; see its log, then repeat{}", path.display(), quoted(.log))]
    NotPromoted {
        /// The data directory.
        path: PathBuf,
        /// What was seen.
        said: String,
        /// The last lines of the server's log.
        log: String,
    },
}

fn not_running(standby: bool) -> &'static str {
    if standby {
        "start it (pg_ctl start, or its service manager), so that it replays what it has received, then repeat"
    } else {
        "it would start as a primary by itself, and if another one was promoted since, as a second one"
    }
}
