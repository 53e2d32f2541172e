//! What the state file says of a node beyond its existence: whether it may start, and as what.

use serde::{Deserialize, Serialize};

/// Whether a node may start as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Condition {
    /// It may: nothing is known against it.
    #[default]
    Sound,
    /// A replica that has missed a change of the primary: its next start, or `rejoin`, tells it whom to follow.
    Astray,
    /// Another node was promoted, or is about to be: started as it is, this one would be a second primary. It
    /// comes back by `rejoin`.
    Deposed,
    /// `rejoin` has begun to change its data directory and has not ended: only `rejoin` may touch it.
    Rejoining,
    /// `remove-replica` has begun and has not ended: only that may touch it.
    Removing,
}

impl Condition {
    /// Whether the node may start.
    pub(crate) fn may_start(self) -> bool {
        matches!(self, Condition::Sound | Condition::Astray)
    }

    /// What an operator does about it; `None` when there is nothing to do.
    pub(crate) fn remedy(self, node: &str) -> Option<String> {
        match self {
            Condition::Sound => None,
            Condition::Astray => Some(format!(
                "{node} has missed a change of the primary: start it if it is stopped, else `rejoin {node}`"
            )),
            Condition::Deposed => {
                Some(format!("{node} is a deposed primary: `rejoin {node}` makes it a replica"))
            }
            Condition::Rejoining => {
                Some(format!("the rejoin of {node} was interrupted: repeat `rejoin {node}`"))
            }
            Condition::Removing => {
                Some(format!("the removal of {node} was interrupted: repeat `remove-replica {node}`"))
            }
        }
    }
}
