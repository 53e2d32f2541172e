//! Why a standby did not join.

use std::{io, path::PathBuf};

use super::{
    copy::CopyError, data_directory::DataDirectoryError, password::PasswordError, refusal::UpstreamError,
    upstream::SlotError,
};
use crate::{
    binaries::BinariesError,
    command::{CommandError, quoted},
    error::in_lines,
    replica::LONGEST_NAME,
};

/// Why a standby did not join its primary. Unless a variant says otherwise, the data directory, the slot and the password
/// file are as they were before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The slot's name is none.
    #[error(
        "{slot:?} cannot name a slot: use lower-case letters, digits and underscores, at most {LONGEST_NAME}"
    )]
    SlotName {
        /// The name.
        slot: String,
    },
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// The data directory cannot be worked on.
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
    /// Something lies in the data directory that is no server's data.
    #[error(
        "{} is not empty and no data directory (it holds {found}): it was not touched; choose another one, or empty it yourself{}",
        path.display(), mount_point(.found)
    )]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// Some of the names in it.
        found: String,
    },
    /// A primary runs on the data directory.
    #[error(
        "a server runs on {} that is a primary: it was not touched; stop it first if it is to become a standby",
        path.display()
    )]
    RunningPrimary {
        /// The data directory.
        path: PathBuf,
    },
    /// A backup is being restored in the data directory.
    #[error(
        "{} is being restored to some point (it has recovery.signal), and becomes a primary then: it was not touched",
        path.display()
    )]
    Restoring {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory is another system's.
    #[error(
        "{} belongs to the system {own}, and {at} is the system {primary}: it was not touched; choose another directory, or another primary",
        path.display()
    )]
    OtherSystem {
        /// The data directory.
        path: PathBuf,
        /// The system identifier of the data directory.
        own: String,
        /// The system identifier of the primary.
        primary: String,
        /// The primary's host and port.
        at: String,
    },
    /// The data directory is of another major release.
    #[error(
        "{} holds data of PostgreSQL {own}, and the primary runs {primary}: a standby is of its primary's major release; it was not touched",
        path.display()
    )]
    OtherRelease {
        /// The data directory.
        path: PathBuf,
        /// Its release.
        own: u32,
        /// The primary's.
        primary: u32,
    },
    /// The data directory was a primary's, of the same system.
    #[error(
        "{} was a primary of the same system ({identifier}), and may hold writes that the primary now lacks: it was not touched; keep what you need of it, then run pg_rewind on it (with a superuser, and -R), or empty it, and repeat",
        path.display()
    )]
    FormerPrimary {
        /// The data directory.
        path: PathBuf,
        /// The system identifier of both.
        identifier: String,
    },
    /// This host has no programs of the primary's release.
    #[error("the primary runs PostgreSQL {primary}, and a standby is of its primary's major release")]
    Release {
        /// The primary's release.
        primary: u32,
        /// What was found instead.
        source: BinariesError,
    },
    /// The password was not to be had.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The standby's password file cannot be written.
    #[error(
        "the standby needs a password file beside its data directory, and {} may not be written to: give PGPASSFILE with a file of the servers' user, or run this command as root",
        parent.display()
    )]
    NoPlaceForPassword {
        /// The directory above the data directory.
        parent: PathBuf,
    },
    /// The primary was not reached, or did not let the standby in.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The slot cannot be used.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The primary could not be copied.
    #[error("the primary was not copied")]
    Copy(#[source] CopyError),
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
    /// A file could not be read or written.
    #[error("could not {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The server did not start.
    #[error("the server on {} did not start{}", path.display(), quoted(.log))]
    NotStarted {
        /// The data directory.
        path: PathBuf,
        /// The last lines of the server's log, or what `pg_ctl` said.
        log: String,
    },
    /// The server started, and does not stream.
    #[error(
        "the standby on {} does not stream from {at}: nothing moves, or it has ended; if WAL that it needs is gone there, empty the directory and join again{}",
        path.display(), quoted(.log)
    )]
    NotStreaming {
        /// The data directory.
        path: PathBuf,
        /// The primary's host and port.
        at: String,
        /// The last lines of the server's log.
        log: String,
    },
    /// The copy is complete, and what follows failed. The copy, its slot and its password file stay.
    #[error(
        "the copy in {} is complete and stays, with the slot {slot}, which keeps WAL on the primary: correct what is wrong and repeat, or remove the directory and drop the slot",
        path.display()
    )]
    Unfinished {
        /// The data directory.
        path: PathBuf,
        /// The slot.
        slot: String,
        /// What failed.
        source: Box<JoinError>,
    },
    /// It failed, and not everything could be taken back.
    #[error("the standby did not join, and something of it is left{}", in_lines(.left))]
    LeftOver {
        /// What is left, one sentence each.
        left: Vec<String>,
        /// What failed.
        source: Box<JoinError>,
    },
}

/// A mount point of some file systems holds a directory of the system's own.
fn mount_point(found: &str) -> &'static str {
    if found == "lost+found" { " (it is a mount point: use a directory below it)" } else { "" }
}
