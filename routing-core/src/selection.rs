//! The choice for one read: what it demands now, and who serves it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::attempts::Attempts;
use crate::backend::Backend;
use crate::cap::{Cap, CapPermit};
use crate::choose::{self, Chosen};
use crate::decision::{Access, Reason};
use crate::demand::{self, Demand, Floor, Memory};
use crate::eligible::{Limits, Terms};
use crate::metrics::{self, Repetition};
use crate::node_id::NodeId;
use crate::routed::Routed;
use crate::seen::Seen;
use crate::ticket::Ticket;
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

/// What a read demands, and the replica that its session keeps to, if one does.
struct Demanded {
    demand: Demand,
    kept: Option<NodeId>,
}

impl Demanded {
    const NOTHING: Self = Self { demand: Demand::ANY, kept: None };
}

impl<B: Backend> Routed<B> {
    /// What this read demands now, and who serves it.
    pub(crate) fn decide(&self, attempts: &mut Attempts, now: Instant) -> Choice {
        let mut seen = Seen::take();
        let topology = self.shared().newest(&mut seen);
        let mut demanded = Demanded::NOTHING;
        self.demand(topology, attempts, now, &mut demanded);
        let choice = self.choose(topology, &demanded, attempts, now);
        // At the end: the processor waits where it copies what it has just written in parts.
        (attempts.demand, attempts.kept) = (demanded.demand, demanded.kept);
        choice
    }

    /// [`decide`](Self::decide), for a read beside one that waits.
    pub(crate) fn decide_beside(&self, attempts: &mut Attempts, now: Instant) -> Choice {
        let mut seen = Seen::take();
        let topology = self.shared().newest(&mut seen);
        let mut demanded = Demanded::NOTHING;
        self.demand(topology, attempts, now, &mut demanded);
        (attempts.demand, attempts.kept) = (demanded.demand, demanded.kept);
        self.choose_beside(topology, attempts, now)
    }

    /// What this read demands: the cluster may have changed since the last look.
    // Put where it stays, for the same reason as above.
    #[inline(always)]
    fn demand(
        &self,
        topology: &Topology,
        attempts: &Attempts,
        now: Instant,
        Demanded { demand, kept }: &mut Demanded,
    ) {
        let shared = self.shared();
        let reader = shared.reader(topology);
        // Only a token ends by the wall's clock.
        let demanded = |memory: &Memory| {
            let wall = memory.token.map_or(UnixMillis(0), |_| reader.wall());
            demand::demand(self.consistency, memory, topology, wall)
        };
        let mut memory = self.session.memory(&reader);
        *demand = demanded(&memory);
        *kept = None;
        if self.session.kept_node().is_some() && demand.primary.is_none() && !attempts.primary_only {
            let limits = self.limits(attempts);
            *kept = choose::kept(topology, &self.session, &attempts.tried, &Terms::new(demand, &limits, now));
            if kept.is_none() {
                self.session.lose_node(now);
                memory = self.session.memory(&reader);
                *demand = demanded(&memory);
            }
        }
        if let Some(floor @ Floor::PrimaryAfter(asked)) = memory.floor
            && let Some(position) = demand::settle(floor, topology)
        {
            self.session.settle_floor(asked, position);
            *demand = demanded(&self.session.memory(&reader));
        }
        if shared.primary_only.load(Relaxed) && demand.primary.is_none() {
            demand.primary = Some(Reason::PrimaryOnly);
        }
        if let (Some(timeline), Some(_)) = (demand.timeline, topology.lineage.writer) {
            shared.hear(timeline, now);
        }
    }

    /// What the call is judged by: without the budget to defy a breaker it heeds all of them.
    pub(crate) fn limits(&self, attempts: &Attempts) -> Limits {
        let limits = self.shared().limits;
        if attempts.heeds_breakers { Limits { max_ejected: 1.0, ..limits } } else { limits }
    }

