//! Reads of one request, and what they must not miss.

use std::sync::Arc;
use std::time::Duration;

use routing_core::{Consistency, Lease, Reason, RouteError, Routed};
use tokio::time::{Instant, timeout};

use super::backend::{SimError, Simulated};
use super::draw::ms;
use super::fallback::Fallback;
use super::history::Place;
use super::schedule::Theme;
use super::underway::Underway;
use super::violation::Promise;
use super::world::{Sim, World};

/// What a token covers, and the timeline that it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    pub(crate) place: Place,
    pub(crate) timeline: u32,
}

/// The reads of one request.
pub(crate) struct Reading {
    pub(crate) sim: Arc<Sim>,
    pub(crate) instance: usize,
    pub(crate) name: String,
    pub(crate) covers: Vec<Covered>,
    /// What earlier reads of the request have seen.
    pub(crate) seen: Vec<Place>,
    /// What it has written itself: eventual reads do not care.
    pub(crate) written: Vec<Place>,
}

/// What one read has seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    place: Place,
    server: usize,
    reason: Reason,
    /// When its closure began, and the writer's timeline that the instance had accepted then.
    began: Instant,
    accepted: u32,
}

/// How long anything may take before it counts as stuck: every deadline is below.
const STUCK: Duration = Duration::from_secs(60);

impl Reading {
    pub(crate) async fn read(&mut self, routed: &Routed<Simulated>) {
        let seen = self.one(routed).await;
        self.take_in(routed.consistency(), &seen);
        self.seen.extend(seen.map(|seen| seen.place));
    }

    pub(crate) async fn read_twice(&mut self, routed: &Routed<Simulated>) {
        let (one, two) = tokio::join!(self.one(routed), self.one(routed));
        for seen in [one, two] {
            self.take_in(routed.consistency(), &seen);
        }
        self.seen.extend([one, two].into_iter().flatten().map(|seen| seen.place));
    }

    pub(crate) async fn read_lease(&mut self, routed: &Routed<Simulated>) {
        let began = Instant::now();
        let _underway = Underway::begin(&self.sim, self.instance);
        let mut lease = match routed.acquire_read().await {
            Ok(lease) => lease,
            Err(error) => return self.failed(&error, began),
        };
        // Nobody watches over a lease that was handed out.
        if let Ok(Ok(seen)) = timeout(ms(3_000), look(self.sim.clone(), self.instance, &mut lease)).await {
            self.take_in(routed.consistency(), &Some(seen));
            self.seen.push(seen.place);
        }
    }

    async fn one(&self, routed: &Routed<Simulated>) -> Option<Seen> {
        let (sim, instance, began) = (self.sim.clone(), self.instance, Instant::now());
        let _underway = Underway::begin(&sim, instance);
        let read =
            routed.run_read(async move |lease: &mut Lease<Simulated>| look(sim, instance, lease).await);
        match timeout(STUCK, read).await {
            Ok(Ok(seen)) => Some(seen),
            Ok(Err(error)) => {
                self.failed(&error, began);
                None
            }
            Err(_) => {
                self.sim.world().violate(Promise::Leaks, format!("{}: a read never ended", self.name));
                None
            }
        }
    }

    /// A read has failed: where that costs no caller an error, or where only a cap may refuse, that is a violation.
    fn failed(&self, error: &SimError, began: Instant) {
        let mut world = self.sim.world();
        let elapsed = began.elapsed();
        world.note(|_| format!("{}: read fails with {} after {elapsed:?}", self.name, error.code()));
        let shed = matches!(error, SimError::Route(RouteError::Overloaded { .. }));
        match world.settings.theme {
            Theme::ReplicaLost => {
                world.violate(Promise::Loss, format!("{}: a read fails: {error}", self.name));
            }
            // A connection for it could not be had in time where the pool is small, and that is said of the pool.
            // When all are lost at once, a read can meet each of them.
            Theme::ReplicasLost if world.began.elapsed() <= ms(2_500) => {}
            Theme::ReplicasLost
                if !shed && !matches!(error, SimError::Route(RouteError::DeadlineExceeded { .. })) =>
            {
                world.violate(
                    Promise::Loss,
                    format!("{}: a read fails on a primary that is well: {error}", self.name),
                );
            }
            Theme::ReplicasLost if shed && elapsed > ms(35) && world.began.elapsed() < world.ends => {
                world.violate(Promise::Caps, format!("{}: a read is shed after {elapsed:?}", self.name));
            }
            _ => {}
        }
    }

