//! What a pool needs of a driver.

use std::future::Future;
use std::time::Duration;

/// Opens and checks the connections of one pool.
pub trait Connector: Send + Sync + 'static {
    /// A connection.
    type Connection: Send + 'static;
    /// What opening or checking one fails with.
    type Error: Send + 'static;

    /// Opens a connection.
    ///
    /// # Cancel safety
    /// Dropping the future closes what it opened.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Whether a connection is not known to have ended. It asks nobody.
    fn is_alive(&self, connection: &Self::Connection) -> bool {
        let _ = connection;
        true
    }

    /// How long the server lets the connection idle before it ends the session (`idle_session_timeout`), if it does.
    fn longest_idle(&self, connection: &Self::Connection) -> Option<Duration> {
        let _ = connection;
        None
    }

    /// What an error says, and what to do about it, for the log. It holds no secret.
    fn describe(&self, error: &Self::Error) -> String;

    /// Makes one round trip on a connection that was idle.
    ///
    /// # Cancel safety
    /// After a dropped future the connection is not used again.
    fn check(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
