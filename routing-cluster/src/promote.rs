//! Making a replica the primary, after the old primary has been fenced.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    change::{Change, ChangeKind},
    cluster::LocalCluster,
    condition::Condition,
    fence::FenceError,
    follow::{Unfollowed, timeline},
    layout::DirectoryError,
    node::NodeRecord,
    operation::{Operation, OperationError, asked},
    process,
    progress::Progress,
    server,
    sync::SyncMode,
};

/// How long a promotion may take: it replays what was received, and flushes.
pub(crate) const PROMOTION_SECONDS: i32 = 60;
/// The server is given this much longer than the deadline it was told, to report it itself.
const GRACE: Duration = Duration::from_secs(5);

/// A change of the primary that has succeeded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Promotion {
    /// The new primary.
    pub primary: String,
    /// The timeline that it writes.
    pub timeline: i32,
    /// Nodes that were primaries and need `rejoin`.
    pub deposed: Vec<String>,
    /// Replicas that do not follow the new primary yet.
    pub unfollowed: Vec<Unfollowed>,
    /// How long no node took writes: from the first step against the old primary to a write on the new one.
    pub unwritable: Duration,
}

/// Why no replica was promoted, or not all of it was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PromoteError {
    /// The node is the primary already.
    #[error("{node} already is the primary")]
    AlreadyPrimary {
        /// The node.
        node: String,
    },
    /// The node is not a replica that could be promoted.
    #[error("{node} cannot be promoted: {remedy}")]
    Unfit {
        /// The node.
        node: String,
        /// What it is, and what to do.
        remedy: String,
    },
    /// It is not certain that the old primary takes no more writes.
    #[error(
        "{node} was not promoted: with two primaries, writes would be lost; `--force` promotes it all the same"
    )]
    Unfenced {
        /// The node that was to be promoted.
        node: String,
        /// Why it is not certain.
        source: FenceError,
    },
    /// The primary runs, and the node does not stream from it.
    #[error(
        "{node} was not promoted: it does not stream while the primary {primary} runs, so it lacks writes; `rejoin {node}` first, or lose them with `--force`"
    )]
    NotStreaming {
        /// The node that was to be promoted.
        node: String,
        /// The running primary.
        primary: String,
    },
    /// Another replica has more of the old primary's WAL.
    #[error(
        "{node} was not promoted: {better} has {bytes} bytes of WAL that {node} lacks; `promote {better}`, or lose them with `--force`"
    )]
    Behind {
        /// The node that was to be promoted.
        node: String,
        /// The replica that would lose the least.
        better: String,
        /// How much it is ahead, in bytes.
        bytes: u64,
    },
    /// The old primary ended cleanly, and the node lacks its last writes.
    #[error(
        "{node} was not promoted: {primary} ended cleanly at {end}, and {node} lacks what comes before; go back with `up`, or lose it with `--force`"
    )]
    LacksEnd {
        /// The node that was to be promoted.
        node: String,
        /// The old primary, which has stopped.
        primary: String,
        /// Where its last checkpoint stands.
        end: String,
    },
    /// A step that several operations share failed.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl From<DirectoryError> for PromoteError {
    fn from(error: DirectoryError) -> PromoteError {
        PromoteError::Operation(error.into())
    }
}

impl LocalCluster {
    /// Makes a running replica the primary, and the other replicas follow it.
    ///
    /// The old primary is fenced first: stopped cleanly; killed when that fails or when it is paused; and seen to be
    /// gone. It does not start again before `rejoin`. `force` promotes although that is not certain, and although the
    /// node lacks writes that another one has.
    ///
    /// # Errors
    ///
    /// Before the promotion: the node is no running replica, it lacks writes that a running primary or another
    /// replica has, or the old primary may still be alive. Afterwards: a step that a repeated call goes on with.
    ///
    /// # Cancel safety
    ///
    /// The state file knows each step before it is taken. A repeated call goes on; before the promotion
    /// itself, `up` goes back instead.
    pub async fn promote(
        &self,
        node: &str,
        force: bool,
        progress: &dyn Progress,
    ) -> Result<Promotion, PromoteError> {
        let mut operation = self.operation().await?;
        let target = operation.node(node).map_err(OperationError::from)?;
        if operation.state.change.as_ref().is_some_and(|change| change.lifting && change.to != node) {
            // Another node may be on its way out of recovery, and must be seen as the primary that it becomes.
            operation.end_change(progress).await?;
        }
        let condition = operation.state.condition(node);
        if let Some(remedy) = condition.remedy(node).filter(|_| !condition.may_start()) {
            return Err(PromoteError::Unfit { node: node.to_owned(), remedy });
        }
        let standby = operation.is_standby(&target).await?;
        let old = operation.other_primaries(node);
        if !standby && old.is_empty() && operation.state.change.is_none() {
            return Err(PromoteError::AlreadyPrimary { node: node.to_owned() });
        }
        if standby && !force {
            operation.check_complete(&target, &old).await?;
        }
        let begun = Instant::now();
        operation.depose(&target, &old, force, progress).await?;
        if standby {
            if !force {
                operation.settle(&target).await?;
                operation.check_furthest(&target).await?;
                operation.check_end(&target).await?;
            }
            progress.step(&format!("promoting {node}"));
        }
        let timeline = operation.lift(&target).await?;
        let unwritable = begun.elapsed();
        let unfollowed = operation.enthrone(&target, progress).await?;
        let deposed = operation.deposed();
        progress.finish(&operation.summary(node, timeline, &unfollowed));
        Ok(Promotion { primary: node.to_owned(), timeline, deposed, unfollowed, unwritable })
    }
}

