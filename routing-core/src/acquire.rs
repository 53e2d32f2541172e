//! Getting a connection for a read.

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::backend::Backend;
use crate::choose::{self, Chosen};
use crate::consistency::Demand;
use crate::decision::{Access, Reason};
use crate::error::RouteError;
use crate::fault::Fault;
use crate::lease::{Lease, Ticket};
use crate::metrics;
use crate::router::Routed;
use crate::topology::Topology;
use crate::tried::Tried;

/// What one call has been through.
pub(crate) struct Attempts {
    pub(crate) demand: Demand,
    /// Only the primary can still serve: recovery cancelled the read on a replica, or no standby can run it.
    pub(crate) primary_only: bool,
    pub(crate) tried: Tried,
    /// Statements that failed.
    pub(crate) failed: u32,
    /// Times that every node had been tried in vain.
    pub(crate) rounds: u32,
    pub(crate) began: Instant,
    pub(crate) deadline: Instant,
}

/// What the choice came to.
enum Choice {
    Take(Ticket),
    /// The primary runs as many fallback reads as it may.
    Full,
    Nothing,
    /// Someone was faster; the next choice knows.
    Again,
}

impl<B: Backend> Routed<B> {
    /// The next node that gives a connection.
    pub(crate) async fn next_lease(&self, attempts: &mut Attempts) -> Result<Lease<B>, RouteError> {
        loop {
            if self.router.is_closed() {
                return Err(RouteError::Closed);
            }
            let mut versions = self.shared().versions();
            let now = Instant::now();
            if now >= attempts.deadline {
                return Err(self.deadline_error(attempts, now));
            }
            match self.choose(attempts, now) {
                Choice::Take(ticket) => {
                    if let Some(lease) = self.try_node(ticket, attempts).await {
                        return Ok(lease);
                    }
                }
                Choice::Full => {
                    metrics::shed("fallback_no_replica");
                    return Err(RouteError::Overloaded {
                        cap: self.shared().fallback.limit(),
                        refusals: self.refusals(attempts, now),
                    });
                }
                Choice::Again => {}
                Choice::Nothing => self.await_better(attempts, &mut versions, now).await?,
            }
        }
    }

    /// One node's pool; `None` when it gave no connection, which `attempts` then knows.
    async fn try_node(&self, ticket: Ticket, attempts: &mut Attempts) -> Option<Lease<B>> {
        let id = ticket.node().id();
        let decision = ticket.decision();
        match self.check_out(ticket, attempts.deadline).await {
            Ok(lease) => match self.still_serves(&lease, attempts).await {
                Ok(()) => {
                    self.session.decided(decision);
                    Some(lease)
                }
                Err(fault) => {
                    lease.give_back_unused();
                    attempts.tried.extend(id, fault);
                    None
                }
            },
            Err(fault) => {
                attempts.tried.add(id, fault);
                None
            }
        }
    }

    /// Whether the node still meets the demand after the time that getting a connection took. For a bound the proof must
    /// be younger than the connection: a standby that crashed came back *behind* what it had shown.
    ///
    /// An error keeps the node from being tried again when it names a fault; without one the topology itself does.
    async fn still_serves(&self, lease: &Lease<B>, attempts: &Attempts) -> Result<(), Option<Fault>> {
        let (shared, id) = (self.shared(), lease.node().id());
        let opened = B::opened(lease);
        let mut versions = shared.versions();
        let limit = attempts.deadline.min(Instant::now() + shared.config.probe_timeout);
        loop {
            let proven = {
                let topology = shared.peek();
                let now = Instant::now();
                if lease.is_on_primary() {
                    let writer = topology.writer(now, shared.limits.writer_lease).ok().flatten();
                    return if writer.is_some_and(|writer| writer.node.id() == id) {
                        Ok(())
                    } else {
                        Err(None)
                    };
                }
                let Some(state) = topology.node(id) else { return Err(None) };
                let reason = lease.decision().reason;
                if !choose::still_meets(state, attempts.demand, shared.limits, reason, now) {
                    return Err(None);
                }
                !matches!(attempts.demand, Demand::Bound(_))
                    || state.probed.is_some_and(|probed| probed > opened)
            };
            if proven {
                return Ok(());
            }
            lease.node().probe_now();
            if timeout_at(limit, versions.changed()).await.is_err() {
                return Err(Some(Fault::Unresponsive));
            }
        }
    }

