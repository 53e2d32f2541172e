//! A directory of the servers' user, and the processes that work in it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Uid, User, chown};
use tempfile::TempDir;

use crate::leftovers;
use crate::process::{Signal, signal};

/// How the directories begin; the number of the process that made one follows.
const PREFIX: &str = "routing-engines-";

/// As whom servers run where the tests run as root, which PostgreSQL refuses.
pub(crate) const SERVERS_USER: &str = "postgres";

/// A directory whose processes end with it: all that work in it or below, whoever started them.
#[derive(Debug)]
pub struct Place(TempDir);

impl Place {
    /// An empty one, in memory where that is possible. Those of tests that were killed are removed.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        remove_leftovers();
        let made = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(leftovers::root());
        let place = Self(made.expect("a directory for the servers"));
        own(place.dir());
        place
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file that only the servers' user can read: it may hold passwords.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, "").expect("a file in the place");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its permissions");
        fs::write(&path, text).expect("a file in the place");
        own(&path);
        path
    }

    /// Makes a directory of the servers' user.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::create_dir(&path).expect("a directory in the place");
        own(&path);
        path
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        kill(self.dir());
    }
}

/// So many ports in a row that nobody uses, below those that clients are given.
///
/// # Panics
/// When there are none.
#[must_use]
pub(crate) fn free_ports(count: u16) -> Vec<u16> {
    for _ in 0..1_000 {
        let first = fastrand::u16(20_000..31_000);
        let ports: Vec<u16> = (first..first + count).collect();
        let held: Vec<_> = ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port))).collect();
        if held.iter().all(Result::is_ok) {
            return ports;
        }
    }
    panic!("no {count} free ports in a row");
}

fn own(path: &Path) {
    if Uid::effective().is_root() {
        let user = User::from_name(SERVERS_USER).ok().flatten();
        let user = user.expect("a user postgres, as whom the servers run: install PostgreSQL's packages");
        chown(path, Some(user.uid), Some(user.gid)).expect("root may give files away");
    }
}

/// The processes that work in a directory or below.
fn working_in(dir: &Path) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let works_there = |pid: &i32| {
        // A process that has ended works nowhere.
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place.starts_with(dir))
    };
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(works_there).collect()
}

/// Kills all processes that work in a directory or below, and waits for their end.
pub fn kill(dir: &Path) {
    for _ in 0..1_000 {
        let processes = working_in(dir);
        if processes.is_empty() {
            return;
        }
        for process in processes {
            signal(process, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove_leftovers() {
    for entry in fs::read_dir(leftovers::root()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        let Some(maker): Option<u32> = maker else { continue };
        if !Path::new(&format!("/proc/{maker}")).exists() {
            kill(&entry.path());
            // Another test may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
