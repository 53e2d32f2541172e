//! What an error says about the node, not about the query.

use std::fmt;

use serde::Serialize;

/// What an error says about the *node*. Most errors (a constraint, a syntax error, a user's cancel, a statement
/// time-out) say nothing about it and are no fault: the node was used successfully.
///
/// An adapter classifies its driver's errors once, by SQLSTATE (manual, appendix "PostgreSQL Error Codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// I/O, TLS or DNS failed, the connection closed, or the server ended it: class 08, 57P01, 57P02.
    Unreachable,
    /// The server answers and takes no one now: 57P03 (starting, stopping), 53300 (no connection slot free).
    Refusing,
    /// A deadline of ours passed while the node owed an answer.
    Unresponsive,
    /// No connection of the local pool was free in time. It says nothing about the server.
    Saturated,
    /// Recovery on a replica cancelled the statement (40001, 40P01 …): the node is well, the statement lost.
    Conflict,
    /// The server refused a write as read-only (25006) on a write connection.
    NotPrimary,
    /// A statement that no standby can run was sent to one (25006, 0A000, 55000 …) on a read connection.
    Misrouted,
}

/// How many faults there are, for tables indexed by them.
pub(crate) const FAULTS: usize = 7;

impl Fault {
    /// All faults, in the order of their declaration.
    pub const ALL: [Self; FAULTS] = [
        Self::Unreachable,
        Self::Refusing,
        Self::Unresponsive,
        Self::Saturated,
        Self::Conflict,
        Self::NotPrimary,
        Self::Misrouted,
    ];

    /// The fault's name in metrics and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Refusing => "refusing",
            Self::Unresponsive => "unresponsive",
            Self::Saturated => "saturated",
            Self::Conflict => "conflict",
            Self::NotPrimary => "not_primary",
            Self::Misrouted => "misrouted",
        }
    }

    /// Whether the node's circuit breaker counts it as a failure.
    ///
    /// `Unresponsive` is not counted here: a slow statement proves nothing, the probe that it triggers does.
    #[must_use]
    pub fn trips_breaker(self) -> bool {
        match self {
            Self::Unreachable | Self::Refusing => true,
            Self::Unresponsive | Self::Saturated | Self::Conflict | Self::NotPrimary | Self::Misrouted => {
                false
            }
        }
    }

    /// Whether the monitor should look at the node now instead of at its next tick.
    #[must_use]
    pub fn wants_probe(self) -> bool {
        match self {
            Self::Unreachable | Self::Unresponsive | Self::NotPrimary => true,
            Self::Refusing | Self::Saturated | Self::Conflict | Self::Misrouted => false,
        }
    }

    /// Whether only the primary can still run the statement.
    #[must_use]
    pub fn needs_primary(self) -> bool {
        match self {
            Self::Conflict | Self::Misrouted => true,
            Self::Unreachable | Self::Refusing | Self::Unresponsive | Self::Saturated | Self::NotPrimary => {
                false
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_the_consequences_of_the_table() {
        // fault, counts for the breaker, probe now, primary only
        let table = [
            (Fault::Unreachable, true, true, false),
            (Fault::Refusing, true, false, false),
            (Fault::Unresponsive, false, true, false),
            (Fault::Saturated, false, false, false),
            (Fault::Conflict, false, false, true),
            (Fault::NotPrimary, false, true, false),
            (Fault::Misrouted, false, false, true),
        ];
        assert_eq!(table.map(|row| row.0), Fault::ALL);
        for (fault, breaker, probe, primary) in table {
            assert_eq!(
                (fault.trips_breaker(), fault.wants_probe(), fault.needs_primary()),
                (breaker, probe, primary),
                "{fault}"
            );
        }
    }
}
