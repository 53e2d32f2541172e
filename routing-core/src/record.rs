//! What is remembered of one node.

use std::sync::Arc;

use tokio::time::Instant;

use crate::flaps::Flaps;
use crate::lsn::{Lsn, Timeline};
use crate::node::Node;
use crate::primary::Witness;
use crate::probe::{Identity, Probe};

/// What the probes have shown of one node.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) node: Arc<Node>,
    /// The last answer. It is void once a probe failed: a standby was measured to come back *behind* what it had
    /// shown, so a position holds only while the connection that read it lives.
    pub(crate) said: Option<Said>,
    /// Who answered last, kept when the answer is void.
    pub(crate) identity: Option<Arc<Identity>>,
    pub(crate) failed: Option<Arc<str>>,
    pub(crate) failures: u32,
    pub(crate) down_since: Option<Instant>,
    /// When it last answered after it had not.
    pub(crate) returned: Option<Instant>,
    pub(crate) returning: bool,
    pub(crate) fresh_streak: u32,
    pub(crate) last_known_fresh: Option<Instant>,
    pub(crate) flaps: Flaps,
    /// What it had replayed when it last answered as a standby. Void with the answer.
    pub(crate) replayed: Option<Lsn>,
    /// What it received last, as a standby. Void with the answer.
    pub(crate) received: Option<Received>,
    /// When the last probe was sent that was answered or failed.
    pub(crate) tried: Option<Instant>,
}

impl Record {
    /// Nothing is known of it.
    pub(crate) fn unseen(node: &Arc<Node>) -> Self {
        Self {
            node: node.clone(),
            said: None,
            identity: None,
            failed: None,
            failures: 0,
            down_since: None,
            returned: None,
            returning: false,
            fresh_streak: 0,
            last_known_fresh: None,
            flaps: Flaps::default(),
            replayed: None,
            received: None,
            tried: None,
        }
    }

    /// Whether a standby that does not show its timeline can be on this one. Where a WAL receiver runs the timeline is hidden from
    /// us. Where none runs, it must have received the timeline since it was first seen: one that was started since may have
    /// followed a primary that nobody here has seen, and its positions would be of another history.
    pub(crate) fn may_be_on(&self, timeline: Option<Timeline>) -> bool {
        let hidden = self.said.as_ref().is_some_and(|said| said.probe.wal_receiver);
        hidden || self.received.is_some_and(|received| Some(received.timeline) == timeline)
    }

    /// How far it is on the timeline that it is taken to be on. What a standby replays while it receives nothing shows no timeline: it
    /// may have followed a successor and lost it since the last probe. What it had before it keeps.
    pub(crate) fn position(&self) -> Option<Lsn> {
        let probe = &self.said.as_ref()?.probe;
        let shown = probe.lsn?;
        match self.received {
            Some(Received { replayed, until: Some(_), .. }) if probe.in_recovery => {
                replayed.map(|replayed| shown.min(replayed))
            }
            _ => Some(shown),
        }
    }

    /// Takes in what a standby says that it receives.
    pub(crate) fn receives(&mut self, probe: &Probe, sent: Instant) {
        self.received = match (probe.receives(), self.received) {
            (true, _) => {
                probe.timeline.map(|timeline| Received { timeline, replayed: probe.lsn, until: None })
            }
            (false, Some(received)) => Some(Received { until: received.until.or(Some(sent)), ..received }),
            (false, None) => None,
        };
    }

    /// Whether a node of another number is the same server: it left and joined anew.
    pub(crate) fn is_succeeded_by(&self, node: &Node) -> bool {
        let place = |node: &Node| (node.config().url.host().to_owned(), node.config().url.port());
        self.node.name() == node.name() && place(&self.node) == place(node)
    }
}

/// What a standby received last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) timeline: Timeline,
    /// What it had replayed when it was last seen to receive.
    pub(crate) replayed: Option<Lsn>,
    /// Since when it receives nothing.
    pub(crate) until: Option<Instant>,
}

/// One answer to a probe.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) identity: Arc<Identity>,
    pub(crate) probe: Probe,
    pub(crate) sent: Instant,
}

/// The same as evidence of who is the primary.
pub(crate) fn witnesses(records: &[Record]) -> Vec<Witness<'_>> {
    records
        .iter()
        .map(|record| Witness {
            id: record.node.id(),
            configured: (record.node.config().url.host(), record.node.config().url.port()),
            tried: record.said.is_some() || record.failed.is_some(),
            known: record.identity.as_deref(),
            said: record.said.as_ref().map(|said| (&*said.identity, &said.probe)),
        })
        .collect()
}
