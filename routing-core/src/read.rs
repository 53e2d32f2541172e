//! A read: run it, and go on with another node when one fails.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

use crate::attempts::{Attempts, NoConnection};
use crate::backend::{Backend, Failure, SendFn};
use crate::decision::Access;
use crate::demand::Demand;
use crate::error::RouteError;
use crate::fault::Fault;
use crate::hedge::Hedging;
use crate::lease::Lease;
use crate::metrics::{self, Repetition};
use crate::node_id::NodeId;
use crate::notes::Serving;
use crate::routed::Routed;
use crate::shared::Shared;
use crate::tried::Tried;

/// How one run of a closure ended.
pub(crate) enum Attempt<B: Backend, T, E> {
    Served {
        value: T,
        lease: Lease<B>,
        serving: Serving,
    },
    /// What the caller gets: the closure's error, which says nothing about the node, or that the router was shut down.
    Error(E),
    /// The node failed it; without an error it was dropped in the middle.
    Fault {
        node: NodeId,
        fault: Fault,
        error: Option<E>,
    },
    /// It was not run.
    NoConnection(NoConnection),
}

impl<B: Backend, T, E> Attempt<B, T, E> {
    pub(crate) fn refused(error: RouteError) -> Self
    where
        E: Failure<B>,
    {
        Self::Error(E::from(B::Error::from(error)))
    }

    pub(crate) fn is_served(&self) -> bool {
        matches!(self, Self::Served { .. })
    }

    /// Whether its node has failed it.
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self, Self::Fault { .. } | Self::NoConnection(_))
    }
}

impl<B: Backend> Routed<B> {
    /// A connection for reading.
    ///
    /// # Errors
    /// [`RouteError`], as the backend's error.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn acquire_read(&self) -> Result<Lease<B>, B::Error> {
        let _working = self.begin()?;
        self.shared().retry.request();
        let mut attempts = self.attempts();
        let lease = self.next_lease(&mut attempts).await?;
        Self::count_session_read(&lease, &attempts);
        self.session.lend();
        self.keep_to(Serving::begin(lease.node()), &lease, &attempts);
        Ok(lease.hand_out())
    }

    /// See [`Router::run_read`](crate::Router::run_read).
    ///
    /// # Errors
    /// The closure's error, or [`RouteError`] as such.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took; a statement under way is ended on the
    /// server, unless it soon ends by itself.
    pub async fn run_read<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let hedging = self.shared().hedging.as_ref();
        let (value, lease) = self.run_attempts(f, hedging).await?;
        lease.end_as_proved();
        Ok(value)
    }

    /// [`run_read`](Self::run_read), and the lease on which the closure succeeded: for a transaction that goes on, or
    /// for rows that are still to be read. It is never hedged.
    ///
    /// # Errors
    /// As [`run_read`](Self::run_read).
    ///
    /// # Cancel safety
    /// As [`run_read`](Self::run_read).
    pub async fn run_read_keeping<T, E, F>(&self, f: F) -> Result<(T, Lease<B>), E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        self.session.lend();
        self.run_attempts(f, None).await
    }

    async fn run_attempts<T, E, F>(&self, f: F, hedging: Option<&Hedging>) -> Result<(T, Lease<B>), E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let _working = self.begin().map_err(|error| E::from(B::Error::from(error)))?;
        self.shared().retry.request();
        let mut attempts = self.attempts();
        loop {
            let ended = match hedging {
                // Its future is several times as large as all else: whoever does not hedge need not carry it about.
                Some(hedging) => Box::pin(self.hedged(hedging, &mut attempts, f.clone())).await,
                None => match self.next_lease(&mut attempts).await {
                    Ok(lease) => self.attempt(lease, f.clone()).await,
                    Err(error) => Attempt::refused(error),
                },
            };
            let (node, fault, error) = match ended {
                Attempt::Served { value, lease, serving } => {
                    Self::count_session_read(&lease, &attempts);
                    self.keep_to(serving, &lease, &attempts);
                    return Ok((value, lease));
                }
                Attempt::Error(error) => return Err(error),
                Attempt::NoConnection(without) => {
                    attempts.tried.extend(without.node, without.fault);
                    continue;
                }
                Attempt::Fault { node, fault, error } => (node, fault, error),
            };
            attempts.failed += 1;
            attempts.tried.add(node, fault);
            attempts.primary_only |= fault.needs_primary();
            if !self.may_repeat(&mut attempts) {
                let route_error = || E::from(B::Error::from(self.deadline_error(&attempts, Instant::now())));
                return Err(error.unwrap_or_else(route_error));
            }
            if attempts.failed > 1 {
                self.back_off(attempts.failed - 1, attempts.deadline).await;
            }
        }
    }

    /// Runs a closure once, until it ends or its node is declared dead.
    pub(crate) async fn attempt<T, E, F>(&self, mut lease: Lease<B>, f: F) -> Attempt<B, T, E>
    where
        E: Failure<B>,
        F: for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let watch = self.watch(&lease);
        let (node, span) = (lease.node().id(), lease.span());
        // Whatever happens to the node from here on may lie behind what the closure sees.
        let serving = Serving::begin(lease.node());
        let (fault, error) = tokio::select! {
            biased;
            outcome = f(&mut lease).instrument(span) => match outcome {
                Ok(value) => {
                    lease.prove();
                    return Attempt::Served { value, lease, serving };
                }
                Err(error) => match B::diagnose(&lease, error.fault(Access::Read)) {
                    Some(fault) if !(fault.needs_primary() && lease.is_on_primary()) => (fault, Some(error)),
                    // It says nothing about the node, or asks for the primary, which has just said it.
                    _ => {
                        lease.end(None);
                        return Attempt::Error(error);
                    }
                },
            },
            () = watch.end() => (Fault::Unresponsive, None),
        };
        match error {
            Some(_) => lease.end(Some(fault)),
            // The closure was dropped in the middle.
            None => drop(lease),
        }
        if watch.was_cut() {
            return Attempt::refused(RouteError::Closed);
        }
        Attempt::Fault { node, fault, error }
    }

    pub(crate) fn attempts(&self) -> Attempts {
        self.attempts_at(Instant::now())
    }

    /// A call that begins at `now`.
    pub(crate) fn attempts_at(&self, now: Instant) -> Attempts {
        Attempts {
            demand: Demand::ANY,
            kept: None,
            waiting_since: None,
            primary_only: false,
            tried: Tried::default(),
            failed: 0,
            rounds: 0,
            heeds_breakers: false,
            paid: false,
            earned: false,
            began: now,
            deadline: now + self.shared().config.acquire_deadline,
        }
    }

    fn keep_to(&self, serving: Serving, lease: &Lease<B>, attempts: &Attempts) {
        let continues = attempts.kept == Some(lease.node().id());
        self.session.keep_to(serving, lease.is_on_primary(), continues);
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.router.cluster().shared()
    }

    fn may_repeat(&self, attempts: &mut Attempts) -> bool {
        let retry = &self.shared().retry;
        let repetition = if !retry.allows(attempts.failed) || Instant::now() >= attempts.deadline {
            Repetition::LimitReached
        } else if retry.spend() {
            Repetition::Repeated
        } else {
            Repetition::BudgetSpent
        };
        metrics::retry(repetition);
        attempts.paid = matches!(repetition, Repetition::Repeated);
        attempts.paid
    }

    pub(crate) async fn back_off(&self, attempts: u32, deadline: Instant) {
        let pause = self.shared().retry.pause(attempts, fastrand::f64()).max(Duration::from_millis(1));
        sleep_until((Instant::now() + pause).min(deadline)).await;
    }
}
