//! The monitor's way to the simulated servers.

use futures_util::future::BoxFuture;
use routing_core::probe::{IDENTITY_SQL, ProbeConnection, ProbeError, Prober, Row};
use routing_core::{Fault, NodeConfig};
use tokio::time::Instant;

use super::backend::{Site, index};
use super::wire::{Broken, Wire};
use super::world::World;

/// Asks for one instance.
pub(crate) struct Monitor(pub(crate) Site);

struct Connection(Wire);

fn failed(fault: Fault, message: &str) -> ProbeError {
    ProbeError::Driver { fault: Some(fault), message: message.to_owned() }
}

impl From<Broken> for ProbeError {
    fn from(_: Broken) -> Self {
        failed(Fault::Unreachable, "the connection is reset")
    }
}

impl Prober for Monitor {
    fn connect<'a>(
        &'a self,
        node: &'a NodeConfig,
    ) -> BoxFuture<'a, Result<Box<dyn ProbeConnection>, ProbeError>> {
        Box::pin(async move {
            let sim =
                self.0.sim.clone().ok_or_else(|| failed(Fault::Unreachable, "there is no simulation"))?;
            let server = index(&node.name);
            let life = sim.world().servers[server].life;
            let wire = Wire { sim, instance: self.0.instance, server, life };
            wire.pass(wire.travel_time()).await?;
            if !wire.sim.world().servers[server].is_open(Instant::now()) {
                return Err(failed(Fault::Refusing, "the database system is starting up"));
            }
            wire.pass(wire.travel_time()).await?;
            Ok(Box::new(Connection(wire)) as Box<dyn ProbeConnection>)
        })
    }
}

impl ProbeConnection for Connection {
    fn query<'a>(&'a mut self, sql: &'static str) -> BoxFuture<'a, Result<Row, ProbeError>> {
        Box::pin(async move {
            let wire = &self.0;
            wire.pass(wire.travel_time()).await?;
            let row = {
                let mut world = wire.sim.world();
                let row = answer(&world, wire.server, sql);
                world.note(|_| format!("{} probe {row:?}", wire.name()));
                row
            };
            wire.pass(wire.travel_time()).await?;
            Ok(row)
        })
    }
}

/// What a server says of itself.
fn answer(world: &World, number: usize, sql: &str) -> Row {
    let server = &world.servers[number];
    let text = |value: &dyn ToString| Some(value.to_string());
    let address = |server: usize| Some(format!("10.0.0.{}", server + 1));
    if sql == IDENTITY_SQL {
        return vec![
            text(&7),
            text(&150_000),
            address(number),
            text(&5432),
            text(&server.life),
            text(&false),
        ];
    }
    let place = |lsn: u64| text(&routing_core::Lsn::from(lsn));
    let lsn = place(world.history.lsn(server.shown));
    let source = server.receives_from.filter(|_| !server.is_primary()).map(|(source, _)| source);
    if server.is_primary() {
        let standby = |other: &&super::server::Server| {
            !other.is_primary() && other.receives_from == Some((number, server.life))
        };
        return vec![
            text(&false),
            lsn,
            None,
            Some(format!("{:08X}", world.history.timeline(server.shown))),
            text(&false),
            None,
            None,
            None,
            text(&world.servers.iter().filter(standby).count()),
            text(&!server.is_writable(Instant::now())),
            server.recovered_to.and_then(place),
        ];
    }
    vec![
        text(&true),
        lsn,
        place(world.history.lsn(server.received)),
        source.and_then(|_| text(&world.history.timeline(server.received))),
        text(&source.is_some()),
        source.map(|_| "streaming".to_owned()),
        source.and_then(address),
        source.map(|_| "5432".to_owned()),
        text(&0),
        text(&true),
        None,
    ]
}
