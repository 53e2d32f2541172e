//! From what the probes said to a topology.
//!
//! Owned by the topology's one writer. Everything here is told the time and awaits nothing.

use std::sync::Arc;

use tokio::time::Instant;

use crate::authority::{Authority, Hearing, Word};
use crate::config::RouterConfig;
use crate::fault::Fault;
use crate::lag::PrimaryHistory;
use crate::lsn::{Lsn, Timeline};
use crate::node::Node;
use crate::node_id::NodeId;
use crate::primary::{Doubt, Lineage, Verdict, claims, judge, standings};
use crate::probe::{Identity, Probe, ProbeError};
use crate::record::{Record, Said, witnesses};
use crate::topology::Topology;

/// One attempt to probe a node.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The node.
    pub node: NodeId,
    /// When the probe was sent.
    pub sent: Instant,
    /// What came of it.
    pub outcome: Result<(Arc<Identity>, Probe), ProbeError>,
}

/// Probes in a row that must fail before a node counts as dead and its reads in flight move on. One lost answer is
/// not death; the second comes after a new connection was tried.
const DEAD_AFTER: u32 = 2;

/// All that the probes have shown so far.
#[derive(Debug)]
pub struct Evidence {
    pub(crate) config: Arc<RouterConfig>,
    pub(crate) records: Vec<Record>,
    pub(crate) lineage: Lineage,
    pub(crate) verdict: Verdict,
    hearing: Hearing,
    pub(crate) history: PrimaryHistory,
    /// Where the writer's recovery ended, as it says, or what it was last seen to have replayed as a standby (its timeline branched
    /// off there or later); and when it was accepted. `None` when neither is known.
    pub(crate) inherited: Option<(Lsn, Instant)>,
    /// The node and timeline that would be accepted next, and since when the evidence says so.
    pub(crate) successor: Option<(NodeId, Timeline, Instant)>,
    pub(crate) version: u64,
}

/// What one observation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The node counts as dead from now on.
    pub lost: bool,
    /// Another node or timeline was accepted as the primary.
    pub new_epoch: bool,
    /// A successor of the primary showed itself. Before it is accepted every node is looked at again.
    pub successor: bool,
}

impl Evidence {
    /// No evidence about these nodes.
    #[must_use]
    pub fn new(config: Arc<RouterConfig>, nodes: &[Arc<Node>]) -> Self {
        Self {
            config,
            records: nodes.iter().map(Record::unseen).collect(),
            lineage: Lineage::default(),
            verdict: Verdict::Nobody,
            hearing: Hearing::default(),
            history: PrimaryHistory::default(),
            inherited: None,
            successor: None,
            version: 0,
        }
    }

    /// The same, going on from what an earlier topology had accepted: a timeline once accepted is never forgotten.
    #[must_use]
    pub fn resume(config: Arc<RouterConfig>, nodes: &[Arc<Node>], last: &Topology) -> Self {
        let mut evidence = Self::new(config, nodes);
        evidence.lineage = last.lineage;
        evidence.version = last.version;
        evidence
    }

    /// Goes on with these nodes. What is known of those that stay is kept; those that are new are unseen. The writer that left
    /// and joined anew, reached in another way, is the same writer.
    pub fn set_nodes(&mut self, nodes: &[Arc<Node>], now: Instant) -> Effects {
        let mut old = std::mem::take(&mut self.records);
        for node in nodes {
            let known = old.iter().position(|record| record.node.id() == node.id());
            let record = known.map_or_else(|| Record::unseen(node), |index| old.swap_remove(index));
            self.records.push(record);
        }
        if let Some((id, _)) = &mut self.lineage.writer
            && let Some(left) = old.iter().find(|record| record.node.id() == *id)
            && let Some(node) = nodes.iter().find(|node| left.is_succeeded_by(node))
        {
            *id = node.id();
        }
        let mut effects = Effects::default();
        self.weigh_claims(now, &mut effects);
        effects
    }

    /// Takes in what the authority said last.
    pub(crate) fn hear(&mut self, word: Option<Word>, now: Instant) -> Effects {
        self.hearing.hear(word);
        let mut effects = Effects::default();
        self.weigh_claims(now, &mut effects);
        effects
    }

    /// Whether a claim waits for the authority's word.
    pub(crate) fn awaits_authority(&self, now: Instant) -> bool {
        self.authority(now) == Authority::Awaited
    }

