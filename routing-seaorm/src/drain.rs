//! Waiting for the end of an answer that nobody reads.

use routing_core::pool::LAST_WORD;
use sqlx::Connection as _;
use tokio::time::timeout;

use crate::fault::ends_connection;
use crate::pool::Pooled;

/// A connection that does not go back to the pool by itself.
struct Unread(Option<Pooled>);

impl Unread {
    /// Reads what the server owes.
    async fn read(mut self) -> Result<Self, sqlx::Error> {
        if let Some(object) = &mut self.0 {
            // What was not sent yet goes first.
            object.connection.ping().await?;
        }
        Ok(self)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(object.discard());
        }
    }
}

/// Waits for [`LAST_WORD`] at most, and returns the connection once the server owes nothing. `None`: the server's process was
/// ended, or had ended, and the connection is closed.
pub(crate) async fn drain(object: Pooled) -> Option<Pooled> {
    let process = object.process.clone();
    // A task of its own: sqlx does not give way to others while there is something to read, and an answer can be large.
    let mut reading = tokio::spawn(Unread(Some(object)).read());
    match timeout(LAST_WORD, &mut reading).await {
        Ok(Ok(Ok(mut read))) => return read.0.take(),
        Ok(Ok(Err(error))) if ends_connection(&error) => return None,
        // At work still; or an error that the connection has outlived, with more behind it.
        _ => {}
    }
    process.terminate().await;
    // It may have read all of it meanwhile; what ends here is closed all the same.
    reading.abort();
    None
}
