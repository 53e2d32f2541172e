//! A change of the primary that is under way, and going back from one that was interrupted.

use std::io;

use serde::{Deserialize, Serialize};

use crate::{
    condition::Condition,
    link::read_unlinked,
    node::NodeRecord,
    operation::{Operation, OperationError, asked, files},
    process,
    progress::Progress,
    server,
};

/// The setting by which a switchover lets no new transaction write.
pub(crate) const READ_ONLY: &str = "default_transaction_read_only";

/// A change of the primary that has begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    /// The nodes that are deposed by it.
    pub(crate) from: Vec<String>,
    /// The node that is to be the primary.
    pub(crate) to: String,
    /// Whether that node may have been told already to leave recovery: then there is no way back.
    #[serde(default)]
    pub(crate) lifting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeKind {
    /// The command is `promote`.
    Promotion,
    /// The command is `switchover`; the old primary may be read-only by a setting.
    Switchover,
}

impl Change {
    /// What an operator does about an interrupted change.
    pub(crate) fn remedy(&self) -> String {
        let (what, command) = match self.kind {
            ChangeKind::Promotion => ("promotion of", "promote"),
            ChangeKind::Switchover => ("switchover to", "switchover"),
        };
        format!(
            "the {what} {to} was interrupted: repeat `{command} {to}`, or go back with `up`",
            to = self.to
        )
    }
}

impl Operation<'_> {
    /// Ends an interrupted change: back to the old primary while nobody was promoted, else forward.
    pub(crate) async fn end_change(&mut self, progress: &dyn Progress) -> Result<(), OperationError> {
        let Some(change) = self.state.change.clone() else { return Ok(()) };
        let from: Vec<NodeRecord> =
            self.nodes().into_iter().filter(|it| change.from.contains(&it.name)).collect();
        let target = self.nodes().into_iter().find(|node| node.name == change.to);
        if let Some(target) = &target
            && change.lifting
            && self.session(target).await.is_ok()
        {
            progress.step(&format!("promoting {}, as was begun", target.name));
            self.lift(target).await?;
        }
        // One that was stopped in its recovery starts in recovery again.
        if target.is_none_or(|target| target.starts_as_standby()) {
            progress.step(&format!("going back: the change to {} was interrupted", change.to));
            for node in &from {
                if self.allow_writes(node).await.is_err() {
                    // It was just about to stop.
                    server::settled(node).await;
                    self.allow_writes(node).await?;
                }
                self.state.set_condition(&node.name, Condition::Sound);
            }
        } else {
            progress.step(&format!("going on: {} was promoted before the interruption", change.to));
            self.state.crown(&change.to);
            for node in self.nodes() {
                let follows = node.name != change.to && self.state.upstream(&node.name).is_none();
                if follows && self.state.condition(&node.name).may_start() {
                    self.state.set_condition(&node.name, Condition::Astray);
                }
            }
        }
        self.state.change = None;
        Ok(self.save()?)
    }

    /// Takes a switchover's read-only setting back, on a running or a stopped node.
    pub(crate) async fn allow_writes(&self, node: &NodeRecord) -> Result<(), OperationError> {
        if process::postmaster(&node.data_dir).is_some_and(|process| !process.is_paused()) {
            let session = self.session(node).await?;
            for statement in [&format!("ALTER SYSTEM RESET {READ_ONLY}"), "SELECT pg_reload_conf()"] {
                session.run("allow writes", statement).await.map_err(asked(node))?;
            }
            return Ok(());
        }
        self.forget_setting(node, READ_ONLY).map_err(files("write the configuration of", node))
    }

    /// Removes what `ALTER SYSTEM SET` has written on a node that does not run.
    pub(crate) fn forget_setting(&self, node: &NodeRecord, name: &str) -> io::Result<()> {
        let path = node.data_dir.join("postgresql.auto.conf");
        let text = read_unlinked(&path)?;
        let kept: String =
            text.lines().filter(|line| !line.starts_with(name)).flat_map(|line| [line, "\n"]).collect();
        if kept == text { Ok(()) } else { self.tools.account().write(&path, &kept) }
    }
}
