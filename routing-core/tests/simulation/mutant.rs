//! Mechanisms without which a promise must be seen to break.

use routing_core::RouterConfig;
use routing_core::testing::{Sabotage, Sabotaged};

use super::violation::Promise;

/// One mechanism that is missing, in the real code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    Without(Sabotage),
    /// The breaker admits everything.
    OpenBreaker,
    /// The fallback onto the primary has no cap.
    NoCap,
}

impl Mutant {
    /// All of them, and the promise that each breaks.
    pub(crate) const ALL: [(Self, Promise); 8] = [
        (Self::Without(Sabotage::Deposal), Promise::ProvenPrimary),
        (Self::Without(Sabotage::WriterLease), Promise::ProvenPrimary),
        (Self::Without(Sabotage::Tokens), Promise::Session),
        (Self::Without(Sabotage::StalenessBound), Promise::Bound),
        (Self::OpenBreaker, Promise::Loss),
        (Self::Without(Sabotage::LostAnswers), Promise::Once),
        (Self::NoCap, Promise::Caps),
        (Self::Without(Sabotage::PermitsReturn), Promise::Leaks),
    ];

    pub(crate) fn configure(self, config: &mut RouterConfig) {
        match self {
            Self::OpenBreaker => (config.breaker.failures, config.breaker.failure_rate) = (u32::MAX, 1.0),
            Self::NoCap => {
                config.read_pool_size = 1_000;
                (config.fallback_no_replica, config.fallback_behind_token) = (Some(1_000), Some(1_000));
            }
            Self::Without(_) => {}
        }
    }

    pub(crate) fn sabotage(self) -> Option<Sabotaged> {
        match self {
            Self::Without(mechanism) => Some(mechanism.begin()),
            Self::OpenBreaker | Self::NoCap => None,
        }
    }
}
