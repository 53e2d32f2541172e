//! What lies between an instance of the application and a server.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::world::{Sim, World};

/// A connection's way to its server.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) sim: Arc<Sim>,
    pub(crate) instance: usize,
    pub(crate) server: usize,
    /// The server's life that it was opened in.
    pub(crate) life: u32,
}

/// The connection is reset, or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

enum Passage {
    Open,
    Stuck,
    Broken,
}

impl Wire {
    fn passage(&self) -> Passage {
        let world = self.sim.world();
        let server = &world.servers[self.server];
        if world.blocked[self.instance][self.server] {
            return Passage::Stuck;
        }
        if !server.up || server.life != self.life {
            return Passage::Broken;
        }
        if server.frozen { Passage::Stuck } else { Passage::Open }
    }

    /// How long one message travels.
    pub(crate) fn travel_time(&self) -> Duration {
        let mut world = self.sim.world();
        Duration::from_millis(world.draw.u64(0..=2)) + world.servers[self.server].slowness
    }

    /// A message travels. It waits while the way is blocked or the server stands still; the connection's end is noticed at once.
    pub(crate) async fn pass(&self, travels: Duration) -> Result<(), Broken> {
        let until = Instant::now() + travels;
        loop {
            let change = self.sim.next_change();
            match self.passage() {
                Passage::Broken => return Err(Broken),
                Passage::Open if Instant::now() >= until => return Ok(()),
                Passage::Open => {
                    let _ = timeout_at(until, change).await;
                }
                Passage::Stuck => {
                    change.await;
                }
            }
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("app{}→{}", self.instance + 1, World::name(self.server))
    }
}
