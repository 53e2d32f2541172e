//! Pools of the servers in memory.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::cluster::FakeCluster;
use super::connection::FakeConnection;
use super::server::FakeServer;
use crate::backend::{Backend, Failure, PoolStatus, Usage};
use crate::config::RouterConfig;
use crate::config_error::ConfigError;
use crate::decision::Access;
use crate::error::{CommitUnknown, RouteError};
use crate::fault::Fault;
use crate::lsn::{Position, Timeline};
use crate::node::Node;
use crate::probe::Prober;
use crate::routed::Routed;
use crate::straggler::Straggler;

/// The pools of one server in memory.
#[derive(Debug)]
pub struct FakeBackend {
    server: Arc<FakeServer>,
    read: Arc<Semaphore>,
    write: Arc<Semaphore>,
    sizes: (u32, u32),
    checkout_timeout: Duration,
}

/// What goes wrong in memory.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FakeError {
    /// The router's.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A lost write.
    #[error(transparent)]
    CommitUnknown(#[from] CommitUnknown),
    /// The server's, with what it says about the node.
    #[error("the server fails with {0}")]
    Fault(Fault),
    /// The statement's own error: it says nothing about the node.
    #[error("the statement fails")]
    Statement,
}

/// What a test gets as a handle: the routed request itself.
#[derive(Debug)]
pub struct FakeHandle(pub Routed<FakeBackend>);

/// Counts a connection for as long as it is being opened.
struct Opening<'a>(&'a FakeServer);

impl<'a> Opening<'a> {
    fn new(server: &'a FakeServer) -> Self {
        let now = server.opening.fetch_add(1, SeqCst) + 1;
        server.most_opening.fetch_max(now, SeqCst);
        Self(server)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, SeqCst);
    }
}

impl Backend for FakeBackend {
    type Connection = FakeConnection;
    type Error = FakeError;
    type Options = FakeCluster;
    type Read = FakeHandle;
    type Write = FakeHandle;

    fn open(node: &Arc<Node>, config: &RouterConfig, options: &FakeCluster) -> Result<Self, ConfigError> {
        let server = options.find(node.name()).ok_or_else(|| ConfigError::Backend {
            node: node.name().to_owned(),
            message: "there is no such server".to_owned(),
        })?;
        server.opened.fetch_add(1, SeqCst);
        let semaphore = |size: u32| Arc::new(Semaphore::new(size as usize));
        Ok(Self {
            server: server.clone(),
            read: semaphore(config.read_pool_size),
            write: semaphore(config.write_pool_size),
            sizes: (config.read_pool_size, config.write_pool_size),
            checkout_timeout: config.checkout_timeout,
        })
    }

    fn prober(_: &RouterConfig, options: &FakeCluster) -> Arc<dyn Prober> {
        Arc::new(options.clone())
    }

    async fn checkout(&self, access: Access) -> Result<FakeConnection, FakeError> {
        let wait = self.checkout_timeout.mul_f64(0.75);
        let permit = match tokio::time::timeout(wait, self.of(access).clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(FakeError::Fault(Fault::Unreachable)),
            Err(_) => return Err(FakeError::Fault(Fault::Saturated)),
        };
        let _opening = Opening::new(&self.server);
        self.server.asked.fetch_add(1, SeqCst);
        let connect = self.server.state().connect;
        if !connect.is_zero() {
            tokio::time::sleep(connect).await;
        }
        if !self.server.answers().await {
            return Err(FakeError::Fault(Fault::Unreachable));
        }
        let one_less = |left: u32| left.checked_sub(1);
        if self.server.refusals_left.fetch_update(SeqCst, SeqCst, one_less).is_ok() {
            return Err(FakeError::Fault(Fault::Refusing));
        }
        let writable = {
            let state = self.server.state();
            state.primary && !state.read_only
        };
        if access == Access::Write && !writable {
            return Err(FakeError::Fault(Fault::NotPrimary));
        }
        self.server.connections.fetch_add(1, SeqCst);
        let (busy, lost) = (AtomicBool::new(false), AtomicBool::new(false));
        let life = self.server.life();
        let (began, straggler, permit) = (Mutex::new(Instant::now()), None, Some(permit));
        let server = self.server.clone();
        Ok(FakeConnection { server, life, access, busy, began, straggler, lost, permit })
    }

    fn classify(error: &FakeError, _: Access) -> Option<Fault> {
        match error {
            FakeError::Fault(fault) => Some(*fault),
            FakeError::Route(_) | FakeError::CommitUnknown(_) | FakeError::Statement => None,
        }
    }

    fn usage(connection: &FakeConnection) -> Usage {
        if connection.lost.load(SeqCst) {
            Usage::Failed(Fault::Unreachable)
        } else if connection.busy.load(SeqCst) {
            Usage::Abandoned
        } else {
            Usage::Answered
        }
    }

    fn abandoned(connection: &mut FakeConnection, straggler: Straggler) {
        connection.straggler = Some(straggler);
    }

    fn opened(connection: &FakeConnection) -> Instant {
        connection.server.started()
    }

    async fn begin(connection: &mut FakeConnection, _: Access) -> Result<(), FakeError> {
        connection.statement(|_| Ok(())).await
    }

    async fn commit(connection: &mut FakeConnection) -> Result<(), FakeError> {
        connection.statement(|_| Ok(())).await
    }

    async fn position(connection: &mut FakeConnection, _: &'static str) -> Result<Position, FakeError> {
        connection
            .statement(|server| {
                let lsn = server.lsn();
                let state = server.state();
                let position = Position { timeline: Timeline(state.timeline), lsn };
                if state.primary { Ok(position) } else { Err(FakeError::Statement) }
            })
            .await
    }

    async fn rollback(connection: &mut FakeConnection) -> Result<(), FakeError> {
        connection.statement(|_| Ok(())).await
    }

    fn read(routed: Routed<Self>) -> FakeHandle {
        FakeHandle(routed)
    }

    fn write(routed: Routed<Self>) -> FakeHandle {
        FakeHandle(routed)
    }

    fn pool(&self, access: Access) -> PoolStatus {
        let max = match access {
            Access::Read => self.sizes.0,
            Access::Write => self.sizes.1,
        } as usize;
        let idle = self.of(access).available_permits();
        PoolStatus { max, open: max - idle, idle: 0, waiting: 0 }
    }

    fn retire(&self, access: Access) {
        self.server.retired[access as usize].fetch_add(1, SeqCst);
    }

    fn close(&self) {
        self.server.closed.fetch_add(1, SeqCst);
        self.read.close();
        self.write.close();
    }
}

impl FakeBackend {
    fn of(&self, access: Access) -> &Arc<Semaphore> {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }
}

impl Failure<FakeBackend> for FakeError {
    fn fault(&self, access: Access) -> Option<Fault> {
        FakeBackend::classify(self, access)
    }
}
