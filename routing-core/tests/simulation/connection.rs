//! A connection to a simulated server, and the pool that keeps it: the pool is the real one.

use std::sync::Arc;
use std::time::Duration;

use routing_core::pool::{Connector, Pooled};
use routing_core::{Access, Fault};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::history::Place;
use super::statement::{Sent, Statement};
use super::wire::{Broken, Wire};
use super::world::Sim;
use super::writes;

/// What it takes to begin with a cancellation, beside its way.
const CANCELLING: Duration = Duration::from_millis(1);

/// Opens connections of one instance to one server.
pub(crate) struct Dialer {
    pub(crate) sim: Arc<Sim>,
    pub(crate) instance: usize,
    pub(crate) server: usize,
    pub(crate) access: Access,
}

/// A session on a server.
pub(crate) struct Session(pub(crate) Wire);

impl Session {
    fn begin(wire: Wire) -> Self {
        wire.sim.world().servers[wire.server].sessions += 1;
        Self(wire)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.sim.world().servers[self.0.server].sessions -= 1;
    }
}

impl Dialer {
    async fn dial(&self) -> Result<Session, Fault> {
        let life = self.sim.world().servers[self.server].life;
        let wire = Wire { sim: self.sim.clone(), instance: self.instance, server: self.server, life };
        wire.pass(wire.travel_time()).await.map_err(|Broken| Fault::Unreachable)?;
        let session = {
            let (world, now) = (self.sim.world(), Instant::now());
            let server = &world.servers[self.server];
            if !server.is_open(now) || server.full {
                return Err(Fault::Refusing);
            }
            if server.ill {
                return Err(Fault::Unreachable);
            }
            if self.access == Access::Write && !server.is_writable(now) {
                return Err(Fault::NotPrimary);
            }
            drop(world);
            Session::begin(wire.clone())
        };
        wire.pass(wire.travel_time()).await.map_err(|Broken| Fault::Unreachable)?;
        Ok(session)
    }
}

impl Connector for Dialer {
    type Connection = Session;
    type Error = Fault;

    async fn connect(&self) -> Result<Session, Fault> {
        let dialed = self.dial().await;
        if dialed.is_err() {
            self.sim.world().servers[self.server].failed += 1;
        }
        dialed
    }

    fn describe(&self, error: &Fault) -> String {
        error.to_string()
    }

    async fn check(&self, session: &mut Session) -> Result<(), Fault> {
        let sent =
            Sent { wire: session.0.clone(), access: self.access, statement: Statement::Nothing, accepted: 0 };
        Flight::begin(sent).end().await.map(|_| ())
    }
}

/// What a lease holds.
pub(crate) struct Connection {
    /// `None` only while it is being dropped.
    pooled: Option<Pooled<Dialer>>,
    access: Access,
    pub(crate) busy: bool,
    pub(crate) lost: Option<Fault>,
    /// A transaction is open, with this write.
    open: Option<Option<u64>>,
}

impl Connection {
    pub(crate) fn new(pooled: Pooled<Dialer>, access: Access) -> Self {
        Self { pooled: Some(pooled), access, busy: false, lost: None, open: None }
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.pooled.as_ref().expect("it is there until the drop").0
    }

    pub(crate) fn opened(&self) -> Instant {
        self.pooled.as_ref().map_or_else(Instant::now, Pooled::opened)
    }

    /// The state that a read sees.
    pub(crate) async fn read(&mut self) -> Result<Place, Fault> {
        self.state(Statement::Read).await
    }

    /// Where the log ends.
    pub(crate) async fn position(&mut self) -> Result<Place, Fault> {
        self.state(Statement::Position).await
    }

    async fn state(&mut self, statement: Statement) -> Result<Place, Fault> {
        self.run(statement).await?.ok_or(Fault::Unreachable)
    }

    /// Writes, outside a transaction or in the open one; in that case the place comes with the commit.
    pub(crate) async fn write(&mut self, write: u64) -> Result<Option<Place>, Fault> {
        if self.open.is_some() {
            self.run(Statement::Prepare).await?;
            self.open = Some(Some(write));
            return Ok(None);
        }
        writes::check_begin(self.wire());
        self.run(Statement::Write(write)).await
    }

    pub(crate) async fn begin(&mut self) -> Result<(), Fault> {
        if self.access == Access::Write {
            writes::check_begin(self.wire());
        }
        self.run(Statement::Nothing).await?;
        self.open = Some(None);
        Ok(())
    }

    pub(crate) async fn commit(&mut self) -> Result<(), Fault> {
        let write = self.open.flatten();
        self.run(Statement::Commit(write)).await?;
        self.open = None;
        Ok(())
    }

    pub(crate) async fn roll_back(&mut self) -> Result<(), Fault> {
        self.run(Statement::Nothing).await?;
        self.open = None;
        Ok(())
    }

    async fn run(&mut self, statement: Statement) -> Result<Option<Place>, Fault> {
        let wire = self.wire().clone();
        let accepted = writes::accepted(&wire);
        let server = wire.server;
        self.busy = true;
        let answer = Flight::begin(Sent { wire, access: self.access, statement, accepted }).end().await;
        self.busy = false;
        if let Err(fault) = answer {
            self.wire().sim.world().servers[server].failed += 1;
            if fault.ends_connection() {
                self.lost = Some(fault);
            }
        }
        answer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let usable = !self.busy && self.lost.is_none() && self.open.is_none();
        match self.pooled.take() {
            Some(pooled) if !usable => drop(pooled.discard()),
            // Back into its pool.
            pooled => drop(pooled),
        }
    }
}

/// A statement under way. Its server goes on with it when nobody waits for the answer any more; it is then cancelled there, which
/// may come too late.
struct Flight {
    sent: Option<Sent>,
    arrives: Instant,
    _executing: Executing,
}

impl Flight {
    fn begin(sent: Sent) -> Self {
        let _executing = Executing::begin(&sent.wire);
        let arrives = Instant::now() + sent.wire.travel_time();
        Self { sent: Some(sent), arrives, _executing }
    }

    async fn end(mut self) -> Result<Option<Place>, Fault> {
        let Some(sent) = self.sent.clone() else { return Ok(None) };
        let wire = sent.wire.clone();
        let travels = self.arrives.saturating_duration_since(Instant::now());
        let arrived = wire.pass(travels).await;
        // From here on there is nothing to cancel.
        self.sent = None;
        let answer = match arrived {
            Ok(()) => sent.execute()?,
            Err(Broken) => return Err(Fault::Unreachable),
        };
        wire.pass(wire.travel_time()).await.map_err(|Broken| Fault::Unreachable)?;
        Ok(answer)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let (Some(sent), Ok(runtime)) = (self.sent.take(), Handle::try_current()) else { return };
        let travels = self.arrives.saturating_duration_since(Instant::now());
        let cancelled = sent.wire.travel_time() + CANCELLING < travels;
        let executing = Executing::begin(&sent.wire);
        runtime.spawn(async move {
            if sent.wire.pass(travels).await.is_ok() && !cancelled {
                let _ = sent.execute();
            }
            drop(executing);
        });
    }
}

/// Counts a statement for as long as its server is at it.
struct Executing(Wire);

impl Executing {
    fn begin(wire: &Wire) -> Self {
        wire.sim.world().servers[wire.server].executing += 1;
        Self(wire.clone())
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        self.0.sim.world().servers[self.0.server].executing -= 1;
    }
}