    fn authority(&self, now: Instant) -> Authority {
        let named =
            |name: &str| self.records.iter().map(|record| &record.node).find(|node| node.name() == name);
        let id = |name: &str| named(name).map(|node| node.id());
        self.hearing.authority(id, self.config.authority_required, now)
    }

    /// Takes in one observation at `now`.
    pub fn observe(&mut self, observation: Observation, now: Instant) -> Effects {
        let mut effects = Effects::default();
        let Some(index) = self.records.iter().position(|record| record.node.id() == observation.node) else {
            return effects;
        };
        let record = &mut self.records[index];
        record.tried = record.tried.max(Some(observation.sent));
        match observation.outcome {
            Ok((identity, probe)) => {
                record.identity = Some(identity.clone());
                if probe.in_recovery {
                    record.replayed = probe.lsn;
                    record.receives(&probe, observation.sent);
                }
                record.said = Some(Said { identity, probe, sent: observation.sent });
                if record.failed.take().is_some() {
                    record.returned = Some(observation.sent);
                }
                if record.failures >= DEAD_AFTER {
                    record.flaps.came_back(now);
                }
                record.failures = 0;
                record.down_since = None;
            }
            Err(error) => {
                let before = record.failures;
                record.said = None;
                record.replayed = None;
                record.received = None;
                record.failed = Some(error.to_string().into());
                // An answer that is no use, such as a wrong password, is a sign of life.
                if matches!(error.fault(), Some(Fault::Unreachable | Fault::Unresponsive)) {
                    record.failures = record.failures.saturating_add(1);
                }
                record.down_since = record.down_since.or(Some(observation.sent));
                effects.lost = record.failures == DEAD_AFTER && record.failures > before;
            }
        }
        self.weigh_claims(now, &mut effects);
        self.sample_primary();
        self.weigh_freshness(index, now);
        effects
    }

    fn weigh_claims(&mut self, now: Instant, effects: &mut Effects) {
        let before = self.successor;
        effects.new_epoch = self.judge(now);
        effects.successor = self.successor.is_some() && self.successor != before;
    }

    /// Decides anew who is the primary; `true` when that opened an epoch.
    fn judge(&mut self, now: Instant) -> bool {
        let witnesses = witnesses(&self.records);
        self.hearing.see(claims(&witnesses, &standings(&self.lineage, &witnesses)), now);
        let authority = self.authority(now);
        self.verdict = judge(&self.lineage, &witnesses, self.config.write_quorum, authority);
        let Verdict::Accepted(id, timeline) = self.verdict else {
            self.successor = None;
            return false;
        };
        if self.lineage.writer == Some((id, timeline)) {
            self.successor = None;
            return false;
        }
        let since = match self.successor {
            Some((known, on, since)) if (known, on) == (id, timeline) => since,
            _ => now,
        };
        self.successor = Some((id, timeline, since));
        let named =
            matches!(authority, Authority::Leads { node: Some(leader), running: true } if leader == id);
        if self.lineage.writer.is_some() && !named && !self.all_tried_since(since) {
            self.verdict = Verdict::Doubted(id, timeline, Doubt::Unconfirmed);
            return false;
        }
        self.successor = None;
        let system_id = witnesses.iter().find(|w| w.id == id).and_then(|w| Some(w.said?.0.system_id));
        self.lineage = Lineage {
            system_id: self.lineage.system_id.or(system_id),
            highest: Some(timeline),
            writer: Some((id, timeline)),
            epoch: self.lineage.epoch + 1,
        };
        self.history.clear();
        let writer = self.records.iter().find(|record| record.node.id() == id);
        let recovered_to = writer.and_then(|writer| writer.said.as_ref()?.probe.recovered_to);
        let replayed = recovered_to.max(writer.and_then(|writer| writer.replayed));
        self.inherited = replayed.map(|replayed| (replayed, now));
        true
    }

    /// Whether every node was looked at since then, but those that count as dead. What others said before may be overtaken:
    /// another one may have been promoted as well, and the old primary may have answered a probe that came late.
    fn all_tried_since(&self, since: Instant) -> bool {
        let tried = |record: &Record| {
            record.failures >= DEAD_AFTER || record.tried.is_some_and(|tried| tried >= since)
        };
        self.records.iter().all(tried)
    }
}

#[cfg(test)]
mod tests;
