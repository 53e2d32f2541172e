//! Fencing: making sure that a node writes no more, or saying that it cannot be made sure.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    credentials::Login,
    node::NodeRecord,
    operation::Operation,
    process,
    server::{self, ServerError},
    sql::Session,
    standby::STATEMENT,
};

/// How long one attempt to connect may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two attempts.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why it is not certain that a node writes no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// Its processes can be neither stopped nor killed.
    #[error("{node} could not be stopped, so it may still be written to")]
    NotStopped {
        /// The node.
        node: String,
        /// The operating system's answer.
        source: ServerError,
    },
    /// Its processes are still there.
    #[error("{node} was stopped and killed, and processes of it are still there")]
    Alive {
        /// The node.
        node: String,
    },
    /// A server answers on its port that is, or may be, a primary with this node's data.
    #[error(
        "no process serves {node}'s data directory, but a server answers on its port {port}, and it may be this node's primary: find and stop it"
    )]
    Elsewhere {
        /// The node.
        node: String,
        /// The node's port.
        port: u16,
    },
}

impl Operation<'_> {
    /// Stops the node, cleanly if it can be, and proves that nobody serves its data or its port.
    pub(crate) async fn fence(&self, node: &NodeRecord) -> Result<(), FenceError> {
        let postmaster = process::postmaster(&node.data_dir);
        // A paused server that went on to stop cleanly would first end the commits that wait in it.
        let stopped = match &postmaster {
            Some(process) if !process.is_paused() => server::stop(&self.tools, node).await.is_ok(),
            _ => false,
        };
        if !stopped || process::is_served(&node.data_dir) {
            let killed = server::kill(node).await;
            killed.map_err(|source| FenceError::NotStopped { node: node.name.clone(), source })?;
        }
        if process::is_served(&node.data_dir) {
            return Err(FenceError::Alive { node: node.name.clone() });
        }
        self.check_port(node).await
    }

    /// Nobody may serve the node's data from elsewhere, where this machine's process table does not show it.
    async fn check_port(&self, node: &NodeRecord) -> Result<(), FenceError> {
        let superuser = self.passwords.credentials(Login::Superuser);
        let begun = Instant::now();
        loop {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).await.is_err() {
                return Ok(());
            }
            match Session::connect(node.port, &superuser, ATTEMPT).await {
                Ok(session) => {
                    let standby = session.value("ask for the role", "SELECT pg_is_in_recovery()", &[]).await;
                    if standby.is_ok_and(|standby: bool| standby) {
                        return Ok(());
                    }
                    return Err(FenceError::Elsewhere { node: node.name.clone(), port: node.port });
                }
                // A server with other passwords is not this cluster's.
                Err(error) if error.to_string().contains("SQLSTATE 28") => return Ok(()),
                // It may be one that is just starting.
                Err(_) if begun.elapsed() < STATEMENT => sleep(LOOK_AGAIN).await,
                Err(_) => return Err(FenceError::Elsewhere { node: node.name.clone(), port: node.port }),
            }
        }
    }
}
