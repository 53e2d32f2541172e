//! A write: wait for a proven primary, check out, run, and never guess what became of it.

use tokio::time::{Instant, timeout_at};

use crate::backend::{Backend, Failure, SendFn};
use crate::choose::{self, Tried};
use crate::decision::{Access, Reason};
use crate::error::{CommitUnknown, RouteError};
use crate::fault::Fault;
use crate::lease::{CapPermit, Lease, Ticket};
use crate::metrics;
use crate::router::Routed;
use crate::topology::Primary;

/// Why the answer to a step that was cut is not known.
const CUT: &str = "the node ceased to be the primary, or to answer";

/// How a step on a write connection ended.
enum Step<T, E> {
    Done(T),
    /// The error, with what it says about the node.
    Failed(E, Option<Fault>),
    /// The node ceased to be the writer while the step ran, and the step was dropped.
    Cut,
}

impl<T, E> Step<T, E> {
    /// What a watched step came to.
    fn new(outcome: Option<Result<T, E>>, fault: impl Fn(&E) -> Option<Fault>) -> Self {
        match outcome {
            None => Self::Cut,
            Some(Ok(value)) => Self::Done(value),
            Some(Err(error)) => {
                let fault = fault(&error);
                Self::Failed(error, fault)
            }
        }
    }

    /// The same with what the connection itself knows of a failure.
    fn diagnosed<B: Backend>(self, connection: &B::Connection) -> Self {
        match self {
            Self::Failed(error, said) => Self::Failed(error, B::diagnose(connection, said)),
            step => step,
        }
    }
}

