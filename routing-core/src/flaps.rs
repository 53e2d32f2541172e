//! How long a node that comes back again and again is kept waiting.
//!
//! A Patroni member that cannot rewind was measured to come up for 0.2 s every 2 s, on the old timeline each time
//! (45 times in a row). The first return costs nothing; each further one within [`MEMORY`] doubles the time that the node
//! must stay up before it serves.

use std::time::Duration;

use tokio::time::Instant;

/// A return that is further back counts no more.
const MEMORY: Duration = Duration::from_secs(60);

/// The wait after the second return; it doubles with each.
const FIRST: Duration = Duration::from_secs(1);

/// The wait that it does not exceed.
const LONGEST: Duration = Duration::from_secs(30);

/// A node's returns from the dead.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flaps {
    /// Returns in a row, each within [`MEMORY`] of the one before, beside the first.
    again: u32,
    last: Option<Instant>,
    admitted_from: Option<Instant>,
}

impl Flaps {
    /// It answers again at `now`, after it had been declared dead.
    pub(crate) fn came_back(&mut self, now: Instant) {
        let recent = self.last.is_some_and(|last| now.saturating_duration_since(last) < MEMORY);
        self.again = if recent { self.again.saturating_add(1) } else { 0 };
        self.last = Some(now);
        self.admitted_from = (self.again > 0).then(|| {
            let doubled = FIRST.saturating_mul(1 << (self.again - 1).min(16));
            now + doubled.min(LONGEST)
        });
    }

    /// When it may serve again; `None` when nothing keeps it waiting.
    pub(crate) fn admitted_from(self) -> Option<Instant> {
        self.admitted_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_return_soon_after_another_waits_twice_as_long() {
        let start = Instant::now();
        let mut flaps = Flaps::default();
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..9 {
            flaps.came_back(now);
            waits.push(flaps.admitted_from().map_or(0, |from| (from - now).as_secs()));
            now += Duration::from_secs(2);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
        now += MEMORY;
        flaps.came_back(now);
        assert_eq!(flaps.admitted_from(), None, "it has been quiet for long");
    }
}
