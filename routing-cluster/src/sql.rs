//! SQL to one node, over loopback, every step with a deadline.

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Config, NoTls, Row,
    types::{FromSql, ToSql},
};

use crate::credentials::Credentials;

/// Why a node did not answer a statement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// No connection came about.
    #[error("could not connect to port {port} as {user}: {answer}")]
    Connect {
        /// The node's port.
        port: u16,
        /// The role that tried.
        user: String,
        /// What the driver or the server said.
        answer: String,
    },
    /// The server refused a statement.
    #[error("could not {doing}: {answer}")]
    Statement {
        /// What the statement was for.
        doing: &'static str,
        /// What the server said, with its SQLSTATE.
        answer: String,
    },
    /// The server did not answer in time.
    #[error("could not {doing}: no answer within {} ms", deadline.as_millis())]
    Silent {
        /// What was waited for.
        doing: &'static str,
        /// How long.
        deadline: Duration,
    },
}

/// One connection; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    deadline: Duration,
}

impl Session {
    /// Connects within `deadline`, which each statement is given again.
    pub(crate) async fn connect(
        port: u16,
        login: &Credentials,
        deadline: Duration,
    ) -> Result<Session, SqlError> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).application_name("routing-cluster");
        config.user(&login.user).password(&login.password).dbname(&login.database);
        let connected = timeout(deadline, config.connect(NoTls)).await;
        let connected = connected.map_err(|_| SqlError::Silent { doing: "connect", deadline })?;
        let (client, connection) = connected.map_err(|error| SqlError::Connect {
            port,
            user: login.user.clone(),
            answer: answer(&error),
        })?;
        let driver = tokio::spawn(async move {
            // A lost connection shows itself in the statement that waits for it.
            let _ = connection.await;
        });
        Ok(Session { client, driver, deadline })
    }

    /// Runs statements that return nothing; `doing` completes "could not …".
    pub(crate) async fn run(&self, doing: &'static str, statements: &str) -> Result<(), SqlError> {
        self.within(doing, self.client.batch_execute(statements)).await
    }

    /// Runs one query.
    pub(crate) async fn rows(
        &self,
        doing: &'static str,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SqlError> {
        self.within(doing, self.client.query(query, values)).await
    }

    /// Runs a query that returns one value.
    pub(crate) async fn value<T: for<'r> FromSql<'r>>(
        &self,
        doing: &'static str,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<T, SqlError> {
        let row = self.within(doing, self.client.query_one(query, values)).await?;
        row.try_get(0).map_err(|error| SqlError::Statement { doing, answer: answer(&error) })
    }

    async fn within<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, SqlError> {
        match timeout(self.deadline, work).await {
            Ok(done) => done.map_err(|error| SqlError::Statement { doing, answer: answer(&error) }),
            Err(_) => Err(SqlError::Silent { doing, deadline: self.deadline }),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The server's own words where there are any: the driver alone would only say "db error".
fn answer(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}
