//! What the processes of one server use their processor time for.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use routing_cluster::Login;

use super::processor::{processor_time_of, waited_time_of};

/// What a process of a server is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A connection of the application.
    Reads,
    /// A connection of the monitor.
    Probes,
    /// Replay of the log, and its receipt.
    Recovery,
    /// Sending the log to a standby.
    Sending,
    /// All else: the checkpointer, vacuum, the postmaster, processes that have ended.
    Upkeep,
}

impl Work {
    /// All of them, in the order of [`Used`].
    pub(super) const ALL: [Self; 5] =
        [Self::Reads, Self::Probes, Self::Recovery, Self::Sending, Self::Upkeep];

    /// By the title that a server process gives itself: `postgres: pg2: app app 127.0.0.1(54794) SELECT`.
    fn of(title: &str) -> Self {
        let Some((_, what)) = title.strip_prefix("postgres: ").and_then(|rest| rest.split_once(": ")) else {
            return Self::Upkeep;
        };
        match what.split(' ').next() {
            Some("startup" | "walreceiver") => Self::Recovery,
            Some("walsender") => Self::Sending,
            Some(user) if user == Login::Application.user() => Self::Reads,
            Some(user) if user == Login::Monitor.user() => Self::Probes,
            _ => Self::Upkeep,
        }
    }
}

/// Processor time by kind of work, in the order of [`Work::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used([Duration; 5]);

impl Used {
    #[cfg(test)]
    pub(super) fn new(times: [Duration; 5]) -> Self {
        Self(times)
    }

    pub(super) fn of(&self, work: Work) -> Duration {
        self.0[work as usize]
    }

    pub(super) fn all(&self) -> Duration {
        self.0.iter().sum()
    }

    /// The part of all that went into this.
    pub(super) fn part(&self, work: Work) -> f64 {
        self.of(work).as_secs_f64() / self.all().as_secs_f64()
    }

    fn add(&mut self, work: Work, time: Duration) {
        self.0[work as usize] += time;
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        for work in Work::ALL {
            self.add(work, other.of(work));
        }
    }
}

/// What a server's processes have used since each began.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerTime {
    living: BTreeMap<u32, (Work, Duration)>,
    /// Children of the postmaster that have ended.
    ended: Duration,
}

impl ServerTime {
    /// Of these processes, now.
    pub(super) fn read(processes: impl IntoIterator<Item = u32>, postmaster: u32) -> Self {
        let living = processes.into_iter().map(|process| {
            let title = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let title = String::from_utf8_lossy(&title).replace('\0', " ");
            (process, (Work::of(&title), processor_time_of(process)))
        });
        Self { living: living.collect(), ended: waited_time_of(postmaster) }
    }

    /// What was used since an earlier look. Of a process that has ended in between all that it used since then is upkeep.
    pub(super) fn since(&self, before: &Self) -> Used {
        let mut used = Used::default();
        for (process, (work, time)) in &self.living {
            let earlier = before.living.get(process).map(|(_, time)| *time);
            used.add(*work, time.saturating_sub(earlier.unwrap_or_default()));
        }
        let gone = before.living.iter().filter(|(process, _)| !self.living.contains_key(process));
        let counted: Duration = gone.map(|(_, (_, time))| *time).sum();
        used.add(Work::Upkeep, self.ended.saturating_sub(before.ended).saturating_sub(counted));
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_title() {
        for (title, work) in [
            ("postgres: pg2: app app 127.0.0.1(54794) SELECT", Work::Reads),
            ("postgres: pg2: monitor app 127.0.0.1(54792) idle", Work::Probes),
            ("postgres: pg2: startup recovering 000000010000000000000010", Work::Recovery),
            ("postgres: pg2: walreceiver streaming 0/10795D0", Work::Recovery),
            ("postgres: pg1: walsender replicator 127.0.0.1(58930) streaming 0/10795D0", Work::Sending),
            ("postgres: pg1: checkpointer ", Work::Upkeep),
            ("postgres: pg1: autovacuum launcher ", Work::Upkeep),
            ("postgres: pg1: postgres app 127.0.0.1(1) idle", Work::Upkeep),
            ("/usr/lib/postgresql/15/bin/postgres -D app: app ", Work::Upkeep),
            ("", Work::Upkeep),
        ] {
            assert_eq!(Work::of(title), work, "{title}");
        }
    }

    #[test]
    fn time_is_counted_once_of_processes_that_stay_come_and_go() {
        let millis = Duration::from_millis;
        let look = |living: &[(u32, Work, u64)], ended| ServerTime {
            living: living.iter().map(|(process, work, time)| (*process, (*work, millis(*time)))).collect(),
            ended: millis(ended),
        };
        let before = look(&[(1, Work::Reads, 100), (2, Work::Recovery, 40), (3, Work::Upkeep, 7)], 500);
        let after = look(&[(1, Work::Reads, 130), (2, Work::Recovery, 42), (4, Work::Probes, 5)], 508);
        let used = after.since(&before);
        assert_eq!(Work::ALL.map(|work| used.of(work)), [30, 5, 2, 0, 1].map(millis));
        assert_eq!(used.all(), millis(38));
        assert_eq!(after.since(&after), Used::default());
    }
}
