//! A number that fades.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that halves by itself every so many milliseconds, without a lock and without a task: it is kept together with when
/// it was set, and what it is now follows. Its owner says how much time has passed since some instant that it keeps.
#[derive(Debug)]
pub(crate) struct Fading<const HALF_LIFE_MILLIS: u64> {
    /// The number, and below it when it was set, in ticks.
    packed: AtomicU64,
}

/// The unit in which instants are kept: they come round after two years, in which a number that nobody sets looks younger
/// than it is, once.
const TICK_MILLIS: u64 = 16;

fn tick(since: Duration) -> u32 {
    // `as_millis` computes in 128 bits, which shows where every node is looked at.
    ((since.as_secs() * 1_000 + u64::from(since.subsec_millis())) / TICK_MILLIS) as u32
}

impl<const HALF_LIFE_MILLIS: u64> Fading<HALF_LIFE_MILLIS> {
    /// Zero.
    pub(crate) const fn new() -> Self {
        Self { packed: AtomicU64::new(0) }
    }

    /// What it is now. Once set to more than zero, it stays more than zero but for [`until_gone`](Self::until_gone). Of zero nothing fades, and nobody needs to look at the
    /// time.
    #[inline]
    pub(crate) fn at(&self, since: impl FnOnce() -> Duration) -> u32 {
        let packed = self.packed.load(Relaxed);
        if packed >> 32 == 0 { 0 } else { Self::faded(packed, tick(since())) }
    }

    /// The same, of a number that has faded away for good when next to nothing is left of it.
    #[inline]
    pub(crate) fn until_gone(&self, since: impl FnOnce() -> Duration) -> u32 {
        let packed = self.packed.load(Relaxed);
        if packed >> 32 == 0 {
            return 0;
        }
        let left = Self::faded(packed, tick(since()));
        if left <= 1 {
            // One that was set meanwhile stays.
            let _ = self.packed.compare_exchange(packed, 0, Relaxed, Relaxed);
        }
        left
    }

    /// Whether it is more than zero.
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.packed.load(Relaxed) >> 32 != 0
    }

    /// What was kept as `packed`, at this tick.
    fn faded(packed: u64, tick: u32) -> u32 {
        let (value, set) = ((packed >> 32) as u32, packed as u32);
        // A clock that another thread read a moment earlier.
        let age = (tick.wrapping_sub(set) as i32).max(0).unsigned_abs();
        if value == 0 || age == 0 {
            return value;
        }
        let age = u64::from(age) * TICK_MILLIS;
        let halvings = u32::try_from(age / HALF_LIFE_MILLIS).unwrap_or(u32::MAX);
        let halved = value.checked_shr(halvings).unwrap_or(0);
        // Between two halvings along a straight line.
        let part = u64::from(halved) * (age % HALF_LIFE_MILLIS) / HALF_LIFE_MILLIS / 2;
        (halved - part as u32).max(1)
    }

    pub(crate) fn set(&self, value: u32, since: Duration) {
        self.store(value, tick(since));
    }

    /// Sets it to what follows from what it is now. Of several at once one counts.
    pub(crate) fn update(&self, since: Duration, next: impl FnOnce(u32) -> u32) {
        let tick = tick(since);
        self.store(next(Self::faded(self.packed.load(Relaxed), tick)), tick);
    }

    fn store(&self, value: u32, tick: u32) {
        self.packed.store(u64::from(value) << 32 | u64::from(tick), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_by_itself() {
        let fading = Fading::<5_000>::new();
        let at = |millis: u64| fading.at(|| Duration::from_millis(100_000 + millis));
        assert_eq!(at(0), 0);
        fading.set(1_000, Duration::from_millis(100_000));
        for (millis, expected) in [(0, 1_000), (2_500, 750), (5_000, 500), (7_500, 375), (10_000, 250)] {
            let value = at(millis);
            assert!(value.abs_diff(expected) <= 3, "{millis}: {value}");
        }
        assert_eq!(at(1_000_000_000), 1);
        assert_eq!(fading.at(|| Duration::from_millis(99_000)), 1_000, "an earlier clock");
    }

    #[test]
    fn what_it_becomes_follows_from_what_is_left_and_of_nothing_nothing_is_left() {
        let (fading, seconds) = (Fading::<1_000>::new(), Duration::from_secs);
        fading.update(seconds(1), |left| left);
        assert_eq!(fading.at(|| seconds(2)), 0);
        fading.update(seconds(2), |left| left + 100);
        assert_eq!(fading.at(|| seconds(2)), 100);
        fading.update(seconds(3), |left| left + 100);
        assert!(fading.at(|| seconds(3)).abs_diff(150) <= 1);
    }
}
