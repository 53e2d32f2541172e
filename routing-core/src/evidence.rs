//! From what the probes said to a topology.
//!
//! Owned by the topology's one writer. Everything here is told the time and awaits nothing.

use std::sync::Arc;

use tokio::time::Instant;

use crate::authority::{Authority, Hearing, Word};
use crate::config::RouterConfig;
use crate::fault::Fault;
use crate::flaps::Flaps;
use crate::lag::PrimaryHistory;
use crate::lsn::{Lsn, Timeline};
use crate::node::{Node, NodeId};
use crate::primary::{Doubt, Lineage, Verdict, Witness, claims, judge, standings};
use crate::probe::{Identity, Probe, ProbeError};
use crate::topology::Topology;
use crate::votes::follows;

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

/// Probes in a row that must find a stale replica fresh before it serves again.
const FRESH_AFTER: u32 = 2;

/// All that the probes have shown so far.
#[derive(Debug)]
pub struct Evidence {
    pub(crate) config: Arc<RouterConfig>,
    pub(crate) records: Vec<Record>,
    pub(crate) lineage: Lineage,
    pub(crate) verdict: Verdict,
    hearing: Hearing,
    pub(crate) history: PrimaryHistory,
    /// What the writer was last seen to have replayed as a standby (its timeline branched off there or later), and when it
    /// was accepted. `None` when it was not seen as one.
    pub(crate) inherited: Option<(Lsn, Instant)>,
    /// The node and timeline that would be accepted next, and since when the evidence says so.
    pub(crate) successor: Option<(NodeId, Timeline, Instant)>,
    pub(crate) version: u64,
}

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
    pub(crate) returning: bool,
    pub(crate) fresh_streak: u32,
    pub(crate) last_known_fresh: Option<Instant>,
    /// What it had replayed when it last answered as a standby. Void with the answer.
    pub(crate) replayed: Option<Lsn>,
    /// When the last probe was sent that was answered or failed.
    pub(crate) tried: Option<Instant>,
    pub(crate) flaps: Flaps,
}

impl Record {
    fn unseen(node: &Arc<Node>) -> Self {
        Self {
            node: node.clone(),
            said: None,
            identity: None,
            failed: None,
            failures: 0,
            down_since: None,
            returning: false,
            fresh_streak: 0,
            last_known_fresh: None,
            replayed: None,
            tried: None,
            flaps: Flaps::default(),
        }
    }

    /// Whether a node of another number is the same server: it left and joined anew.
    fn is_succeeded_by(&self, node: &Node) -> bool {
        let place = |node: &Node| (node.config().url.host().to_owned(), node.config().url.port());
        self.node.name() == node.name() && place(&self.node) == place(node)
    }
}

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) identity: Arc<Identity>,
    pub(crate) probe: Probe,
    pub(crate) sent: Instant,
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
        self.judged(now)
    }

    /// Takes in what the authority said last.
    pub(crate) fn hear(&mut self, word: Option<Word>, now: Instant) -> Effects {
        self.hearing.hear(word);
        self.judged(now)
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
                }
                record.said = Some(Said { identity, probe, sent: observation.sent });
                record.failed = None;
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
                record.failed = Some(error.to_string().into());
                // An answer that is no use, such as a wrong password, is a sign of life.
                if matches!(error.fault(), Some(Fault::Unreachable | Fault::Unresponsive)) {
                    record.failures = record.failures.saturating_add(1);
                }
                record.down_since = record.down_since.or(Some(observation.sent));
                effects.lost = record.failures == DEAD_AFTER && record.failures > before;
            }
        }
        effects = Effects { lost: effects.lost, ..self.judged(now) };
        self.sample_primary();
        self.weigh_freshness(index, now);
        effects
    }

    /// Decides anew who is the primary.
    fn judged(&mut self, now: Instant) -> Effects {
        let before = self.successor;
        let new_epoch = self.judge(now);
        let successor = self.successor.is_some() && self.successor != before;
        Effects { new_epoch, successor, ..Effects::default() }
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
        let replayed = self.records.iter().find(|record| record.node.id() == id).and_then(|r| r.replayed);
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

    fn sample_primary(&mut self) {
        let (Verdict::Accepted(id, _) | Verdict::ReadOnly(id, _)) = self.verdict else { return };
        let Some(said) = self.records.iter().find(|r| r.node.id() == id).and_then(|r| r.said.as_ref()) else {
            return;
        };
        if let Some(lsn) = said.probe.lsn {
            self.history.record(lsn, said.sent);
        }
    }

    /// Hysteresis: out above `max_staleness`, back in after some probes at or below `max_staleness_return`.
    fn weigh_freshness(&mut self, index: usize, now: Instant) {
        let fresh = self.fresh_as_of(index);
        let limits =
            (self.config.max_staleness, self.config.max_staleness_return, self.config.commit_delay());
        let record = &mut self.records[index];
        record.last_known_fresh = record.last_known_fresh.max(fresh);
        let Some(bound) = fresh.map(|fresh| now.saturating_duration_since(fresh) + limits.2) else {
            record.fresh_streak = 0;
            return;
        };
        if bound > limits.0 {
            record.returning = true;
            record.fresh_streak = 0;
        } else if bound <= limits.1 {
            record.fresh_streak += 1;
            record.returning &= record.fresh_streak < FRESH_AFTER;
        } else {
            record.fresh_streak = 0;
        }
    }

    /// Whether a standby that does not receive the writer's timeline yet is on its way there. It has replayed nothing that
    /// the writer had not, so what it shows is part of the writer's past. It is given `max_staleness` to follow.
    pub(crate) fn inherits(&self, index: usize, now: Instant) -> bool {
        let Some((inherited, since)) = self.inherited else { return false };
        let said = self.records[index].said.as_ref().filter(|said| said.probe.in_recovery);
        let Some((said, (writer, _))) = said.zip(self.lineage.writer) else { return false };
        said.probe.lsn.is_some_and(|own| own <= inherited)
            && now.saturating_duration_since(since) <= self.config.max_staleness
            && (!said.probe.receives() || follows(&self.lineage, &witnesses(&self.records), index, writer))
    }

    /// The instant that a node's data is proven to be fresh as of. A standby on a timeline that is known to be another
    /// one has none: its positions cannot be compared.
    pub(crate) fn fresh_as_of(&self, index: usize) -> Option<Instant> {
        let record = &self.records[index];
        let said = record.said.as_ref()?;
        let (writer, timeline) = self.lineage.writer?;
        if writer == record.node.id() {
            return Some(said.sent);
        }
        if !said.probe.in_recovery || said.probe.timeline.is_some_and(|own| own != timeline) {
            return None;
        }
        self.history.fresh_as_of(said.probe.lsn?)
    }
}

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

#[cfg(test)]
mod tests;
