//! The cluster directory: where everything lies, and the lock that one command at a time holds.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

const STATE: &str = "cluster.json";
const LOCK: &str = "lock";
/// How long a command waits for another one on the same cluster; a start or stop usually takes less.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// Between two tries to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// The longest path of a socket that every supported system takes, without the final NUL.
const SOCKET_PATH: usize = 103;
/// The longest file name that PostgreSQL gives a socket, with its lock file's ending.
const SOCKET_NAME: &str = "/.s.PGSQL.65535.lock";

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The directory is not a cluster of this tool.
    #[error("{} is not a cluster directory (it has no {STATE}): give the right one with --dir, or make a cluster with `up`", path.display())]
    NotACluster {
        /// The directory.
        path: PathBuf,
    },
    /// A new cluster would mix with other files.
    #[error("{} is not empty and not a cluster directory: choose an empty or a new directory with --dir", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The path cannot be handed to PostgreSQL's programs.
    #[error("PostgreSQL's programs cannot handle the path {}: choose a directory without quotation marks, $, ` or \\ in its path", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
    },
    /// Another command holds the cluster's lock.
    #[error("another command is working on the cluster in {}: wait for it to end", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the cluster does not hold what it should.
    #[error("{} cannot be understood ({problem}): it was changed by hand or by a newer release", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The operating system refused.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl DirectoryError {
    /// Adapts an I/O error: what was tried, and with which file.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
        move |source| DirectoryError::Io { doing, path: path.to_owned(), source }
    }
}

/// Paths inside one cluster directory, absolute and without links.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// An existing cluster's directory.
    pub(crate) fn open(dir: &Path) -> Result<Layout, DirectoryError> {
        let not_a_cluster = || DirectoryError::NotACluster { path: dir.to_owned() };
        let dir = fs::canonicalize(dir).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_a_cluster(),
            _ => DirectoryError::io("open", dir)(error),
        })?;
        let layout = Layout { dir };
        if layout.is_cluster() { Ok(layout) } else { Err(not_a_cluster()) }
    }

    /// An existing cluster's directory, or a new or empty one that may become a cluster.
    pub(crate) fn prepare(dir: &Path) -> Result<Layout, DirectoryError> {
        let path = std::path::absolute(dir).map_err(DirectoryError::io("find", dir))?;
        if !is_usable(&path) {
            return Err(DirectoryError::Unusable { path });
        }
        let new = !dir.exists();
        fs::create_dir_all(dir).map_err(DirectoryError::io("create", dir))?;
        let layout = Layout { dir: fs::canonicalize(dir).map_err(DirectoryError::io("open", dir))? };
        if new {
            // The servers' user must be able to pass, whatever the umask; what is secret inside is closed itself.
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&layout.dir, open).map_err(DirectoryError::io("open up", dir))?;
        }
        if layout.is_cluster() || layout.is_empty()? {
            return Ok(layout);
        }
        Err(DirectoryError::NotEmpty { path: dir.to_owned() })
    }

    /// Whether nothing lies here but what a run that was interrupted at its very beginning leaves behind.
    fn is_empty(&self) -> Result<bool, DirectoryError> {
        let entries = fs::read_dir(&self.dir).map_err(DirectoryError::io("list", &self.dir))?;
        let ours = ["lock", "cluster.new", "credentials.json", "credentials.new"];
        Ok(entries.flatten().all(|entry| ours.iter().any(|name| entry.file_name() == *name)))
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.state_file().is_file()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The marker of a cluster directory, and its list of nodes.
    pub(crate) fn state_file(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    pub(crate) fn credentials_file(&self) -> PathBuf {
        self.dir.join("credentials.json")
    }

    /// The replication password, in libpq's own format, readable by the servers' user alone.
    pub(crate) fn replication_passfile(&self) -> PathBuf {
        self.dir.join("replication.pass")
    }

    /// The superuser's password for the time of a rewind, in libpq's own format.
    pub(crate) fn rewind_passfile(&self) -> PathBuf {
        self.dir.join("rewind.pass")
    }

    /// The certificate of the authority that signs the servers' certificates; everyone may read it.
    pub(crate) fn root_certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The authority's key, which only the operator needs.
    pub(crate) fn authority_key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    pub(crate) fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join(node)
    }

    pub(crate) fn data_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("data")
    }

    /// Where a node's data waits until its replacement streams.
    pub(crate) fn old_data_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("data.old")
    }

    pub(crate) fn log_file(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("pg.log")
    }

    /// The directory for Unix sockets, or `None` when a socket's path would be too long for the system.
    pub(crate) fn socket_dir(&self) -> Option<PathBuf> {
        let dir = self.dir.join("run");
        // The list of socket directories is separated by commas, and quoting it is not worth the trouble.
        let plain = dir.to_str().is_some_and(|text| !text.contains([',', '"', '\'', ' ']));
        (plain && dir.as_os_str().as_bytes().len() + SOCKET_NAME.len() <= SOCKET_PATH).then_some(dir)
    }

    /// Takes the cluster's lock, which ends when the file is dropped. No child process inherits it.
    pub(crate) async fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.dir.join(LOCK);
        let begun = Instant::now();
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => DirectoryError::NotACluster { path: self.dir.clone() },
                _ => DirectoryError::io("open", &path)(error),
            })?;
            match file.try_lock() {
                // Whoever held the lock before may have removed the cluster: then this is a lock on nothing.
                Ok(()) if is_same(&file, &path) => return Ok(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if begun.elapsed() > LOCK_WAIT => {
                    return Err(DirectoryError::Busy { path: self.dir.clone() });
                }
                Err(TryLockError::WouldBlock) => sleep(LOCK_RETRY).await,
                Err(TryLockError::Error(source)) => return Err(DirectoryError::io("lock", &path)(source)),
            }
        }
    }
}

/// Whether PostgreSQL's programs take the path: `pg_ctl` hands it to a shell, between quotation marks and otherwise as it
/// is.
pub(crate) fn is_usable(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains(['"', '$', '`', '\\', '\n']))
}

pub(crate) fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Layout::open(dir.path()), Err(DirectoryError::NotACluster { .. })));
        assert!(Layout::prepare(dir.path()).is_ok());
        fs::write(dir.path().join("thesis.txt"), "").unwrap();
        assert!(matches!(Layout::prepare(dir.path()), Err(DirectoryError::NotEmpty { .. })));
    }

    #[test]
    fn a_path_that_a_shell_would_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["$HOME", "a\"b", "`id`", "a\\b"] {
            let refused = Layout::prepare(&dir.path().join(name));
            assert!(matches!(refused, Err(DirectoryError::Unusable { .. })), "{name}");
        }
        assert!(Layout::prepare(&dir.path().join("it's fine")).is_ok());
    }

    #[test]
    fn a_long_path_has_no_sockets() {
        let short = Layout { dir: PathBuf::from("/tmp/c") };
        let long = Layout { dir: PathBuf::from(format!("/tmp/{}", "c".repeat(90))) };
        assert!(short.socket_dir().is_some());
        assert!(long.socket_dir().is_none());
    }

    #[tokio::test]
    async fn the_lock_is_exclusive_and_ends_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let held = layout.lock().await.unwrap();
        let other = File::open(dir.path().join(LOCK)).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(layout.lock().await.is_ok());
    }
}
