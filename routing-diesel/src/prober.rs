//! The monitor's connections.

use futures_util::future::BoxFuture;
use routing_core::probe::{ProbeConnection, ProbeError, Prober, Row};
use routing_core::{Access, NodeConfig};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::backend::DieselOptions;
use crate::error::ConnectError;
use crate::fault::of_driver;
use crate::session::open;

/// Asks servers about themselves over tokio-postgres, on connections outside every pool.
#[derive(Clone, Debug, Default)]
pub struct DieselProber {
    options: DieselOptions,
}

impl DieselProber {
    /// A prober whose connections are opened as `options` say.
    #[must_use]
    pub fn new(options: DieselOptions) -> Self {
        Self { options }
    }
}

impl Prober for DieselProber {
    fn connect<'a>(
        &'a self,
        node: &'a NodeConfig,
    ) -> BoxFuture<'a, Result<Box<dyn ProbeConnection>, ProbeError>> {
        Box::pin(async move {
            let config = self.options.connect_options(node.probe_url()).map_err(|_| ProbeError::Driver {
                fault: None,
                message: "the driver cannot read the parameters of the node's URL".to_owned(),
            })?;
            let connecting =
                async { Ok::<_, ConnectError>(config.connect_raw(open(&config).await?, NoTls).await?) };
            let (client, connection) = connecting.await.map_err(|error| match error {
                ConnectError::Postgres(error) => failed(&error),
                other => ProbeError::Driver {
                    fault: Some(routing_core::Fault::Unreachable),
                    message: other.to_string(),
                },
            })?;
            let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            Ok(Box::new(PostgresProbe { client, driver }) as Box<dyn ProbeConnection>)
        })
    }
}

struct PostgresProbe {
    client: Client,
    driver: AbortHandle,
}

impl Drop for PostgresProbe {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl ProbeConnection for PostgresProbe {
    fn query<'a>(&'a mut self, sql: &'static str) -> BoxFuture<'a, Result<Row, ProbeError>> {
        Box::pin(async move {
            let answer = self.client.simple_query(sql).await.map_err(|error| failed(&error))?;
            let row = answer.into_iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let row = row.ok_or(ProbeError::Malformed("row"))?;
            Ok((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        })
    }
}

fn failed(error: &tokio_postgres::Error) -> ProbeError {
    // The driver's own text is "db error"; what the server said is in its source.
    let message = match error.as_db_error() {
        Some(said) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        None => error.to_string(),
    };
    ProbeError::Driver { fault: of_driver(error, Access::Read), message }
}
