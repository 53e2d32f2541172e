//! A connection held together with everything that must be given back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use crate::backend::{Backend, Usage};
use crate::decision::{Access, Decision, Reason};
use crate::fault::Fault;
use crate::node::Node;
use crate::signal::Watcher;
use crate::straggler::Straggler;
use crate::ticket::Ticket;
use crate::work::Working;

/// A connection of one node, with its permits. Ending it reports to the node's breaker and load how it went.
///
/// It dereferences to the backend's connection. Dropping it is enough: it then looks at the connection's state. A lease
/// dropped while a statement runs counts neither for nor against the node, except that it is at least as slow if it had
/// answered nothing yet. The statement stays in flight until it ends, and its connection is used again only if that is soon and by
/// itself.
pub struct Lease<B: Backend> {
    /// `None` only while it is being dropped.
    connection: Option<B::Connection>,
    ticket: Ticket,
    since: Instant,
    settled: bool,
    /// When the node's success was reported already.
    proved: Option<Instant>,
    /// How long it takes is up to a caller.
    handed_out: bool,
    /// The last to go: a shutdown of the router waits for it.
    _working: Working,
}

impl<B: Backend> Lease<B> {
    /// The connection was got at `since`.
    pub(crate) fn new(connection: B::Connection, ticket: Ticket, working: Working, since: Instant) -> Self {
        Self {
            connection: Some(connection),
            ticket,
            since,
            settled: false,
            proved: None,
            handed_out: false,
            _working: working,
        }
    }

    /// The node that the connection is to.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        self.ticket.node()
    }

    /// Which node was chosen, as what, and why.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.ticket.decision()
    }

    /// A span for what runs on the lease: which node serves, as what, and why; where it is in the words of OpenTelemetry's
    /// conventions for databases.
    #[must_use]
    pub fn span(&self) -> tracing::Span {
        // Its fields are made before tracing finds out that nobody wants them.
        if LevelFilter::current() < LevelFilter::DEBUG {
            return tracing::Span::none();
        }
        let (role, access, reason) = self.ticket.purpose();
        let url = &self.node().config().url;
        tracing::debug_span!(
            "query",
            db.system.name = "postgresql",
            db.namespace = url.database(),
            server.address = url.host(),
            server.port = url.port(),
            db.routing.node = self.node().name(),
            db.routing.role = role.as_str(),
            db.routing.access = access.as_str(),
            db.routing.reason = reason.as_str(),
        )
    }

    /// Whether the node was the proven primary when it was chosen.
    #[must_use]
    pub fn is_on_primary(&self) -> bool {
        self.ticket.is_on_primary()
    }

    /// For what it was chosen, and why.
    pub(crate) fn purpose(&self) -> (Access, Reason) {
        let (_, access, reason) = self.ticket.purpose();
        (access, reason)
    }

    /// The writer epoch in which the node was chosen.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.ticket.epoch()
    }

    /// Sees every loss of the node since it was chosen.
    pub(crate) fn losses(&self) -> Watcher {
        self.node().losses_since(self.ticket.losses())
    }

    /// Ends the lease after its last step has run to its end, with what an error said about the node; `None` means that
    /// it was used successfully.
    pub fn end(mut self, fault: Option<Fault>) {
        B::finished(&mut self);
        self.settle(fault);
    }

    /// [`end`](Self::end) of a lease that was used successfully, as of the moment when that was [proved](Self::prove).
    pub(crate) fn end_as_proved(mut self) {
        B::finished(&mut self);
        self.settle_at(self.proved.unwrap_or_else(Instant::now), None);
    }

    /// When its connection was there.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Dropped from now on, it says nothing about the node.
    pub(crate) fn hold_unused(&mut self) {
        self.settled = true;
    }

    /// What is done on it says something about the node again.
    pub(crate) fn use_now(&mut self) {
        self.settled = false;
    }

    /// Ends the lease without a word about the node: nothing was done on it.
    pub(crate) fn give_back_unused(mut self) {
        B::finished(&mut self);
        self.settled = true;
    }

    /// A caller takes the lease for as long as it likes: the half-open slot does not wait for it.
    pub(crate) fn hand_out(mut self) -> Self {
        self.ticket.return_trial();
        self.handed_out = true;
        self
    }

    /// The node has answered. A lease that goes on for long holds up no one who waits for that news: the breaker hears
    /// of it, and a half-open slot is free for the next.
    pub(crate) fn prove(&mut self) {
        let now = Instant::now();
        self.node().record_success(now.saturating_duration_since(self.since), now);
        self.ticket.return_trial();
        self.proved = Some(now);
    }

    fn settle(&mut self, fault: Option<Fault>) {
        self.settle_at(Instant::now(), fault);
    }

    fn settle_at(&mut self, now: Instant, fault: Option<Fault>) {
        self.settled = true;
        if self.handed_out && fault.is_none() && self.proved.is_none() {
            // How long it was held was its caller's choice.
            self.node().record_answer(now);
            self.proved = Some(now);
        }
        let elapsed = now.saturating_duration_since(self.since);
        self.ticket.settle(elapsed, self.proved.is_some(), fault, now);
    }
}

impl<B: Backend> Deref for Lease<B> {
    type Target = B::Connection;

    fn deref(&self) -> &B::Connection {
        // Only `drop` takes it out.
        self.connection.as_ref().expect("a lease holds its connection until it is dropped")
    }
}

impl<B: Backend> DerefMut for Lease<B> {
    fn deref_mut(&mut self) -> &mut B::Connection {
        self.connection.as_mut().expect("a lease holds its connection until it is dropped")
    }
}

impl<B: Backend> Drop for Lease<B> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if !self.settled {
            match B::usage(&connection) {
                Usage::Answered => self.settle(None),
                Usage::Abandoned => {
                    // How long a stream goes on is its reader's choice.
                    let telling = self.proved.is_none() && !self.handed_out;
                    if telling {
                        let now = Instant::now();
                        self.node().record_unfinished(now.saturating_duration_since(self.since), now);
                    }
                    let began = telling.then_some(self.since);
                    B::abandoned(&mut connection, Straggler::new(self.ticket.node(), began));
                }
                Usage::Failed(fault) => self.settle(Some(fault)),
            }
        }
        // The connection goes back before the ticket, which is a field, counts the request out.
        drop(connection);
    }
}

impl<B: Backend> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("decision", &self.decision()).finish_non_exhaustive()
    }
}
