//! Waiting for the writer.

use std::pin::pin;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::backend::Backend;
use crate::cap::CapPermit;
use crate::decision::{Access, Reason};
use crate::error::RouteError;
use crate::fault::Fault;
use crate::gate::Admission;
use crate::lease::Lease;
use crate::metrics;
use crate::node_id::NodeId;
use crate::refuse;
use crate::routed::Routed;
use crate::shared::Shared;
use crate::ticket::Ticket;
use crate::topology::{NodeState, Primary, Topology};
use crate::tried::Tried;

impl<B: Backend> Routed<B> {
    /// A connection to the proven primary.
    pub(crate) async fn writer(&self, deadline: Instant) -> Result<Lease<B>, RouteError> {
        let lease = self.router().work().unless_cut(pin!(self.find_writer(deadline))).await;
        lease.unwrap_or(Err(RouteError::Closed))
    }

    async fn find_writer(&self, deadline: Instant) -> Result<Lease<B>, RouteError> {
        let shared = self.shared();
        let began = Instant::now();
        let patience = deadline.min(began + shared.config.write_wait);
        let mut waiting: Option<CapPermit> = None;
        let mut turn: Option<SemaphorePermit<'_>> = None;
        let mut tried = Tried::default();
        loop {
            if self.router().serves_none() {
                return Err(RouteError::Closed);
            }
            let mut versions = shared.versions();
            let now = Instant::now();
            self.hear_timeline(now);
            if waiting.is_some() && turn.is_none() && self.has_writer(&tried, now) {
                // Whoever waited is let in by turns, and keeps its place among those who wait until then.
                turn = timeout_at(deadline, shared.release.acquire()).await.ok().and_then(Result::ok);
                if turn.is_none() {
                    return Err(self.no_writer(&tried, began, Instant::now()));
                }
                continue;
            }
            if let Some(ticket) = self.writer_ticket(&tried, now) {
                metrics::decided(now.elapsed());
                drop(waiting.take());
                if let Some(lease) = self.try_writer(ticket, &mut tried, deadline).await {
                    return Ok(lease);
                }
                continue;
            }
            turn = None;
            if now >= patience {
                return Err(self.no_writer(&tried, began, now));
            }
            if waiting.is_none() {
                waiting = shared.write_waiters.take();
                if waiting.is_none() {
                    metrics::shed(metrics::WRITE_WAITERS);
                    return Err(RouteError::TooManyWaiters { limit: shared.write_waiters.limit() });
                }
            }
            let soon = (now + shared.config.suspect_probe_interval).min(patience);
            let _ = timeout_at(soon, versions.changed()).await;
            // What it said last stays, for the error; it may be asked again.
            tried.forgive();
        }
    }

    async fn try_writer(&self, ticket: Ticket, tried: &mut Tried, deadline: Instant) -> Option<Lease<B>> {
        let shared = self.shared();
        let (id, epoch, decision) = (ticket.node().id(), ticket.epoch(), ticket.decision());
        match self.check_out(ticket, deadline).await {
            // The primary may have changed, or gone unproven, while the connection was waited for.
            Ok(lease) if still_writer(shared, id, epoch) => {
                self.session().decided(decision);
                Some(lease)
            }
            Ok(lease) => {
                lease.give_back_unused();
                None
            }
            Err(fault) => {
                tried.add(id, fault);
                if fault == Fault::NotPrimary {
                    shared.probe_all();
                }
                None
            }
        }
    }

    /// A client whose token names a timeline above the accepted one has been served by the primary of that timeline: none of its
    /// writes, nor anybody's, goes to a lower one.
    fn hear_timeline(&self, now: Instant) {
        let shared = self.shared();
        let topology = shared.peek();
        let Some((_, own)) = topology.lineage.writer else { return };
        let memory = self.session().memory(&shared.reader(&topology));
        if let Some(token) = memory.token.filter(|token| token.timeline > own) {
            shared.hear(token.timeline, now);
        }
    }

    /// The proven primary, if it may be written to. Draining does not keep writes away: they have nowhere else to go.
    fn writable<'t>(&self, topology: &'t Topology, tried: &Tried, now: Instant) -> Option<&'t NodeState> {
        let shared = self.shared();
        let state = topology.writer(now, shared.limits.writer_lease).ok().flatten()?;
        let usable = topology.is_writable()
            && state.blocked.is_none()
            && tried.fault(state.node.id()).is_none()
            && !is_below(shared, state, now);
        usable.then_some(state)
    }

    fn has_writer(&self, tried: &Tried, now: Instant) -> bool {
        let topology = self.shared().peek();
        let writer = self.writable(&topology, tried, now);
        writer.is_some_and(|state| !matches!(state.node.admission(now), Admission::Refused(_)))
    }

    /// A place on the proven primary.
    fn writer_ticket(&self, tried: &Tried, now: Instant) -> Option<Ticket> {
        let topology = self.shared().peek();
        let state = self.writable(&topology, tried, now)?;
        let trial = match state.node.admission(now) {
            Admission::Admitted => false,
            Admission::Trial if state.node.take_trial(now) => true,
            Admission::Trial | Admission::Refused(_) => return None,
        };
        let decision = (state.role, Access::Write, Reason::Writer);
        Some(Ticket::new(state.node.clone(), decision, trial, None, topology.lineage.epoch, now))
    }

    fn no_writer(&self, tried: &Tried, began: Instant, now: Instant) -> RouteError {
        let shared = self.shared();
        let topology = shared.peek();
        let refusals = refuse::write_refusals(&topology, tried, shared.limits, now);
        match &topology.primary {
            Primary::Ambiguous(claims) => RouteError::AmbiguousPrimary(claims.clone()),
            Primary::Unknown => RouteError::NoPrimary(refusals),
            Primary::Known { read_only, .. } if *read_only || shared.least_timeline(now).is_some() => {
                RouteError::NoPrimary(refusals)
            }
            Primary::Known { .. } => RouteError::DeadlineExceeded {
                access: Access::Write,
                after: now.saturating_duration_since(began),
                refusals,
            },
        }
    }
}

fn still_writer(shared: &Shared, id: NodeId, epoch: u64) -> bool {
    let (topology, now) = (shared.peek(), Instant::now());
    let writer = topology.writer(now, shared.limits.writer_lease).ok().flatten();
    topology.lineage.epoch == epoch
        && topology.is_writable()
        && writer.is_some_and(|writer| writer.node.id() == id && !is_below(shared, writer, now))
}

/// Whether a token has named a higher timeline than this primary's.
fn is_below(shared: &Shared, writer: &NodeState, now: Instant) -> bool {
    shared.least_timeline(now).is_some_and(|least| writer.timeline < Some(least))
}
