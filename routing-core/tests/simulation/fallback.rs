//! Reads that run on the primary because no replica serves them.

use std::sync::Arc;

use routing_core::Reason;

use super::violation::Promise;
use super::world::Sim;

/// Counts a fallback read for as long as it runs, and holds the count to the cap that the schedule has set.
pub(crate) struct Fallback {
    sim: Arc<Sim>,
    instance: usize,
    cap: usize,
}

impl Fallback {
    /// `None` for a read that no cap limits. A pinned read counts under a cap only when a token pins it, which its reason does
    /// not tell: those are left out.
    pub(crate) fn begin(sim: &Arc<Sim>, instance: usize, reason: Reason) -> Option<Self> {
        let cap = match reason {
            Reason::FallbackNoReplica => 0,
            Reason::FallbackBehindToken => 1,
            _ => return None,
        };
        let mut world = sim.world();
        world.fallback[instance][cap] += 1;
        let (runs, limit) =
            (world.fallback[instance][cap], [world.settings.fallback, world.settings.behind_token][cap]);
        if runs > limit {
            world.violate(
                Promise::Caps,
                format!("{runs} reads run as {reason} on app{}, the cap is {limit}", instance + 1),
            );
        }
        Some(Self { sim: sim.clone(), instance, cap })
    }
}

impl Drop for Fallback {
    fn drop(&mut self) {
        self.sim.world().fallback[self.instance][self.cap] -= 1;
    }
}