    /// A connection of the ticket's node, within `checkout_timeout` and the deadline.
    pub(crate) async fn check_out(&self, ticket: Ticket, deadline: Instant) -> Result<Lease<B>, Fault> {
        let began = Instant::now();
        let access = ticket.access();
        let Some(pools) = self.router.pools(ticket.node()) else { return Err(Fault::Unreachable) };
        let limit = deadline.min(began + self.shared().config.checkout_timeout);
        let fault = match timeout_at(limit, pools.checkout(access)).await {
            Ok(Ok(connection)) => {
                ticket.node().meters().checkout(access, began.elapsed());
                return Ok(Lease::new(connection, ticket));
            }
            // A server that answers and lets us not in (a wrong password, no such database) refuses us.
            Ok(Err(error)) => {
                let fault = B::classify(&error, access).unwrap_or(Fault::Refusing);
                tracing::debug!(node = ticket.node().name(), %access, %fault, %error, "no connection");
                fault
            }
            Err(_) => {
                tracing::debug!(node = ticket.node().name(), %access, "no connection in time");
                Fault::Unresponsive
            }
        };
        ticket.fault(fault);
        Err(fault)
    }

    fn choose(&self, attempts: &Attempts, now: Instant) -> Choice {
        let shared = self.shared();
        let topology = shared.peek();
        let (limits, tried) = (shared.limits, &attempts.tried);
        // A request that the primary has served does not go back in time to a replica.
        let on_primary = self.session.is_on_primary();
        if !attempts.primary_only && !on_primary {
            let replica = choose::replica(
                &topology,
                attempts.demand,
                &self.session,
                tried,
                &*shared.balance,
                limits,
                now,
            );
            if let Some(chosen) = replica {
                return take(&chosen, &topology, None);
            }
        }
        // A busy replica is not a lost one: the primary is spared.
        if attempts.demand != Demand::Primary && !attempts.primary_only && tried.busy_replica(&topology) {
            return Choice::Nothing;
        }
        let reason = match attempts.demand {
            Demand::Primary => Reason::Strong,
            _ if attempts.primary_only => Reason::MovedToPrimary,
            _ if on_primary => Reason::SameRequest,
            Demand::Any | Demand::Bound(_) => Reason::FallbackNoReplica,
        };
        let Some(chosen) = choose::primary(&topology, tried, limits, reason, now) else {
            return Choice::Nothing;
        };
        // A single node has no replica to lose, and so nothing to be spared; and the cap is for lost replicas.
        if matches!(reason, Reason::Strong | Reason::SameRequest) || topology.nodes.len() == 1 {
            return take(&chosen, &topology, None);
        }
        match shared.fallback.take() {
            Some(permit) => {
                let choice = take(&chosen, &topology, Some(permit));
                if matches!(choice, Choice::Take(_)) {
                    metrics::fallback(reason);
                }
                choice
            }
            None => Choice::Full,
        }
    }

    /// Nothing can serve now: waits for a new picture, or starts over with the nodes that were tried.
    async fn await_better(
        &self,
        attempts: &mut Attempts,
        versions: &mut watch::Receiver<u64>,
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
        let _ = timeout_at(soon, versions.changed()).await;
        Ok(())
    }

    fn refusals(&self, attempts: &Attempts, now: Instant) -> crate::Refusals {
        let shared = self.shared();
        choose::read_refusals(&shared.peek(), attempts.demand, &attempts.tried, shared.limits, now)
    }

    fn none_left(&self, attempts: &Attempts, now: Instant) -> RouteError {
        let refusals = self.refusals(attempts, now);
        if attempts.demand == Demand::Primary {
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

/// Takes the place on the chosen node; again when another request has just taken its half-open slot.
fn take(chosen: &Chosen<'_>, topology: &Topology, fallback: Option<crate::lease::CapPermit>) -> Choice {
    let node = &chosen.state.node;
    if chosen.trial && !node.take_trial() {
        return Choice::Again;
    }
    let decision = (chosen.state.role, Access::Read, chosen.reason);
    Choice::Take(Ticket::new(node.clone(), decision, chosen.trial, fallback, topology.lineage.epoch))
}