    fn choose(
        &self,
        topology: &Topology,
        Demanded { demand, kept }: &Demanded,
        attempts: &mut Attempts,
        now: Instant,
    ) -> Choice {
        let (shared, limits) = (self.shared(), self.limits(attempts));
        let terms = Terms::new(demand, &limits, now);
        let tried = &attempts.tried;
        let mut behind = false;
        if !attempts.primary_only && demand.primary.is_none() {
            let balance = &*shared.balance;
            let chosen = choose::replica(topology, &self.session, tried, balance, &terms);
            if let Some(Chosen { state, mut reason, trial }) = chosen {
                let id = state.node.id();
                if kept.is_some_and(|kept| kept != id) {
                    // The picture, or the session, has changed since the demand was made.
                    self.session.lose_node(now);
                    return Choice::Again;
                }
                self.session.lean_to(id);
                if !self.may_take(reason, attempts) {
                    return Choice::Again;
                }
                let said = reason == Reason::SameRequest || reason.defies_breaker();
                if attempts.waiting_since.is_some() && !said {
                    reason = Reason::WaitedForReplay;
                }
                return take(&Chosen { state, reason, trial }, topology, None, now);
            }
            if demand.needs_position() {
                let patience = shared.config.session_wait;
                let (replicas, near) = choose::behind(topology, tried, &terms, patience);
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
        if demand.primary.is_none() && !attempts.primary_only && tried.busy_replica(topology) {
            return Choice::Nothing;
        }
        let reason = match demand.primary {
            Some(reason) => reason,
            None if attempts.primary_only => Reason::MovedToPrimary,
            None if behind => Reason::FallbackBehindToken,
            None => Reason::FallbackNoReplica,
        };
        let may_defy = attempts.rounds == 0 && !attempts.heeds_breakers;
        let primary = |reason| choose::primary(topology, tried, &terms, reason);
        let chosen = match primary(reason) {
            None if may_defy => {
                let replica = choose::last_resort(topology, tried, &terms);
                if let Some(chosen) = replica.filter(|_| !attempts.primary_only) {
                    let may = self.may_take(chosen.reason, attempts);
                    return if may { take(&chosen, topology, None, now) } else { Choice::Again };
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
        let permit = if own || topology.nodes.len() == 1 {
            None
        } else {
            let Some(permit) = self.cap(reason).take_for(self.priority, now) else {
                return Choice::Full(reason);
            };
            Some(permit)
        };
        if !self.may_take(chosen.reason, attempts) {
            return Choice::Again;
        }
        let falls_back = permit.is_some();
        let choice = take(&chosen, topology, permit, now);
        if falls_back && matches!(choice, Choice::Take(_)) {
            metrics::fallback(reason);
        }
        choice
    }

    /// Whether the budget allows the choice, asked before it is counted. The first attempt of a request is free, and so is each
    /// on a node about which nothing is known. More on nodes whose breakers refuse would multiply the load of a fault that
    /// hits everyone.
    fn may_take(&self, reason: Reason, attempts: &mut Attempts) -> bool {
        if !reason.defies_breaker() || attempts.tried.is_empty() || std::mem::take(&mut attempts.paid) {
            return true;
        }
        let may = self.shared().retry.spend();
        metrics::retry(if may { Repetition::Repeated } else { Repetition::BudgetSpent });
        attempts.heeds_breakers |= !may;
        may
    }

    /// A replica beside one that keeps a read waiting: among those about which there is no doubt.
    fn choose_beside(&self, topology: &Topology, attempts: &Attempts, now: Instant) -> Choice {
        let shared = self.shared();
        let limits = Limits { max_ejected: 1.0, min_serving: 0, ..shared.limits };
        let (demand, tried) = (&attempts.demand, &attempts.tried);
        let terms = Terms::new(demand, &limits, now);
        if demand.primary.is_some() {
            return Choice::Nothing;
        }
        let balance = &*shared.balance;
        match choose::replica(topology, &self.session, tried, balance, &terms) {
            Some(chosen) if chosen.trial => Choice::Nothing,
            Some(chosen) => take(&Chosen { reason: Reason::Hedge, ..chosen }, topology, None, now),
            None if demand.needs_position() => {
                let patience = shared.config.session_wait;
                let (replicas, near) = choose::behind(topology, tried, &terms, patience);
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
#[inline]
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
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::*;
    use crate::consistency::Consistency;
    use crate::fault::Fault;
    use crate::lease::Lease;
    use crate::notes::Serving;
    use crate::router::Router;
    use crate::session::Session;
    use crate::testing::{FakeBackend, FakeCluster, FakeError};

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
        let topology = router.cluster().topology();
        let mut demanded = Demanded::NOTHING;
        routed.demand(&topology, &attempts, now, &mut demanded);
        assert_eq!(demanded.kept, Some(nodes[1].id()));
        // Another read of the request has moved it meanwhile.
        routed.session.keep_to(Serving::begin(&nodes[2]), false, false);
        assert!(matches!(routed.choose(&topology, &demanded, &mut attempts, now), Choice::Again));
        routed.demand(&topology, &attempts, now, &mut demanded);
        let Demanded { demand, kept } = demanded;
        assert!(demand.ask.is_some() && kept.is_none(), "{demand:?}");
    }

    /// Four replicas whose breakers are all open, and no budget for repetitions but what each request earns, which is one.
    async fn all_breakers_open() -> (FakeCluster, Router<FakeBackend>) {
        let servers = FakeCluster::new(4);
        let mut config = servers.config();
        config.retry.budget_ratio = 1.0;
        let router = Router::<FakeBackend>::start(config, servers.clone()).expect("a valid configuration");
        assert!(router.cluster().settled(Duration::from_secs(5)).await);
        for node in router.cluster().nodes().iter().skip(1) {
            (0..5).for_each(|_| node.record_fault(Fault::Unreachable, Instant::now()));
        }
        spend_all(&router);
        (servers, router)
    }

    fn spend_all(router: &Router<FakeBackend>) {
        while router.cluster().shared().retry.spend() {}
    }

    fn in_spite_of_breakers(router: &Router<FakeBackend>) -> u64 {
        let counts = router.status().nodes.into_iter().flat_map(|node| node.decisions);
        counts.filter(|count| count.reason == Reason::EjectionLimit).map(|count| count.count).sum()
    }

    async fn read(routed: &Routed<FakeBackend>, failures: u32) -> (String, Reason) {
        let left = AtomicU32::new(failures);
        let run = async |lease: &mut Lease<FakeBackend>| {
            if left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                return Err(FakeError::Fault(Fault::Unresponsive));
            }
            lease.query().await?;
            Ok(lease.node().name().to_owned())
        };
        let node = routed.run_read(run).await.expect("another serves");
        (node, routed.session().last_decision().expect("it was served").reason)
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_on_a_node_that_serves_in_spite_of_its_breaker_is_paid_for_once() {
        let (_servers, router) = all_breakers_open().await;
        let (node, reason) = read(&router.routed(Session::new(), Consistency::Eventual), 1).await;
        assert!(node != "pg1" && reason == Reason::EjectionLimit, "{node}, {reason}");
        assert_eq!(in_spite_of_breakers(&router), 2);
        assert!(!router.cluster().shared().retry.spend(), "it was paid for");
    }

    #[tokio::test(start_paused = true)]
    async fn another_attempt_in_spite_of_breakers_is_paid_for_after_a_wait_as_well_and_else_not_counted() {
        for pays in [true, false] {
            let (servers, router) = all_breakers_open().await;
            let routed = router.routed(Session::new(), Consistency::Eventual);
            let (first, _) = read(&routed, 0).await;
            // It is lost to the request, whose next read waits for another that is not behind it.
            servers.server(&first).refuse_next(1);
            spend_all(&router);
            if pays {
                router.cluster().shared().retry.request();
            }
            let mut attempts = routed.attempts();
            let lease = routed.next_lease(&mut attempts).await.unwrap();
            let (node, reason) = (lease.node().name().to_owned(), lease.decision().reason);
            assert!(attempts.waiting_since.is_some(), "{node}");
            // The two on the first node were free.
            if pays {
                assert!(node != first && reason == Reason::EjectionLimit, "{node}, {reason}");
                assert_eq!(in_spite_of_breakers(&router), 3);
            } else {
                assert_eq!(node, "pg1", "{reason}");
                assert_eq!(in_spite_of_breakers(&router), 2, "what is not run is not counted");
            }
            assert!(!router.cluster().shared().retry.spend());
        }
    }
}
