//! From the evidence to the picture that requests see.

use tokio::time::Instant;

use crate::decision::Refusal;
use crate::error::Claims;
use crate::evidence::Evidence;
use crate::lag::Behind;
use crate::node_id::NodeId;
use crate::primary::{Standing, Verdict, standings};
use crate::record::{Received, witnesses};
use crate::role::Role;
use crate::topology::{NodeState, Primary, Topology};

impl Evidence {
    /// The picture at `now`.
    pub fn topology(&mut self, now: Instant) -> Topology {
        self.version += 1;
        let standings = standings(&self.lineage, &witnesses(&self.records));
        let primary = self.primary();
        let known = matches!(primary, Primary::Known { .. });
        let nodes = (0..self.records.len())
            .map(|index| self.node_state(index, standings[index], known, now))
            .collect();
        Topology {
            version: self.version,
            lineage: self.lineage,
            primary,
            nodes,
            primary_lsn: self.history.newest().map(|(lsn, _)| lsn),
            published: now,
        }
    }

    fn primary(&self) -> Primary {
        let place = |id: NodeId| self.records.iter().position(|record| record.node.id() == id);
        match &self.verdict {
            Verdict::Accepted(id, timeline) | Verdict::ReadOnly(id, timeline) => {
                match place(*id).map(|index| (index, &self.records[index].said)) {
                    Some((index, Some(said))) => Primary::Known {
                        index,
                        timeline: *timeline,
                        confirmed: said.sent,
                        read_only: matches!(self.verdict, Verdict::ReadOnly(..)),
                    },
                    _ => Primary::Unknown,
                }
            }
            Verdict::Nobody | Verdict::Doubted(..) => Primary::Unknown,
            Verdict::Ambiguous(claims) => {
                let named = claims.iter().filter_map(|(id, timeline)| {
                    Some((self.records[place(*id)?].node.name().into(), *timeline))
                });
                Primary::Ambiguous(Claims(named.collect()))
            }
        }
    }

    fn node_state(&self, index: usize, standing: Standing, primary_known: bool, now: Instant) -> NodeState {
        let record = &self.records[index];
        let said = record.said.as_ref();
        let probe = said.map(|said| &said.probe);
        let is_writer = self.lineage.writer.is_some_and(|(id, _)| id == record.node.id()) && primary_known;
        let writer_timeline = self.lineage.writer.map(|(_, timeline)| timeline);
        let own_timeline = probe.and_then(|probe| probe.timeline);
        NodeState {
            node: record.node.clone(),
            role: probe.map_or(Role::Unknown, |p| if p.in_recovery { Role::Replica } else { Role::Primary }),
            timeline: own_timeline,
            lsn: record.position(),
            blocked: self.blocked(index, standing, is_writer, primary_known, now),
            fresh_as_of: self.fresh_as_of(index),
            last_known_fresh: record.last_known_fresh,
            lineage_proven: match own_timeline {
                _ if probe.is_some_and(|probe| probe.claimed_lag.is_some()) => false,
                Some(own) => Some(own) == writer_timeline,
                None => self.lineage.epoch == 1 && record.may_be_on(writer_timeline),
            },
            returning: record.returning,
            behind: match (is_writer, record.position()) {
                (true, _) => Behind::CaughtUp,
                (false, Some(lsn)) if own_timeline.is_none_or(|own| Some(own) == writer_timeline) => {
                    self.history.behind(lsn)
                }
                _ => Behind::Unknown,
            },
            admitted_from: record.flaps.admitted_from(),
            probed: said.map(|said| said.sent),
            down_since: record.down_since,
        }
    }

    fn blocked(
        &self,
        index: usize,
        standing: Standing,
        is_writer: bool,
        primary_known: bool,
        now: Instant,
    ) -> Option<Refusal> {
        let record = &self.records[index];
        let Some(said) = &record.said else {
            return Some(match &record.failed {
                Some(why) => Refusal::Down { why: why.clone() },
                None => Refusal::NeverSeen,
            });
        };
        let writer_timeline = self.lineage.writer.map(|(_, timeline)| timeline);
        match standing {
            Standing::Unseen => Some(Refusal::NeverSeen),
            Standing::OtherCluster => Some(Refusal::OtherCluster),
            Standing::Duplicate => Some(Refusal::Duplicate),
            Standing::Deposed => Some(match (said.probe.timeline, self.lineage.highest) {
                (Some(timeline), Some(current)) => Refusal::Fenced { timeline, current },
                (timeline, _) => Refusal::NotProven { timeline },
            }),
            Standing::Candidate | Standing::ReadOnly if is_writer => None,
            Standing::ReadOnly => Some(Refusal::ReadOnly { timeline: said.probe.timeline }),
            Standing::Candidate => Some(match self.verdict {
                Verdict::Doubted(id, timeline, doubt) if id == record.node.id() => {
                    Refusal::Doubted { timeline, doubt }
                }
                _ => Refusal::NotProven { timeline: said.probe.timeline },
            }),
            Standing::Standby => {
                let other =
                    said.probe.timeline.zip(writer_timeline).is_some_and(|(own, writer)| own != writer);
                let without = self.config.serve_without_primary;
                let orphan_allowed = !primary_known && without;
                if primary_known && without && self.inherits(index, now) {
                    // It goes on to serve those who ask for no more until it follows the new primary.
                    None
                } else if other && primary_known {
                    Some(Refusal::OtherTimeline)
                } else if said.probe.receives()
                    || orphan_allowed
                    || without && (self.may_be_bereft(index) || self.may_reconnect(index, now))
                {
                    None
                } else {
                    Some(Refusal::NotReceiving)
                }
            }
        }
    }

    /// Whether a standby that receives no log may have lost its primary rather than its way to it: it has received the writer's
    /// timeline until now, and the writer has not been heard since. One that shuts down ends the monitor's connection before
    /// its standbys', so its next answer tells.
    fn may_be_bereft(&self, index: usize) -> bool {
        let Some((writer, timeline)) = self.lineage.writer else { return false };
        let Some(Received { timeline: received, until: Some(since), .. }) = self.records[index].received
        else {
            return false;
        };
        let primary = self.records.iter().find(|record| record.node.id() == writer);
        let heard = primary.and_then(|primary| primary.said.as_ref()).is_some_and(|said| said.sent > since);
        received == timeline && !heard
    }

    /// Whether a standby that receives no log may be about to: its primary has come back from an absence in which the standby
    /// lost it, and standbys ask again only every `wal_retrieve_retry_interval`. It is given `max_staleness` to reconnect.
    fn may_reconnect(&self, index: usize, now: Instant) -> bool {
        let Some((writer, timeline)) = self.lineage.writer else { return false };
        let Some(Received { timeline: received, until: Some(since), .. }) = self.records[index].received
        else {
            return false;
        };
        let primary = self.records.iter().find(|record| record.node.id() == writer);
        let returned = primary.and_then(|primary| primary.returned).filter(|returned| *returned > since);
        received == timeline
            && returned.is_some_and(|at| now.saturating_duration_since(at) <= self.config.max_staleness)
    }
}
