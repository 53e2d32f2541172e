//! What was written, on all timelines: a tree of records. Pure.

use tokio::time::Instant;

/// Where the first timeline begins.
const START: u64 = 1_000;
/// How long each record is.
const RECORD: u64 = 10;

/// A state: the first `length` records of a branch, and what that branch inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) branch: usize,
    pub(crate) length: usize,
}

/// One record.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// The client's write that it is of; a promotion writes one of its own.
    write: Option<u64>,
    at: Instant,
}

/// One timeline. No two have the same number: promotions draw it from an archive that all servers share.
#[derive(Debug)]
struct Branch {
    fork: Option<Place>,
    start: u64,
    records: Vec<Record>,
}

/// All timelines; the branch with index `i` is timeline `i + 1`.
#[derive(Debug)]
pub(crate) struct History {
    branches: Vec<Branch>,
}

impl History {
    /// An empty first timeline.
    pub(crate) fn new() -> Self {
        Self { branches: vec![Branch { fork: None, start: START, records: Vec::new() }] }
    }

    /// One more record at the end of a branch.
    pub(crate) fn append(&mut self, branch: usize, write: Option<u64>, at: Instant) -> Place {
        self.branches[branch].records.push(Record { write, at });
        self.tip(branch)
    }

    /// A new timeline that begins at `from`, with the record that a promotion writes.
    pub(crate) fn fork(&mut self, from: Place, at: Instant) -> Place {
        let start = self.lsn(from);
        self.branches.push(Branch { fork: Some(from), start, records: Vec::new() });
        self.append(self.branches.len() - 1, None, at)
    }

    pub(crate) fn tip(&self, branch: usize) -> Place {
        Place { branch, length: self.branches[branch].records.len() }
    }

    pub(crate) fn lsn(&self, place: Place) -> u64 {
        self.branches[place.branch].start + RECORD * place.length as u64
    }

    pub(crate) fn timeline(&self, place: Place) -> u32 {
        u32::try_from(place.branch).unwrap_or(u32::MAX) + 1
    }

    /// The state that a timeline's position names.
    pub(crate) fn place(&self, timeline: u32, lsn: u64) -> Option<Place> {
        let mut branch = timeline.checked_sub(1)? as usize;
        loop {
            let found = self.branches.get(branch)?;
            if lsn >= found.start {
                let length = usize::try_from((lsn - found.start) / RECORD).ok()?;
                return Some(Place { branch, length });
            }
            branch = found.fork?.branch;
        }
    }

    /// The state, the one that its branch began at, and so on to the first.
    fn chain(&self, place: Place) -> impl Iterator<Item = Place> + '_ {
        std::iter::successors(Some(place), |place| self.branches[place.branch].fork)
    }

    /// Whether every record of `part` is in `state`.
    pub(crate) fn contains(&self, state: Place, part: Place) -> bool {
        let mut part = part;
        while part.length == 0
            && let Some(fork) = self.branches[part.branch].fork
        {
            part = fork;
        }
        self.chain(state).any(|place| place.branch == part.branch && part.length <= place.length)
    }

    /// Of the records of `state`, those that lie on the way to `branch`, wherever that branch ends.
    pub(crate) fn common(&self, state: Place, branch: usize) -> Place {
        let goal = Place { branch, length: usize::MAX };
        let shared = self.chain(state).find_map(|own| {
            let on_the_way = self.chain(goal).find(|place| place.branch == own.branch)?;
            Some(Place { branch: own.branch, length: own.length.min(on_the_way.length) })
        });
        shared.unwrap_or(Place { branch: 0, length: 0 })
    }

    /// What of `state` had been written at `time`.
    pub(crate) fn until(&self, state: Place, time: Instant) -> Place {
        let mut state = state;
        loop {
            let branch = &self.branches[state.branch];
            let length = branch.records[..state.length].partition_point(|record| record.at <= time);
            match branch.fork {
                Some(fork) if length == 0 => state = fork,
                _ => return Place { length, ..state },
            }
        }
    }

    /// `state` without its last `records`, on the same branch.
    pub(crate) fn earlier(state: Place, records: usize) -> Place {
        Place { length: state.length.saturating_sub(records), ..state }
    }

    /// How often a client's write is in the history that leads to `state`.
    pub(crate) fn count(&self, state: Place, write: u64) -> usize {
        let places = self.chain(state);
        let records = places.flat_map(|place| &self.branches[place.branch].records[..place.length]);
        records.filter(|record| record.write == Some(write)).count()
    }

    /// Where a client's write is, in any history.
    pub(crate) fn find(&self, write: u64) -> Option<Place> {
        self.branches.iter().enumerate().find_map(|(branch, own)| {
            let found = own.records.iter().position(|record| record.write == Some(write))?;
            Some(Place { branch, length: found + 1 })
        })
    }

    /// Whether it is in one.
    pub(crate) fn is_written(&self, write: u64) -> bool {
        self.find(write).is_some()
    }

    /// For people.
    pub(crate) fn show(&self, place: Place) -> String {
        format!("{}/{}", self.timeline(place), self.lsn(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_two_timelines_share_what_was_written_before_they_parted() {
        let (mut history, now) = (History::new(), Instant::now());
        let early = history.append(0, Some(1), now);
        let late = history.append(0, Some(2), now);
        let next = history.fork(early, now);
        let next = history.append(next.branch, Some(3), now);
        assert!(history.contains(next, early) && !history.contains(next, late));
        assert!(!history.contains(late, next));
        assert_eq!((history.common(late, next.branch), history.common(next, 0)), (early, early));
        assert_eq!(history.place(2, history.lsn(next)), Some(next));
        assert_eq!(history.place(2, START), Some(Place { branch: 0, length: 0 }));
        assert_eq!([1, 2, 3].map(|write| history.count(next, write)), [1, 0, 1]);
    }
}
