//! The choice for one read: what it demands now, and who serves it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::acquire::Attempts;
use crate::backend::Backend;
use crate::cap::{Cap, CapPermit};
use crate::choose::{self, Chosen};
use crate::decision::{Access, Reason};
use crate::demand::{self, Demand, Floor, Memory};
use crate::eligible::Limits;
use crate::lease::Ticket;
use crate::metrics;
use crate::node_id::NodeId;
use crate::router::Routed;
use crate::token::UnixMillis;
use crate::topology::Topology;

/// What the choice came to.
pub(crate) enum Choice {
    Take(Ticket),
    /// The primary runs as many fallback reads of this kind as it may.
    Full(Reason),
    /// A replica may have replayed enough in a moment.
    Behind,
    Nothing,
    /// Someone was faster; the next choice knows.
    Again,
}

impl<B: Backend> Routed<B> {
    /// What this read demands now: the cluster may have changed since the last look. And the replica that its session keeps
    /// to, if one does.
    pub(crate) fn demand(&self, attempts: &Attempts, now: Instant) -> (Demand, Option<NodeId>) {
        let shared = self.shared();
        let topology = shared.peek();
        let reader = shared.reader(&topology);
        // Only a token ends by the wall's clock.
        let demanded = |memory: &Memory| {
            let wall = memory.token.map_or(UnixMillis(0), |_| reader.wall());
            demand::demand(self.consistency, memory, &topology, wall)
        };
        let mut memory = self.session.memory(&reader);
        let mut found = demanded(&memory);
        let tried = &attempts.tried;
        let mut kept = None;
        if self.session.kept_node().is_some() && found.primary.is_none() && !attempts.primary_only {
            kept = choose::kept(&topology, found, &self.session, tried, self.limits(attempts), now);
            if kept.is_none() {
                self.session.lose_node(now);
                memory = self.session.memory(&reader);
            }
        }
        if let Some(floor @ Floor::PrimaryAfter(asked)) = memory.floor
            && let Some(position) = demand::settle(floor, &topology)
        {
            self.session.settle_floor(asked, position);
            memory = self.session.memory(&reader);
        }
        found = demanded(&memory);
        if shared.primary_only.load(Relaxed) && found.primary.is_none() {
            found.primary = Some(Reason::PrimaryOnly);
        }
        if let (Some(timeline), Some(_)) = (found.timeline, topology.lineage.writer) {
            shared.hear(timeline, now);
        }
        (found, kept)
    }

    /// What the call is judged by: without the budget to defy a breaker it heeds all of them.
    pub(crate) fn limits(&self, attempts: &Attempts) -> Limits {
        let limits = self.shared().limits;
        if attempts.heeds_breakers { Limits { max_ejected: 1.0, ..limits } } else { limits }
    }

    pub(crate) fn choose(&self, attempts: &Attempts, now: Instant) -> Choice {
        let shared = self.shared();
        let topology = shared.peek();
        let (demand, limits, tried) = (attempts.demand, self.limits(attempts), &attempts.tried);
        let mut behind = false;
        if !attempts.primary_only && demand.primary.is_none() {
            let balance = &*shared.balance;
            let replica = choose::replica(&topology, demand, &self.session, tried, balance, limits, now);
            if let Some(mut chosen) = replica {
                let id = chosen.state.node.id();
                if attempts.kept.is_some_and(|kept| kept != id) {
                    // The picture, or the session, has changed since the demand was made.
                    self.session.lose_node(now);
                    return Choice::Again;
                }
                self.session.lean_to(id);
                if attempts.waiting_since.is_some() && chosen.reason != Reason::SameRequest {
                    chosen.reason = Reason::WaitedForReplay;
                }
                return take(&chosen, &topology, None, now);
            }
            if demand.needs_position() {
                let patience = shared.config.session_wait;
                let (replicas, near) = choose::behind(&topology, demand, tried, limits, patience, now);
                behind = !replicas.is_empty();
                if behind
                    && (near || demand.ask.is_some())
                    && now < attempts.waiting_since.unwrap_or(now) + patience
                {
                    return Choice::Behind;
                }
            }
        }
        // A busy replica is not a lost one: the primary is spared.
        if demand.primary.is_none() && !attempts.primary_only && tried.busy_replica(&topology) {
            return Choice::Nothing;
        }
        let reason = match demand.primary {
            Some(reason) => reason,
            None if attempts.primary_only => Reason::MovedToPrimary,
            None if behind => Reason::FallbackBehindToken,
            None => Reason::FallbackNoReplica,
        };
        let may_defy = attempts.rounds == 0 && !attempts.heeds_breakers;
        let primary = |reason| choose::primary(&topology, demand, tried, limits, reason, now);
        let chosen = match primary(reason) {
            None if may_defy => {
                let replica = choose::last_resort(&topology, demand, tried, limits, now);
                if let Some(chosen) = replica.filter(|_| !attempts.primary_only) {
                    return take(&chosen, &topology, None, now);
                }
                primary(Reason::LastResort)
            }
            chosen => chosen,
        };
        let Some(chosen) = chosen else { return Choice::Nothing };
        // What the request itself asks for is limited by the pool alone, and a single node has no replica to lose. What a
        // client brings along is limited as a fallback is: after a failover every token of the time before does.
        let own = match reason {
            Reason::Strong | Reason::SameRequest | Reason::PrimaryOnly => true,
            Reason::PinnedBySession => !demand.token,
            _ => false,
        };
        if own || topology.nodes.len() == 1 {
            return take(&chosen, &topology, None, now);
        }
        match self.cap(reason).take_for(self.priority, now) {
            Some(permit) => {
                let choice = take(&chosen, &topology, Some(permit), now);
                if matches!(choice, Choice::Take(_)) {
                    metrics::fallback(reason);
                }
                choice
            }
            None => Choice::Full(reason),
        }
    }

