//! What the machine and this process are busy with.

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

/// User and system time of the text of a process's `stat`: the 14th and 15th field, of which the name is the second.
fn processor_time_in(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS))
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
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 4 0 100 0 0";
        assert_eq!(processor_time_in(stat), Some(Duration::from_secs(4)));
        assert_eq!(processor_time_in("7 (a"), None);
    }
}
