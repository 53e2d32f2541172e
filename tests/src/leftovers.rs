//! Clusters of tests that were killed before they could clean up.

use std::fs;
use std::path::{Path, PathBuf};

use routing_cluster::LocalCluster;

/// How the directories of test clusters begin; the number of the process that made one follows.
const PREFIX: &str = "routing-tests-";

/// Where test clusters live: in memory where that is possible.
pub(crate) fn root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// How the directories of this process begin.
pub(crate) fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Ends the servers and removes the directories of processes that are gone. Does nothing where `/proc` cannot tell.
pub(crate) fn remove() {
    if !Path::new("/proc/self").exists() {
        return;
    }
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        let Some(maker): Option<u32> = maker else { continue };
        if !Path::new(&format!("/proc/{maker}")).exists() {
            LocalCluster::kill_all_in(&entry.path().join("cluster"));
            // Another test may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
