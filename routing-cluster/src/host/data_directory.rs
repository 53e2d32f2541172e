//! A data directory as it lies on this host: absent, empty, somebody else's, or a server's.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::remains::{MARKER, Remains, STAGING, UNFINISHED};
use crate::{
    account::{Account, AccountError},
    layout::{is_same, is_usable},
    process,
};

/// Names that are shown of what lies in a directory.
const NAMES_SHOWN: usize = 3;

/// Why a data directory cannot be worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirectoryError {
    /// The path cannot be handed to PostgreSQL's programs.
    #[error("PostgreSQL's programs cannot handle the path {}: choose one without quotation marks, $, ` or \\", path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
    },
    /// The directory above it is missing.
    #[error("{} does not exist, and {} is not made: create it first, owned by the servers' user", parent.display(), path.display())]
    NoParent {
        /// The data directory.
        path: PathBuf,
        /// The missing directory above it.
        parent: PathBuf,
    },
    /// Something else than a directory has the name.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Nothing may be made beside it.
    #[error("{} may not be written to: run this command as root, or give the directory to the servers' user", parent.display())]
    NotWritable {
        /// The directory above the data directory.
        parent: PathBuf,
    },
    /// Another command works on it.
    #[error("another command is working on {}: wait for it to end", path.display())]
    Busy {
        /// The data directory.
        path: PathBuf,
    },
    /// The servers' user cannot be determined, or may not get there.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The operating system refused.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl DataDirectoryError {
    /// Adapts an I/O error: what was tried, and with what.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirectoryError {
        move |source| DataDirectoryError::Io { doing, path: path.to_owned(), source }
    }
}

/// What lies in a data directory.
#[derive(Debug)]
pub(super) enum Contents {
    /// The directory does not exist.
    Absent,
    /// It is empty.
    Empty,
    /// A join was interrupted here, and nothing else lies there.
    Remains(Remains),
    /// Something that is no server's: the names of some of it.
    Foreign(String),
    /// A server's data.
    Server(Server),
}

/// A server's data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    /// The major release that made it.
    pub(super) release: u32,
    /// Whether a server runs on it.
    pub(super) running: bool,
    /// What it is, or becomes when it starts.
    pub(super) role: Role,
}

/// What a server starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It follows another server (`standby.signal`).
    Standby,
    /// It restores a backup up to some point, and becomes a primary then (`recovery.signal`).
    Restoring,
    /// Nothing makes it follow.
    Primary,
}

/// The place of a data directory, whether it exists or not: absolute, without links above it.
#[derive(Debug, Clone)]
pub(super) struct DataDirectory {
    path: PathBuf,
    parent: PathBuf,
}

impl DataDirectory {
    pub(super) fn locate(path: &Path) -> Result<DataDirectory, DataDirectoryError> {
        let path = std::path::absolute(path).map_err(DataDirectoryError::io("find", path))?;
        let path = match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => resolved_parent(&path)?,
            found => found.map_err(DataDirectoryError::io("open", &path))?,
        };
        if !is_usable(&path) {
            return Err(DataDirectoryError::Unusable { path });
        }
        let parent = path.parent().map(Path::to_owned);
        // The root of all files is not empty, so nothing is ever made there.
        let parent = parent.unwrap_or_else(|| path.clone());
        if path.exists() && !path.is_dir() {
            return Err(DataDirectoryError::NotADirectory { path });
        }
        Ok(DataDirectory { path, parent })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    /// The user that a server on it runs as: its owner, or for a new one the unprivileged user that root runs servers as.
    pub(super) fn account(&self) -> Result<Account, DataDirectoryError> {
        let account = if self.path.exists() { Account::owning(&self.path)? } else { Account::for_new()? };
        account.check_reach(&self.parent)?;
        Ok(account)
    }

    /// Whether this process may make something beside it.
    pub(super) fn check_writable_parent(&self) -> Result<(), DataDirectoryError> {
        let writable = access(&self.parent, AccessFlags::W_OK | AccessFlags::X_OK);
        // Root may write everywhere, except where nobody may.
        writable.map_err(|_| DataDirectoryError::NotWritable { parent: self.parent.clone() })
    }

    /// Holds the directory against other commands, until the file is dropped. It must exist.
    pub(super) fn lock(&self) -> Result<File, DataDirectoryError> {
        let file = File::open(&self.path).map_err(DataDirectoryError::io("open", &self.path))?;
        let busy = || DataDirectoryError::Busy { path: self.path.clone() };
        match file.try_lock() {
            // Whoever held it may have removed it: then this is a lock on nothing.
            Ok(()) if is_same(&file, &self.path) => Ok(file),
            Ok(()) | Err(TryLockError::WouldBlock) => Err(busy()),
            Err(TryLockError::Error(source)) => Err(DataDirectoryError::io("lock", &self.path)(source)),
        }
    }

    pub(super) fn contents(&self) -> Result<Contents, DataDirectoryError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Absent),
            entries => entries.map_err(DataDirectoryError::io("list", &self.path))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(DataDirectoryError::io("list", &self.path))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != UNFINISHED);
        names.sort_unstable();
        if let Some(remains) = Remains::read(&self.path)? {
            names.retain(|name| ![MARKER, STAGING].contains(&name.as_str()));
            // What was copied is being put in place, and all that lies there is of the copy.
            if remains.complete() || names.is_empty() {
                return Ok(Contents::Remains(remains));
            }
        }
        if names.is_empty() {
            return Ok(Contents::Empty);
        }
        match self.release() {
            Some(release) => Ok(Contents::Server(self.server(release))),
            None => Ok(Contents::Foreign(shown(&names))),
        }
    }

    fn release(&self) -> Option<u32> {
        let version = fs::read_to_string(self.path.join("PG_VERSION")).ok()?;
        self.path.join("global/pg_control").is_file().then(|| version.trim().parse().ok())?
    }

    fn server(&self, release: u32) -> Server {
        let has = |name: &str| self.path.join(name).exists();
        let role = match (has("standby.signal"), has("recovery.signal")) {
            (true, _) => Role::Standby,
            (false, true) => Role::Restoring,
            (false, false) => Role::Primary,
        };
        Server { release, running: process::postmaster(&self.path).is_some(), role }
    }
}

fn resolved_parent(path: &Path) -> Result<PathBuf, DataDirectoryError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(DataDirectoryError::NotADirectory { path: path.to_owned() });
    };
    if path.symlink_metadata().is_ok() {
        // A link that leads nowhere.
        return Err(DataDirectoryError::NotADirectory { path: path.to_owned() });
    }
    match fs::canonicalize(parent) {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DataDirectoryError::NoParent { path: path.to_owned(), parent: parent.to_owned() })
        }
        Err(source) => Err(DataDirectoryError::io("open", parent)(source)),
    }
}

/// Some of the names, for a message.
fn shown(names: &[String]) -> String {
    let mut text = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN {
        text.push_str(", …");
    }
    text
}
