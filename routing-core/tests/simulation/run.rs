//! One schedule from its beginning to its end.

use std::sync::Arc;
use std::time::Duration;

use routing_core::balance::{Balance, LeastInFlight, PowerOfTwoChoices, Random, RoundRobin};
use routing_core::testing::WallClock;
use routing_core::{
    BreakerConfig, Cluster, Consistency, HedgeConfig, Lease, NodeConfig, Router, RouterConfig, Session,
    UnixMillis,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backend::{SimError, Simulated, Site};
use super::client::{self, KEYS};
use super::draw::{BEGINS, ms};
use super::fault::Fault;
use super::mutant::Mutant;
use super::prober::Monitor;
use super::schedule::{Schedule, Settings, Theme};
use super::underway;
use super::violation::{Promise, Violation};
use super::world::{Sim, Write};

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<Violation>,
    /// Empty unless it was asked for.
    pub(crate) trace: String,
    pub(crate) statements: u64,
}

impl Outcome {
    /// The first violation.
    pub(crate) fn first(&self) -> Option<&Violation> {
        self.violations.first()
    }
}

/// Runs a schedule, on a clock of its own.
pub(crate) fn run(schedule: &Schedule, mutant: Option<Mutant>, traced: bool) -> Outcome {
    // What core draws for jitter, it draws from this thread's generator.
    fastrand::seed(schedule.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let outcome = runtime.block_on(async {
        let _wall = WallClock::follow(UnixMillis(1_700_000_000_000));
        let _sabotaged = mutant.and_then(Mutant::sabotage);
        play(schedule, mutant, traced).await
    });
    drop(runtime);
    outcome
}

async fn play(schedule: &Schedule, mutant: Option<Mutant>, traced: bool) -> Outcome {
    let sim = Sim::new(schedule, traced);
    for instance in 0..schedule.settings.instances {
        let router = start(&sim, instance, mutant);
        router.cluster().settled(BEGINS).await;
        sim.add_router(router);
    }
    let began = sim.world().began;
    let clients = schedule.clients.iter().enumerate();
    let clients: Vec<_> = clients
        .map(|(number, requests)| tokio::spawn(client::run(sim.clone(), number, requests.clone())))
        .collect();
    let mut last = BEGINS;
    for step in &schedule.steps {
        sleep_until(began + step.at).await;
        check_attempts(&sim, schedule, step.at.saturating_sub(last));
        last = step.at;
        sim.change(|world| {
            world.note(|_| step.fault.to_string());
            step.fault.apply(world);
        });
    }
    sleep_until(began + schedule.ends).await;
    check_attempts(&sim, schedule, schedule.ends.saturating_sub(last));
    repair(&sim);
    for client in clients {
        match timeout(ms(120_000), client).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => sim.world().violate(Promise::Leaks, format!("a client panicked: {error}")),
            Err(_) => sim.world().violate(Promise::Leaks, "a client never ended".to_owned()),
        }
    }
    sleep(ms(3_000)).await;
    check_counts(&sim, schedule);
    check_log(&sim);
    check_recovery(&sim, schedule.settings.instances).await;
    check_end(&sim).await;
    let mut world = sim.world();
    Outcome {
        violations: std::mem::take(&mut world.violations),
        trace: world.trace.take().unwrap_or_default(),
        statements: world.statements,
    }
}

/// An instance of the application starts.
fn start(sim: &Arc<Sim>, instance: usize, mutant: Option<Mutant>) -> Router<Simulated> {
    let (mut config, balancer) = {
        let world = sim.world();
        (configuration(&world.settings), world.settings.balancer)
    };
    if let Some(mutant) = mutant {
        mutant.configure(&mut config);
    }
    let seed = instance as u64;
    let balance: Arc<dyn Balance> = match balancer {
        0 => Arc::new(LeastInFlight::seeded(seed)),
        1 => Arc::new(RoundRobin::default()),
        2 => Arc::new(Random::seeded(seed)),
        _ => Arc::new(PowerOfTwoChoices::seeded(seed)),
    };
    let site = Site { sim: Some(sim.clone()), instance };
    let cluster = Cluster::start_with(config, Arc::new(Monitor(site.clone())), balance);
    let cluster = cluster.expect("a configuration that holds its rules");
    Router::new(&cluster, site).expect("pools on every node")
}

fn configuration(settings: &Settings) -> RouterConfig {
    let node = |(index, name): (usize, String)| {
        let url = format!("postgres://app@10.0.0.{}/app", index + 1);
        NodeConfig::new(name, url.parse().expect("a URL"))
    };
    RouterConfig {
        nodes: settings.names().enumerate().map(node).collect(),
        read_pool_size: settings.pool,
        write_pool_size: settings.pool,
        fallback_no_replica: Some(settings.fallback),
        fallback_behind_token: Some(settings.behind_token),
        write_quorum: settings.write_quorum,
        max_staleness: settings.max_staleness,
        max_staleness_return: settings.max_staleness / 2,
        acquire_deadline: settings.deadline,
        write_wait: settings.deadline,
        min_serving_replicas: settings.min_serving,
        hedge: settings.hedged.then(|| HedgeConfig { ratio: 1.0, percentile: 0.5, minimum_delay: ms(1) }),
        token_keys: KEYS.parse().ok(),
        ..RouterConfig::default()
    }
}

