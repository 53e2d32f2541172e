//! One step on a write connection, and what its end means.

use std::sync::Arc;

use tokio::time::timeout;

use crate::backend::{Backend, Failure, SendFn};
use crate::decision::Access;
use crate::error::CommitUnknown;
use crate::fault::Fault;
use crate::lease::Lease;
use crate::pool::CLEANUP_TIMEOUT;
use crate::sabotage::{Sabotage, disabled};
use crate::watch::LeaseWatch;

/// How a step on a write connection ended.
pub(crate) enum Step<T, E> {
    Done(T),
    /// The error, with what it says about the node.
    Failed(E, Option<Fault>),
    /// The node ceased to be the writer while the step ran, and the step was dropped.
    Cut,
}

impl<T, E> Step<T, E> {
    /// What a watched step came to, with what the connection itself knows of a failure.
    pub(crate) fn new<B: Backend>(
        outcome: Option<Result<T, E>>,
        lease: &Lease<B>,
        fault: impl Fn(&E) -> Option<Fault>,
    ) -> Self {
        match outcome {
            None => Self::Cut,
            Some(Ok(value)) => Self::Done(value),
            Some(Err(error)) => {
                let fault = B::diagnose(lease, fault(&error));
                Self::Failed(error, fault)
            }
        }
    }
}

/// The faults after which nobody knows what became of a statement that was sent.
pub(crate) fn loses_the_answer(fault: Option<Fault>) -> bool {
    !disabled(Sabotage::LostAnswers)
        && matches!(fault, Some(Fault::Unreachable | Fault::Unresponsive | Fault::Refusing))
}

pub(crate) async fn transaction_body<B, T, E, F>(lease: &mut Lease<B>, f: F) -> Result<T, E>
where
    B: Backend,
    E: Failure<B>,
    F: for<'c> SendFn<&'c mut Lease<B>, Result<T, E>>,
{
    B::begin(lease, Access::Write).await.map_err(E::from)?;
    f(lease).await
}

/// Ends a transaction that was not committed. After a fault that ends the connection there is nothing to send; a
/// connection that does not roll back in time is closed, which does.
pub(crate) async fn roll_back<B: Backend>(mut lease: Lease<B>, fault: Option<Fault>) {
    if fault.is_some_and(Fault::ends_connection) {
        return lease.end(fault);
    }
    if timeout(CLEANUP_TIMEOUT, B::rollback(&mut lease)).await.is_ok() {
        lease.end(fault.filter(|fault| *fault != Fault::Conflict));
    }
}

/// What a step fails with that was cut, or not begun, and certainly has no effect.
pub(crate) fn refused<B: Backend, E: From<B::Error>>(lease: &Lease<B>, watch: &LeaseWatch) -> E {
    E::from(B::Error::from(watch.refusal(lease.node())))
}

pub(crate) fn unknown<B: Backend, E: From<B::Error>>(lease: &Lease<B>, why: String) -> E {
    let node = Arc::clone(lease.node().shared_name());
    E::from(B::Error::from(CommitUnknown { node, why: why.into() }))
}

/// Ends the lease of a committed write; an unknown outcome when its server waited in vain for a standby.
pub(crate) fn replicated<B: Backend, E: From<B::Error>>(lease: Lease<B>) -> Result<(), E> {
    let outcome = match B::is_unreplicated(&lease) {
        true => Err(unknown::<B, E>(&lease, CommitUnknown::UNREPLICATED.to_owned())),
        false => Ok(()),
    };
    lease.end(None);
    outcome
}
