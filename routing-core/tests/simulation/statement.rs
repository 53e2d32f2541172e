//! What one statement does on a server, whoever waits for its answer.

use routing_core::{Access, Fault};
use tokio::time::Instant;

use super::history::Place;
use super::violation::Promise;
use super::wire::Wire;
use super::world::World;

/// A statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// A check of a connection, BEGIN, ROLLBACK: nothing that anybody sees.
    Nothing,
    /// What is there?
    Read,
    /// A write outside a transaction: it commits itself.
    Write(u64),
    /// A write in a transaction.
    Prepare,
    /// COMMIT of a transaction with this write.
    Commit(Option<u64>),
    /// Where is the end of the log?
    Position,
}

/// A statement on its way.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) wire: Wire,
    pub(crate) access: Access,
    pub(crate) statement: Statement,
    /// The highest timeline that the instance had accepted when it was sent.
    pub(crate) accepted: u32,
}

impl Sent {
    /// Runs it on its server.
    pub(crate) fn execute(&self) -> Result<Option<Place>, Fault> {
        let mut world = self.wire.sim.world();
        let answer = self.answer(&mut world);
        world.note(|world| {
            let shown = answer.map(|place| place.map(|place| world.history.show(place)));
            format!("{} {:?} {:?}", self.wire.name(), self.statement, shown)
        });
        answer
    }

    fn answer(&self, world: &mut World) -> Result<Option<Place>, Fault> {
        world.statements += 1;
        let server = &world.servers[self.wire.server];
        if server.ill {
            return Err(Fault::Unreachable);
        }
        let refusal = match self.access {
            Access::Write => Fault::NotPrimary,
            Access::Read => Fault::Misrouted,
        };
        let writable = server.is_writable(Instant::now()) && self.access == Access::Write;
        match self.statement {
            Statement::Nothing | Statement::Commit(None) => Ok(None),
            Statement::Read => Ok(Some(server.shown)),
            Statement::Position if server.is_primary() => Ok(Some(server.shown)),
            Statement::Prepare if writable => Ok(None),
            Statement::Write(write) | Statement::Commit(Some(write)) if writable => {
                self.check_timeline(world, write);
                Ok(Some(world.append(self.wire.server, write)))
            }
            Statement::Write(_) | Statement::Commit(_) | Statement::Prepare | Statement::Position => {
                Err(refusal)
            }
        }
    }

    /// What is written goes to no timeline below the one that the instance had accepted when it sent it.
    fn check_timeline(&self, world: &mut World, write: u64) {
        let timeline = world.history.timeline(world.servers[self.wire.server].shown);
        if timeline < self.accepted {
            let (name, accepted) = (self.wire.name(), self.accepted);
            let what = format!("write {write} ran by {name} on timeline {timeline} below {accepted}");
            world.violate(Promise::ProvenPrimary, what);
        }
    }
}
