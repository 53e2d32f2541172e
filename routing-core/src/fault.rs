//! What an error says about the node, not about the query.

use std::fmt;

use serde::Serialize;

use crate::decision::Access;

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

    /// What an error of the server, on a connection for `access`, says about the node: by its SQLSTATE (manual, appendix
    /// "PostgreSQL Error Codes"), and by whether it ends the session (severity FATAL or PANIC). The same codes come with
    /// severity ERROR from a statement's own doing: a foreign server that cannot be reached, wrong bind parameters, a
    /// RAISE with an SQLSTATE of its author's choice.
    #[must_use]
    pub fn of_server_error(code: &str, fatal: bool, access: Access) -> Option<Self> {
        match (code, access) {
            // cannot_connect_now, too_many_connections.
            ("57P03" | "53300", _) if fatal => Some(Self::Refusing),
            // Who may log in to what: it says nothing about the node.
            (code, _) if fatal && (code.starts_with("28") || code == "3D000") => None,
            // admin_shutdown, crash_shutdown, connection_exception and its class.
            ("57P01" | "57P02", _) if fatal => Some(Self::Unreachable),
            (code, _) if fatal && code.starts_with("08") => Some(Self::Unreachable),
            // The server ended the session for another reason, such as idleness: a probe tells the rest.
            _ if fatal => Some(Self::Unresponsive),
            // serialization_failure, deadlock_detected: on a standby this is how recovery cancels a statement.
            ("40001" | "40P01", _) => Some(Self::Conflict),
            // read_only_sql_transaction.
            ("25006", Access::Write) => Some(Self::NotPrimary),
            ("25006", Access::Read) => Some(Self::Misrouted),
            // feature_not_supported, object_not_in_prerequisite_state: "not possible during recovery".
            ("0A000" | "55000", Access::Read) => Some(Self::Misrouted),
            _ => None,
        }
    }

    /// Whether the connection is of no more use after it.
    #[must_use]
    pub fn ends_connection(self) -> bool {
        match self {
            Self::Unreachable | Self::Refusing | Self::Unresponsive => true,
            Self::Saturated | Self::Conflict | Self::NotPrimary | Self::Misrouted => false,
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

    /// Whether the node is to get less for a while because of it, so that failing at once does not look like being idle. A
    /// full pool shows by itself, and what no standby can run is the statement's own affair.
    #[must_use]
    pub fn costs(self) -> bool {
        match self {
            Self::Unreachable | Self::Refusing | Self::Unresponsive | Self::Conflict => true,
            Self::Saturated | Self::NotPrimary | Self::Misrouted => false,
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
    fn each_sqlstate_says_what_the_table_says() {
        use Access::{Read, Write};
        // SQLSTATE, ends the session, connection for, what it says
        let table = [
            ("57P01", true, Read, Some(Fault::Unreachable)),
            ("57P02", true, Write, Some(Fault::Unreachable)),
            ("08006", true, Read, Some(Fault::Unreachable)),
            ("57P03", true, Read, Some(Fault::Refusing)),
            ("53300", true, Read, Some(Fault::Refusing)),
            ("57P05", true, Read, Some(Fault::Unresponsive)),
            ("25P03", true, Write, Some(Fault::Unresponsive)),
            ("28P01", true, Read, None),
            ("3D000", true, Write, None),
            ("40001", false, Read, Some(Fault::Conflict)),
            ("40P01", false, Write, Some(Fault::Conflict)),
            ("25006", false, Read, Some(Fault::Misrouted)),
            ("25006", false, Write, Some(Fault::NotPrimary)),
            ("0A000", false, Read, Some(Fault::Misrouted)),
            ("0A000", false, Write, None),
            ("55000", false, Read, Some(Fault::Misrouted)),
            ("55000", false, Write, None),
            // The statement's own affair: a successful use of the node.
            ("57014", false, Read, None),
            ("23505", false, Write, None),
            ("42P01", false, Read, None),
            ("25P02", false, Write, None),
            ("53100", false, Write, None),
            ("08P01", false, Write, None),
            ("08001", false, Read, None),
            ("57P01", false, Read, None),
        ];
        for (code, fatal, access, fault) in table {
            assert_eq!(Fault::of_server_error(code, fatal, access), fault, "{code} {fatal} {access}");
        }
    }

    #[test]
    fn each_fault_has_the_consequences_of_the_table() {
        // fault, counts for the breaker, probe now, primary only, costs
        let table = [
            (Fault::Unreachable, true, true, false, true),
            (Fault::Refusing, true, false, false, true),
            (Fault::Unresponsive, false, true, false, true),
            (Fault::Saturated, false, false, false, false),
            (Fault::Conflict, false, false, true, true),
            (Fault::NotPrimary, false, true, false, false),
            (Fault::Misrouted, false, false, true, false),
        ];
        assert_eq!(table.map(|row| row.0), Fault::ALL);
        for (fault, breaker, probe, primary, costs) in table {
            assert_eq!(
                (fault.trips_breaker(), fault.wants_probe(), fault.needs_primary(), fault.costs()),
                (breaker, probe, primary, costs),
                "{fault}"
            );
        }
    }
}
