//! Servers that come and go without a restart.

use std::io;

use routing_core::{Cluster, MembershipChange, MembershipError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::database::{DatabaseError, Source};

/// Reads the list of servers again at each SIGHUP, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Reloading(JoinHandle<()>);

/// Why the servers stay as they are.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("the list of servers cannot be read")]
    Read(#[from] DatabaseError),
    #[error("the list of servers was refused")]
    Refused(#[from] MembershipError),
}

impl Reloading {
    /// Begins to listen for SIGHUP.
    ///
    /// # Errors
    /// When the signal cannot be received.
    pub(crate) fn start(cluster: &Cluster, source: Source) -> io::Result<Self> {
        let mut hangups = signal(SignalKind::hangup())?;
        let cluster = cluster.clone();
        Ok(Self(tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                match reload(&cluster, &source).await {
                    Ok(change) if change.is_empty() => tracing::info!("read again: nothing changed"),
                    Ok(change) => tracing::info!(?change, "read again"),
                    Err(error) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "everything stays as it was"
                        );
                    }
                }
            }
        })))
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn reload(cluster: &Cluster, source: &Source) -> Result<MembershipChange, ReloadError> {
    Ok(cluster.reload(source.read().await?)?)
}
