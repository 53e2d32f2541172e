//! Names of WAL files and histories of timelines: what an archive must hold for a recovery to pass through it.

use std::collections::BTreeSet;

use crate::{position::Lsn, status::parse_lsn};

/// How a cluster's WAL is cut into files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentSize(u64);

/// One WAL file: its timeline, and its place in the WAL, counted in files.
pub(crate) type Segment = (u32, u64);

impl SegmentSize {
    /// From the number of bytes; PostgreSQL has powers of two from 1 MB to 1 GB.
    pub(crate) fn new(bytes: u64) -> Option<SegmentSize> {
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(SegmentSize(bytes))
    }

    /// The place of the file that holds a position.
    pub(crate) fn place(self, lsn: Lsn) -> u64 {
        lsn.0 / self.0
    }

    /// A whole WAL file's timeline and place; `None` for anything else that an archive holds.
    pub(crate) fn parse(self, name: &str) -> Option<Segment> {
        let digits = |part: &str| u32::from_str_radix(part, 16).ok();
        if !is_segment(name) {
            return None;
        }
        let (timeline, high, low) = (digits(&name[..8])?, digits(&name[8..16])?, digits(&name[16..])?);
        Some((timeline, u64::from(high) * self.per_high() + u64::from(low)))
    }

    pub(crate) fn name(self, (timeline, place): Segment) -> String {
        format!("{timeline:08X}{:08X}{:08X}", place / self.per_high(), place % self.per_high())
    }

    fn per_high(self) -> u64 {
        (1 << 32) / self.0
    }
}

/// Whether this is the name of a whole WAL file.
pub(crate) fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
}

/// The name of the file that says where a timeline comes from.
pub(crate) fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// A timeline's ancestors, the oldest first, each with the position at which it was left.
pub(crate) fn ancestors(history: &str) -> Vec<(u32, Lsn)> {
    let ancestor = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, Lsn(parse_lsn(words.next()?)?)))
    };
    history.lines().filter_map(ancestor).collect()
}

/// A hole in an archive: a recovery would end there, although the archive goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// The first file that is missing.
    pub(crate) missing: Segment,
    /// The last file that is there.
    pub(crate) last: Segment,
}

/// Looks for the first hole between the file after `stop` and the end of the newest timeline, whose ancestors are
/// given. Nothing that another timeline has beyond the point where it was left counts.
pub(crate) fn hole(
    held: &BTreeSet<Segment>,
    size: SegmentSize,
    stop: Lsn,
    ancestors: &[(u32, Lsn)],
    newest: u32,
) -> Option<Hole> {
    let mut begin = 0;
    let mut path = Vec::new();
    for (timeline, left) in ancestors {
        let end = size.place(*left);
        path.push((*timeline, begin..=end));
        begin = end;
    }
    path.push((newest, begin..=u64::MAX));
    // The file in which a timeline was left is its successor's first, too, and the successor's counts.
    let holder = |place: u64| {
        let mut holders = path.iter().rev().filter(|(_, places)| places.contains(&place));
        holders.find(|(timeline, _)| held.contains(&(*timeline, place))).map(|(timeline, _)| *timeline)
    };
    let last = path.iter().rev().find_map(|(timeline, places)| {
        let range = (*timeline, *places.start())..=(*timeline, *places.end());
        held.range(range).next_back().copied()
    })?;
    let missing = (size.place(stop) + 1..last.1).find(|place| holder(*place).is_none())?;
    let owner = path.iter().rev().find(|(_, places)| places.contains(&missing));
    Some(Hole { missing: (owner.map_or(newest, |(timeline, _)| *timeline), missing), last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::new(1 << 24).unwrap()
    }

    fn held(names: &[&str]) -> BTreeSet<Segment> {
        names.iter().filter_map(|name| size().parse(name)).collect()
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["0000000100000000000000FF", "000000020000000100000000", "0000000A0000FFFF00000001"] {
            assert_eq!(size().name(size().parse(name).unwrap()), name);
        }
        assert_eq!(size().parse("000000020000000100000000"), Some((2, 256)));
        assert_eq!(SegmentSize::new(1 << 20).unwrap().parse("000000010000000100000001"), Some((1, 4097)));
        for other in ["00000002.history", "000000010000000000000003.partial", "archive_status", ""] {
            assert_eq!(size().parse(other), None, "{other}");
        }
        assert!(SegmentSize::new(0).is_none() && SegmentSize::new(3 << 20).is_none());
    }

    #[test]
    fn a_history_lists_the_ancestors() {
        let history = "1\t0/3000148\tno recovery target specified\n\n2\t1/0\tbefore 2026-03-01 12:00:00+00\n";
        let expected = vec![(1, Lsn(0x300_0148)), (2, Lsn(1 << 32))];
        assert_eq!(ancestors(history), expected);
    }

    #[test]
    fn a_hole_is_a_missing_file_before_the_last_one() {
        let stop = Lsn(0x200_0100);
        let whole = ["000000010000000000000002", "000000010000000000000003", "000000010000000000000004"];
        assert_eq!(hole(&held(&whole), size(), stop, &[], 1), None);
        assert_eq!(hole(&held(&whole[..1]), size(), stop, &[], 1), None);
        assert_eq!(hole(&held(&[]), size(), stop, &[], 1), None);
        let found = hole(&held(&[whole[0], whole[2]]), size(), stop, &[], 1);
        assert_eq!(found, Some(Hole { missing: (1, 3), last: (1, 4) }));
        // The backup has brought its own.
        assert_eq!(hole(&held(&whole[1..]), size(), stop, &[], 1), None);
    }

    #[test]
    fn a_successor_takes_over_in_the_file_where_its_ancestor_was_left() {
        let stop = Lsn(0x200_0100);
        let left = [(1, Lsn(0x400_0100))];
        let first = "000000010000000000000003";
        let whole = [first, "000000020000000000000004", "000000020000000000000005"];
        assert_eq!(hole(&held(&whole), size(), stop, &left, 2), None);
        let found = hole(&held(&[first, whole[2]]), size(), stop, &left, 2);
        assert_eq!(found, Some(Hole { missing: (2, 4), last: (2, 5) }));
        let found = hole(&held(&whole[1..]), size(), stop, &left, 2);
        assert_eq!(found, Some(Hole { missing: (1, 3), last: (2, 5) }));
        // What the old primary wrote after it was replaced is nobody's.
        let beyond = [first, "000000010000000000000006", "000000010000000000000009"];
        assert_eq!(hole(&held(&beyond), size(), stop, &left, 2), None);
    }
}