/// Everything works again: the primary of the highest timeline is the primary, and all others follow it.
fn repair(sim: &Sim) {
    sim.change(|world| {
        world.note(|_| "everything is repaired".to_owned());
        let now = Instant::now();
        for server in &mut world.servers {
            (server.stream_cut, server.replay_paused, server.frozen) = (false, false, false);
            (server.ill, server.full, server.slowness) = (false, false, Duration::ZERO);
            (server.replay_lag, server.stream_lag) = (Duration::ZERO, Duration::ZERO);
            (server.read_only_until, server.replays_from, server.starting_until) = (now, now, now);
            server.up = true;
        }
        world.blocked.iter_mut().flatten().for_each(|blocked| *blocked = false);
        let primaries = world.servers.iter().enumerate().filter(|(_, server)| server.is_primary());
        let Some(primary) = primaries.max_by_key(|(_, server)| server.shown.branch).map(|(index, _)| index)
        else {
            return;
        };
        for server in 0..world.servers.len() {
            if world.servers[server].role != super::server::Role::Standby(primary) {
                Fault::Follow { server, primary }.apply(world);
            }
        }
    });
}

/// Nothing is held by anybody any more.
fn check_counts(sim: &Sim, schedule: &Schedule) {
    for instance in 0..schedule.settings.instances {
        underway::check(sim, instance, 0);
    }
    let mut world = sim.world();
    let executing: u32 = world.servers.iter().map(|server| server.executing).sum();
    if executing > 0 {
        world.violate(Promise::Leaks, format!("{executing} statements are still executed"));
    }
}

/// What was acknowledged is in a log, what was refused in none.
fn check_log(sim: &Sim) {
    let mut world = sim.world();
    let writes: Vec<_> = world.writes.iter().map(|(write, state)| (*write, *state)).collect();
    for (write, state) in writes {
        let written = world.history.is_written(write);
        if state == Write::Refused && written {
            world.violate(Promise::Once, format!("write {write} was refused, and executed later"));
        }
        if matches!(state, Write::Done(_)) && !written {
            world.violate(Promise::Once, format!("write {write} was acknowledged, and is in no log"));
        }
    }
}

/// From one fault to the next, a lost replica costs few attempts: for each instance those that open the breaker and one for each
/// time that it is half open; and those of each client that were on their way.
fn check_attempts(sim: &Sim, schedule: &Schedule, since: Duration) {
    let mut world = sim.world();
    let failed: u32 = world.servers.iter_mut().map(|server| std::mem::take(&mut server.failed)).sum();
    if schedule.settings.theme != Theme::ReplicaLost {
        return;
    }
    let breaker = BreakerConfig::default();
    // A server that refuses is left alone for half of the time, less a fifth.
    let shortest_open = breaker.first_open.mul_f64(0.4);
    let trials = since.as_millis().div_ceil(shortest_open.as_millis()) + 1;
    let instances = schedule.settings.instances as u128;
    let limit = instances * (u128::from(breaker.failures) + trials) + 2 * schedule.clients.len() as u128;
    if u128::from(failed) > limit {
        let what = format!("{failed} attempts failed on a lost replica within {since:?}, {limit} may");
        world.violate(Promise::Loss, what);
    }
}

/// Each instance writes, and reads what another has written.
async fn check_recovery(sim: &Arc<Sim>, instances: usize) {
    for instance in 0..instances {
        let (Some(writer), Some(reader)) = (sim.router(instance), sim.router((instance + 1) % instances))
        else {
            continue;
        };
        let session = Session::new();
        let write = sim.world().new_write();
        let routed = writer.routed(session.clone(), Consistency::Session);
        let written =
            routed.run_statement(async move |lease: &mut Lease<Simulated>| Ok(lease.write(write).await?));
        if let Err(error) = written.await as Result<_, SimError> {
            sim.world().violate(Promise::Recovery, format!("app{} does not write: {error}", instance + 1));
            continue;
        }
        let Some(token) = session.signed_token().await else {
            sim.world().violate(Promise::Recovery, format!("app{} gives no token", instance + 1));
            continue;
        };
        let session = Session::new();
        session.present(token);
        let read = reader.routed(session, Consistency::Session);
        let seen =
            read.run_read(async |lease: &mut Lease<Simulated>| Ok::<_, SimError>(lease.read().await?)).await;
        let mut world = sim.world();
        match seen {
            Ok(place) if world.history.count(place, write) == 1 => {}
            Ok(_) => world.violate(Promise::Session, "a read after recovery misses its write".to_owned()),
            Err(error) => world.violate(Promise::Recovery, format!("a read fails: {error}")),
        }
    }
}

/// Closed routers keep no connection.
async fn check_end(sim: &Sim) {
    for router in sim.take_routers() {
        router.cluster().close();
        router.close();
    }
    sleep(ms(3_000)).await;
    let mut world = sim.world();
    let sessions: u32 = world.servers.iter().map(|server| server.sessions).sum();
    if sessions > 0 {
        world.violate(Promise::Leaks, format!("{sessions} sessions outlive their router"));
    }
}
