//! The task that follows a discovery.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::authority::Word;
use crate::cluster::{Cluster, Inner};
use crate::discovery::{Discovered, Discovery, DiscoveryError};

/// The pause between two questions, however urgent the second.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// What a discovery has said, for people.
#[derive(Clone, Debug, Serialize)]
pub struct DiscoveryStatus {
    /// `file`, `dns`, `patroni`, or a word of the application's own.
    pub kind: &'static str,
    /// Seconds since it last named servers; `None` before that.
    pub age_seconds: Option<f64>,
    /// Why it did not the last time.
    pub error: Option<String>,
    /// Whom it lets lead, if it is an authority and names somebody.
    pub leader: Option<String>,
    /// Its lists are not taken over for now.
    pub frozen: bool,
}

/// A discovery that is followed. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Following {
    task: AbortHandle,
    kind: &'static str,
    last: LastWord,
}

#[derive(Debug, Default)]
struct LastWord {
    named: Option<Instant>,
    error: Option<DiscoveryError>,
    leader: Option<Arc<str>>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Follows a discovery from now on, instead of one that was followed before: nodes join and leave as it says, as by
    /// [`set_nodes`](Self::set_nodes). An empty or failed answer changes nothing. Where it is an authority, its leader breaks
    /// ties between servers that claim to be the primary, and nobody else is accepted.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn follow(&self, discovery: Arc<dyn Discovery>) {
        let kind = discovery.kind();
        if discovery.is_authority() {
            self.shared().authority.send_replace(Some(None));
        }
        let mut following = self.shared().following.lock().unwrap_or_else(PoisonError::into_inner);
        // The old one ends before the new one begins.
        drop(following.take());
        let task = tokio::spawn(follow(self.downgrade(), discovery)).abort_handle();
        *following = Some(Following { task, kind, last: LastWord::default() });
    }

    /// Asks the discovery now instead of at the next time.
    pub fn rediscover(&self) {
        self.shared().rediscover.notify_one();
    }

    /// What the discovery has said; `None` when none is followed.
    #[must_use]
    pub fn discovery(&self) -> Option<DiscoveryStatus> {
        let following = self.shared().following.lock().unwrap_or_else(PoisonError::into_inner);
        following.as_ref().map(|following| DiscoveryStatus {
            kind: following.kind,
            age_seconds: following.last.named.map(|named| named.elapsed().as_secs_f64()),
            error: following.last.error.as_ref().map(ToString::to_string),
            leader: following.last.leader.as_deref().map(str::to_owned),
            frozen: self.shared().frozen.load(Relaxed),
        })
    }
}

async fn follow(cluster: Weak<Inner>, discovery: Arc<dyn Discovery>) {
    loop {
        if Cluster::upgrade(&cluster).is_none_or(|cluster| cluster.is_closed()) {
            return;
        }
        let asked = Instant::now();
        let answer = timeout(discovery.patience(), discovery.discover()).await;
        let Some(cluster) = Cluster::upgrade(&cluster).filter(|cluster| !cluster.is_closed()) else { return };
        let answer = answer.unwrap_or_else(|_| {
            let why = format!("no answer within {:?}", discovery.patience());
            let ask_again = Some(discovery.patience());
            Err(DiscoveryError { asked: discovery.kind().into(), why: why.into(), ask_again })
        });
        let ask_again = match &answer {
            Ok(found) => found.ask_again,
            Err(error) => error.ask_again,
        };
        take(&cluster, &*discovery, asked, answer);
        let wanted = cluster.shared().rediscover.clone();
        drop(cluster);
        sleep(LEAST_PAUSE).await;
        let jitter = 0.8 + 0.4 * fastrand::f64();
        match ask_again {
            Some(pause) => {
                // Either way it is time.
                let _ = timeout(pause.mul_f64(jitter).saturating_sub(LEAST_PAUSE), wanted.notified()).await;
            }
            None => wanted.notified().await,
        }
    }
}

/// Takes an answer over.
fn take(
    cluster: &Cluster,
    discovery: &dyn Discovery,
    asked: Instant,
    answer: Result<Discovered, DiscoveryError>,
) {
    let shared = cluster.shared();
    if discovery.is_authority() {
        let leader = answer.as_ref().map(|found| found.leader.clone()).map_err(|_| ());
        shared.authority.send_replace(Some(Some(Word { asked, leader })));
    }
    let mut last = LastWord::default();
    match answer {
        Ok(found) if found.nodes.is_empty() => {
            last.error = Some(DiscoveryError {
                asked: discovery.kind().into(),
                why: "it names none".into(),
                ask_again: found.ask_again,
            });
        }
        Ok(found) => {
            last.named = Some(asked);
            last.leader = found.leader.map(|leader| leader.node);
            let frozen = shared.frozen.load(Relaxed);
            if !frozen && let Err(error) = cluster.set_nodes(found.nodes) {
                last.error = Some(DiscoveryError {
                    asked: discovery.kind().into(),
                    why: error.to_string().into(),
                    ask_again: found.ask_again,
                });
            }
        }
        Err(error) => last.error = Some(error),
    }
    let mut following = shared.following.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(following) = following.as_mut() else { return };
    match (&following.last.error, &last.error) {
        (was, Some(error)) if was.as_ref() != Some(error) => {
            tracing::warn!(%error, "the discovery fails; the last good list of servers stays");
        }
        (Some(_), None) => tracing::info!(kind = discovery.kind(), "the discovery answers again"),
        _ => {}
    }
    last.named = last.named.or(following.last.named);
    following.last = last;
}
