//! A connection to a server in memory.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::backend::FakeError;
use super::server::FakeServer;
use crate::decision::Access;
use crate::fault::Fault;
use crate::lsn::Lsn;
use crate::straggler::Straggler;

/// A connection to a server in memory.
#[derive(Debug)]
pub struct FakeConnection {
    pub(super) server: Arc<FakeServer>,
    pub(super) life: u32,
    pub(super) access: Access,
    pub(super) busy: AtomicBool,
    /// When its last statement began.
    pub(super) began: Mutex<Instant>,
    /// It was dropped while that ran.
    pub(super) straggler: Option<Straggler>,
    pub(super) lost: AtomicBool,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl FakeConnection {
    /// Runs a read; the position that it sees.
    ///
    /// # Errors
    /// [`FakeError::Fault`] when the server breaks.
    pub async fn query(&self) -> Result<Lsn, FakeError> {
        self.statement(|server| Ok(server.lsn())).await
    }

    /// Runs a write; its position.
    ///
    /// # Errors
    /// [`FakeError::Fault`] when the server breaks, or refuses writes.
    pub async fn write(&self) -> Result<Lsn, FakeError> {
        let refused = if self.access == Access::Write { Fault::NotPrimary } else { Fault::Misrouted };
        let access = self.access;
        self.statement(move |server| {
            let writable = {
                let state = server.state();
                state.primary && !state.read_only && access == Access::Write
            };
            if writable { Ok(server.append()) } else { Err(FakeError::Fault(refused)) }
        })
        .await
    }

    /// Runs a statement, which has its effect once the server has answered.
    pub(super) async fn statement<T>(
        &self,
        effect: impl FnOnce(&FakeServer) -> Result<T, FakeError>,
    ) -> Result<T, FakeError> {
        let _executing = Executing::new(&self.server);
        self.server.statements.fetch_add(1, SeqCst);
        self.busy.store(true, SeqCst);
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let latency = self.server.state().latency;
        let run = async {
            tokio::time::sleep(latency).await;
            self.server.answers().await
        };
        let answered = tokio::select! {
            biased;
            () = self.server.breaks() => false,
            answered = run => answered,
        };
        self.busy.store(false, SeqCst);
        if !answered || self.life != self.server.life() {
            self.lost.store(true, SeqCst);
            return Err(FakeError::Fault(Fault::Unreachable));
        }
        effect(&self.server)
    }
}

/// Counts a statement for as long as it runs.
struct Executing<'a>(&'a FakeServer);

impl<'a> Executing<'a> {
    fn new(server: &'a FakeServer) -> Self {
        server.executing.fetch_add(1, SeqCst);
        Self(server)
    }
}

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.0.executing.fetch_sub(1, SeqCst);
    }
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        let server = self.server.clone();
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let (latency, last_word) = {
            let state = server.state();
            (state.latency, state.last_word)
        };
        let (Some(straggler), Ok(runtime), false) =
            (self.straggler.take(), Handle::try_current(), last_word.is_zero())
        else {
            server.connections.fetch_sub(1, SeqCst);
            return;
        };
        let permit = self.permit.take();
        let ends = (began + latency).min(Instant::now() + last_word);
        runtime.spawn(async move {
            tokio::time::sleep_until(ends).await;
            server.connections.fetch_sub(1, SeqCst);
            drop((permit, straggler));
        });
    }
}
