//! The router's seam to the simulated servers. Pools and the opening of connections are the real ones.

use std::sync::Arc;

use routing_core::pool::{CheckoutError, Pool};
use routing_core::probe::Prober;
use routing_core::{
    Access, Backend, CommitUnknown, ConfigError, Failure, Fault, Lsn, Node, PoolStatus, Position, RouteError,
    Routed, RouterConfig, Timeline, Usage,
};
use tokio::time::Instant;

use super::connection::{Connection, Dialer};
use super::prober::Monitor;
use super::world::Sim;

/// Which instance of the application it is.
#[derive(Clone, Default)]
pub(crate) struct Site {
    /// `None` in the default, which nothing uses.
    pub(crate) sim: Option<Arc<Sim>>,
    pub(crate) instance: usize,
}

/// One server's pools in one instance.
pub(crate) struct Simulated {
    read: Pool<Dialer>,
    write: Pool<Dialer>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum SimError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    CommitUnknown(#[from] CommitUnknown),
    #[error("the server fails with {0}")]
    Fault(Fault),
}

impl From<Fault> for SimError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl SimError {
    /// One word, for traces.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Route(error) => error.code(),
            Self::CommitUnknown(_) => "commit_unknown",
            Self::Fault(fault) => fault.as_str(),
        }
    }
}

impl Failure<Simulated> for SimError {
    fn fault(&self, access: Access) -> Option<Fault> {
        Simulated::classify(self, access)
    }
}

/// The servers are named pg1, pg2 and so on.
pub(crate) fn index(name: &str) -> usize {
    name.trim_start_matches("pg").parse::<usize>().map_or(0, |number| number - 1)
}

impl Backend for Simulated {
    type Connection = Connection;
    type Error = SimError;
    type Options = Site;
    type Read = Routed<Self>;
    type Write = Routed<Self>;

    fn open(node: &Arc<Node>, config: &RouterConfig, site: &Site) -> Result<Self, ConfigError> {
        let Some(sim) = site.sim.clone() else {
            let message = "there is no simulation".to_owned();
            return Err(ConfigError::Backend { node: node.name().to_owned(), message });
        };
        let pool = |access| {
            let (sim, server) = (sim.clone(), index(node.name()));
            Pool::new(node, access, Dialer { sim, instance: site.instance, server, access }, config)
        };
        Ok(Self { read: pool(Access::Read), write: pool(Access::Write) })
    }

    fn prober(_: &RouterConfig, site: &Site) -> Arc<dyn Prober> {
        Arc::new(Monitor(site.clone()))
    }

    async fn checkout(&self, access: Access) -> Result<Connection, SimError> {
        let checkout = self.of(access).get().await;
        let pooled = checkout.map_err(|error| match error {
            CheckoutError::Saturated => Fault::Saturated,
            CheckoutError::Unresponsive => Fault::Unresponsive,
            CheckoutError::Driver(fault) => fault,
            _ => Fault::Unreachable,
        })?;
        Ok(Connection::new(pooled, access))
    }

    fn classify(error: &SimError, _: Access) -> Option<Fault> {
        match error {
            SimError::Fault(fault) => Some(*fault),
            SimError::Route(_) | SimError::CommitUnknown(_) => None,
        }
    }

    fn usage(connection: &Connection) -> Usage {
        match connection.lost {
            Some(fault) => Usage::Failed(fault),
            None if connection.busy => Usage::Abandoned,
            None => Usage::Answered,
        }
    }

    fn opened(connection: &Connection) -> Instant {
        connection.opened()
    }

    async fn begin(connection: &mut Connection, _: Access) -> Result<(), SimError> {
        Ok(connection.begin().await?)
    }

    async fn commit(connection: &mut Connection) -> Result<(), SimError> {
        Ok(connection.commit().await?)
    }

    async fn rollback(connection: &mut Connection) -> Result<(), SimError> {
        Ok(connection.roll_back().await?)
    }

    async fn position(connection: &mut Connection, _: &'static str) -> Result<Position, SimError> {
        let place = connection.position().await?;
        let world = connection.wire().sim.world();
        let (timeline, lsn) = (world.history.timeline(place), world.history.lsn(place));
        Ok(Position { timeline: Timeline(timeline), lsn: Lsn::from(lsn) })
    }

    fn read(routed: Routed<Self>) -> Routed<Self> {
        routed
    }

    fn write(routed: Routed<Self>) -> Routed<Self> {
        routed
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

impl Simulated {
    fn of(&self, access: Access) -> &Pool<Dialer> {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }
}
