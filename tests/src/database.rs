//! SQL to one node, past the router.

use std::path::Path;
use std::sync::Arc;

use routing_cluster::Credentials;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// One connection to one node. Dropping it closes it.
#[derive(Debug)]
pub struct Database {
    client: Client,
    driver: JoinHandle<()>,
}

impl Database {
    /// Connects to a port of this machine, over TLS if the login says by whose certificate.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Panics
    /// When the login's root certificate cannot be read.
    pub async fn connect(port: u16, login: &Credentials) -> Result<Self, Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user(&login.user).password(&login.password);
        config.dbname(&login.database).application_name("routing-tests");
        // A lost connection shows in the statement that waits for it.
        let (client, driver) = if let Some(root) = &login.root_certificate {
            config.ssl_mode(SslMode::Require);
            let (client, connection) = config.connect(verified_by(root)).await?;
            (client, tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (client, connection) = config.connect(NoTls).await?;
            (client, tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Self { client, driver })
    }

    /// Runs statements that return nothing.
    ///
    /// # Errors
    /// The server's.
    pub async fn run(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await
    }

    /// The first column of the only row.
    ///
    /// # Errors
    /// The server's.
    pub async fn value<T: FromSqlOwned>(&self, sql: &str) -> Result<T, Error> {
        self.client.query_one(sql, &[]).await?.try_get(0)
    }
}

fn verified_by(root: &Path) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(root).expect("the authority's certificate");
    roots.add(certificate).expect("a certificate of an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's versions");
    MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth())
}

impl Drop for Database {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
