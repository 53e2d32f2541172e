//! Random numbers for balancing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Where a balancer's random numbers come from.
pub(super) enum Draw {
    /// The thread's own generator: nothing that another thread writes is touched.
    OfThread,
    /// One atomic counter (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014): no lock, and the
    /// same sequence from the same seed.
    Seeded(AtomicU64),
}

impl Draw {
    pub(super) fn seeded(seed: u64) -> Self {
        Self::Seeded(AtomicU64::new(seed))
    }

    /// A generator of its own for one decision.
    pub(super) fn split(&self) -> Numbers {
        Numbers(match self {
            Self::OfThread => fastrand::u64(..),
            Self::Seeded(counter) => mix(counter.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN)),
        })
    }
}

/// The random numbers of one decision.
pub(super) struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number above 0 and at most 1.
    pub(super) fn unit(&mut self) -> f64 {
        const STEPS: f64 = (1_u64 << 53) as f64;
        ((self.next() >> 11) + 1) as f64 / STEPS
    }

    /// A number below `length`; 0 for a length of 0. The bias is below `length` / 2^64.
    pub(super) fn index(&mut self, length: usize) -> usize {
        ((u128::from(self.next()) * length as u128) >> 64) as usize
    }

    /// Whether something of this probability happens.
    pub(super) fn happens(&mut self, probability: f32) -> bool {
        probability >= 1.0 || self.unit() <= f64::from(probability)
    }
}

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draw")
    }
}
