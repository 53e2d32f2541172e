//! Waiting for the end of an answer that nobody reads.

use diesel_async::SimpleAsyncConnection as _;
use routing_core::pool::LAST_WORD;
use tokio::time::timeout;

use crate::pool::{Pooled, terminate};

/// Waits for [`LAST_WORD`] at most, and returns the connection once the server owes nothing. `None`: its statement was
/// cancelled, or it had ended, and the connection is closed.
pub(crate) async fn drain(mut object: Pooled) -> Option<Pooled> {
    // Behind whatever was handed to the driver and not sent yet.
    match timeout(LAST_WORD, object.connection.batch_execute("")).await {
        Ok(Ok(())) => return object.drained(),
        // Something large, or slow, stands before it: nobody waits for that any more.
        Err(_) => terminate(object).await,
        Ok(Err(_)) => end(object).await,
    }
    None
}

/// Closes a connection; a statement that its server may still be at is cancelled first.
pub(crate) async fn end(object: Pooled) {
    if object.wire.is_busy() && !object.wire.has_ended() {
        terminate(object).await;
    } else {
        drop(object.discard());
    }
}
