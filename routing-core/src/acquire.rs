//! Getting a connection for a read.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::attempts::{Attempts, NoConnection};
use crate::backend::Backend;
use crate::choose;
use crate::decision::Access;
use crate::eligible::{self, Terms};
use crate::error::RouteError;
use crate::fault::Fault;
use crate::lease::Lease;
use crate::metrics::{self, SessionRead};
use crate::refuse;
use crate::routed::Routed;
use crate::selection::Choice;
use crate::ticket::Ticket;

impl<B: Backend> Routed<B> {
    /// The next node that gives a connection.
    pub(crate) async fn next_lease(&self, attempts: &mut Attempts) -> Result<Lease<B>, RouteError> {
        let lease = self.router.work().unless_cut(pin!(self.find_lease(attempts))).await;
        lease.unwrap_or(Err(RouteError::Closed))
    }

    async fn find_lease(&self, attempts: &mut Attempts) -> Result<Lease<B>, RouteError> {
        loop {
            let ticket = self.next_ticket(attempts).await?;
            match self.try_node(ticket, attempts).await {
                Ok(lease) => return Ok(lease),
                Err(without) => attempts.tried.extend(without.node, without.fault),
            }
        }
    }

    /// A place on the next node to ask for a connection.
    pub(crate) async fn next_ticket(&self, attempts: &mut Attempts) -> Result<Ticket, RouteError> {
        loop {
            if self.router.serves_none() {
                return Err(RouteError::Closed);
            }
            let (version, now) = (self.shared().version(), Instant::now());
            if now >= attempts.deadline {
                return Err(self.deadline_error(attempts, now));
            }
            match self.decide(attempts, now) {
                Choice::Take(ticket) => {
                    metrics::decided(now.elapsed());
                    return Ok(ticket);
                }
                Choice::Full(reason) => {
                    metrics::shed(reason.as_str());
                    return Err(RouteError::Overloaded {
                        cap: self.cap(reason).limit(),
                        priority: self.priority,
                        refusals: self.refusals(attempts, now),
                    });
                }
                Choice::Behind => self.await_replay(attempts, version, now).await,
                Choice::Again => {}
                Choice::Nothing => self.await_better(attempts, version, now).await?,
            }
        }
    }

    /// A connection out of one node's pool, if the node still serves then.
    pub(crate) async fn try_node(
        &self,
        ticket: Ticket,
        attempts: &Attempts,
    ) -> Result<Lease<B>, NoConnection> {
        let node = ticket.node().id();
        let decision = ticket.decision();
        let checked_out = self.check_out(ticket, attempts.deadline).await;
        let mut lease = checked_out.map_err(|fault| NoConnection { node, fault: Some(fault) })?;
        // Whoever is dropped while the node is asked has not used it.
        lease.hold_unused();
        if let Err(fault) = self.still_serves(&lease, attempts).await {
            lease.give_back_unused();
            return Err(NoConnection { node, fault });
        }
        lease.use_now();
        self.session.decided(decision);
        Ok(lease)
    }

    /// Counts a read with a token, by who has served it.
    pub(crate) fn count_session_read(lease: &Lease<B>, attempts: &Attempts) {
        if attempts.demand.token {
            metrics::session_read(match (lease.is_on_primary(), attempts.waiting_since.is_some()) {
                (true, _) => SessionRead::Primary,
                (false, true) => SessionRead::Waited,
                (false, false) => SessionRead::Replica,
            });
        }
    }

