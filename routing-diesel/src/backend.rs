//! One node's pools.

use std::sync::Arc;

use routing_core::probe::Prober;
use routing_core::{
    Access, Backend, ConfigError, DatabaseUrl, Fault, Node, PoolStatus, Position, Routed, RouterConfig, Usage,
};
use tokio::time::Instant;
use tokio_postgres::Config;

use crate::begin;
use crate::connection::Connection;
use crate::error::Error;
use crate::pool::{DieselConnector, Pool};
use crate::position;
use crate::prober::DieselProber;
use crate::read::ReadHandle;
use crate::transaction;
use crate::write::WriteHandle;

/// diesel-async as the backend of a `Router`: a pool for reading, whose sessions are read-only on the server, and one
/// for writing, whose connections have verified that the server is writable.
#[derive(Debug)]
pub struct Diesel {
    read: Pool,
    write: Pool,
}

/// What an application may tell this backend.
#[derive(Clone, Debug, Default)]
pub struct DieselOptions {
    /// The `application_name` of every connection, as `pg_stat_activity` shows it. Default: that of the URL.
    pub application_name: Option<String>,
}

impl DieselOptions {
    /// A URL and these options as tokio-postgres takes them.
    pub(crate) fn connect_options(&self, url: &DatabaseUrl) -> Result<Config, tokio_postgres::Error> {
        let mut config: Config = url.expose().parse()?;
        if let Some(name) = &self.application_name {
            config.application_name(name);
        }
        Ok(config)
    }
}

impl Backend for Diesel {
    type Connection = Connection;
    type Error = Error;
    type Options = DieselOptions;
    type Read = ReadHandle;
    type Write = WriteHandle;

    fn open(node: &Arc<Node>, config: &RouterConfig, options: &DieselOptions) -> Result<Self, ConfigError> {
        // The driver's words may repeat a part of the URL, so they are not passed on.
        let connect = options.connect_options(&node.config().url).map_err(|_| ConfigError::Backend {
            node: node.name().to_owned(),
            message: "the driver cannot read the parameters of its URL".to_owned(),
        })?;
        let pool = |access| Pool::new(node, access, DieselConnector::new(connect.clone(), access), config);
        Ok(Self { read: pool(Access::Read), write: pool(Access::Write) })
    }

    fn prober(_: &RouterConfig, options: &DieselOptions) -> Arc<dyn Prober> {
        Arc::new(DieselProber::new(options.clone()))
    }

    async fn checkout(&self, access: Access) -> Result<Connection, Error> {
        Ok(Connection::new(self.of(access).get().await?, access))
    }

    fn classify(error: &Error, access: Access) -> Option<Fault> {
        crate::fault::of_error(error, access)
    }

    fn usage(connection: &Connection) -> Usage {
        connection.usage()
    }

    fn diagnose(connection: &Connection, said: Option<Fault>) -> Option<Fault> {
        connection.diagnose(said)
    }

    fn finished(connection: &mut Connection) {
        connection.set_finished();
    }

    async fn complete(connection: &mut Connection) -> Result<(), Error> {
        Ok(connection.complete().await?)
    }

    fn opened(connection: &Connection) -> Instant {
        connection.opened()
    }

    fn is_untouched(connection: &Connection) -> bool {
        connection.is_untouched()
    }

    async fn begin(connection: &mut Connection, access: Access) -> Result<(), Error> {
        Ok(begin::begin(connection, access).await?)
    }

    async fn commit(connection: &mut Connection) -> Result<(), Error> {
        Ok(transaction::commit(connection).await?)
    }

    async fn rollback(connection: &mut Connection) -> Result<(), Error> {
        Ok(transaction::rollback(connection).await?)
    }

    async fn position(connection: &mut Connection, sql: &'static str) -> Result<Position, Error> {
        Ok(position::position(connection, sql).await?)
    }

    fn read(routed: Routed<Self>) -> ReadHandle {
        ReadHandle::new(routed)
    }

    fn write(routed: Routed<Self>) -> WriteHandle {
        WriteHandle::new(routed)
    }

    fn pool(&self, access: Access) -> PoolStatus {
        self.of(access).status()
    }

    fn retire(&self, access: Access) {
        self.of(access).retire();
    }

    fn close(&self) {
        self.read.close();
        self.write.close();
    }
}

impl Diesel {
    fn of(&self, access: Access) -> &Pool {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }
}
