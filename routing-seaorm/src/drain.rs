//! Waiting for the end of an answer that nobody reads.

use routing_core::pool::LAST_WORD;
use sqlx::Connection as _;
use tokio::time::timeout;

use crate::fault::{ends_connection, spoils_statement};
use crate::pool::Pooled;

/// A connection that does not go back to the pool by itself.
struct Unread(Option<Pooled>);

impl Unread {
    /// Reads what the server owes. An error ends the connection, or a prepared statement's use.
    async fn read(mut self) -> Result<Self, sqlx::Error> {
        if let Some(object) = &mut self.0 {
            // What was not sent yet goes first. Behind the statement's own error there is more to read.
            while let Err(error) = object.connection.ping().await {
                if ends_connection(&error) || spoils_statement(&error) {
                    return Err(error);
                }
            }
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
    // A task of its own: sqlx does not give way to others while there is something to read, and an answer can be large. (On a
    // runtime of one thread nothing helps against one that comes faster than it is read.)
    let mut reading = tokio::spawn(Unread(Some(object)).read());
    match timeout(LAST_WORD, &mut reading).await {
        Ok(Ok(Ok(mut read))) => return read.0.take().and_then(Pooled::drained),
        Ok(_) => return None,
        // At work still.
        Err(_) => {}
    }
    // Its place is held until then; and what it may have read meanwhile is closed all the same.
    process.terminate().await;
    reading.abort();
    None
}
