//! The shared memory that a killed server leaves behind.
//!
//! A server that stops gives its memory back, and one that starts again takes back what it lost when it was
//! killed. A killed server whose directory is then removed does neither: one System V segment of a few bytes stays
//! until the machine restarts, and a machine has room for some thousand of them.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::geteuid;

/// The line of `postmaster.pid`, counted from 0, with the key and the id of the segment.
const SEGMENT_LINE: usize = 6;

/// A segment as `postmaster.pid` records it.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    creator: i32,
    key: u32,
    id: u32,
}

/// Removes the segment that the killed server of `data_dir` has left, if that is certain; else does nothing.
///
/// Nobody can act on a failure, which costs a few bytes, so there is none.
pub(crate) fn release(data_dir: &Path) {
    let recorded = fs::read_to_string(data_dir.join("postmaster.pid")).ok();
    let Some(segment) = recorded.as_deref().and_then(recorded_segment) else { return };
    let Ok(table) = fs::read_to_string("/proc/sysvipc/shm") else { return };
    let Some((uid, gid)) = table.lines().find_map(|line| owner_of_abandoned(line, &segment)) else { return };
    let mut command = Command::new("ipcrm");
    command.args(["-m", &segment.id.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if geteuid().is_root() {
        // Root in a container may lack the right to remove what is another user's.
        command.gid(gid).uid(uid);
    }
    let _ = command.status();
}

fn recorded_segment(text: &str) -> Option<Segment> {
    // A server without a postmaster, as initdb runs it, records its process id as a negative number.
    let creator = text.lines().next()?.trim().trim_start_matches('-').parse().ok()?;
    let mut words = text.lines().nth(SEGMENT_LINE)?.split_whitespace();
    Some(Segment { creator, key: words.next()?.parse().ok()?, id: words.next()?.parse().ok()? })
}

/// The owner, when this line of the system's table is that segment and no process is attached to it. Ids are
/// given anew after a restart of the machine, hence the comparison of key and creator.
fn owner_of_abandoned(line: &str, segment: &Segment) -> Option<(u32, u32)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [key, id, _, _, creator, _, attached, uid, gid, ..] = words.as_slice() else { return None };
    let is_it = key.parse::<i64>().ok()? == i64::from(segment.key.cast_signed())
        && id.parse() == Ok(segment.id)
        && creator.parse() == Ok(segment.creator)
        && *attached == "0";
    if is_it { Some((uid.parse().ok()?, gid.parse().ok()?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recorded_and_abandoned_segment_is_released() {
        let file = "24554\n/c/pg1/data\n1795503378\n5500\n/c/run\n127.0.0.1\n 10019076    360448\nready   \n";
        let segment = recorded_segment(file).unwrap();
        assert_eq!(segment, Segment { creator: 24554, key: 10_019_076, id: 360_448 });
        let line = "10019076 360448 600 56 24554 24555 0 101 104 101 104 1 1 1 4096 0";
        assert_eq!(owner_of_abandoned(line, &segment), Some((101, 104)));
        for other in [
            line.replace("24555 0", "24555 1"),
            line.replace("24554", "7"),
            line.replace("360448", "7"),
            line.replace("10019076", "7"),
        ] {
            assert_eq!(owner_of_abandoned(&other, &segment), None, "{other}");
        }
        assert_eq!(recorded_segment("24554\n/c/pg1/data\n"), None);
    }
}
