//! Writes of one request, and what may become of them.

use std::sync::Arc;
use std::time::Duration;

use routing_core::{Fault, Lease, Routed};
use tokio::time::timeout;

use super::backend::{SimError, Simulated};
use super::draw::ms;
use super::history::Place;
use super::reads::Covered;
use super::schedule::{Act, Theme};
use super::underway::Underway;
use super::violation::Promise;
use super::world::{Sim, World, Write};

/// The writes of one request.
pub(crate) struct Writing {
    pub(crate) sim: Arc<Sim>,
    pub(crate) instance: usize,
    pub(crate) name: String,
}

/// How a write ended for its client.
enum End {
    /// Where it is; `None` when a transaction does not tell.
    Done(Option<Place>),
    Failed(SimError),
    /// A statement on a lease of the client's own failed: the router knows nothing of it.
    OnLease(Fault),
}

/// Whoever writes is gone before the end: the outcome is unknown.
struct Dropped<'s>(&'s Sim, u64);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        let mut world = self.0.world();
        if world.writes.get(&self.1) == Some(&Write::Asked) {
            world.writes.insert(self.1, Write::Unknown);
        }
    }
}

const STUCK: Duration = Duration::from_secs(60);

impl Writing {
    /// One write; where it is, if it was acknowledged.
    pub(crate) async fn write(
        &self,
        routed: &Routed<Simulated>,
        act: Act,
        covers: &[Covered],
    ) -> Option<Place> {
        let named = covers.iter().map(|covered| covered.timeline).max().unwrap_or(0);
        let write = self.sim.world().new_write();
        let _dropped = Dropped(&self.sim, write);
        let _underway = Underway::begin(&self.sim, self.instance);
        let Ok(ended) = timeout(STUCK, send(routed, act, write)).await else {
            self.sim.world().violate(Promise::Leaks, format!("{}: a write never ended", self.name));
            return None;
        };
        let mut world = self.sim.world();
        match ended {
            End::Done(place) => self.acknowledged(&mut world, write, place, named),
            End::Failed(SimError::CommitUnknown(unknown)) => {
                world.note(|_| format!("{}: write {write}: {unknown}", self.name));
                world.writes.insert(write, Write::Unknown);
                self.must_succeed(&mut world, "is unknown");
                None
            }
            End::OnLease(fault) if fault.ends_connection() => {
                world.note(|_| format!("{}: write {write} on a lease fails with {fault}", self.name));
                world.writes.insert(write, Write::Unknown);
                None
            }
            End::Failed(SimError::Fault(_)) | End::Failed(SimError::Route(_)) | End::OnLease(_) => {
                let code = if let End::Failed(error) = &ended { error.code() } else { "a refusal" };
                world.note(|_| format!("{}: write {write} fails with {code}", self.name));
                if world.history.is_written(write) {
                    let what = format!("{}: write {write} fails with {code}, and was executed", self.name);
                    world.violate(Promise::Once, what);
                }
                world.writes.insert(write, Write::Refused);
                self.must_succeed(&mut world, code);
                None
            }
        }
    }

    fn acknowledged(&self, world: &mut World, write: u64, place: Option<Place>, named: u32) -> Option<Place> {
        let Some(place) = place.or_else(|| world.history.find(write)) else {
            let what = format!("{}: write {write} is acknowledged, and in no log", self.name);
            world.violate(Promise::Once, what);
            return None;
        };
        world.note(|world| format!("{}: write {write} at {}", self.name, world.history.show(place)));
        world.writes.insert(write, Write::Done(place));
        let timeline = world.history.timeline(place);
        if timeline < named {
            let what = format!(
                "{}: a client whose token names timeline {named} has app{} write on {timeline}",
                self.name,
                self.instance + 1
            );
            world.violate(Promise::ProvenPrimary, what);
        }
        Some(place)
    }

    /// Where only replicas are lost, writes are not concerned.
    fn must_succeed(&self, world: &mut World, how: &str) {
        if world.settings.theme == Theme::ReplicaLost {
            world.violate(Promise::Loss, format!("{}: a write {how}", self.name));
        }
    }
}

async fn send(routed: &Routed<Simulated>, act: Act, write: u64) -> End {
    let ended = match act {
        Act::Transaction => {
            routed.run_write(async move |lease: &mut Lease<Simulated>| Ok(lease.write(write).await?)).await
        }
        Act::WriteLease => {
            let mut lease = match routed.acquire_write().await {
                Ok(lease) => lease,
                Err(error) => return End::Failed(error),
            };
            // Nobody watches over a lease that was handed out.
            return match timeout(ms(3_000), lease.write(write)).await {
                Ok(Ok(place)) => End::Done(place),
                Ok(Err(fault)) => End::OnLease(fault),
                Err(_) => End::OnLease(Fault::Unresponsive),
            };
        }
        _ => {
            routed
                .run_statement(async move |lease: &mut Lease<Simulated>| Ok(lease.write(write).await?))
                .await
        }
    };
    match ended {
        Ok(place) => End::Done(place),
        Err(error) => End::Failed(error),
    }
}
