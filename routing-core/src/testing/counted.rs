//! What a server in memory has seen.

use std::sync::atomic::Ordering::SeqCst;

use super::server::FakeServer;
use crate::decision::Access;

impl FakeServer {
    /// How often a pool for this access was retired.
    #[must_use]
    pub fn retired(&self, access: Access) -> u32 {
        self.retired[access as usize].load(SeqCst)
    }

    /// How often pools for it were set up.
    #[must_use]
    pub fn opened(&self) -> u32 {
        self.opened.load(SeqCst)
    }

    /// How often its pools were closed.
    #[must_use]
    pub fn closed(&self) -> u32 {
        self.closed.load(SeqCst)
    }

    /// Connections that are being opened.
    #[must_use]
    pub fn opening(&self) -> u32 {
        self.opening.load(SeqCst)
    }

    /// How many connections were being opened at once, at most.
    #[must_use]
    pub fn most_opening(&self) -> u32 {
        self.most_opening.load(SeqCst)
    }

    /// Statements that it was sent, probes aside.
    #[must_use]
    pub fn statements(&self) -> u32 {
        self.statements.load(SeqCst)
    }

    /// Connections that the monitor has to it.
    #[must_use]
    pub fn probe_connections(&self) -> u32 {
        self.probe_connections.load(SeqCst)
    }

    /// Connections that it was asked for, the monitor's aside, whether it gave them or not.
    #[must_use]
    pub fn asked(&self) -> u32 {
        self.asked.load(SeqCst)
    }

    /// Probes that it has answered.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.probes.load(SeqCst)
    }
}
