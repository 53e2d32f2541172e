//! The state file: which nodes a cluster has and which of them are complete.

use std::{fs, io::Write as _, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    access::Access,
    archive::Archive,
    change::Change,
    condition::Condition,
    layout::{DirectoryError, Layout},
    node::NodeRecord,
    sync::SyncMode,
};

/// The format of the file; a file of another format is refused, not guessed at.
const FORMAT: u32 = 1;

/// What is known about the cluster before any server is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    /// Whether the servers flush to disk.
    pub(crate) durable: bool,
    /// Who may connect.
    #[serde(flatten)]
    pub(crate) access: Access,
    /// Whether commits wait for replicas.
    #[serde(default)]
    pub(crate) sync: SyncMode,
    /// A change of the primary that has begun and not ended.
    #[serde(default)]
    pub(crate) change: Option<Change>,
    /// Where finished WAL goes.
    #[serde(default)]
    pub(crate) archive: Option<Archive>,
    /// The backup that this cluster is being restored from; the restore has begun and not ended.
    #[serde(default)]
    pub(crate) restoring: Option<PathBuf>,
    pub(crate) nodes: Vec<NodePlan>,
}

/// One node, planned or complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// A node that is not complete may be removed and made again; a complete one never.
    pub(crate) complete: bool,
    /// The replica that this one streams from; `None` is the primary, whichever node that is.
    #[serde(default)]
    pub(crate) upstream: Option<String>,
    #[serde(default)]
    pub(crate) condition: Condition,
}

impl NodePlan {
    /// A node that is still to be made.
    pub(crate) fn new(name: String, port: u16, upstream: Option<String>) -> NodePlan {
        NodePlan { name, port, complete: false, upstream, condition: Condition::Sound }
    }
}

impl State {
    /// A cluster that is only planned: nodes `pg1`, `pg2`, … on these ports.
    pub(crate) fn planned(ports: &[u16], durable: bool, access: Access) -> State {
        let node = |(index, port): (usize, &u16)| NodePlan::new(format!("pg{}", index + 1), *port, None);
        let nodes = ports.iter().enumerate().map(node).collect();
        State {
            format: FORMAT,
            durable,
            access,
            sync: SyncMode::Off,
            change: None,
            archive: None,
            restoring: None,
            nodes,
        }
    }

    pub(crate) fn with_archive(self, archive: Option<Archive>) -> State {
        State { archive, ..self }
    }

    /// Reads the state of an existing cluster.
    pub(crate) fn read(layout: &Layout) -> Result<State, DirectoryError> {
        let path = layout.state_file();
        let text = fs::read_to_string(&path).map_err(DirectoryError::io("read", &path))?;
        let damaged = |problem: String| DirectoryError::Damaged { path: path.clone(), problem };
        let state: State = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if state.format != FORMAT {
            return Err(damaged(format!("format {} instead of {FORMAT}", state.format)));
        }
        if state.nodes.is_empty() {
            return Err(damaged("no nodes".to_owned()));
        }
        // Names become paths, and an incomplete node's directory is removed.
        if let Some(node) = state.nodes.iter().find(|node| !is_name(&node.name)) {
            return Err(damaged(format!("node name {:?}", node.name)));
        }
        Ok(state)
    }

    /// Replaces the file in one step.
    pub(crate) fn write(&self, layout: &Layout) -> Result<(), DirectoryError> {
        let path = layout.state_file();
        let unfinished = path.with_extension("new");
        let write = || {
            let text = serde_json::to_string_pretty(self)?;
            let mut file = fs::File::create(&unfinished)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(DirectoryError::io("write", &path))
    }

    /// Whether any node is complete, so that there is something to keep.
    pub(crate) fn has_data(&self) -> bool {
        self.nodes.iter().any(|node| node.complete)
    }

    /// Marks a node as complete; from now on its data is never removed.
    pub(crate) fn complete(&mut self, node: &str) {
        for known in self.nodes.iter_mut().filter(|known| known.name == node) {
            known.complete = true;
        }
    }

    pub(crate) fn records(&self, layout: &Layout) -> Vec<NodeRecord> {
        self.nodes.iter().map(|node| NodeRecord::new(layout, node)).collect()
    }

    fn plan(&self, node: &str) -> Option<&NodePlan> {
        self.nodes.iter().find(|known| known.name == node)
    }

    pub(crate) fn condition(&self, node: &str) -> Condition {
        self.plan(node).map_or(Condition::Sound, |plan| plan.condition)
    }

    pub(crate) fn set_condition(&mut self, node: &str, condition: Condition) {
        for known in self.nodes.iter_mut().filter(|known| known.name == node) {
            known.condition = condition;
        }
    }

    /// The replica that a node streams from; `None` is the primary.
    pub(crate) fn upstream(&self, node: &str) -> Option<String> {
        self.plan(node).and_then(|plan| plan.upstream.clone())
    }

    /// Records a new primary: who streamed from it by name now follows the primary.
    pub(crate) fn crown(&mut self, primary: &str) {
        for plan in &mut self.nodes {
            if plan.name == primary || plan.upstream.as_deref() == Some(primary) {
                plan.upstream = None;
            }
        }
        self.set_condition(primary, Condition::Sound);
    }

    /// What is to be done before the cluster is whole again, one sentence each.
    pub(crate) fn remedies(&self) -> Vec<String> {
        let half_made = self.nodes.iter().filter(|node| !node.complete && self.has_data());
        let half_made = half_made
            .map(|node| format!("{} is only half made: repeat `up`, which makes it again", node.name));
        let nodes = self.nodes.iter().filter_map(|node| node.condition.remedy(&node.name));
        let restoring = self.restoring.iter().map(|from| {
            let from = from.display();
            format!("the restore from {from} was interrupted: repeat it, or remove what is here with `down --purge`")
        });
        self.change.iter().map(Change::remedy).chain(restoring).chain(half_made).chain(nodes).collect()
    }
}

/// Node names are also role-free identifiers of slots: lower-case letters, digits and underscores.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        let mut state = State::planned(&[5500, 5501], true, Access::default());
        state.complete("pg1");
        state.write(&layout).unwrap();
        let read = State::read(&layout).unwrap();
        let nodes: Vec<_> =
            read.nodes.iter().map(|node| (node.name.as_str(), node.port, node.complete)).collect();
        assert_eq!(nodes, [("pg1", 5500, true), ("pg2", 5501, false)]);
    }

    #[test]
    fn a_damaged_or_foreign_state_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(dir.path()).unwrap();
        for text in [
            "{",
            r#"{"format":2,"durable":true,"nodes":[]}"#,
            r#"{"format":1,"durable":true,"nodes":[]}"#,
            r#"{"format":1,"durable":true,"nodes":[{"name":"../x","port":1,"complete":false}]}"#,
        ] {
            fs::write(layout.state_file(), text).unwrap();
            assert!(matches!(State::read(&layout), Err(DirectoryError::Damaged { .. })), "{text}");
        }
    }
}