    /// Whether the node still meets the demand after the time that getting a connection took. On the primary, and for a bound or
    /// a position, the proof must be younger than the connection: a standby that crashed came back *behind* what it had shown,
    /// and a primary that was started again may be a standby.
    ///
    /// An error keeps the node from being tried again when it names a fault; without one the topology itself does.
    pub(crate) async fn still_serves(
        &self,
        lease: &Lease<B>,
        attempts: &Attempts,
    ) -> Result<(), Option<Fault>> {
        let (shared, id) = (self.shared(), lease.node().id());
        let opened = B::opened(lease);
        let mut version = shared.version();
        let mut limit = None;
        // No time has passed since the connection was there.
        let mut now = lease.since();
        loop {
            let proven = {
                let topology = shared.peek();
                if lease.is_on_primary() {
                    let writer = topology.writer(now, shared.limits.writer_lease).ok().flatten();
                    let writer = writer.filter(|writer| writer.node.id() == id).ok_or(None)?;
                    // It may have been started again since it was proven, as a standby.
                    let proven = writer.probed.is_some_and(|probed| probed > opened);
                    if proven {
                        metrics::served_staleness(Duration::ZERO);
                    }
                    proven
                } else {
                    // A connection that is younger than what this request has been served: the server may have crashed in between,
                    // and have come back behind that. A crash also ends the monitor's connection.
                    let served = self.session.served_by(id);
                    if served.is_none() && attempts.kept == Some(id) {
                        // Another read of the request has found the node wanting meanwhile.
                        return Err(None);
                    }
                    let younger = served.filter(|serving| opened >= serving.since);
                    if younger.is_some_and(|serving| serving.generation != lease.node().generation()) {
                        // Of now: what another read of the request has seen meanwhile counts as well.
                        self.session.lose_node(Instant::now());
                        return Err(None);
                    }
                    let Some(state) = topology.node(id) else { return Err(None) };
                    let (_, reason) = lease.purpose();
                    let terms = Terms::new(&attempts.demand, &shared.limits, now);
                    if !eligible::still_meets(state, &terms, reason) {
                        return Err(None);
                    }
                    let proven = !(attempts.demand.needs_proof() || younger.is_some())
                        || state.probed.is_some_and(|probed| probed > opened);
                    if let Some(staleness) = state.staleness(now).filter(|_| proven) {
                        metrics::served_staleness(staleness + shared.limits.commit_delay);
                    }
                    proven
                }
            };
            if proven {
                return Ok(());
            }
            lease.node().probe_now();
            let limit = *limit
                .get_or_insert_with(|| attempts.deadline.min(Instant::now() + shared.config.probe_timeout));
            let versions = shared.versions_since(version);
            if timeout_at(limit, versions.raised()).await.is_err() {
                return Err(Some(Fault::Unresponsive));
            }
            (version, now) = (shared.version(), Instant::now());
        }
    }

    /// A connection of the ticket's node, within `checkout_timeout` and the deadline.
    pub(crate) async fn check_out(&self, ticket: Ticket, deadline: Instant) -> Result<Lease<B>, Fault> {
        let (began, access) = (ticket.chosen(), ticket.access());
        let Some(pools) = self.router.pools(ticket.node()) else { return Err(Fault::Unreachable) };
        let limit = deadline.min(began + self.shared().config.checkout_timeout);
        let fault = match timeout_at(limit, pools.checkout(access)).await {
            Ok(Ok(connection)) => {
                let now = Instant::now();
                ticket.node().meters().checkout(access, now.saturating_duration_since(began));
                return Ok(Lease::new(connection, ticket, self.router.work().lease(), now));
            }
            // A server that answers and lets us not in (a wrong password, no such database) refuses us.
            Ok(Err(error)) => {
                let fault = B::classify(&error, access).unwrap_or(Fault::Refusing);
                tracing::debug!(node = ticket.node().name(), %access, %fault, %error, "no connection");
                fault
            }
            // The caller's deadline can be nearer than the pool's own patience, and the wait is the pool's all the same.
            Err(_) if pools.pool(access).is_exhausted() => Fault::Saturated,
            Err(_) => {
                tracing::debug!(node = ticket.node().name(), %access, "no connection in time");
                Fault::Unresponsive
            }
        };
        ticket.fault(fault);
        Err(fault)
    }

