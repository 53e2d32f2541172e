//! A request's place on a node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cap::CapPermit;
use crate::decision::{Access, Decision, Reason};
use crate::fault::Fault;
use crate::node::Node;
use crate::role::Role;

/// A request's place on a node: counted in flight, with the half-open slot and the fallback permit where it needs them.
/// Dropping it gives all of that back; a lease also says how it went.
pub(crate) struct Ticket {
    node: Arc<Node>,
    decision: (Role, Access, Reason),
    trial: bool,
    _fallback: Option<CapPermit>,
    /// The epoch of the topology that chose the node.
    epoch: u64,
    /// How often the node had been lost then.
    losses: u64,
    chosen: Instant,
}

impl Ticket {
    /// Takes the place at `now`. The caller has taken the half-open slot when `trial` says so.
    pub(crate) fn new(
        node: Arc<Node>,
        decision: (Role, Access, Reason),
        trial: bool,
        fallback: Option<CapPermit>,
        epoch: u64,
        now: Instant,
    ) -> Self {
        let (role, access, reason) = decision;
        let losses = node.losses();
        node.enter(access, role, reason, now);
        Self { node, decision, trial, _fallback: fallback, epoch, losses, chosen: now }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) fn access(&self) -> Access {
        self.decision.1
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the node was chosen.
    pub(crate) fn chosen(&self) -> Instant {
        self.chosen
    }

    /// As what, for what and why the node was chosen.
    pub(crate) fn purpose(&self) -> (Role, Access, Reason) {
        self.decision
    }

    /// How often the node had been lost when it was chosen.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    pub(crate) fn decision(&self) -> Decision {
        let (role, access, reason) = self.decision;
        Decision { node: self.node.shared_name().clone(), role, access, reason }
    }

    /// Its half-open slot, if it has it, is free for the next.
    pub(crate) fn return_trial(&mut self) {
        if std::mem::take(&mut self.trial) {
            self.node.return_trial();
        }
    }

    pub(crate) fn is_on_primary(&self) -> bool {
        self.decision.0 == Role::Primary
    }

    /// The request's use of the node ends: with a fault, or successfully, which the node has heard already if `proved`.
    pub(crate) fn settle(&self, elapsed: Duration, proved: bool, fault: Option<Fault>, now: Instant) {
        self.node.meters().query(self.access(), elapsed);
        match fault {
            None if proved => {}
            None => self.node.record_success(elapsed, now),
            Some(fault) => self.node.record_fault(fault, now),
        }
    }

    /// A fault ends the request's use of the node.
    pub(crate) fn fault(&self, fault: Fault) {
        self.node.record_fault(fault, Instant::now());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.node.leave();
        self.return_trial();
    }
}
