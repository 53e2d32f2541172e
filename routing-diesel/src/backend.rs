//! One node's pools.

use std::sync::Arc;

use routing_core::probe::Prober;
use routing_core::{
    Access, Backend, ConfigError, Fault, Node, Passwords, PoolStatus, Position, Routed, RouterConfig,
    Straggler, Usage,
};
use tokio::time::Instant;

use crate::begin;
use crate::connection::Connection;
use crate::error::Error;
use crate::pool::{DieselConnector, Pool};
use crate::position;
use crate::prober::DieselProber;
use crate::read::ReadHandle;
use crate::target::Target;
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
    /// What gives the password of each new connection. Default: those of the URLs.
    pub passwords: Option<Passwords>,
}

impl Backend for Diesel {
    type Connection = Connection;
    type Error = Error;
    type Options = DieselOptions;
    type Read = ReadHandle;
    type Write = WriteHandle;

    fn open(node: &Arc<Node>, config: &RouterConfig, options: &DieselOptions) -> Result<Self, ConfigError> {
        let usable = |url| {
            let target = Target::new(url, options).and_then(|target| target.check().map(|()| target));
            target.map_err(|error| ConfigError::Backend {
                node: node.name().to_owned(),
                message: error.to_string(),
            })
        };
        let target = usable(&node.config().url)?;
        usable(node.config().probe_url())?;
        target.tls().warn_if_unchosen(node.name(), &node.config().url);
        let pool = |access| Pool::new(node, access, DieselConnector::new(target.clone(), access), config);
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

    fn abandoned(connection: &mut Connection, straggler: Straggler) {
        connection.abandoned(straggler);
    }

    async fn complete(connection: &mut Connection) -> Result<(), Error> {
        Ok(connection.complete().await?)
    }

    fn is_unreplicated(connection: &Connection) -> bool {
        connection.wire().is_unreplicated()
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