    /// A replica beside one that keeps a read waiting: among those about which there is no doubt.
    pub(crate) fn choose_beside(&self, attempts: &Attempts, now: Instant) -> Choice {
        let shared = self.shared();
        let topology = shared.peek();
        let (demand, tried) = (attempts.demand, &attempts.tried);
        let limits = Limits { max_ejected: 1.0, min_serving: 0, ..shared.limits };
        if demand.primary.is_some() {
            return Choice::Nothing;
        }
        let balance = &*shared.balance;
        match choose::replica(&topology, demand, &self.session, tried, balance, limits, now) {
            Some(chosen) if chosen.trial => Choice::Nothing,
            Some(chosen) => take(&Chosen { reason: Reason::Hedge, ..chosen }, &topology, None, now),
            None if demand.needs_position() => {
                let patience = shared.config.session_wait;
                let (replicas, near) = choose::behind(&topology, demand, tried, limits, patience, now);
                let waits = now < attempts.waiting_since.unwrap_or(now) + patience;
                let may_come = !replicas.is_empty() && (near || demand.ask.is_some());
                if waits && may_come { Choice::Behind } else { Choice::Nothing }
            }
            None => Choice::Nothing,
        }
    }

    pub(crate) fn cap(&self, reason: Reason) -> &Arc<Cap> {
        match reason {
            Reason::FallbackBehindToken | Reason::PinnedBySession => &self.shared().behind_token,
            _ => &self.shared().fallback,
        }
    }
}

/// Takes the place on the chosen node; again when another request has just taken its half-open slot.
fn take(chosen: &Chosen<'_>, topology: &Topology, fallback: Option<CapPermit>, now: Instant) -> Choice {
    let node = &chosen.state.node;
    if chosen.trial && !node.take_trial(now) {
        return Choice::Again;
    }
    let decision = (chosen.state.role, Access::Read, chosen.reason);
    let (node, epoch) = (node.clone(), topology.lineage.epoch);
    Choice::Take(Ticket::new(node, decision, chosen.trial, fallback, epoch, now))
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::consistency::Consistency;
    use crate::router::Router;
    use crate::session::{Serving, Session};
    use crate::testing::{FakeBackend, FakeCluster};

    /// The picture, or the session, can change between a demand and the choice that follows it.
    #[tokio::test(start_paused = true)]
    async fn a_choice_for_another_node_than_the_demand_was_made_for_is_none() {
        let servers = FakeCluster::new(2);
        let router = Router::<FakeBackend>::start(servers.config(), servers.clone()).unwrap();
        assert!(router.cluster().settled(Duration::from_secs(5)).await);
        let nodes = router.cluster().nodes().to_vec();
        let routed = router.routed(Session::new(), Consistency::Eventual);
        let now = Instant::now();
        let mut attempts = routed.attempts();
        routed.session.keep_to(Serving::begin(&nodes[1]), false, false);
        (attempts.demand, attempts.kept) = routed.demand(&attempts, now);
        assert_eq!(attempts.kept, Some(nodes[1].id()));
        // Another read of the request has moved it meanwhile.
        routed.session.keep_to(Serving::begin(&nodes[2]), false, false);
        assert!(matches!(routed.choose(&attempts, now), Choice::Again));
        let (demand, kept) = routed.demand(&attempts, now);
        assert!(demand.ask.is_some() && kept.is_none(), "{demand:?}");
    }
}
