//! A read on two nodes.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::attempts::Attempts;
use crate::backend::{Backend, Failure, SendFn};
use crate::error::RouteError;
use crate::fault::Fault;
use crate::gate::Admission;
use crate::hedge::Hedging;
use crate::lease::Lease;
use crate::metrics::{self, Hedge};
use crate::priority::Priority;
use crate::read::Attempt;
use crate::role::Role;
use crate::routed::Routed;
use crate::selection::Choice;
use crate::ticket::Ticket;
use crate::topology::NodeState;
use crate::tried::Tried;

/// The attempt that counts, and what the other came to if it does not.
type Both<B, T, E> = (Attempt<B, T, E>, Option<Attempt<B, T, E>>);

impl<B: Backend> Routed<B> {
    /// Whether a second node may be asked the same as this one. The primary is never asked twice, nor for others; and reports
    /// take as long as they take.
    fn may_hedge(&self, ticket: &Ticket) -> bool {
        !ticket.is_on_primary() && self.priority > Priority::Batch
    }

    /// One attempt, and when it keeps the caller waiting another beside it on another replica. The first success counts;
    /// the other attempt is dropped, which ends its statement on the server if it does not end soon.
    pub(crate) async fn hedged<T, E, F>(
        &self,
        hedging: &Hedging,
        attempts: &mut Attempts,
        f: F,
    ) -> Attempt<B, T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let ticket = match self.router.work().unless_cut(pin!(self.next_ticket(attempts))).await {
            Some(Ok(ticket)) => ticket,
            Some(Err(error)) => return Attempt::refused(error),
            None => return Attempt::refused(RouteError::Closed),
        };
        if !self.may_hedge(&ticket) {
            return self.attempt_on(ticket, attempts, None, f).await;
        }
        if !std::mem::replace(&mut attempts.earned, true) {
            hedging.earn();
        }
        let (ended, other) = self.race(hedging, ticket, attempts, f).await;
        match other {
            // A node that has failed beside another is not tried again.
            Some(Attempt::Fault { node, fault, .. }) => attempts.tried.add(node, fault),
            Some(Attempt::NoConnection(without)) => attempts.tried.extend(without.node, without.fault),
            _ => {}
        }
        ended
    }

    /// What counts of two attempts, and what the second came to if it does not.
    async fn race<T, E, F>(
        &self,
        hedging: &Hedging,
        ticket: Ticket,
        attempts: &Attempts,
        f: F,
    ) -> Both<B, T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let first_node = ticket.node().id();
        let delay = {
            let (topology, now) = (self.shared().peek(), ticket.chosen());
            let could_answer = |state: &&NodeState| {
                let node = &state.node;
                state.role == Role::Replica
                    && state.blocked.is_none()
                    && !node.is_draining()
                    && node.id() != first_node
                    && node.admission(now) == Admission::Admitted
                    && attempts.tried.fault(node.id()).is_none()
            };
            hedging.delay(topology.nodes.iter().filter(could_answer).map(|state| &*state.node))
        };
        let mut first = pin!(self.attempt_on(ticket, attempts, Some(hedging), f.clone()));
        let ended = tokio::select! {
            biased;
            ended = &mut first => Some(ended),
            () = passed(delay) => None,
        };
        if let Some(ended) = ended {
            return (ended, None);
        }
        if !hedging.spend() {
            metrics::hedge(Hedge::BudgetSpent);
            return (first.await, None);
        }
        let beside = Self { session: self.session.beside(Instant::now()), ..self.clone() };
        let mut tried = attempts.tried.clone();
        tried.add(first_node, Fault::Unresponsive);
        let mut second = pin!(async {
            let (ticket, attempts) = beside.ticket_beside(tried, attempts.deadline).await?;
            Some(beside.attempt_on(ticket, &attempts, Some(hedging), f).await)
        });
        let (outcome, ended, other);
        tokio::select! {
            biased;
            first = &mut first => {
                // When its node has failed it, the other goes on in its place.
                let second = if first.is_failed() { second.await } else { None };
                outcome = if second.is_some() { Hedge::of(second.as_ref()) } else { Hedge::Lost };
                (ended, other) = match second {
                    Some(second) if second.is_served() => (second, None),
                    second => of_both(first, second),
                };
            }
            second = &mut second => {
                outcome = Hedge::of(second.as_ref());
                (ended, other) = match second {
                    Some(second) if second.is_served() => (second, None),
                    second => {
                        if matches!(second, None | Some(Attempt::NoConnection(_))) {
                            hedging.give_back();
                        }
                        of_both(first.await, second)
                    }
                };
            }
        }
        metrics::hedge(outcome);
        if let (Hedge::Won, Attempt::Served { lease, serving, .. }) = (outcome, &ended) {
            self.session.decided(lease.decision());
            self.session.move_to(*serving, &beside.session);
        }
        (ended, other)
    }

    /// One attempt on a node that may keep it waiting for a connection. How long its answer took is told with that wait: it is
    /// what the caller feels.
    async fn attempt_on<T, E, F>(
        &self,
        ticket: Ticket,
        attempts: &Attempts,
        told: Option<&Hedging>,
        f: F,
    ) -> Attempt<B, T, E>
    where
        E: Failure<B>,
        F: for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let began = ticket.chosen();
        let lease = match self.router.work().unless_cut(pin!(self.try_node(ticket, attempts))).await {
            Some(Ok(lease)) => lease,
            Some(Err(without)) => return Attempt::NoConnection(without),
            None => return Attempt::refused(RouteError::Closed),
        };
        let ended = self.attempt(lease, f).await;
        if let (Some(hedging), Attempt::Served { lease, .. }) = (told, &ended) {
            hedging.answered(lease.node(), began.elapsed());
        }
        ended
    }

    /// A place on a replica that was not tried, if one can serve the same now; and what it is to be tried with.
    async fn ticket_beside(&self, tried: Tried, deadline: Instant) -> Option<(Ticket, Attempts)> {
        let mut attempts = Attempts { deadline, tried, ..self.attempts() };
        loop {
            let (version, now) = (self.shared().version(), Instant::now());
            match self.decide_beside(&mut attempts, now) {
                Choice::Take(ticket) => return Some((ticket, attempts)),
                Choice::Behind => self.await_replay(&mut attempts, version, now).await,
                Choice::Full(_) | Choice::Nothing | Choice::Again => return None,
            }
        }
    }
}

/// What counts of two attempts of which the second has not served: the first, unless it alone was not run.
fn of_both<B: Backend, T, E>(first: Attempt<B, T, E>, second: Option<Attempt<B, T, E>>) -> Both<B, T, E> {
    match second {
        Some(ran @ (Attempt::Error(_) | Attempt::Fault { .. }))
            if matches!(first, Attempt::NoConnection(_)) =>
        {
            (ran, Some(first))
        }
        second => (first, second),
    }
}

async fn passed(delay: Option<Duration>) {
    match delay {
        Some(delay) => sleep(delay).await,
        None => std::future::pending().await,
    }
}

impl Hedge {
    /// What became of the second attempt once it has ended by itself.
    fn of<B: Backend, T, E>(ended: Option<&Attempt<B, T, E>>) -> Self {
        match ended {
            Some(Attempt::Served { .. }) => Self::Won,
            None | Some(Attempt::NoConnection(_)) => Self::NoNode,
            Some(_) => Self::Failed,
        }
    }
}
