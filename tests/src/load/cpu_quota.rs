//! A fixed share of one processor core for a group of processes, so that several servers on one machine are as many machines.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often the kernel hands out the share anew. Shorter than its default of 100 ms: whoever has used its share stands still
/// until the period ends, and that shows in latencies.
const PERIOD_MICROS: u64 = 20_000;
/// How the groups' names begin; the number of the process that made one follows.
const PREFIX: &str = "routing-load-";

/// Why processes cannot be given a share, and what to do.
#[derive(Debug)]
pub struct NoQuota(String);

impl fmt::Display for NoQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoQuota {}

/// Which interface the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where control groups with processor quotas are made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    root: PathBuf,
}

impl Hierarchy {
    /// Finds it in the text of `/proc/mounts`. Where both versions are mounted, the first one's `cpu` hierarchy has the
    /// controller; without it the second has.
    fn find(mounts: &str) -> Option<Self> {
        let mounts = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((PathBuf::from(fields.next()?), fields.next()?, fields.next()?))
        });
        let mut second = None;
        for (root, kind, options) in mounts {
            match kind {
                "cgroup" if options.split(',').any(|option| option == "cpu") => {
                    return Some(Self { version: Version::One, root });
                }
                "cgroup2" => second = second.or(Some(Self { version: Version::Two, root })),
                _ => {}
            }
        }
        second
    }

    /// What is written into which file of a group for this share of one core.
    fn settings(&self, share: f64) -> Vec<(&'static str, String)> {
        let quota = (PERIOD_MICROS as f64 * share).round();
        match self.version {
            Version::One => vec![
                ("cpu.cfs_period_us", PERIOD_MICROS.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
            Version::Two => vec![("cpu.max", format!("{quota} {PERIOD_MICROS}"))],
        }
    }
}

/// A control group whose processes have a share of one core together. Dropping it sends what is in it back to where groups
/// come from, without a limit, and removes the group.
#[derive(Debug)]
pub struct CpuQuota {
    hierarchy: Hierarchy,
    group: PathBuf,
}

impl CpuQuota {
    /// A group with this share of one core, 0.15 say, that nobody is in.
    ///
    /// # Errors
    /// Where the kernel has no such groups, or this user may not make one.
    pub fn new(name: &str, share: f64) -> Result<Self, NoQuota> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let Some(hierarchy) = Hierarchy::find(&mounts) else {
            return Err(NoQuota(
                "processor quotas need control groups, and none are mounted: run this on Linux with cgroups"
                    .to_owned(),
            ));
        };
        remove_leftovers(&hierarchy.root);
        if hierarchy.version == Version::Two {
            write(&hierarchy.root.join("cgroup.subtree_control"), "+cpu")?;
        }
        let group = hierarchy.root.join(format!("{PREFIX}{}-{name}", std::process::id()));
        fs::create_dir(&group).map_err(|why| refused(&group, &why))?;
        let made = Self { hierarchy, group };
        for (file, value) in made.hierarchy.settings(share) {
            write(&made.group.join(file), &value)?;
        }
        Ok(made)
    }

    /// Takes a process and its children in; what they start later is in as well.
    ///
    /// # Errors
    /// When the kernel refuses one that lives.
    pub fn take_in(&self, parent: u32) -> Result<(), NoQuota> {
        let procs = self.group.join("cgroup.procs");
        write(&procs, &parent.to_string())?;
        for child in children(parent) {
            match fs::write(&procs, child.to_string()) {
                // It ended in between.
                Err(why) if why.raw_os_error() == Some(nix::libc::ESRCH) => {}
                other => other.map_err(|why| refused(&procs, &why))?,
            }
        }
        Ok(())
    }

    /// The processes that are in it now.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// In how many periods so far its processes wanted to run, and in how many of these they used their share up.
    #[must_use]
    pub fn periods(&self) -> (u64, u64) {
        let text = fs::read_to_string(self.group.join("cpu.stat")).unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            line.unwrap_or(0)
        };
        (value("nr_periods "), value("nr_throttled "))
    }
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        let _ = disband(&self.group, &self.hierarchy.root);
    }
}

/// Sends a group's processes to its parent and removes it.
fn disband(group: &Path, parent: &Path) -> io::Result<()> {
    let mut removed = Ok(());
    for _ in 0..50 {
        for process in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
            let _ = fs::write(parent.join("cgroup.procs"), process);
        }
        removed = fs::remove_dir(group);
        if removed.is_ok() {
            break;
        }
        // One that is about to end still counts.
        thread::sleep(Duration::from_millis(20));
    }
    removed
}

/// Groups of processes that were killed before they could clean up.
fn remove_leftovers(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            let _ = disband(&entry.path(), root);
        }
    }
}

/// The processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |number: &u32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        parent_in(&stat) == Some(parent)
    };
    numbers.filter(is_child).collect()
}

/// The parent that the text of a process's `stat` names. The program's name before it may hold anything, brackets too.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn write(file: &Path, value: &str) -> Result<(), NoQuota> {
    fs::write(file, value).map_err(|why| refused(file, &why))
}

fn refused(path: &Path, why: &io::Error) -> NoQuota {
    NoQuota(format!(
        "no processor quota for the servers: {}: {why}; run this as root, outside of a container that owns no control groups",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_with_the_processor_controller_is_found() {
        let first = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n";
        let cpu = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n";
        let second = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        for (mounts, version, root) in [
            (format!("{first}{cpu}{second}"), Version::One, "/sys/fs/cgroup/cpu,cpuacct"),
            (format!("{second}{first}{cpu}"), Version::One, "/sys/fs/cgroup/cpu,cpuacct"),
            (format!("{first}{second}"), Version::Two, "/sys/fs/cgroup/unified"),
        ] {
            let found = Hierarchy::find(&mounts).expect("one is mounted");
            assert_eq!(found, Hierarchy { version, root: root.into() }, "{mounts}");
        }
        assert_eq!(Hierarchy::find(first), None);
    }

    #[test]
    fn a_share_is_a_quota_of_each_period() {
        let hierarchy = |version| Hierarchy { version, root: PathBuf::new() };
        let first = [("cpu.cfs_period_us", "20000".to_owned()), ("cpu.cfs_quota_us", "3000".to_owned())];
        assert_eq!(hierarchy(Version::One).settings(0.15), first);
        assert_eq!(hierarchy(Version::Two).settings(0.15), [("cpu.max", "3000 20000".to_owned())]);
    }

    #[test]
    fn a_parent_is_read_after_a_name_with_brackets() {
        assert_eq!(parent_in("12 (a (b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in(""), None);
    }
}
