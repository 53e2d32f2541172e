//! What a server is, in its own words.

use std::fmt;

use serde::Serialize;

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Out of recovery. Whether it is *the* primary is for the topology to say.
    Primary,
    /// In recovery: a standby.
    Replica,
    /// It has not said.
    Unknown,
}

impl Role {
    /// The role's name in metrics, headers and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
