//! Faults that belong together: what breaks, and how it ends.

use std::time::Duration;

use fastrand::Rng;

use super::draw::ms;
use super::fault::Fault;
use super::schedule::{Settings, Step};

fn time(ends: Duration, rng: &mut Rng) -> Duration {
    ms(rng.u64(550..u64::try_from(ends.as_millis()).unwrap_or(u64::MAX) - 200))
}

fn later(at: Duration, up_to: u64, rng: &mut Rng) -> Duration {
    at + ms(rng.u64(10..up_to))
}

/// One fault on one server, the primary or another, and its end.
pub(crate) fn one(settings: &Settings, ends: Duration, rng: &mut Rng, steps: &mut Vec<Step>) {
    let server = rng.usize(0..settings.nodes);
    let at = time(ends, rng);
    if server > 0 && rng.bool() {
        return lasting(at, later(at, 2_500, rng), server, settings, rng, steps);
    }
    let instance = rng.usize(0..settings.instances);
    let (begins, over) = match rng.u32(0..6) {
        0 => (Fault::Crash(server), start(server, rng)),
        1 => (Fault::Freeze(server), Fault::Thaw(server)),
        2 | 3 => (Fault::Block { instance, server }, Fault::Unblock { instance, server }),
        4 => (Fault::Slow(server, ms(rng.u64(1..300))), Fault::Slow(server, Duration::ZERO)),
        _ => (Fault::Full(server, true), Fault::Full(server, false)),
    };
    steps.push(Step { at, fault: begins });
    steps.push(Step { at: later(at, 2_500, rng), fault: over });
}

fn start(server: usize, rng: &mut Rng) -> Fault {
    let (behind, starting) = (rng.usize(0..8), ms(rng.u64(0..400)));
    Fault::Start { server, behind, starting, replays: ms(rng.u64(0..800)) }
}

/// What can happen to a replica alone.
pub(crate) fn on_a_replica(
    server: usize,
    settings: &Settings,
    ends: Duration,
    rng: &mut Rng,
    steps: &mut Vec<Step>,
) {
    let mut at = ms(rng.u64(550..1_500));
    if rng.bool() {
        // The monitor sees nothing of it: the breaker alone keeps requests away.
        steps.push(Step { at, fault: Fault::Ill(server, true) });
        at += ms(rng.u64(1_000..2_500));
        steps.push(Step { at, fault: Fault::Ill(server, false) });
        at += ms(rng.u64(10..1_000));
    }
    while at < ends {
        let until = later(at, 2_000, rng);
        lasting(at, until, server, settings, rng, steps);
        at = later(until, 1_500, rng);
    }
}

fn lasting(
    at: Duration,
    until: Duration,
    server: usize,
    settings: &Settings,
    rng: &mut Rng,
    steps: &mut Vec<Step>,
) {
    let mut both = |begins, over| steps.extend([Step { at, fault: begins }, Step { at: until, fault: over }]);
    match rng.u32(0..11) {
        0 | 1 => both(Fault::Crash(server), start(server, rng)),
        2 => both(Fault::Freeze(server), Fault::Thaw(server)),
        3 => {
            for instance in 0..settings.instances {
                both(Fault::Block { instance, server }, Fault::Unblock { instance, server });
            }
        }
        4 => both(Fault::CutStream(server), Fault::JoinStream(server)),
        5 => both(Fault::PauseReplay(server), Fault::ResumeReplay(server)),
        6 => both(Fault::Lag(server, ms(rng.u64(1..1_500))), Fault::Lag(server, Duration::ZERO)),
        7 => both(Fault::Slow(server, ms(rng.u64(1..300))), Fault::Slow(server, Duration::ZERO)),
        8 => both(Fault::Full(server, true), Fault::Full(server, false)),
        9 => both(Fault::Delay(server, ms(rng.u64(1..500))), Fault::Delay(server, Duration::ZERO)),
        _ => both(Fault::Ill(server, true), Fault::Ill(server, false)),
    }
}

/// The primary changes, in one of the ways in which it does.
pub(crate) fn failover(settings: &Settings, ends: Duration, rng: &mut Rng, steps: &mut Vec<Step>) {
    let at = time(ends, rng);
    let old = rng.usize(0..settings.nodes);
    let new = (old + rng.usize(1..settings.nodes)) % settings.nodes;
    let mut now = at;
    let mut step = |at, fault| steps.push(Step { at, fault });
    let cut_off = rng.u32(0..5);
    match cut_off {
        // It dies, and may come back as it was.
        0 => step(at, Fault::Crash(old)),
        // It stands still, and does not know what happened meanwhile.
        1 => step(at, Fault::Freeze(old)),
        // It is cut off from its standbys, and from some of the application.
        2 => {
            for instance in 0..settings.instances {
                if rng.bool() {
                    step(at, Fault::Block { instance, server: old });
                }
            }
            (0..settings.nodes)
                .filter(|server| *server != old)
                .for_each(|server| step(at, Fault::CutStream(server)));
        }
        // The application sees nothing of the others.
        3 => {
            let instance = rng.usize(0..settings.instances);
            (0..settings.nodes)
                .filter(|server| *server != old)
                .for_each(|server| step(at, Fault::Block { instance, server }));
        }
        // It goes on beside its successor.
        _ => {}
    }
    now = later(now, 900, rng);
    let read_only = if rng.u32(0..3) == 0 { ms(rng.u64(0..600)) } else { Duration::ZERO };
    step(now, Fault::Promote { server: new, read_only });
    for server in (0..settings.nodes).filter(|server| ![old, new].contains(server)) {
        let joins = later(now, 800, rng);
        step(joins, Fault::JoinStream(server));
        step(joins, Fault::Follow { server, primary: new });
    }
    now = later(now, 1_800, rng);
    if rng.bool() {
        // The old one shows itself before it is rewound.
        step(now, Fault::Thaw(old));
        step(now, start(old, rng));
        for instance in 0..settings.instances {
            for server in 0..settings.nodes {
                if rng.bool() {
                    step(now, Fault::Unblock { instance, server });
                }
            }
        }
        if rng.bool() {
            // While its successor is gone.
            let gone = rng.bool();
            step(now, if gone { Fault::Crash(new) } else { Fault::Freeze(new) });
            now = later(now, 2_500, rng);
            step(now, if gone { start(new, rng) } else { Fault::Thaw(new) });
        }
        now = later(now, 1_500, rng);
    }
    step(now, Fault::JoinStream(old));
    step(now, Fault::Follow { server: old, primary: new });
}
