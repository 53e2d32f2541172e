//! Waiting for the writer.

use tokio::time::{Instant, timeout_at};

use crate::backend::Backend;
use crate::cluster::Shared;
use crate::decision::{Access, Reason};
use crate::error::RouteError;
use crate::fault::Fault;
use crate::gate::Admission;
use crate::lease::{CapPermit, Lease, Ticket};
use crate::metrics;
use crate::node::NodeId;
use crate::refuse;
use crate::router::Routed;
use crate::token::UnixMillis;
use crate::topology::{NodeState, Primary};
use crate::tried::Tried;

impl<B: Backend> Routed<B> {
    /// A connection to the proven primary.
    pub(crate) async fn writer(&self, deadline: Instant) -> Result<Lease<B>, RouteError> {
        let shared = self.shared();
        let began = Instant::now();
        let patience = deadline.min(began + shared.config.write_wait);
        let mut waiting: Option<CapPermit> = None;
        let mut tried = Tried::default();
        loop {
            if self.router().is_closed() {
                return Err(RouteError::Closed);
            }
            let mut versions = shared.versions();
            let now = Instant::now();
            self.hear_timeline(now);
            if let Some(ticket) = self.writer_ticket(&tried, now) {
                drop(waiting.take());
                if let Some(lease) = self.try_writer(ticket, &mut tried, deadline).await {
                    return Ok(lease);
                }
                continue;
            }
            if now >= patience {
                return Err(self.no_writer(&tried, began, now));
            }
            if waiting.is_none() {
                waiting = shared.write_waiters.take();
                if waiting.is_none() {
                    metrics::shed("write_waiters");
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
        self.router().enter_epoch(epoch, id);
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
        let memory = self.session().memory(&shared.reader(&topology, UnixMillis::now()));
        if let Some(token) = memory.token.filter(|token| token.timeline > own) {
            shared.hear(token.timeline, now);
        }
    }

    /// A place on the proven primary. Draining does not keep writes away: they have nowhere else to go.
    fn writer_ticket(&self, tried: &Tried, now: Instant) -> Option<Ticket> {
        let shared = self.shared();
        let topology = shared.peek();
        let state = topology.writer(now, shared.limits.writer_lease).ok().flatten()?;
        let blocked = state.blocked.is_some() || tried.fault(state.node.id()).is_some();
        if blocked || is_below(shared, state, now) {
            return None;
        }
        let trial = match state.node.admission(now) {
            Admission::Admitted => false,
            Admission::Trial if state.node.take_trial() => true,
            Admission::Trial | Admission::Refused(_) => return None,
        };
        let decision = (state.role, Access::Write, Reason::Writer);
        Some(Ticket::new(state.node.clone(), decision, trial, None, topology.lineage.epoch))
    }

    fn no_writer(&self, tried: &Tried, began: Instant, now: Instant) -> RouteError {
        let shared = self.shared();
        let topology = shared.peek();
        let refusals = refuse::write_refusals(&topology, tried, shared.limits, now);
        match &topology.primary {
            Primary::Ambiguous(claims) => RouteError::AmbiguousPrimary(claims.clone()),
            Primary::Unknown => RouteError::NoPrimary(refusals),
            Primary::Known { .. } if shared.least_timeline(now).is_some() => RouteError::NoPrimary(refusals),
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
        && writer.is_some_and(|writer| writer.node.id() == id && !is_below(shared, writer, now))
}

/// Whether a token has named a higher timeline than this primary's.
fn is_below(shared: &Shared, writer: &NodeState, now: Instant) -> bool {
    shared.least_timeline(now).is_some_and(|least| writer.timeline < Some(least))
}
