//! A number that fades.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// A number that halves by itself every so often, without a lock and without a task: it is kept together with when it was
/// set, and what it is now follows.
#[derive(Debug)]
pub(crate) struct Fading {
    /// The number, and below it when it was set, in ticks since `origin`.
    packed: AtomicU64,
    origin: Instant,
    /// In milliseconds; never 0.
    half_life: u64,
}

/// The unit in which instants are kept: they come round after two years, in which a number that nobody sets looks younger
/// than it is, once.
const TICK_MILLIS: u64 = 16;

impl Fading {
    /// Zero.
    pub(crate) fn new(half_life: Duration) -> Self {
        let half_life = u64::try_from(half_life.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { packed: AtomicU64::new(0), origin: Instant::now(), half_life }
    }

    fn tick(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.origin);
        // `as_millis` computes in 128 bits, which shows where every node is looked at.
        ((since.as_secs() * 1_000 + u64::from(since.subsec_millis())) / TICK_MILLIS) as u32
    }

    /// What it is at `now`. Once set to more than zero, it stays more than zero.
    #[inline]
    pub(crate) fn at(&self, now: Instant) -> u32 {
        let packed = self.packed.load(Relaxed);
        // Of zero nothing fades, and nobody needs to look at the time.
        if packed >> 32 == 0 { 0 } else { self.faded(packed, self.tick(now)) }
    }

    /// What was kept as `packed`, at this tick.
    fn faded(&self, packed: u64, tick: u32) -> u32 {
        let (value, set) = ((packed >> 32) as u32, packed as u32);
        // A clock that another thread read a moment earlier.
        let age = (tick.wrapping_sub(set) as i32).max(0).unsigned_abs();
        if value == 0 || age == 0 {
            return value;
        }
        let age = u64::from(age) * TICK_MILLIS;
        let halvings = u32::try_from(age / self.half_life).unwrap_or(u32::MAX);
        let halved = value.checked_shr(halvings).unwrap_or(0);
        // Between two halvings along a straight line.
        let part = u64::from(halved) * (age % self.half_life) / self.half_life / 2;
        (halved - part as u32).max(1)
    }

    pub(crate) fn set(&self, value: u32, now: Instant) {
        self.store(value, self.tick(now));
    }

    /// Sets it to what follows from what it is at `now`. Of several at once one counts.
    pub(crate) fn update(&self, now: Instant, next: impl FnOnce(u32) -> u32) {
        let tick = self.tick(now);
        let value = next(self.faded(self.packed.load(Relaxed), tick));
        self.store(value, tick);
    }

    fn store(&self, value: u32, tick: u32) {
        self.packed.store(u64::from(value) << 32 | u64::from(tick), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_halves_by_itself() {
        let fading = Fading::new(Duration::from_secs(5));
        let start = Instant::now() + Duration::from_secs(100);
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(fading.at(start), 0);
        fading.set(1_000, start);
        for (millis, expected) in [(0, 1_000), (2_500, 750), (5_000, 500), (7_500, 375), (10_000, 250)] {
            let value = fading.at(after(millis));
            assert!(value.abs_diff(expected) <= 3, "{millis}: {value}");
        }
        assert_eq!(fading.at(after(1_000_000_000)), 1);
        assert_eq!(fading.at(start.checked_sub(Duration::from_secs(1)).unwrap()), 1_000, "an earlier clock");
    }
}
