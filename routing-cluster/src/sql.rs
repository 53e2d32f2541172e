//! SQL to one node, over loopback, every step with a deadline.

use std::{error::Error, io, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Config, NoTls, Row,
    config::SslMode,
    types::{FromSql, ToSql},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{credentials::Credentials, error::with_causes};

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
        let refused = |answer| SqlError::Connect { port, user: login.user.clone(), answer };
        // A lost connection shows itself in the statement that waits for it.
        let connecting = async {
            match &login.root_certificate {
                Some(file) => {
                    let tls = verified_by(file).map_err(|error| refused(error.to_string()))?;
                    config.ssl_mode(SslMode::Require);
                    let (client, connection) =
                        config.connect(tls).await.map_err(|error| refused(answer(&error)))?;
                    Ok((client, tokio::spawn(async move { drop(connection.await) })))
                }
                None => {
                    let (client, connection) =
                        config.connect(NoTls).await.map_err(|error| refused(answer(&error)))?;
                    Ok((client, tokio::spawn(async move { drop(connection.await) })))
                }
            }
        };
        let connected = timeout(deadline, connecting).await;
        let (client, driver) = connected.map_err(|_| SqlError::Silent { doing: "connect", deadline })??;
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

/// TLS to servers with a certificate of this authority, for the address that was connected to.
fn verified_by(file: &Path) -> io::Result<MakeRustlsConnect> {
    let unreadable = |error: &dyn Error| {
        let problem = format!("the root certificate {} cannot be read: {error}", file.display());
        io::Error::new(io::ErrorKind::InvalidData, problem)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The server's own words where there are any: the driver alone would only say "db error".
fn answer(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => with_causes(error),
    }
}
