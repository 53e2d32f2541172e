//! Many concurrent readers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use routing_core::{Consistency, Router};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::reader_with;
use crate::orm::Orm;
use crate::seen::served_by_slowly;
use crate::wait::{PATIENCE, eventually};

/// What readers were answered.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by node.
    pub answers: BTreeMap<String, u64>,
    /// Errors, in their words.
    pub errors: Vec<String>,
}

impl Tally {
    /// All answers.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// The answers of one node.
    #[must_use]
    pub fn of(&self, node: &str) -> u64 {
        self.answers.get(node).copied().unwrap_or(0)
    }
}

/// Readers that read until they are told to stop, each statement in a request of its own.
#[derive(Debug)]
pub struct Readers {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Readers {
    /// Starts so many readers. Each statement takes some milliseconds on the server, so that a fault meets many.
    #[must_use]
    pub fn start<O: Orm>(router: &Router<O>, count: usize) -> Self {
        Self::start_with(router, count, &[Consistency::Eventual], Duration::ZERO)
    }

    /// The same with these levels in turn, and a pause after each answer. No reader has a token.
    #[must_use]
    pub fn start_with<O: Orm>(
        router: &Router<O>,
        count: usize,
        levels: &[Consistency],
        pause: Duration,
    ) -> Self {
        let (tally, stop) = (Arc::<Mutex<Tally>>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for (number, level) in (0..).zip(levels.iter().copied().cycle().take(count)) {
            let (router, tally, stop) = (router.clone(), tally.clone(), stop.clone());
            tasks.spawn(async move {
                // Those that pause start one after the other.
                sleep(pause.mul_f64(0.2) * number).await;
                while !stop.load(Relaxed) {
                    let answer = served_by_slowly(&reader_with(&router, level), 0.02).await;
                    {
                        let mut tally = locked(&tally);
                        match answer {
                            Ok(node) => *tally.answers.entry(node).or_default() += 1,
                            Err(error) => tally.errors.push(error.to_string()),
                        }
                    }
                    sleep(pause).await;
                }
            });
        }
        Self { tally, stop, tasks }
    }

    /// What they were answered so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }

    /// Waits until they have had so many more answers.
    ///
    /// # Panics
    /// When they do not.
    pub async fn go_on(&self, answers: u64) {
        let target = self.tally().total() + answers;
        eventually(PATIENCE, "the readers go on", async || self.tally().total() >= target).await;
    }

    /// Waits until a node has answered them so many more times.
    ///
    /// # Panics
    /// When it does not.
    pub async fn go_on_at(&self, node: &str, answers: u64) {
        let target = self.tally().of(node) + answers;
        eventually(PATIENCE, &format!("{node} answers readers"), async || self.tally().of(node) >= target)
            .await;
    }

    /// Stops them and waits for their last answers.
    ///
    /// # Panics
    /// When a reader panicked.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a reader does not panic");
        }
        self.tally()
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
