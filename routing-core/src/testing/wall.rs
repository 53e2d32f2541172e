//! The wall clock of a test.

use std::cell::Cell;

use tokio::time::Instant;

use crate::token::UnixMillis;

thread_local! {
    static FOLLOWS: Cell<Option<(Instant, UnixMillis)>> = const { Cell::new(None) };
}

/// Has this thread's wall clock follow tokio's clock for as long as it lives, so that the time of issue of a token is the same
/// in each run of a test on the paused clock:
///
/// ```
/// use routing_core::UnixMillis;
/// use routing_core::testing::WallClock;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
/// # runtime.block_on(async {
/// let _clock = WallClock::follow(UnixMillis(1_000));
/// tokio::time::sleep(std::time::Duration::from_millis(7)).await;
/// assert_eq!(UnixMillis::now(), UnixMillis(1_007));
/// # });
/// ```
#[must_use]
#[derive(Debug)]
pub struct WallClock(());

impl WallClock {
    /// It is `wall` now.
    pub fn follow(wall: UnixMillis) -> Self {
        FOLLOWS.set(Some((Instant::now(), wall)));
        Self(())
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        FOLLOWS.set(None);
    }
}

/// What it says, where it follows tokio's clock.
pub(crate) fn wall() -> Option<UnixMillis> {
    FOLLOWS.get().map(|(since, wall)| wall.after(since.elapsed()))
}
