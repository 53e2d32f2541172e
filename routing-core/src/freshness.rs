//! How fresh the evidence proves each node to be.

use tokio::time::Instant;

use crate::evidence::Evidence;
use crate::primary::Verdict;
use crate::record::witnesses;
use crate::votes::follows;

/// Probes in a row that must find a stale replica fresh before it serves again.
const FRESH_AFTER: u32 = 2;

impl Evidence {
    /// Notes where the primary is.
    pub(crate) fn sample_primary(&mut self) {
        let (Verdict::Accepted(id, _) | Verdict::ReadOnly(id, _)) = self.verdict else { return };
        let Some(said) = self.records.iter().find(|r| r.node.id() == id).and_then(|r| r.said.as_ref()) else {
            return;
        };
        if let Some(lsn) = said.probe.lsn {
            self.history.record(lsn, said.sent);
        }
    }

    /// Hysteresis: out above `max_staleness`, back in after some probes at or below `max_staleness_return`.
    pub(crate) fn weigh_freshness(&mut self, index: usize, now: Instant) {
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
            // In recovery it writes no more, and whose log it replays cannot be told.
            return (!said.probe.in_recovery).then_some(said.sent);
        }
        if !said.probe.in_recovery || said.probe.timeline.is_some_and(|own| own != timeline) {
            return None;
        }
        match (record.position(), said.probe.claimed_lag) {
            (None, Some(claimed)) => said.sent.checked_sub(claimed),
            (lsn, _) => self.history.fresh_as_of(lsn?),
        }
    }
}
