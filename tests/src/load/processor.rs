//! What the machine and this process are busy with, and the memory of this process.

use std::fs;
use std::time::Duration;

/// Clock ticks of a second, as the kernel tells processes whatever its own are.
const TICKS: u64 = 100;

/// The processor time that this process has used so far; zero where `/proc` does not tell.
#[must_use]
pub fn own_processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    processor_time_in(&stat).unwrap_or_default()
}

/// The processor time that a process has used so far, in nanoseconds as the scheduler counts it; of its first thread alone.
/// Zero where it has ended, or `/proc` does not tell.
pub(super) fn processor_time_of(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// The processor time of a process's children that have ended, in clock ticks.
pub(super) fn waited_time_of(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    times_in(&stat, 13).unwrap_or_default()
}

/// User and system time of the text of a process's `stat`: the 14th and 15th field, of which the name is the second.
fn processor_time_in(stat: &str) -> Option<Duration> {
    times_in(stat, 11)
}

/// The sum of two times that follow each other in a process's `stat`, so many fields after the name.
fn times_in(stat: &str, place: usize) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(place);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// The memory that this process has for itself alone, in bytes; zero where `/proc` does not tell.
#[must_use]
pub fn own_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    memory_in(&status).unwrap_or_default()
}

/// The anonymous resident memory of the text of a process's `status`, which says it in units of 1,024 bytes.
fn memory_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
}

/// How many processes want to run, on average over the last minute, five and fifteen, as `uptime` says it.
#[must_use]
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<_> = text.split(' ').take(3).collect();
    averages.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_times_of_a_process_are_read_whatever_its_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 20 10 20 0 4 0 100 0 0";
        assert_eq!(processor_time_in(stat), Some(Duration::from_secs(4)));
        assert_eq!(times_in(stat, 13), Some(Duration::from_millis(300)), "of children that have ended");
        assert_eq!(processor_time_in("7 (a"), None);
    }

    #[test]
    fn memory_is_what_no_file_backs() {
        assert_eq!(memory_in("VmRSS:\t   90 kB\nRssAnon:\t    12 kB\nRssFile:\t 8 kB\n"), Some(12_288));
        assert_eq!(memory_in(""), None);
    }
}
