//! Waiting for a condition, never for a time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Far more than anything here takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// Looks at a condition until it holds; returns how long that took.
///
/// # Panics
/// When it does not hold within `limit`; `what` says what was waited for.
pub async fn eventually(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(LOOK).await;
    }
    began.elapsed()
}

/// Looks at a condition again and again for `duration`, at least ten times.
///
/// # Panics
/// When it does not hold once; `what` says what was expected.
pub async fn throughout(duration: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    let mut looks = 0;
    while looks < 10 || began.elapsed() < duration {
        assert!(condition().await, "no longer after {:?}: {what}", began.elapsed());
        looks += 1;
        sleep(LOOK).await;
    }
}
