//! One node's pools.

use std::sync::Arc;

use routing_core::probe::Prober;
use routing_core::sql::Classifier;
use routing_core::{
    Access, AutomaticBackend, Backend, ConfigError, Fault, Node, Passwords, PoolStatus, Position, Routed,
    RouterConfig, Straggler, Usage,
};
use tokio::time::Instant;

use crate::automatic::AutomaticHandle;
use crate::connection::Connection;
use crate::error::Error;
use crate::pool::{Pool, SqlxConnector};
use crate::position;
use crate::prober::SeaOrmProber;
use crate::read::ReadHandle;
use crate::target::Target;
use crate::write::WriteHandle;

/// SeaORM as the backend of a `Router`: a pool for reading, whose sessions are read-only on the server, and one for
/// writing, whose connections have verified that the server is writable.
#[derive(Debug)]
pub struct SeaOrm {
    read: Pool,
    write: Pool,
}

/// What an application may tell this backend.
#[derive(Clone, Debug, Default)]
pub struct SeaOrmOptions {
    /// The `application_name` of every connection, as `pg_stat_activity` shows it. Default: that of the URL.
    pub application_name: Option<String>,
    /// How many prepared statements each connection keeps. Default: sqlx's, 100. Not 0: sqlx then prepares each
    /// statement under a new name and never closes it.
    pub statement_cache_capacity: Option<usize>,
    /// What gives the password of each new connection. Default: those of the URLs.
    pub passwords: Option<Passwords>,
    /// The rules by which the automatic handle tells reads from writes. Default: those of
    /// [`classify`](routing_core::sql::classify). Functions of the application's own that lock, or work outside the database,
    /// belong in here: a standby would not refuse them.
    pub classifier: Classifier,
}

impl Backend for SeaOrm {
    type Connection = Connection;
    type Error = Error;
    type Options = SeaOrmOptions;
    type Read = ReadHandle;
    type Write = WriteHandle;

    fn open(node: &Arc<Node>, config: &RouterConfig, options: &SeaOrmOptions) -> Result<Self, ConfigError> {
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
        let pool = |access| Pool::new(node, access, SqlxConnector::new(target.clone(), access), config);
        Ok(Self { read: pool(Access::Read), write: pool(Access::Write) })
    }

    fn prober(_: &RouterConfig, options: &SeaOrmOptions) -> Arc<dyn Prober> {
        Arc::new(SeaOrmProber::new(options.clone()))
    }

    async fn checkout(&self, access: Access) -> Result<Connection, Error> {
        Ok(Connection::new(self.of(access).get().await?))
    }

    fn classify(error: &Error, access: Access) -> Option<Fault> {
        crate::fault::of_error(error, access)
    }

    fn usage(connection: &Connection) -> Usage {
        connection.usage()
    }

    fn diagnose(connection: &Connection, said: Option<Fault>) -> Option<Fault> {
        said.or(connection.is_lost().then_some(Fault::Unreachable))
    }

    fn is_unreplicated(connection: &Connection) -> bool {
        connection.session().is_unreplicated()
    }

    fn abandoned(connection: &mut Connection, straggler: Straggler) {
        connection.abandoned(straggler);
    }

    fn opened(connection: &Connection) -> Instant {
        connection.opened()
    }

    async fn begin(connection: &mut Connection, access: Access) -> Result<(), Error> {
        match access {
            Access::Read => connection.begin("BEGIN READ ONLY").await?,
            Access::Write => connection.begin_writing("BEGIN").await?,
        }
        Ok(())
    }

    async fn commit(connection: &mut Connection) -> Result<(), Error> {
        Ok(connection.commit().await?)
    }

    async fn rollback(connection: &mut Connection) -> Result<(), Error> {
        Ok(connection.finish("ROLLBACK").await?)
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

impl AutomaticBackend for SeaOrm {
    type Automatic = AutomaticHandle;

    fn automatic(routed: Routed<Self>) -> AutomaticHandle {
        AutomaticHandle::new(routed)
    }
}

impl SeaOrm {
    fn of(&self, access: Access) -> &Pool {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }
}