impl Operation<'_> {
    /// What a person is told at the end.
    pub(crate) fn summary(&self, node: &str, timeline: i32, unfollowed: &[Unfollowed]) -> String {
        let mut text = format!("{node} is the primary, on timeline {timeline}");
        let deposed = self.deposed();
        for node in &deposed {
            text.push_str(&format!("\n{node} is deposed: `rejoin {node}` makes it a replica"));
        }
        for Unfollowed { node, why, .. } in unfollowed {
            text.push_str(&format!("\n{node} does not follow yet: {why}"));
        }
        if self.state.sync != SyncMode::Off && deposed.len() + unfollowed.len() + 1 >= self.nodes().len() {
            text.push_str("\nCOMMITS WAIT until a replica streams: bring one back, or `up --sync off`");
        }
        text
    }

    /// Every node beside `name` that is, or could start as, a primary.
    pub(crate) fn other_primaries(&self, name: &str) -> Vec<NodeRecord> {
        let fenced = |node: &NodeRecord| {
            !self.state.condition(&node.name).may_start() && !process::is_served(&node.data_dir)
        };
        let others = self.nodes().into_iter().filter(|node| node.name != name);
        others.filter(|node| !node.starts_as_standby() && !fenced(node)).collect()
    }

    pub(crate) fn deposed(&self) -> Vec<String> {
        let deposed = self.state.nodes.iter().filter(|node| node.condition == Condition::Deposed);
        deposed.map(|node| node.name.clone()).collect()
    }

    /// Writes down who is to be the primary and who no longer is, and fences those.
    async fn depose(
        &mut self,
        target: &NodeRecord,
        old: &[NodeRecord],
        force: bool,
        progress: &dyn Progress,
    ) -> Result<(), PromoteError> {
        let before = self.state.clone();
        // A repeated call finds those fenced that the interrupted one has deposed.
        let (mut from, lifting) = match &before.change {
            Some(change) => (change.from.clone(), change.lifting && change.to == target.name),
            None => (Vec::new(), false),
        };
        from.extend(old.iter().map(|node| node.name.clone()));
        from.retain(|name| *name != target.name);
        self.state.change =
            Some(Change { kind: ChangeKind::Promotion, from, to: target.name.clone(), lifting });
        for node in old {
            self.state.set_condition(&node.name, Condition::Deposed);
        }
        self.save()?;
        if old.len() > 1 {
            // Where only one of several were left for a moment, clients that refuse to choose would take that one.
            for node in old {
                let _ = server::pause(node).await;
            }
        }
        for node in old {
            progress.step(&format!("fencing {}", node.name));
            match self.fence(node).await {
                Ok(()) => {}
                Err(error) if force => progress.step(&format!(
                    "DANGER: {error}. Two primaries may take writes from now on, and one side's writes will be lost"
                )),
                Err(source) => {
                    // Nothing was promoted, so whatever still runs is what it was.
                    self.state = before;
                    self.save()?;
                    for node in old {
                        let _ = server::resume(node).await;
                    }
                    return Err(PromoteError::Unfenced { node: target.name.clone(), source });
                }
            }
        }
        Ok(())
    }

    /// Ends the target's recovery, if it still is in it, and sees it take a write; returns its timeline.
    pub(crate) async fn lift(&mut self, target: &NodeRecord) -> Result<i32, OperationError> {
        if let Some(change) = &mut self.state.change {
            change.lifting = true;
            self.save()?;
        }
        let deadline = Duration::from_secs(PROMOTION_SECONDS.unsigned_abs().into()) + GRACE;
        let session = self.session_within(target, deadline).await?;
        self.requeue(target)?;
        let promote = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_promote(true, $1) ELSE true END";
        let promoted: bool =
            session.value("promote", promote, &[&PROMOTION_SECONDS]).await.map_err(asked(target))?;
        if !promoted {
            let log = target.log_file.display().to_string();
            return Err(OperationError::NotPromoted { node: target.name.clone(), log });
        }
        // The commit of a transaction number is a write, and needs no replica that may not be there.
        session.run("write", "SET synchronous_commit = local").await.map_err(asked(target))?;
        session.run("write", "SELECT pg_current_xact_id()").await.map_err(asked(target))?;
        timeline(&session).await.map_err(asked(target))
    }

    /// What follows a promotion: everybody follows, old slots go, the change has ended.
    pub(crate) async fn enthrone(
        &mut self,
        target: &NodeRecord,
        progress: &dyn Progress,
    ) -> Result<Vec<Unfollowed>, OperationError> {
        self.state.crown(&target.name);
        self.save()?;
        progress.step(&format!("letting the others follow {}", target.name));
        let unfollowed = self.follow_all(target).await?;
        self.drop_old_slots(target).await?;
        self.state.change = None;
        self.save()?;
        Ok(unfollowed)
    }
}
