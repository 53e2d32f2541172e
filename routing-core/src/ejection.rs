//! How many nodes their breakers may keep away.
//!
//! A fault that hits all replicas alike opens the breakers of all. With everybody kept away nobody is served, though most
//! requests might have succeeded; so beyond a share of the nodes an open breaker counts for nothing. Envoy's outlier detection
//! has such a share too (`max_ejection_percent`).

use std::time::Duration;

use smallvec::SmallVec;

/// How many of `count` nodes that could serve otherwise may be kept away: the share of them, rounded down, but one at
/// least, so that a single bad node of two is left alone. A share of 0 keeps none away.
///
/// Of one node one may be: the primary stands behind it.
pub(crate) fn allowed(count: usize, share: f64) -> usize {
    if share <= 0.0 { 0 } else { ((count as f64 * share) as usize).max(1) }
}

/// Of the nodes whose breakers refuse, for how much longer each, those that are used all the same: the ones that would be
/// tried soonest anyway.
pub(crate) fn spared<T: Copy + Ord>(
    refusing: &mut SmallVec<[(Duration, T); 32]>,
    admitted: usize,
    share: f64,
) -> &[(Duration, T)] {
    let allowed = allowed(admitted + refusing.len(), share);
    let spared = refusing.len().saturating_sub(allowed);
    if spared > 0 {
        refusing.select_nth_unstable(spared - 1);
    }
    &refusing[..spared]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_nodes_rounded_down_and_one_at_least_is_kept_away() {
        // share, of how many nodes, how many
        let table = [
            (0.5, [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)]),
            (0.1, [(1, 1), (2, 1), (3, 1), (9, 1), (10, 1), (20, 2)]),
            (0.0, [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (10, 0)]),
            (1.0, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (10, 10)]),
        ];
        for (share, cases) in table {
            for (count, expected) in cases {
                assert_eq!(allowed(count, share), expected, "{share} of {count}");
            }
        }
    }

    #[test]
    fn those_that_would_be_tried_soonest_are_used_all_the_same() {
        let seconds = |n: u64, node: u8| (Duration::from_secs(n), node);
        let mut refusing = SmallVec::from_slice(&[seconds(3, 1), seconds(1, 2), seconds(2, 3)]);
        let mut two = spared(&mut refusing, 0, 0.5).to_vec();
        two.sort_unstable();
        assert_eq!(two, [seconds(1, 2), seconds(2, 3)]);
        assert_eq!(spared(&mut refusing, 1, 0.5), [seconds(1, 2)]);
        assert_eq!(spared(&mut refusing, 3, 0.5), []);
        assert_eq!(spared(&mut refusing, 0, 1.0), []);
    }
}
