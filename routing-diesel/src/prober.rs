//! The monitor's connections.

use futures_util::future::BoxFuture;
use routing_core::probe::{ProbeConnection, ProbeError, Prober, Row};
use routing_core::{Access, NodeConfig};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::backend::DieselOptions;
use crate::error::words;
use crate::fault::{of_connect, of_driver};
use crate::target::Target;

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
            let target = Target::new(node.probe_url(), &self.options)
                .map_err(|error| ProbeError::Driver { fault: None, message: error.to_string() })?;
            let (client, connection, ()) =
                target.connect(|stream| (stream, ())).await.map_err(|error| ProbeError::Driver {
                    fault: of_connect(&error, Access::Read),
                    message: target.describe(&error),
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
    ProbeError::Driver { fault: of_driver(error, Access::Read), message: words(error) }
}
