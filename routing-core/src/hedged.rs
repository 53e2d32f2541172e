//! A read on two nodes.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::acquire::Attempts;
use crate::backend::{Backend, Failure, SendFn};
use crate::fault::Fault;
use crate::hedge::Hedging;
use crate::lease::Lease;
use crate::metrics::{self, Hedge};
use crate::priority::Priority;
use crate::read::Attempt;
use crate::role::Role;
use crate::routed::Routed;
use crate::selection::Choice;
use crate::tried::Tried;

impl<B: Backend> Routed<B> {
    /// Whether a second node may be asked the same as this one. The primary is never asked twice, nor for others; and reports
    /// take as long as they take.
    pub(crate) fn may_hedge(&self, lease: &Lease<B>) -> bool {
        !lease.is_on_primary() && self.priority > Priority::Batch
    }

    /// One attempt, and when it keeps the caller waiting another beside it on another replica. The first success counts;
    /// the other attempt is dropped, which cancels its statement on the server.
    pub(crate) async fn hedged<T, E, F>(
        &self,
        hedging: &Hedging,
        lease: Lease<B>,
        attempts: &mut Attempts,
        f: F,
    ) -> Attempt<B, T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let first_node = lease.node().id();
        let delay = {
            let topology = self.shared().peek();
            let replicas = topology.nodes.iter().filter(|state| state.role == Role::Replica);
            hedging.begin(replicas.map(|state| &*state.node).filter(|node| node.id() != first_node))
        };
        let mut first = pin!(self.attempt(lease, f.clone()));
        let ended = tokio::select! {
            biased;
            ended = &mut first => Some(ended),
            () = passed(delay) => None,
        };
        if let Some(ended) = ended {
            return counted(hedging, ended);
        }
        if !hedging.spend() {
            metrics::hedge(Hedge::BudgetSpent);
            return counted(hedging, first.await);
        }
        let beside = Self { session: self.session.beside(Instant::now()), ..self.clone() };
        let mut tried = attempts.tried.clone();
        tried.add(first_node, Fault::Unresponsive);
        let deadline = attempts.deadline;
        let mut second = pin!(async {
            match beside.lease_beside(tried, deadline).await {
                Some(lease) => Some(beside.attempt(lease, f).await),
                None => None,
            }
        });
        let outcome;
        let ended = tokio::select! {
            biased;
            ended = &mut first => {
                // When its node has failed it, the other goes on in its place.
                let other = if ended.is_fault() { second.await } else { None };
                outcome = if other.is_some() { Hedge::of(other.as_ref()) } else { Hedge::Lost };
                match other {
                    Some(other) if other.is_served() => other,
                    other => {
                        remember(attempts, other.as_ref());
                        ended
                    }
                }
            }
            other = &mut second => {
                outcome = Hedge::of(other.as_ref());
                match other {
                    Some(other) if other.is_served() => other,
                    other => {
                        if other.is_none() {
                            hedging.give_back();
                        }
                        remember(attempts, other.as_ref());
                        first.await
                    }
                }
            }
        };
        metrics::hedge(outcome);
        if let (Hedge::Won, Attempt::Served { lease, serving, .. }) = (outcome, &ended) {
            self.session.decided(lease.decision());
            self.session.move_to(*serving, &beside.session);
        }
        counted(hedging, ended)
    }

    /// A connection of a replica that was not tried, if one can serve the same now.
    async fn lease_beside(&self, tried: Tried, deadline: Instant) -> Option<Lease<B>> {
        let mut attempts = Attempts { deadline, tried, ..self.attempts() };
        loop {
            let mut versions = self.shared().versions();
            let now = Instant::now();
            match self.decide_beside(&mut attempts, now) {
                Choice::Take(ticket) => {
                    let lease = self.check_out(ticket, attempts.deadline).await.ok()?;
                    if self.still_serves(&lease, &attempts).await.is_err() {
                        lease.give_back_unused();
                        return None;
                    }
                    return Some(lease);
                }
                Choice::Behind => self.await_replay(&mut attempts, &mut versions, now).await,
                Choice::Full(_) | Choice::Nothing | Choice::Again => return None,
            }
        }
    }
}

async fn passed(delay: Option<Duration>) {
    match delay {
        Some(delay) => sleep(delay).await,
        None => std::future::pending().await,
    }
}

/// What a node needed counts, if it has answered.
fn counted<B: Backend, T, E>(hedging: &Hedging, ended: Attempt<B, T, E>) -> Attempt<B, T, E> {
    if let Attempt::Served { lease, took, .. } = &ended {
        hedging.answered(lease.node(), *took);
    }
    ended
}

/// A node that has failed beside another is not tried again.
fn remember<B: Backend, T, E>(attempts: &mut Attempts, ended: Option<&Attempt<B, T, E>>) {
    if let Some(Attempt::Fault { node, fault, .. }) = ended {
        attempts.tried.add(*node, *fault);
    }
}

impl Hedge {
    /// What became of the second attempt once it has ended by itself.
    fn of<B: Backend, T, E>(ended: Option<&Attempt<B, T, E>>) -> Self {
        match ended {
            Some(Attempt::Served { .. }) => Self::Won,
            Some(_) => Self::Failed,
            None => Self::NoNode,
        }
    }
}
