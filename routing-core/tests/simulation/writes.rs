//! Whether a write may begin where it does.

use std::time::Duration;

use routing_core::{Primary, Router};
use tokio::time::Instant;

use super::backend::Simulated;
use super::violation::Promise;
use super::wire::Wire;
use super::world::World;

/// How old what a router knows of a standby can be: a probe interval, and a probe that takes all its time.
const NEWS: Duration = Duration::from_millis(2_500);

/// The highest timeline that the instance has ever accepted, as far as anybody looked.
pub(crate) fn accepted(wire: &Wire) -> u32 {
    let router = wire.sim.router(wire.instance);
    let now = router.and_then(|router| router.cluster().topology().lineage.highest);
    let mut world = wire.sim.world();
    let known = &mut world.accepted[wire.instance];
    *known = now.map_or(0, |timeline| timeline.0).max(*known);
    *known
}

/// A write, or the transaction that it is in, is sent.
pub(crate) fn check_begin(wire: &Wire) {
    let Some(router) = wire.sim.router(wire.instance) else { return };
    accepted(wire);
    let mut world = wire.sim.world();
    if let Err(what) = may_begin(&world, &router, wire) {
        let what = format!("a write begins by {}: {what}", wire.name());
        world.violate(Promise::ProvenPrimary, what);
    }
}

/// The node is the primary by the instance's own evidence, proven within the writer lease; no token has named a higher timeline;
/// and with a quorum, so many standbys had a connection on that timeline a moment ago.
fn may_begin(world: &World, router: &Router<Simulated>, wire: &Wire) -> Result<(), String> {
    let (topology, config, now) = (router.cluster().topology(), router.cluster().config(), Instant::now());
    let Primary::Known { index, timeline, confirmed, read_only } = topology.primary else {
        return Err(format!("nobody is proven to be the primary ({:?})", topology.primary));
    };
    if index != wire.server {
        return Err(format!("the proven primary is {}", World::name(index)));
    }
    if read_only {
        return Err("it is read-only".to_owned());
    }
    let age = now.saturating_duration_since(confirmed);
    if age > config.writer_lease() {
        return Err(format!("it was proven {age:?} ago"));
    }
    let accepted = world.accepted[wire.instance];
    if timeline.0 != accepted {
        return Err(format!("it is on timeline {timeline}, and {accepted} was accepted"));
    }
    let heard = world.heard[wire.instance];
    if timeline.0 < heard {
        return Err(format!("it is on timeline {timeline}, and a token has named {heard}"));
    }
    let branch = timeline.0 as usize - 1;
    let seen = |at: &Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) <= NEWS);
    let standbys = world.servers.iter().filter(|server| server.seen_on.get(branch).is_some_and(seen)).count();
    if standbys < config.write_quorum as usize {
        return Err(format!("{standbys} standbys follow timeline {timeline}"));
    }
    Ok(())
}
