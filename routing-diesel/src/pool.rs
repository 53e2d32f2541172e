//! Opening, checking and ending connections.

use std::sync::Arc;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use routing_core::pool::{self, CLEANUP_TIMEOUT, Connector, READ_ONLY_OPTION, READ_ONLY_SQL, SESSION_SQL};
use routing_core::wire::Wire;
use routing_core::{Access, NotWritable};
use tokio::task::AbortHandle;
use tokio_postgres::{CancelToken, SimpleQueryMessage};

use crate::error::ConnectError;
use crate::session::Watched;
use crate::target::Target;

/// One node's connections for one kind of access.
pub(crate) type Pool = pool::Pool<DieselConnector>;

/// A connection out of a pool.
pub(crate) type Pooled = pool::Pooled<DieselConnector>;

/// An open connection.
pub(crate) struct Physical {
    pub(crate) connection: AsyncPgConnection,
    pub(crate) wire: Arc<Wire>,
    /// What makes the session what it should be where the start-up options did not, to be said again after each reset.
    pub(crate) restore: Option<String>,
    cancel: CancelToken,
    target: Arc<Target>,
    /// The task that moves the bytes. Ending it closes the socket.
    driver: Guard,
    /// The driver may not go on by itself.
    cut: bool,
}

impl Drop for Physical {
    fn drop(&mut self) {
        // Without its client the driver says goodbye to the server and ends, unless an answer is still owed.
        if !self.cut && !self.wire.is_busy() {
            self.driver.disarm();
        }
    }
}

/// Opens and checks connections of one node for one kind of access.
pub(crate) struct DieselConnector {
    target: Arc<Target>,
    access: Access,
}

impl DieselConnector {
    pub(crate) fn new(target: Target, access: Access) -> Self {
        // Diesel wants UTC, and sets it with a statement that RESET ALL would undo.
        let mut options = "-c TimeZone=UTC".to_owned();
        if access == Access::Read {
            let (name, value) = READ_ONLY_OPTION;
            options += &format!(" -c {name}={value}");
        }
        Self { target: Arc::new(target.with_options(&options)), access }
    }
}

impl Connector for DieselConnector {
    type Connection = Physical;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Physical, ConnectError> {
        let watched = |stream| {
            let wire = Arc::new(Wire::new());
            (Watched::new(stream, wire.clone()), wire)
        };
        let (client, mut connection, wire) = self.target.connect(watched).await?;
        // What the server reports of itself as it lets us in (PostgreSQL manual, "Asynchronous Operations"; the first of the two
        // since 14): where it says that the options have arrived, a read connection needs no round trip to ask.
        let arrived = {
            let reports = |name, value| connection.parameter(name) == Some(value);
            reports("default_transaction_read_only", "on") && reports("TimeZone", "UTC")
        };
        let ending = wire.clone();
        let driver = tokio::spawn(async move {
            if let Err(error) = (&mut connection).await {
                tracing::debug!(%error, "a connection ended");
            }
            // Before the socket goes, so that whoever sees it gone knows why.
            ending.end();
        });
        // From here on a dropped future ends the driver.
        let guard = Guard(Some(driver.abort_handle()));
        let mut restore = None;
        if self.access == Access::Write || !arrived {
            let session = Session::read(&client.simple_query(SESSION_SQL).await?);
            if self.access == Access::Write {
                NotWritable::check(session.in_recovery, session.read_only)?;
            }
            restore = session.left_out(self.access);
        }
        if let Some(restore) = &restore {
            client.batch_execute(restore).await?;
        }
        let cancel = client.cancel_token();
        let connection = AsyncPgConnection::try_from(client).await?;
        wire.set_up();
        Ok(Physical {
            connection,
            wire,
            restore,
            cancel,
            target: self.target.clone(),
            driver: guard,
            cut: false,
        })
    }

    fn is_alive(&self, physical: &Physical) -> bool {
        !physical.wire.has_ended()
    }

    fn describe(&self, error: &ConnectError) -> String {
        self.target.describe(error)
    }

    async fn check(&self, physical: &mut Physical) -> Result<(), ConnectError> {
        // The empty statement: one round trip that no server log shows.
        let answer = physical.connection.batch_execute("").await;
        answer.map_err(|error| diesel::ConnectionError::CouldntSetupConfiguration(error).into())
    }
}

/// Ends a task unless it is disarmed.
struct Guard(Option<AbortHandle>);

impl Guard {
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// What the answer to [`SESSION_SQL`] says. An unreadable answer is not one to write to.
struct Session {
    in_recovery: bool,
    read_only: bool,
    read_only_by_default: bool,
    utc: bool,
}

impl Session {
    fn read(answer: &[SimpleQueryMessage]) -> Self {
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |index| row.and_then(|row| row.get(index));
        Self {
            in_recovery: column(1) != Some("f"),
            read_only: column(2) != Some("f"),
            read_only_by_default: column(5) == Some("t"),
            utc: column(6) == Some("UTC"),
        }
    }

    /// What a pooler in between has left out of the start-up options.
    fn left_out(&self, access: Access) -> Option<String> {
        let read_only = (access == Access::Read && !self.read_only_by_default).then_some(READ_ONLY_SQL);
        let utc = (!self.utc).then_some("SET TimeZone = 'UTC'");
        let statements: Vec<&str> = read_only.into_iter().chain(utc).collect();
        (!statements.is_empty()).then(|| statements.join("; "))
    }
}

/// Cancels the statement on the server, then closes the connection.
pub(crate) async fn terminate(object: Pooled) {
    let physical: &Physical = &object;
    let cancelling = physical.target.cancel(&physical.cancel);
    match tokio::time::timeout(CLEANUP_TIMEOUT, cancelling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "an abandoned statement could not be cancelled on the server")
        }
        Err(_) => tracing::debug!("cancelling an abandoned statement on the server took too long"),
    }
    // Only now is its place free: the server process counts among the pool's until it has ended. The driver goes at once,
    // with whatever it has not written yet.
    let mut physical = object.discard();
    physical.cut = true;
}
