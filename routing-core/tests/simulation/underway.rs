//! What an instance may hold for the calls that are under way in it.

use std::sync::Arc;
use std::time::Duration;

use routing_core::{Admission, Node, Router};
use tokio::time::Instant;

use super::backend::Simulated;
use super::violation::Promise;
use super::world::Sim;

/// A call under way. Made before the call's future and dropped after it, finished or not: from then on nothing may be held for it.
pub(crate) struct Underway {
    sim: Arc<Sim>,
    instance: usize,
}

impl Underway {
    pub(crate) fn begin(sim: &Arc<Sim>, instance: usize) -> Self {
        sim.world().underway[instance] += 1;
        Self { sim: sim.clone(), instance }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let underway = {
            let mut world = self.sim.world();
            world.underway[self.instance] -= 1;
            world.underway[self.instance]
        };
        check(&self.sim, self.instance, underway);
    }
}

/// No more is held in an instance than so many calls need. Looking at all of it takes long: beside other calls only the places in
/// flight are counted.
pub(crate) fn check(sim: &Sim, instance: usize, calls: usize) {
    let Some(router) = sim.router(instance) else { return };
    let attempts = if sim.world().settings.hedged { 2 } else { 1 };
    let in_flight: u32 = router.cluster().nodes().iter().map(|node| node.in_flight()).sum();
    let mut held = vec![("places in flight", in_flight as usize)];
    if calls == 0 {
        held.extend(others(&router));
    }
    for (what, count) in held.into_iter().filter(|(_, count)| *count > calls * attempts) {
        let what = format!("app{} holds {count} {what} for {calls} calls", instance + 1);
        sim.world().violate(Promise::Leaks, what);
    }
}

fn others(router: &Router<Simulated>) -> [(&'static str, usize); 5] {
    let status = router.status();
    let pools = || status.nodes.iter().flat_map(|node| [node.read_pool, node.write_pool]);
    let now = Instant::now();
    let half_open = |node: &&Arc<Node>| node.admission(now) == Admission::Refused(Duration::ZERO);
    [
        (
            "permits of fallback reads",
            (status.fallback_in_use + status.fallback_behind_token_in_use) as usize,
        ),
        ("places of waiting writes", status.waiting_writes as usize),
        ("connections", pools().map(|pool| pool.open - pool.idle).sum()),
        ("places of requests that wait for a connection", pools().map(|pool| pool.waiting).sum()),
        ("half-open slots", router.cluster().nodes().iter().filter(half_open).count()),
    ]
}
