//! Where a schedule of faults comes from.

use std::fmt;

/// A number that a schedule is drawn from. It is printed, and `ROUTING_SEED` sets it: the same schedule comes again, though
/// real servers meet it at other moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// What `ROUTING_SEED` says, else a new one.
    ///
    /// # Panics
    /// When the variable holds no number.
    #[must_use]
    pub fn from_env() -> Self {
        match std::env::var("ROUTING_SEED") {
            Ok(text) => Self(text.parse().expect("ROUTING_SEED must be a number")),
            Err(_) => Self(fastrand::u64(..1_000_000_000)),
        }
    }

    /// A generator of this seed for one part of a test, so that the parts do not disturb each other's draws.
    #[must_use]
    pub fn part(self, part: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(part))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ROUTING_SEED={}", self.0)
    }
}