    /// Judges what a read has seen.
    fn take_in(&self, consistency: Consistency, seen: &Option<Seen>) {
        let Some(seen) = seen else { return };
        let mut world = self.sim.world();
        world.note(|world| {
            let place = world.history.show(seen.place);
            format!("{}: read {place} on {} ({})", self.name, World::name(seen.server), seen.reason)
        });
        if consistency != Consistency::Eventual {
            for covered in &self.covers {
                if let Some(why) = misses(&world, seen, covered.place, covered.timeline) {
                    world.violate(
                        Promise::Session,
                        format!("{}: {} after its token: {why}", self.name, said(seen)),
                    );
                }
            }
            let named = self.covers.iter().map(|covered| covered.timeline).max().unwrap_or(0);
            world.heard[self.instance] = world.heard[self.instance].max(named);
        }
        let own = self.written.iter().filter(|_| consistency != Consistency::Eventual);
        for earlier in self.seen.iter().chain(own) {
            // A server that was promoted beside the primary can be read before anybody has seen it promoted. What it wrote on a
            // timeline that is not accepted binds nobody.
            let timeline =
                Some(world.history.timeline(*earlier)).filter(|timeline| *timeline <= seen.accepted);
            let timeline = timeline.unwrap_or(0);
            if let Some(why) = misses(&world, seen, *earlier, timeline) {
                world.violate(
                    Promise::Session,
                    format!("{}: {} in one request: {why}", self.name, said(seen)),
                );
            }
        }
        if let Consistency::BoundedStaleness(bound) = consistency {
            self.check_bound(&mut world, seen, bound);
        }
    }

    /// Everything that the accepted writer had committed a bound before the read began is in what it saw.
    fn check_bound(&self, world: &mut World, seen: &Seen, bound: Duration) {
        let (Some(branch), Some(time)) =
            ((seen.accepted as usize).checked_sub(1), seen.began.checked_sub(bound))
        else {
            return;
        };
        let owed = world.history.until(world.history.tip(branch), time);
        if !world.history.contains(seen.place, owed) {
            let owed = world.history.show(owed);
            let what =
                format!("{}: {} with a bound of {bound:?}, and {owed} is older", self.name, said(seen));
            world.violate(Promise::Bound, what);
        }
    }
}

fn said(seen: &Seen) -> String {
    format!(
        "read at {}.{} on {} ({})",
        seen.place.branch + 1,
        seen.place.length,
        World::name(seen.server),
        seen.reason
    )
}

/// What a state misses of another, if anything: records that it could have, or the other's timeline.
fn misses(world: &World, seen: &Seen, owed: Place, timeline: u32) -> Option<String> {
    let state = seen.place;
    let own = world.history.timeline(state);
    if own < timeline {
        return Some(format!("timeline {own} is below {timeline}"));
    }
    let part = match world.history.timeline(owed) == seen.accepted {
        true => owed,
        // What lies beyond the point where the timelines parted is lost, and nobody can show it.
        false => world.history.common(owed, state.branch),
    };
    if world.history.contains(state, part) {
        return None;
    }
    Some(format!("{} is behind {}", world.history.show(state), world.history.show(part)))
}

/// What a read's closure does.
async fn look(sim: Arc<Sim>, instance: usize, lease: &mut Lease<Simulated>) -> Result<Seen, SimError> {
    let began = Instant::now();
    let decision = lease.decision();
    let _fallback = Fallback::begin(&sim, instance, decision.reason);
    let server = super::backend::index(lease.node().name());
    let topology = sim.router(instance).map(|router| router.cluster().topology());
    let writer = topology.and_then(|topology| topology.lineage.writer);
    let accepted = writer.map_or(0, |(_, timeline)| timeline.0);
    let place = lease.read().await?;
    Ok(Seen { place, server, reason: decision.reason, began, accepted })
}
