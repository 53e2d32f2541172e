//! The monitor's connections.

use futures_util::future::BoxFuture;
use routing_core::probe::{ProbeConnection, ProbeError, Prober, Row};
use routing_core::{Access, NodeConfig};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::backend::SeaOrmOptions;
use crate::fault::of_driver;
use crate::target::Target;

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
            let target = Target::new(node.probe_url(), &self.options)
                .map_err(|error| ProbeError::Driver { fault: None, message: error.to_string() })?;
            let connection = target.connect().await.map_err(|error| ProbeError::Driver {
                fault: of_driver(&error, Access::Read),
                message: target.describe(&error),
            })?;
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
