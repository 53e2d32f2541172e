//! What runs on one router, so that its end can wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};

use tokio::sync::Notify;

use crate::signal::{Signal, Watcher};

/// Requests begin.
const OPEN: u8 = 0;
/// None begins; those that have begun go on.
const DRAINING: u8 = 1;
/// Those that still wait for a connection get none.
const CLOSED: u8 = 2;

/// Counts the requests that have begun and the leases in use, and lets none begin once it is told to.
pub(crate) struct Work {
    stage: AtomicU8,
    under_way: AtomicU32,
    /// Rings when the last has ended.
    ended: Notify,
    /// Raised when what runs is cut.
    cut: Signal,
}

impl Work {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicU8::new(OPEN),
            under_way: AtomicU32::new(0),
            ended: Notify::new(),
            cut: Signal::default(),
        })
    }

    /// A request begins; `None` when none may any more.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Working> {
        if !self.is_open() {
            return None;
        }
        // Counted before the last look: whoever stops the beginning and then finds nobody under way has missed no one.
        let working = Working::new(self);
        (self.stage.load(SeqCst) == OPEN).then_some(working)
    }

    /// Requests and leases that have not ended.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way.load(SeqCst)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stage.load(SeqCst) == OPEN
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stage.load(SeqCst) == CLOSED
    }

    /// No request begins from now on.
    pub(crate) fn drain(&self) {
        self.stage.fetch_max(DRAINING, SeqCst);
    }

    /// Nor does one that waits get a connection.
    pub(crate) fn close(&self) {
        self.stage.fetch_max(CLOSED, SeqCst);
        self.ended.notify_waiters();
    }

    /// A lease of a request that has begun, whatever was decided since.
    pub(crate) fn lease(self: &Arc<Self>) -> Working {
        Working::new(self)
    }

    /// What still runs is dropped where it is.
    pub(crate) fn cut(&self) {
        self.close();
        self.cut.raise();
    }

    /// Sees the cut.
    pub(crate) fn cuts(&self) -> Watcher {
        self.cut.watch_since(0)
    }

    /// Runs a step; `None` when it was cut.
    ///
    /// # Cancel safety
    /// That of the step.
    pub(crate) async fn unless_cut<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let cuts = self.cuts();
        tokio::select! {
            biased;
            outcome = step => Some(outcome),
            () = cuts.raised() => None,
        }
    }

    /// Waits until nothing is under way.
    pub(crate) async fn idle(&self) {
        self.until(|| self.under_way() == 0).await;
    }

    /// The same, or until nothing more is waited for.
    pub(crate) async fn over(&self) {
        self.until(|| self.under_way() == 0 || self.is_closed()).await;
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Before the look, so that an end in between is heard.
            ended.as_mut().enable();
            if condition() {
                return;
            }
            ended.await;
        }
    }
}

/// One request, or one lease, under way for as long as this lives.
pub(crate) struct Working(Arc<Work>);

impl Working {
    fn new(work: &Arc<Work>) -> Self {
        work.under_way.fetch_add(1, SeqCst);
        Self(work.clone())
    }
}

impl Clone for Working {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        // Nobody waits before the beginning is stopped.
        if self.0.under_way.fetch_sub(1, SeqCst) == 1 && !self.0.is_open() {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_is_waited_for_and_nothing_begins_meanwhile() {
        let work = Work::new();
        let request = work.begin().unwrap();
        let lease = request.clone();
        work.drain();
        assert!(work.begin().is_none());
        assert_eq!(work.under_way(), 2, "what was refused is not counted");
        drop(request);
        assert!(timeout(Duration::from_secs(1), work.idle()).await.is_err());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(lease);
        });
        timeout(Duration::from_secs(2), work.idle()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_goes_on_until_it_is_cut() {
        let work = Work::new();
        work.drain();
        assert_eq!(work.unless_cut(async { 1 }).await, Some(1));
        let cutting = work.clone();
        tokio::spawn(async move { cutting.cut() });
        assert_eq!(work.unless_cut(std::future::pending::<()>()).await, None);
        assert!(work.is_closed() && work.cuts().has_changed());
        work.drain();
        assert!(work.is_closed(), "it does not open again");
    }
}
