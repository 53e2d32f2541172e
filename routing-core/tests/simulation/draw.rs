//! A schedule from a seed.

use std::time::Duration;

use fastrand::Rng;
use routing_core::{Consistency, Priority};

use super::fault::Fault;
use super::schedule::{Act, Request, Schedule, Settings, Step, Theme};
use super::trouble::{failover, on_a_replica, one};

/// When the clients begin: the routers have settled.
pub(crate) const BEGINS: Duration = Duration::from_millis(500);

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The schedule of a seed.
pub(crate) fn schedule(seed: u64) -> Schedule {
    let mut rng = Rng::with_seed(seed);
    let theme = match rng.u32(0..10) {
        0..4 => Theme::Chaos,
        4..7 => Theme::Failover,
        7..9 => Theme::ReplicaLost,
        _ => Theme::ReplicasLost,
    };
    let settings = settings(theme, &mut rng);
    let ends = ms(rng.u64(2_500..6_000));
    let mut steps = steps(&settings, ends, &mut rng);
    steps.sort_by_key(|step| step.at);
    let crowd = if rng.u32(0..20) == 0 { 50 } else { 14 };
    let count = match theme {
        Theme::ReplicasLost => rng.usize(6..20),
        Theme::ReplicaLost => rng.usize(4..16),
        Theme::Chaos | Theme::Failover => rng.usize(2..=crowd),
    };
    let clients = (0..count).map(|_| client(&settings, ends, &mut rng)).collect();
    Schedule { seed, settings, clients, steps, ends }
}

/// The schedule of the first seed from this one on that is about a change of the primary or about anything, with so many clients
/// instead of its own, of few requests each.
pub(crate) fn crowd(seed: u64, clients: usize) -> Schedule {
    let drawn =
        (seed..).map(schedule).find(|drawn| matches!(drawn.settings.theme, Theme::Chaos | Theme::Failover));
    let mut drawn = drawn.unwrap_or_else(|| schedule(seed));
    let mut rng = Rng::with_seed(seed);
    drawn.settings.pool = 20;
    drawn.clients = (0..clients)
        .map(|_| {
            let mut requests = client(&drawn.settings, drawn.ends, &mut rng);
            requests.truncate(3);
            // They come over the whole time, not all at its beginning.
            for request in &mut requests {
                request.after *= 4;
            }
            requests
        })
        .collect();
    drawn
}

fn settings(theme: Theme, rng: &mut Rng) -> Settings {
    let nodes = match theme {
        Theme::ReplicaLost => rng.usize(3..=4),
        _ => *rng.choice([2, 3, 3, 3, 4].iter()).unwrap_or(&3),
    };
    let strict = theme == Theme::ReplicaLost;
    let pool = if strict || theme == Theme::ReplicasLost {
        20
    } else {
        *rng.choice([2, 4, 20].iter()).unwrap_or(&20)
    };
    Settings {
        theme,
        nodes,
        instances: rng.usize(1..=3),
        pool,
        fallback: if strict { 20 } else { rng.u32(1..=pool.min(4)) },
        behind_token: if strict { 20 } else { rng.u32(1..=pool.min(4)) },
        write_quorum: u32::from(!strict && rng.u32(0..3) == 0),
        balancer: rng.u8(0..4),
        max_staleness: ms(*rng.choice([1_000, 2_000, 5_000].iter()).unwrap_or(&5_000)),
        deadline: if strict { ms(5_000) } else { ms(rng.u64(1..=4) * 1_000) },
        min_serving: rng.u32(0..=1),
        hedged: rng.u32(0..3) == 0,
    }
}

fn steps(settings: &Settings, ends: Duration, rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    match settings.theme {
        Theme::Chaos => {
            for _ in 0..rng.u32(1..=6) {
                one(settings, ends, rng, &mut steps);
            }
            if rng.bool() {
                failover(settings, ends, rng, &mut steps);
            }
        }
        Theme::Failover => {
            failover(settings, ends, rng, &mut steps);
            if rng.u32(0..3) == 0 {
                failover(settings, ends, rng, &mut steps);
            }
            for _ in 0..rng.u32(0..=2) {
                one(settings, ends, rng, &mut steps);
            }
        }
        Theme::ReplicaLost => on_a_replica(rng.usize(1..settings.nodes), settings, ends, rng, &mut steps),
        Theme::ReplicasLost => {
            let at = ms(rng.u64(600..1_200));
            steps.extend((1..settings.nodes).map(|server| Step { at, fault: Fault::Crash(server) }));
            steps.push(Step { at, fault: Fault::Slow(0, ms(rng.u64(5..40))) });
        }
    }
    steps
}

fn client(settings: &Settings, ends: Duration, rng: &mut Rng) -> Vec<Request> {
    let busy = settings.theme == Theme::ReplicasLost;
    let pause = if busy { 60 } else { 300 };
    let mut now = BEGINS;
    let mut requests = Vec::new();
    loop {
        let after = ms(rng.u64(0..pause));
        now += after;
        if now >= ends || requests.len() >= 30 {
            return requests;
        }
        requests.push(request(settings, after, rng));
    }
}

fn request(settings: &Settings, after: Duration, rng: &mut Rng) -> Request {
    let bounds = [50, 300, 600, 1_000, 3_000];
    let consistency = match rng.u32(0..10) {
        0 => Consistency::Strong,
        1..6 => Consistency::Session,
        6..8 => Consistency::BoundedStaleness(ms(*rng.choice(bounds.iter()).unwrap_or(&300))),
        _ => Consistency::Eventual,
    };
    let acts = match rng.u32(0..12) {
        0..3 => vec![write(rng)],
        3 => vec![write(rng), Act::Read],
        4..7 => vec![Act::Read],
        7 => vec![Act::ReadLease],
        8 => vec![Act::ReadTwice, Act::Read],
        9 => vec![Act::Read, Act::Pause(ms(rng.u64(1..400))), Act::Read],
        10 => vec![Act::Read, write(rng), Act::Read],
        _ => vec![Act::ReadTwice, Act::Pause(ms(rng.u64(1..200))), Act::ReadTwice, Act::Read],
    };
    Request {
        after,
        instance: rng.usize(0..settings.instances),
        consistency,
        priority: if rng.u32(0..6) == 0 { Priority::Batch } else { Priority::Normal },
        acts,
        dropped_at: (rng.u32(0..8) == 0).then(|| rng.u32(0..12)),
    }
}

fn write(rng: &mut Rng) -> Act {
    match rng.u32(0..4) {
        0 => Act::Transaction,
        1 => Act::WriteLease,
        _ => Act::Write,
    }
}
