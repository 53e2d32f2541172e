//! The monitor's connections.

use futures_util::future::BoxFuture;
use routing_core::probe::{ProbeConnection, ProbeError, Prober, Row};
use routing_core::{Access, NodeConfig};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use crate::backend::SeaOrmOptions;
use crate::fault::of_driver;

/// Asks servers about themselves over sqlx, on connections outside every pool.
#[derive(Clone, Debug, Default)]
pub struct SeaOrmProber {
    options: SeaOrmOptions,
}

impl SeaOrmProber {
    /// A prober whose connections are opened as `options` say.
    #[must_use]
    pub fn new(options: SeaOrmOptions) -> Self {
        Self { options }
    }
}

impl Prober for SeaOrmProber {
    fn connect<'a>(
        &'a self,
        node: &'a NodeConfig,
    ) -> BoxFuture<'a, Result<Box<dyn ProbeConnection>, ProbeError>> {
        Box::pin(async move {
            let options = self.options.connect_options(node.probe_url()).map_err(|_| ProbeError::Driver {
                fault: None,
                message: "the driver cannot read the parameters of the node's URL".to_owned(),
            })?;
            let connection = PgConnection::connect_with(&options).await.map_err(|error| failed(&error))?;
            Ok(Box::new(SqlxProbe(connection)) as Box<dyn ProbeConnection>)
        })
    }
}

struct SqlxProbe(PgConnection);

impl ProbeConnection for SqlxProbe {
    fn query<'a>(&'a mut self, sql: &'static str) -> BoxFuture<'a, Result<Row, ProbeError>> {
        Box::pin(async move {
            let row = sqlx::query(sql).fetch_one(&mut self.0).await.map_err(|error| failed(&error))?;
            (0..row.len()).map(|column| row.try_get(column).map_err(|error| failed(&error))).collect()
        })
    }
}

fn failed(error: &sqlx::Error) -> ProbeError {
    ProbeError::Driver { fault: of_driver(error, Access::Read), message: error.to_string() }
}