impl<B: Backend> Routed<B> {
    /// A connection for writing, to the proven primary.
    ///
    /// # Errors
    /// [`RouteError`], as the backend's error.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn acquire_write(&self) -> Result<Lease<B>, B::Error> {
        let lease = self.writer_lease(Instant::now() + self.shared().config.acquire_deadline).await?;
        self.session.mark_wrote();
        Ok(lease)
    }

    /// Runs a closure that sends *one statement*, outside a transaction, on the primary. It is run again only when the
    /// primary refused it as read-only, which proves that it had no effect.
    ///
    /// # Errors
    /// The closure's error; [`RouteError`]; [`CommitUnknown`] when the answer to the statement was lost.
    ///
    /// # Cancel safety
    /// Dropping the future while the statement runs leaves its outcome unknown; it is cancelled on the server.
    pub async fn run_statement<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<B> + std::fmt::Display + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let (value, lease) = self.run_statement_keeping(f).await?;
        lease.end(None);
        Ok(value)
    }

    /// [`run_statement`](Self::run_statement), and the lease on which the closure succeeded: for rows that are still to
    /// be read.
    ///
    /// # Errors
    /// As [`run_statement`](Self::run_statement).
    ///
    /// # Cancel safety
    /// As [`run_statement`](Self::run_statement).
    pub async fn run_statement_keeping<T, E, F>(&self, f: F) -> Result<(T, Lease<B>), E>
    where
        T: Send,
        E: Failure<B> + std::fmt::Display + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let deadline = Instant::now() + self.shared().config.acquire_deadline;
        loop {
            let mut lease =
                self.writer_lease(deadline).await.map_err(|error| E::from(B::Error::from(error)))?;
            self.session.mark_wrote();
            let mut watch = self.watch_writer(&lease);
            let outcome = watch.unless_lost(f.clone()(&mut lease)).await;
            let step = Step::new(outcome, |error: &E| error.fault(Access::Write)).diagnosed::<B>(&lease);
            let node = lease.node().clone();
            let untouched = B::is_untouched(&lease);
            match step {
                Step::Done(value) => return Ok((value, lease)),
                Step::Failed(error, fault) => {
                    lease.end(fault.filter(|fault| *fault != Fault::Conflict));
                    match fault {
                        Some(Fault::NotPrimary) if untouched && Instant::now() < deadline => {
                            self.await_news(deadline).await;
                        }
                        Some(Fault::Unreachable | Fault::Unresponsive) => {
                            let why = error.to_string().into();
                            return Err(unknown::<B, E>(node.shared_name(), why));
                        }
                        _ => return Err(error),
                    }
                }
                Step::Cut => {
                    drop(lease);
                    return Err(unknown::<B, E>(node.shared_name(), CUT.into()));
                }
            }
        }
    }

    /// See [`Router::run_write`](crate::Router::run_write).
    ///
    /// # Errors
    /// The closure's error, [`RouteError`], or [`CommitUnknown`].
    ///
    /// # Cancel safety
    /// Dropping the future before COMMIT is sent rolls back; dropping it later leaves the outcome unknown.
    pub async fn run_write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let retry = &self.shared().retry;
        retry.request();
        let deadline = Instant::now() + self.shared().config.acquire_deadline;
        for attempt in 1.. {
            let mut lease =
                self.writer_lease(deadline).await.map_err(|error| E::from(B::Error::from(error)))?;
            let mut watch = self.watch_writer(&lease);
            let outcome = watch.unless_lost(transaction_body::<B, T, E, F>(&mut lease, f.clone())).await;
            let step = Step::new(outcome, |error: &E| error.fault(Access::Write)).diagnosed::<B>(&lease);
            let (error, fault) = match step {
                Step::Done(value) => match self.commit::<E>(lease).await? {
                    None => return Ok(value),
                    Some((error, fault)) => (error, fault),
                },
                Step::Failed(error, fault) => {
                    // Nothing was committed, and after a fault the connection is not used again.
                    if fault.is_none_or(|fault| fault == Fault::Conflict) {
                        let _ = B::rollback(&mut lease).await;
                        lease.end(None);
                    } else {
                        lease.end(fault);
                    }
                    (error, fault)
                }
                Step::Cut => {
                    let from = lease.node().shared_name().clone();
                    drop(lease);
                    (E::from(B::Error::from(RouteError::WriterChanged { from })), Some(Fault::NotPrimary))
                }
            };
            let again =
                fault.is_some() && retry.allows(attempt) && Instant::now() < deadline && retry.spend();
            if !again {
                return Err(error);
            }
            if fault == Some(Fault::NotPrimary) {
                self.await_news(deadline).await;
            }
            tokio::time::sleep(retry.pause(attempt, fastrand::f64())).await;
        }
        Err(E::from(B::Error::from(RouteError::Closed)))
    }

    /// `None` when the commit succeeded. An error when its outcome is unknown. Else what failed and certainly rolled
    /// back.
    async fn commit<E: Failure<B>>(&self, mut lease: Lease<B>) -> Result<Option<(E, Option<Fault>)>, E> {
        // Marked before COMMIT is sent: a response knows of the write even if nobody waits for the answer.
        self.session.mark_wrote();
        let node = lease.node().clone();
        let mut watch = self.watch_writer(&lease);
        let outcome = watch.unless_lost(async { B::commit(&mut lease).await }).await;
        let step = Step::new(outcome, |error| B::classify(error, Access::Write));
        match step.diagnosed::<B>(&lease) {
            Step::Done(()) => {
                lease.end(None);
                Ok(None)
            }
            Step::Failed(error, fault @ Some(Fault::Unreachable | Fault::Unresponsive)) => {
                let why = error.to_string().into();
                lease.end(fault);
                Err(unknown::<B, E>(node.shared_name(), why))
            }
            Step::Failed(error, fault) => {
                lease.end(None);
                Ok(Some((E::from(error), fault)))
            }
            Step::Cut => {
                drop(lease);
                Err(unknown::<B, E>(node.shared_name(), CUT.into()))
            }
        }
    }

    /// After a node proved not to be the primary: every node is looked at, and the next picture awaited.
    async fn await_news(&self, deadline: Instant) {
        let mut versions = self.shared().versions();
        self.shared().probe_all();
        let _ = timeout_at(deadline, versions.changed()).await;
    }

    /// A connection to the proven primary.
    async fn writer_lease(&self, deadline: Instant) -> Result<Lease<B>, RouteError> {
        let shared = self.shared();
        let began = Instant::now();
        let patience = deadline.min(began + shared.config.write_wait);
        let mut waiting: Option<CapPermit> = None;
        let mut tried = Tried::default();
        loop {
            if self.router.cluster().is_closed() {
                return Err(RouteError::Closed);
            }
            let mut versions = shared.versions();
            let now = Instant::now();
            if let Some(ticket) = self.writer_ticket(&tried, now) {
                drop(waiting.take());
                let (id, epoch) = (ticket.node().id(), ticket.epoch());
                self.router.enter_epoch(epoch, id);
                let decision = ticket.decision();
                match self.check_out(ticket, deadline).await {
                    // The primary may have changed while the connection was opened.
                    Ok(lease) if shared.peek().epoch == epoch => {
                        self.session.decided(decision);
                        return Ok(lease);
                    }
                    Ok(lease) => drop(lease),
                    Err(fault) => {
                        tried.add(id, fault);
                        if fault == Fault::NotPrimary {
                            shared.probe_all();
                        }
                    }
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
            tried.clear();
        }
    }

    /// A place on the proven primary. Draining does not keep writes away: they have nowhere else to go.
    fn writer_ticket(&self, tried: &Tried, now: Instant) -> Option<Ticket> {
        let shared = self.shared();
        let topology = shared.peek();
        let state = topology.writer(now, shared.limits.writer_lease).ok().flatten()?;
        if state.blocked.is_some() || tried.fault(state.node.id()).is_some() {
            return None;
        }
        let trial = match state.node.admission(now) {
            crate::Admission::Admitted => false,
            crate::Admission::Trial if state.node.take_trial() => true,
            crate::Admission::Trial => return None,
            crate::Admission::Refused(_) => return None,
        };
        let decision = (state.role, Access::Write, Reason::Writer);
        Some(Ticket::new(state.node.clone(), decision, trial, None, topology.epoch))
    }

    fn no_writer(&self, tried: &Tried, began: Instant, now: Instant) -> RouteError {
        let shared = self.shared();
        let topology = shared.peek();
        let refusals = choose::write_refusals(&topology, tried, shared.limits, now);
        match &topology.primary {
            Primary::Ambiguous(claims) => RouteError::AmbiguousPrimary(claims.clone()),
            Primary::Unknown => RouteError::NoPrimary(refusals),
            Primary::Known { .. } => RouteError::DeadlineExceeded {
                access: Access::Write,
                after: now.saturating_duration_since(began),
                refusals,
            },
        }
    }
}

async fn transaction_body<B, T, E, F>(lease: &mut Lease<B>, f: F) -> Result<T, E>
where
    B: Backend,
    E: Failure<B>,
    F: for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
{
    B::begin(lease, Access::Write).await.map_err(E::from)?;
    f(lease).await
}

fn unknown<B: Backend, E: From<B::Error>>(node: &std::sync::Arc<str>, why: std::sync::Arc<str>) -> E {
    E::from(B::Error::from(CommitUnknown { node: node.clone(), why }))
}
