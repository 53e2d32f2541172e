//! A write: run it once on the proven primary, and never guess what became of it.

use std::pin::pin;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument as _;

use crate::backend::{Backend, Failure, SendFn};
use crate::decision::Access;
use crate::error::RouteError;
use crate::fault::Fault;
use crate::lease::Lease;
use crate::node_id::NodeId;
use crate::pool::CLEANUP_TIMEOUT;
use crate::routed::Routed;
use crate::step::{Step, loses_the_answer, refused, replicated, roll_back, transaction_body, unknown};
use crate::watch::LeaseWatch;

impl<B: Backend> Routed<B> {
    /// A connection for writing, to the proven primary.
    ///
    /// # Errors
    /// [`RouteError`], as the backend's error.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn acquire_write(&self) -> Result<Lease<B>, B::Error> {
        let _working = self.begin()?;
        let lease = self.writer(self.deadline()).await?;
        self.mark_wrote(&lease);
        Ok(lease.hand_out())
    }

    /// Runs a closure that sends *one statement*, outside a transaction, on the primary. It is run again only when the
    /// primary refused it as read-only, which proves that it had no effect.
    ///
    /// # Errors
    /// The closure's error; [`RouteError`]; [`CommitUnknown`](crate::CommitUnknown) when the answer to the statement was lost.
    ///
    /// # Cancel safety
    /// Dropping the future while the statement runs leaves its outcome unknown; it is ended on the server,
    /// unless it soon ends by itself.
    pub async fn run_statement<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<B> + std::fmt::Display + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let (value, mut lease) = self.run_statement_keeping(f).await?;
        // What comes after the last row can still say that the statement failed.
        let watch = self.watch(&lease);
        let outcome = watch.last_step(pin!(B::complete(&mut lease))).await;
        match Step::new(outcome, &lease, |error| B::classify(error, Access::Write)) {
            Step::Done(()) => {
                replicated::<B, E>(lease)?;
                Ok(value)
            }
            Step::Failed(error, fault) if !loses_the_answer(fault) => {
                lease.end(fault);
                Err(E::from(error))
            }
            Step::Failed(error, fault) => {
                let unknown = unknown::<B, E>(&lease, error.to_string());
                lease.end(fault);
                Err(unknown)
            }
            Step::Cut => Err(unknown::<B, E>(&lease, watch.why().to_owned())),
        }
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
        let _working = self.begin().map_err(|error| E::from(B::Error::from(error)))?;
        let retry = &self.shared().retry;
        retry.request();
        let deadline = self.deadline();
        for attempt in 1.. {
            let mut lease = self.writer(deadline).await.map_err(|error| E::from(B::Error::from(error)))?;
            let (node, watch, span) = (lease.node().id(), self.watch(&lease), lease.span());
            if watch.is_over() {
                // Nothing was sent.
                let refused = refused::<B, E>(&lease, &watch);
                lease.give_back_unused();
                if watch.was_cut() || Instant::now() >= deadline {
                    return Err(refused);
                }
                continue;
            }
            self.mark_wrote(&lease);
            let outcome = watch.unless_lost(pin!(f.clone()(&mut lease).instrument(span))).await;
            let step = Step::new(outcome, &lease, |error: &E| error.fault(Access::Write));
            match step {
                Step::Done(value) => {
                    lease.prove();
                    return Ok((value, lease));
                }
                Step::Failed(error, fault) if loses_the_answer(fault) => {
                    let unknown = unknown::<B, E>(&lease, error.to_string());
                    lease.end(fault);
                    return Err(unknown);
                }
                Step::Failed(error, fault) => {
                    if fault == Some(Fault::NotPrimary) {
                        // The refusal is known; what the server still owes must not hide that nothing was done.
                        let _ = timeout(CLEANUP_TIMEOUT, B::complete(&mut lease)).await;
                    }
                    let again = fault == Some(Fault::NotPrimary)
                        && B::is_untouched(&lease)
                        && Instant::now() < deadline
                        && retry.spend();
                    // A conflict on the primary is the statement's own.
                    lease.end(fault.filter(|fault| *fault != Fault::Conflict));
                    if !again {
                        return Err(error);
                    }
                    self.await_news(node, attempt, deadline).await;
                }
                Step::Cut => return Err(unknown::<B, E>(&lease, watch.why().to_owned())),
            }
        }
        Err(E::from(B::Error::from(RouteError::Closed)))
    }

    /// A connection to the primary on which a step without effect, such as BEGIN, has succeeded. The step is run again,
    /// on another connection, when its node or connection failed it.
    ///
    /// # Errors
    /// The step's error, or [`RouteError`] as such.
    ///
    /// # Cancel safety
    /// Dropping the future gives back everything that it took.
    pub async fn acquire_write_after<E, F>(&self, step: F) -> Result<Lease<B>, E>
    where
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<(), E>>,
    {
        let _working = self.begin().map_err(|error| E::from(B::Error::from(error)))?;
        self.shared().retry.request();
        let deadline = self.deadline();
        for attempt in 1.. {
            let mut lease = self.writer(deadline).await.map_err(|error| E::from(B::Error::from(error)))?;
            let (node, watch) = (lease.node().id(), self.watch(&lease));
            let outcome = watch.unless_lost(pin!(step.clone()(&mut lease))).await;
            let (error, fault) = match Step::new(outcome, &lease, |error: &E| error.fault(Access::Write)) {
                Step::Done(()) => {
                    lease.prove();
                    self.mark_wrote(&lease);
                    return Ok(lease);
                }
                Step::Failed(error, fault) => {
                    lease.end(fault);
                    (error, fault)
                }
                Step::Cut => (refused::<B, E>(&lease, &watch), Some(Fault::NotPrimary)),
            };
            if fault.is_none() || !self.may_begin_again(&watch, attempt, deadline) {
                return Err(error);
            }
            self.await_news(node, attempt, deadline).await;
        }
        Err(E::from(B::Error::from(RouteError::Closed)))
    }

    /// See [`Router::run_write`](crate::Router::run_write).
    ///
    /// # Errors
    /// The closure's error, [`RouteError`], or [`CommitUnknown`](crate::CommitUnknown).
    ///
    /// # Cancel safety
    /// Dropping the future before COMMIT is sent rolls back; dropping it later leaves the outcome unknown.
    pub async fn run_write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send,
        E: Failure<B> + Send,
        F: Clone + Send + for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
    {
        let _working = self.begin().map_err(|error| E::from(B::Error::from(error)))?;
        self.shared().retry.request();
        let deadline = self.deadline();
        for attempt in 1.. {
            let mut lease = self.writer(deadline).await.map_err(|error| E::from(B::Error::from(error)))?;
            let (node, watch, span) = (lease.node().id(), self.watch(&lease), lease.span());
            let body = transaction_body::<B, T, E, F>(&mut lease, f.clone());
            let outcome = watch.unless_lost(pin!(body.instrument(span))).await;
            let (error, fault) = match Step::new(outcome, &lease, |error: &E| error.fault(Access::Write)) {
                Step::Done(value) => {
                    lease.prove();
                    match self.commit::<E>(lease, &watch).await? {
                        None => return Ok(value),
                        Some((error, fault)) => (error, fault),
                    }
                }
                // Nothing was committed.
                Step::Failed(error, fault) => {
                    roll_back(lease, fault).await;
                    (error, fault)
                }
                Step::Cut => (refused::<B, E>(&lease, &watch), Some(Fault::NotPrimary)),
            };
            if fault.is_none() || !self.may_begin_again(&watch, attempt, deadline) {
                return Err(error);
            }
            if fault == Some(Fault::Conflict) {
                self.back_off(attempt, deadline).await;
            } else {
                self.await_news(node, attempt, deadline).await;
            }
        }
        Err(E::from(B::Error::from(RouteError::Closed)))
    }

    /// `None` when the commit succeeded. An error when its outcome is unknown. Else what failed and certainly rolled
    /// back.
    async fn commit<E: Failure<B>>(
        &self,
        mut lease: Lease<B>,
        watch: &LeaseWatch,
    ) -> Result<Option<(E, Option<Fault>)>, E> {
        if watch.is_over() {
            return Ok(Some((refused::<B, E>(&lease, watch), Some(Fault::NotPrimary))));
        }
        // Marked before COMMIT is sent: a response knows of the write even if nobody waits for the answer.
        self.mark_wrote(&lease);
        let outcome = watch.last_step(pin!(B::commit(&mut lease))).await;
        match Step::new(outcome, &lease, |error| B::classify(error, Access::Write)) {
            Step::Done(()) => replicated::<B, E>(lease).map(|()| None),
            Step::Failed(error, fault) if loses_the_answer(fault) => {
                let unknown = unknown::<B, E>(&lease, error.to_string());
                lease.end(fault);
                Err(unknown)
            }
            Step::Failed(error, fault) => {
                roll_back(lease, fault).await;
                Ok(Some((E::from(error), fault)))
            }
            Step::Cut => Err(unknown::<B, E>(&lease, watch.why().to_owned())),
        }
    }

    /// Whether what has had no effect may be begun again after so many attempts.
    fn may_begin_again(&self, watch: &LeaseWatch, attempt: u32, deadline: Instant) -> bool {
        let retry = &self.shared().retry;
        !watch.was_cut() && retry.allows(attempt) && Instant::now() < deadline && retry.spend()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared().config.acquire_deadline
    }

    /// After a node proved not to be the writer: every node is looked at, and the next picture with news of that node
    /// awaited. Any other picture may still show it as the writer.
    async fn await_news(&self, of: NodeId, attempt: u32, deadline: Instant) {
        let shared = self.shared();
        let asked = Instant::now();
        let mut versions = shared.versions();
        shared.probe_all();
        let looked_at = async {
            while shared
                .peek()
                .node(of)
                .is_some_and(|state| state.probed.is_some_and(|probed| probed < asked))
            {
                versions.changed().await;
            }
        };
        let _ = timeout_at(deadline.min(asked + shared.config.probe_timeout), looked_at).await;
        self.back_off(attempt, deadline).await;
    }
}
