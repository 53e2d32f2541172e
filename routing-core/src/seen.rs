//! The newest picture of a cluster, as a thread that makes decisions keeps it.

use std::cell::Cell;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::topology::Topology;

/// The one place from which everybody takes a cluster's newest picture.
pub(crate) type Newest = Arc<ArcSwap<Topology>>;

/// The pictures of so many clusters are kept by each thread: an application has one, or a few. One that has more makes some
/// of its threads' looks as dear as taking the picture anew.
const CLUSTERS: usize = 4;

/// One cluster's picture as it was seen last.
type Kept = Option<Cache<Newest, Arc<Topology>>>;

thread_local! {
    /// Whoever looks takes them, and puts them back: a balancer that looks while it chooses finds none, and makes its own.
    static SEEN: Cell<Option<Box<[Kept; CLUSTERS]>>> = const { Cell::new(None) };
}

/// What this thread has seen, taken out of its place to look at one of them.
///
/// A thread's first look allocates, once, and so does a look within another. The price of keeping is memory: a thread keeps the last picture that it has seen of each of its last four clusters until it
/// looks at a newer one, or ends.
pub(crate) struct Seen(Option<Box<[Kept; CLUSTERS]>>);

impl Seen {
    pub(crate) fn take() -> Self {
        // While the thread ends nothing is kept any more.
        Self(SEEN.try_with(Cell::take).unwrap_or_default())
    }

    /// The newest picture. As long as it is the one that this thread has seen last, that is one comparison: nothing is
    /// counted or announced, and nothing written that another thread reads.
    #[inline]
    pub(crate) fn newest(&mut self, newest: &Newest) -> &Topology {
        let kept = self.0.get_or_insert_default();
        let is_of = |kept: &Kept| {
            kept.as_ref().is_some_and(|kept| std::ptr::eq(kept.arc_swap(), &raw const **newest))
        };
        let index = kept.iter().position(is_of).unwrap_or_else(|| {
            // The one that came first makes room.
            kept.rotate_right(1);
            kept[0] = None;
            0
        });
        kept[index].get_or_insert_with(|| Cache::new(newest.clone())).load()
    }
}

impl Drop for Seen {
    #[inline]
    fn drop(&mut self) {
        let _ = SEEN.try_with(|seen| seen.set(self.0.take()));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use tokio::time::Instant;

    use super::*;

    fn newest(version: u64) -> Newest {
        Arc::new(ArcSwap::from_pointee(at(version)))
    }

    fn at(version: u64) -> Topology {
        Topology { version, ..Topology::unseen(&[], Instant::now()) }
    }

    fn seen(newest: &Newest) -> u64 {
        Seen::take().newest(newest).version
    }

    #[test]
    fn each_thread_sees_what_was_published_before_it_looks() {
        let newest = newest(1);
        assert_eq!(seen(&newest), 1);
        for version in 2..100 {
            std::thread::scope(|scope| {
                scope.spawn(|| newest.store(Arc::new(at(version))));
            });
            assert_eq!(seen(&newest), version);
        }
    }

    #[test]
    fn clusters_are_told_apart_however_many_there_are() {
        let clusters: Vec<_> = (0..CLUSTERS as u64 + 2).map(newest).collect();
        for round in 0..3 {
            for (number, newest) in clusters.iter().enumerate() {
                assert_eq!(seen(newest), number as u64, "round {round}");
            }
        }
        let is_kept = |newest: &&Newest| Arc::strong_count(&newest.load_full()) == 3;
        assert_eq!(clusters.iter().filter(is_kept).count(), CLUSTERS);
        let gone = Arc::downgrade(&clusters[0]);
        drop(clusters);
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn a_picture_that_was_replaced_is_kept_until_the_next_look_alone() {
        let newest = newest(1);
        seen(&newest);
        let first = Arc::downgrade(&newest.load_full());
        newest.store(Arc::new(at(2)));
        assert!(first.upgrade().is_some());
        seen(&newest);
        assert!(first.upgrade().is_none());
    }

    #[test]
    fn whoever_looks_while_looking_sees_the_same() {
        let (one, other) = (newest(1), newest(2));
        let mut looking = Seen::take();
        let version = looking.newest(&one).version;
        assert_eq!((version, seen(&one), seen(&other)), (1, 1, 2));
        drop(looking);
        assert_eq!((seen(&one), seen(&other)), (1, 2));
    }

    #[test]
    fn a_look_that_panics_costs_the_thread_nothing() {
        let newest = newest(1);
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut seen = Seen::take();
            assert_eq!(seen.newest(&newest).version, 0, "a balancer's own panic");
        }));
        assert!(panicked.is_err());
        assert_eq!(Arc::strong_count(&newest.load_full()), 3, "it is kept");
        assert_eq!(seen(&newest), 1);
    }
}
