//! What the simulation finds.

use std::fmt;
use std::time::Duration;

/// The promises, by the names that ARCHITECTURE and the documentation give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// P1: writes run on the proven primary alone.
    ProvenPrimary,
    /// P2: no read is older than its token, none goes back within a request.
    Session,
    /// P3: no bounded read is staler than its bound.
    Bound,
    /// P4: the loss of a replica costs no caller an error.
    Loss,
    /// P5: nothing is done twice, nothing that was refused is done.
    Once,
    /// P6: reads that fall back on the primary are capped, the rest is shed at once.
    Caps,
    /// P7: nothing leaks.
    Leaks,
    /// A cluster that is whole again serves again.
    Recovery,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProvenPrimary => "P1 (writes on the proven primary alone)",
            Self::Session => "P2 (tokens, and reads of one request)",
            Self::Bound => "P3 (bounded staleness)",
            Self::Loss => "P4 (a lost replica costs no error)",
            Self::Once => "P5 (at most once)",
            Self::Caps => "P6 (caps of the fallback)",
            Self::Leaks => "P7 (no leaks)",
            Self::Recovery => "recovery",
        })
    }
}

/// One promise broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) promise: Promise,
    /// Since the schedule began.
    pub(crate) at: Duration,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} ms: {}: {}", self.at.as_millis(), self.promise, self.what)
    }
}
