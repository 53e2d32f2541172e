//! Opening connections, whoever waits for them.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::connector::Connector;
use crate::node::Node;

/// Opens the connections of one pool, each in a task of its own.
///
/// A caller that stops waiting leaves its connection under way to the next one. Given up with its caller instead, a
/// server that takes longer to let one in than a caller waits would be asked again and again, and never be reached.
/// There are at most as many as the pool has places, since a new one is begun only when none is left.
pub(crate) struct Opener<C: Connector> {
    connector: Arc<C>,
    node: Arc<Node>,
    connect_timeout: Duration,
    /// An opened connection that waited for longer than this is not trusted.
    keep: Duration,
    left: Left<C>,
    /// The last one failed, and the log says why. The monitor may well be let in where the application is not.
    complained: Arc<AtomicBool>,
}

/// A connection that has just been opened.
pub(crate) struct Opened<T> {
    pub(crate) connection: T,
    /// The node's generation before.
    pub(crate) generation: u64,
    /// When it was ready.
    pub(crate) at: Instant,
}

/// `None`: it took too long.
type Outcome<C> = Option<Result<Opened<<C as Connector>::Connection>, <C as Connector>::Error>>;
type Opening<C> = JoinHandle<Outcome<C>>;

impl<C: Connector> Opener<C> {
    pub(crate) fn new(connector: C, node: Arc<Node>, connect_timeout: Duration, keep: Duration) -> Self {
        let (connector, left, complained) =
            (Arc::new(connector), Left(Arc::new(Mutex::new(Some(Vec::new())))), Arc::default());
        Self { connector, node, connect_timeout, keep, left, complained }
    }

    pub(crate) fn connector(&self) -> &C {
        &self.connector
    }

    /// A connection: one under way that nobody waits for, else a new one.
    pub(crate) async fn open(&self) -> Result<Opened<C::Connection>, C::Error> {
        loop {
            let left = self.left.locked().as_mut().and_then(Vec::pop);
            // What ended before we came was said to nobody, and may be long past.
            let old = left.as_ref().is_some_and(JoinHandle::is_finished);
            let opening = left.unwrap_or_else(|| self.begin());
            let outcome = Awaited { opening: Some(opening), left: self.left.clone() }.end().await;
            match outcome {
                Some(Ok(opened)) if old && !self.is_current(&opened) => {}
                Some(Ok(opened)) => return Ok(opened),
                Some(Err(_)) if old => {}
                Some(Err(error)) => return Err(error),
                // It took longer than `connect_timeout`; the caller's own limits say how often that may happen.
                None => {}
            }
        }
    }

    /// Ends those that nobody waits for.
    pub(crate) fn abandon(&self) {
        self.left.locked().iter_mut().flat_map(|left| left.drain(..)).for_each(|opening| opening.abort());
    }

    /// The same, and of those that nobody waits for later.
    pub(crate) fn close(&self) {
        self.left.locked().take().into_iter().flatten().for_each(|opening| opening.abort());
    }

    fn begin(&self) -> Opening<C> {
        let (connector, node, limit) = (self.connector.clone(), self.node.clone(), self.connect_timeout);
        let complained = self.complained.clone();
        tokio::spawn(async move {
            let generation = node.generation();
            let Ok(opened) = timeout(limit, connector.connect()).await else {
                // The monitor's own connection may go on answering while no new one gets in.
                node.record_silent_connect(Instant::now());
                return None;
            };
            let failed = opened.as_ref().err();
            if let (Some(error), false) = (failed, complained.swap(failed.is_some(), Relaxed)) {
                let (node, why) = (node.name(), connector.describe(error));
                tracing::warn!(node, why, "no new connection to {node}: {why}");
            }
            Some(opened.map(|connection| Opened { connection, generation, at: Instant::now() }))
        })
    }

    fn is_current(&self, opened: &Opened<C::Connection>) -> bool {
        opened.generation == self.node.generation() && opened.at.elapsed() <= self.keep
    }
}

/// `None` once the pool was closed: nothing is left to anybody then.
struct Left<C: Connector>(Arc<Mutex<Option<Vec<Opening<C>>>>>);

impl<C: Connector> Left<C> {
    fn locked(&self) -> MutexGuard<'_, Option<Vec<Opening<C>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connector> Clone for Left<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A connection under way that someone waits for. Dropped before its end, it is left to the next one.
struct Awaited<C: Connector> {
    opening: Option<Opening<C>>,
    left: Left<C>,
}

impl<C: Connector> Awaited<C> {
    async fn end(mut self) -> Outcome<C> {
        let ended = self.opening.as_mut()?.await;
        self.opening = None;
        ended.ok().flatten()
    }
}

impl<C: Connector> Drop for Awaited<C> {
    fn drop(&mut self) {
        let Some(opening) = self.opening.take() else { return };
        match &mut *self.left.locked() {
            Some(left) => left.push(opening),
            None => opening.abort(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::breaker::BreakerConfig;
    use crate::config::NodeConfig;
    use crate::logged::Logged;

    /// Fails as often as it was told to, each time for another reason.
    struct Script(Mutex<VecDeque<Result<(), &'static str>>>);

    impl Connector for Script {
        type Connection = ();
        type Error = &'static str;

        async fn connect(&self) -> Result<(), &'static str> {
            self.0.lock().unwrap().pop_front().unwrap()
        }

        fn describe(&self, error: &&'static str) -> String {
            (*error).to_owned()
        }

        async fn check(&self, (): &mut ()) -> Result<(), &'static str> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_first_failure_after_a_success_is_in_the_log() {
        let (log, _guard) = Logged::begin();
        let script = [Err("first"), Err("second"), Ok(()), Err("third"), Err("fourth")];
        let node = NodeConfig::new("pg1", "postgres://app:hunter2@h/d".parse().unwrap());
        let node = Arc::new(Node::new(node, BreakerConfig::default()));
        let script = Script(Mutex::new(script.into()));
        let opener = Opener::new(script, node, Duration::from_secs(1), Duration::from_secs(1));
        for _ in 0..5 {
            let _ = opener.open().await;
        }
        let log = log.text();
        let lines: Vec<_> = log.lines().map(|line| line.split(" to pg1: ").nth(1).unwrap_or(line)).collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert!(lines[0].starts_with("first") && lines[1].starts_with("third"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}
