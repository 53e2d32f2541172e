//! SQL to one node, past the router.

use routing_cluster::Credentials;
use tokio::task::JoinHandle;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Config, Error, NoTls};

/// One connection to one node. Dropping it closes it.
#[derive(Debug)]
pub struct Database {
    client: Client,
    driver: JoinHandle<()>,
}

impl Database {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// The driver's.
    pub async fn connect(port: u16, login: &Credentials) -> Result<Self, Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user(&login.user).password(&login.password);
        config.dbname(&login.database).application_name("routing-tests");
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // A lost connection shows in the statement that waits for it.
            let _ = connection.await;
        });
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

impl Drop for Database {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