    /// Asks the replicas that lack only some replay, and the primary where its position is wanted, and waits for a topology
    /// after this `version`, or the end of the wait. One probe answers everybody who waits.
    pub(crate) async fn await_replay(&self, attempts: &mut Attempts, version: u64, now: Instant) {
        let shared = self.shared();
        let since = *attempts.waiting_since.get_or_insert(now);
        {
            let topology = shared.peek();
            let limits = self.limits(attempts);
            let terms = Terms::new(&attempts.demand, &limits, now);
            let (replicas, _) =
                choose::behind(&topology, &attempts.tried, &terms, shared.config.session_wait);
            let asked = attempts.demand.ask.and(topology.primary());
            for state in replicas.into_iter().chain(asked) {
                state.node.probe_now();
            }
        }
        let until = (since + shared.config.session_wait).min(attempts.deadline);
        let _ = timeout_at(until, shared.versions_since(version).raised()).await;
    }

    /// Nothing can serve now: waits for a topology after this `version`, or starts over with the nodes that were tried.
    async fn await_better(
        &self,
        attempts: &mut Attempts,
        version: u64,
        now: Instant,
    ) -> Result<(), RouteError> {
        let shared = self.shared();
        if shared.peek().is_hopeless(now, shared.config.acquire_deadline) {
            return Err(self.none_left(attempts, now));
        }
        if !attempts.tried.is_empty() {
            let free = attempts.tried.busy_replica(&shared.peek());
            if !free && (!shared.retry.allows(attempts.rounds + 1) || !shared.retry.spend()) {
                return Err(self.none_left(attempts, now));
            }
            attempts.rounds += 1;
            attempts.tried.forgive();
            self.back_off(attempts.rounds, attempts.deadline).await;
            return Ok(());
        }
        // A bound can pass, a breaker half-open, a lease run out without a new picture.
        let soon = (now + shared.config.suspect_probe_interval).min(attempts.deadline);
        let _ = timeout_at(soon, shared.versions_since(version).raised()).await;
        Ok(())
    }

    fn refusals(&self, attempts: &Attempts, now: Instant) -> crate::Refusals {
        let shared = self.shared();
        refuse::read_refusals(&shared.peek(), attempts.demand, &attempts.tried, shared.limits, now)
    }

    fn none_left(&self, attempts: &Attempts, now: Instant) -> RouteError {
        let refusals = self.refusals(attempts, now);
        if attempts.demand.primary.is_some() {
            RouteError::NoPrimary(refusals)
        } else {
            RouteError::NoNode(refusals)
        }
    }

    pub(crate) fn deadline_error(&self, attempts: &Attempts, now: Instant) -> RouteError {
        RouteError::DeadlineExceeded {
            access: Access::Read,
            after: now.saturating_duration_since(attempts.began),
            refusals: self.refusals(attempts, now),
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::breaker::BreakerConfig;
    use crate::consistency::Consistency;
    use crate::gate::Admission;
    use crate::router::Router;
    use crate::session::Session;
    use crate::testing::{FakeBackend, FakeCluster};

    /// A connection that is younger than the newest proof of its node is held until there is a newer one.
    #[tokio::test(start_paused = true)]
    async fn a_call_dropped_while_its_node_is_asked_says_nothing_about_the_node() {
        let servers = FakeCluster::new(1);
        let router = Router::<FakeBackend>::start(servers.config(), servers.clone()).unwrap();
        assert!(router.cluster().settled(Duration::from_secs(5)).await);
        let primary = router.cluster().nodes()[0].clone();
        let fail = |times| (0..times).for_each(|_| primary.record_fault(Fault::Unreachable, Instant::now()));
        fail(BreakerConfig::default().failures - 1);
        let latency = primary.latency();
        // It has started again, and nobody has seen that yet.
        let server = servers.server("pg1");
        server.crash_back_to(server.lsn());
        let request = router.routed(Session::new(), Consistency::Strong);
        let mut call = Box::pin(request.acquire_read());
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!((primary.in_flight(), servers.connections()), (1, 1), "its connection is there");
        drop(call);
        assert_eq!((primary.in_flight(), servers.connections()), (0, 0));
        assert_eq!(primary.latency(), latency, "nothing was answered");
        assert_eq!(primary.admission(Instant::now()), Admission::Admitted);
        fail(1);
        let refused = matches!(primary.admission(Instant::now()), Admission::Refused(_));
        assert!(refused, "the failures before still count as consecutive");
    }
}
