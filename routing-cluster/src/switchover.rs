//! Changing the primary on purpose: nothing is lost, and no commit is cut.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    change::{Change, ChangeKind},
    cluster::LocalCluster,
    condition::Condition,
    error::with_causes,
    handover::{REPLAY, WRITERS},
    layout::DirectoryError,
    node::NodeRecord,
    operation::{Operation, OperationError},
    process::{self, KillGuard},
    progress::Progress,
    promote::Promotion,
};

/// How long a replica may take to find its primary again.
const RECONNECTED: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why the primary was not changed, or not all of it was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchoverError {
    /// The node is the primary already.
    #[error("{node} already is the primary")]
    AlreadyPrimary {
        /// The node.
        node: String,
    },
    /// The node does not stream from the primary itself.
    #[error(
        "{node} does not stream from the primary {primary}, so it would lack writes: choose another replica, or `rejoin {node}` first"
    )]
    NotStreaming {
        /// The node.
        node: String,
        /// The primary.
        primary: String,
    },
    /// Transactions that write did not end.
    #[error("{writers} writing transactions on {primary} did not end within {} s: end them, then repeat; {primary} takes writes again", WRITERS.as_secs())]
    Writers {
        /// The primary.
        primary: String,
        /// How many there were.
        writers: i64,
    },
    /// The replica did not replay what the primary has written.
    #[error("{node} did not replay up to {position} within {} s: wait until its lag is small, then repeat; the old primary takes writes again", REPLAY.as_secs())]
    NotReplayed {
        /// The replica.
        node: String,
        /// The position that it did not reach.
        position: String,
    },
    /// The old primary did not end with a checkpoint.
    #[error("{primary} did not shut down cleanly (it reports: {state}): it is started again as the primary")]
    NotClean {
        /// The primary.
        primary: String,
        /// The state in its control file.
        state: String,
    },
    /// Going back has failed, too.
    #[error(
        "the switchover failed ({failure}), and {primary} does not take writes again: repeat the switchover, or run `up`"
    )]
    NotRestored {
        /// The primary.
        primary: String,
        /// Why the switchover failed.
        failure: String,
        /// Why going back failed.
        source: OperationError,
    },
    /// The promotion itself failed, after the old primary had stopped cleanly.
    #[error("the old primary has stopped, and nothing is lost: repeat the switchover, or go back with `up`")]
    Promotion(#[source] Box<OperationError>),
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl From<DirectoryError> for SwitchoverError {
    fn from(error: DirectoryError) -> SwitchoverError {
        SwitchoverError::Operation(error.into())
    }
}

impl LocalCluster {
    /// Makes a streaming replica the primary and the primary its replica; nothing is lost.
    ///
    /// New transactions become read-only first (`25006`), open ones that write get ten seconds to end. When the
    /// replica has replayed everything, the old primary stops (`57P01` for its sessions), the replica is seen
    /// to have its very last record, and is promoted. The old primary comes back as a replica.
    ///
    /// A transaction that declares itself `READ WRITE` is not held back; it is waited for like any that writes.
    ///
    /// # Errors
    ///
    /// When the node does not stream from the primary, a transaction does not end, or the replica does not keep up:
    /// then the old primary takes writes again. After the promotion, nodes that do not follow are no error: they are
    /// listed.
    ///
    /// # Cancel safety
    ///
    /// The state file knows each step before it is taken. A repeated call goes on; before the promotion
    /// itself, `up` goes back instead.
    pub async fn switchover(
        &self,
        node: &str,
        progress: &dyn Progress,
    ) -> Result<Promotion, SwitchoverError> {
        let mut operation = self.operation().await?;
        let target = operation.node(node).map_err(OperationError::from)?;
        let begun = Instant::now();
        let interrupted = operation.state.change.clone();
        operation.end_change(progress).await?;
        let resumed = interrupted.is_some_and(|change| change.to == node) && !target.starts_as_standby();
        let primary = if resumed {
            None
        } else {
            operation.start_primary(progress).await?;
            Some(operation.prepare(&target).await?)
        };
        if let Some(primary) = &primary {
            operation.hand_over(primary, &target, progress).await?;
            progress.step(&format!("promoting {node}"));
        }
        let timeline =
            operation.lift(&target).await.map_err(|error| SwitchoverError::Promotion(Box::new(error)))?;
        let unwritable = begun.elapsed();
        let unfollowed = operation.enthrone(&target, progress).await?;
        match &primary {
            Some(primary) => operation.demote(primary, &target, progress).await?,
            None => operation.take_back_deposed(&target, progress).await,
        }
        let deposed = operation.deposed();
        progress.finish(&operation.summary(node, timeline, &unfollowed));
        Ok(Promotion { primary: node.to_owned(), timeline, deposed, unfollowed, unwritable })
    }
}

impl Operation<'_> {
    /// Starts the primary that an interrupted switchover has stopped.
    async fn start_primary(&mut self, progress: &dyn Progress) -> Result<(), OperationError> {
        for node in self.other_primaries("") {
            if process::postmaster(&node.data_dir).is_none() {
                progress.step(&format!("starting {}", node.name));
                self.start(&node).await?;
            }
        }
        Ok(())
    }

    /// The primary, if the target streams from it.
    async fn prepare(&self, target: &NodeRecord) -> Result<NodeRecord, SwitchoverError> {
        let primary = self.primary().await?;
        if primary.name == target.name {
            return Err(SwitchoverError::AlreadyPrimary { node: target.name.clone() });
        }
        let begun = Instant::now();
        // A primary that was just started has to be found by its replicas first.
        while !self.streams(target, &primary).await? {
            if begun.elapsed() > RECONNECTED {
                return Err(SwitchoverError::NotStreaming {
                    node: target.name.clone(),
                    primary: primary.name,
                });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(primary)
    }

    /// Ends the old primary so that the target has everything; goes back when that fails.
    async fn hand_over(
        &mut self,
        primary: &NodeRecord,
        target: &NodeRecord,
        progress: &dyn Progress,
    ) -> Result<(), SwitchoverError> {
        let (from, to) = (vec![primary.name.clone()], target.name.clone());
        self.state.change = Some(Change { kind: ChangeKind::Switchover, from, to, lifting: false });
        self.save()?;
        let Err(failure) = self.silence(primary, target, progress).await else { return Ok(()) };
        progress.step(&format!("going back: {} remains the primary", primary.name));
        let restored = async {
            self.end_change(progress).await?;
            self.start_primary(progress).await
        };
        match restored.await {
            Ok(()) => Err(failure),
            Err(source) => {
                let failure = with_causes(&failure);
                Err(SwitchoverError::NotRestored { primary: primary.name.clone(), failure, source })
            }
        }
    }

    /// Starts the cleanly stopped old primary as a replica; when that fails it remains deposed.
    async fn demote(
        &mut self,
        old: &NodeRecord,
        primary: &NodeRecord,
        progress: &dyn Progress,
    ) -> Result<(), OperationError> {
        progress.step(&format!("starting {} as a replica", old.name));
        let mut guard = KillGuard::default();
        guard.watch(old.data_dir.clone());
        let started = async {
            self.become_standby(old, primary)?;
            self.keep_slot(old, primary).await?;
            self.launch(old).await?;
            Ok::<_, OperationError>(self.provision().streaming(old, primary).await?)
        };
        if let Err(error) = started.await {
            progress.step(&format!("{} does not follow: {}", old.name, with_causes(&error)));
            return Ok(());
        }
        guard.disarm();
        self.state.set_condition(&old.name, Condition::Sound);
        self.save()?;
        self.drop_old_slots(primary).await
    }

    /// What an interrupted switchover has left undone; whoever cannot rejoin remains deposed, and is listed.
    async fn take_back_deposed(&mut self, primary: &NodeRecord, progress: &dyn Progress) {
        for name in self.deposed() {
            let Ok(node) = self.node(&name) else { continue };
            if let Err(error) = self.rejoin(&node, primary, false, progress).await {
                progress.step(&format!("{name} does not follow: {}", with_causes(&error)));
            }
        }
    }
}
