//! What happens to the servers.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::history::History;
use super::server::Role;
use super::world::World;

/// One thing that happens. Servers and instances are numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// All its connections break, and it is gone.
    Crash(usize),
    /// It is started again. A standby comes back `behind` records behind what it had shown, and replays them after `replays`.
    Start {
        server: usize,
        behind: usize,
        starting: Duration,
        replays: Duration,
    },
    /// It stands still, as under SIGSTOP.
    Freeze(usize),
    Thaw(usize),
    /// Nothing gets through between an instance and a server.
    Block {
        instance: usize,
        server: usize,
    },
    Unblock {
        instance: usize,
        server: usize,
    },
    /// Nothing arrives from its primary, and its WAL receiver does not notice.
    CutStream(usize),
    JoinStream(usize),
    PauseReplay(usize),
    ResumeReplay(usize),
    /// It replays what it has received so much later.
    Lag(usize, Duration),
    /// It receives what its primary has written so much later: what is on its way is lost with the primary.
    Delay(usize, Duration),
    /// Each message to or from it takes so much longer.
    Slow(usize, Duration),
    /// Sessions of applications break at their first statement; the monitor's goes on.
    Ill(usize, bool),
    /// It has no room for one more session.
    Full(usize, bool),
    /// It leaves recovery onto a new timeline, and is read-only for a while.
    Promote {
        server: usize,
        read_only: Duration,
    },
    /// It becomes a standby of another server: at once where it can follow, else it is rewound and started.
    Follow {
        server: usize,
        primary: usize,
    },
}

impl Fault {
    /// Makes it so; what cannot be is left out.
    pub(crate) fn apply(self, world: &mut World) {
        let now = Instant::now();
        match self {
            Self::Crash(server) => {
                let server = &mut world.servers[server];
                (server.up, server.receives_from, server.recovered_to) = (false, None, None);
                server.life += 1;
            }
            Self::Start { server, behind, starting, replays } => {
                let server = &mut world.servers[server];
                if server.up {
                    return;
                }
                (server.up, server.frozen, server.starting_until) = (true, false, now + starting);
                if !server.is_primary() {
                    server.shown = History::earlier(server.shown, behind);
                    server.replays_from = now + starting + replays;
                }
            }
            Self::Freeze(server) => world.servers[server].frozen = true,
            Self::Thaw(server) => world.servers[server].frozen = false,
            Self::Block { instance, server } => world.blocked[instance][server] = true,
            Self::Unblock { instance, server } => world.blocked[instance][server] = false,
            Self::CutStream(server) => world.servers[server].stream_cut = true,
            Self::JoinStream(server) => world.servers[server].stream_cut = false,
            Self::PauseReplay(server) => world.servers[server].replay_paused = true,
            Self::ResumeReplay(server) => world.servers[server].replay_paused = false,
            Self::Lag(server, lag) => world.servers[server].replay_lag = lag,
            Self::Delay(server, lag) => world.servers[server].stream_lag = lag,
            Self::Slow(server, slowness) => world.servers[server].slowness = slowness,
            Self::Ill(server, ill) => world.servers[server].ill = ill,
            Self::Full(server, full) => world.servers[server].full = full,
            Self::Promote { server, read_only } => promote(world, server, now + read_only, now),
            Self::Follow { server, primary } => follow(world, server, primary, now),
        }
    }
}

fn promote(world: &mut World, number: usize, read_only_until: Instant, now: Instant) {
    let server = &world.servers[number];
    if server.is_primary() || !server.is_open(now) || server.frozen {
        return;
    }
    // What it has received it replays first.
    let from = server.received;
    let shown = world.history.fork(from, now);
    let recovered_to = world.history.lsn(from);
    let server = &mut world.servers[number];
    (server.role, server.shown, server.received) = (Role::Primary, shown, shown);
    (server.receives_from, server.replay_paused) = (None, false);
    (server.read_only_until, server.recovered_to) = (read_only_until, Some(recovered_to));
}

fn follow(world: &mut World, number: usize, primary: usize, now: Instant) {
    let source = &world.servers[primary];
    if number == primary || !source.is_primary() || !source.is_open(now) || source.frozen {
        return;
    }
    let server = &world.servers[number];
    if world.history.timeline(server.received) > world.history.timeline(source.shown) {
        return;
    }
    let can_follow = !server.is_primary() && world.history.contains(source.shown, server.received);
    let (shown, follows_at_once) = (source.shown, can_follow && server.up && !server.frozen);
    let server = &mut world.servers[number];
    (server.role, server.receives_from) = (Role::Standby(primary), None);
    if !follows_at_once {
        // Rewound, or copied anew: it lets nobody in before it has what its source had then.
        server.life += 1;
        (server.up, server.frozen, server.starting_until) = (true, false, now + Duration::from_millis(150));
        (server.shown, server.received, server.recovered_to) = (shown, shown, None);
        (server.replays_from, server.read_only_until) = (now, now);
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |server: &usize| World::name(*server);
        let app = |instance: &usize| format!("app{}", instance + 1);
        match self {
            Self::Crash(server) => write!(f, "{} crashes", name(server)),
            Self::Start { server, behind, starting, replays } => write!(
                f,
                "{} is started, {behind} records behind for {replays:?}, after {starting:?}",
                name(server)
            ),
            Self::Freeze(server) => write!(f, "{} is frozen", name(server)),
            Self::Thaw(server) => write!(f, "{} goes on", name(server)),
            Self::Block { instance, server } => {
                write!(f, "nothing gets through between {} and {}", app(instance), name(server))
            }
            Self::Unblock { instance, server } => {
                write!(f, "the way between {} and {} is free", app(instance), name(server))
            }
            Self::CutStream(server) => write!(f, "no log arrives at {}", name(server)),
            Self::JoinStream(server) => write!(f, "the log arrives at {} again", name(server)),
            Self::PauseReplay(server) => write!(f, "{} pauses its replay", name(server)),
            Self::ResumeReplay(server) => write!(f, "{} replays again", name(server)),
            Self::Lag(server, lag) => write!(f, "{} replays {lag:?} late", name(server)),
            Self::Delay(server, lag) => write!(f, "{} receives {lag:?} late", name(server)),
            Self::Slow(server, slowness) => write!(f, "messages of {} take {slowness:?} more", name(server)),
            Self::Ill(server, ill) => write!(f, "sessions on {} break: {ill}", name(server)),
            Self::Full(server, full) => write!(f, "{} lets in no more sessions: {full}", name(server)),
            Self::Promote { server, read_only } => {
                write!(f, "{} is promoted, read-only for {read_only:?}", name(server))
            }
            Self::Follow { server, primary } => {
                write!(f, "{} becomes a standby of {}", name(server), name(primary))
            }
        }
    }
}
