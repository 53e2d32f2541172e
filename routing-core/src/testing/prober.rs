//! Probes of the servers in memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use futures_util::future::BoxFuture;

use super::cluster::FakeCluster;
use super::server::{FakeServer, Reach};
use crate::config::NodeConfig;
use crate::fault::Fault;
use crate::probe::{IDENTITY_SQL, ProbeConnection, ProbeError, Prober, Row};

impl Prober for FakeCluster {
    fn connect<'a>(
        &'a self,
        node: &'a NodeConfig,
    ) -> BoxFuture<'a, Result<Box<dyn ProbeConnection>, ProbeError>> {
        Box::pin(async move {
            let server = self.find(&node.name).ok_or_else(|| broken("there is no such server"))?.clone();
            if server.answers().await {
                let life = server.life();
                server.probe_connections.fetch_add(1, SeqCst);
                Ok(Box::new(FakeProbe { server, life }) as Box<dyn ProbeConnection>)
            } else {
                Err(broken("connection refused"))
            }
        })
    }
}

fn broken(message: &str) -> ProbeError {
    ProbeError::Driver { fault: Some(Fault::Unreachable), message: message.to_owned() }
}

struct FakeProbe {
    server: Arc<FakeServer>,
    life: u32,
}

impl ProbeConnection for FakeProbe {
    fn query<'a>(&'a mut self, sql: &'static str) -> BoxFuture<'a, Result<Row, ProbeError>> {
        Box::pin(async move {
            assert!(!self.server.panics.swap(false, SeqCst), "the prober panics, as the test asked");
            if self.server.rejects_probes.load(SeqCst) {
                return Err(ProbeError::Driver {
                    fault: None,
                    message: "password authentication failed".to_owned(),
                });
            }
            if self.life != self.server.life()
                || self.server.reach() == Reach::Refused
                || !self.server.answers().await
            {
                return Err(broken("connection reset"));
            }
            self.server.probes.fetch_add(1, SeqCst);
            let state = self.server.state().clone();
            let some = |value: String| Some(value);
            if sql == IDENTITY_SQL {
                let address = format!("10.0.0.{}", self.server.number());
                return Ok(vec![
                    some(state.system_id.to_string()),
                    some("150000".to_owned()),
                    some(address),
                    some("5432".to_owned()),
                    some("1".to_owned()),
                    some("false".to_owned()),
                ]);
            }
            let lsn = self.server.lsn().to_string();
            let follows = state.follows.filter(|_| !state.primary);
            let timeline =
                if state.primary { format!("{:08X}", state.timeline) } else { state.timeline.to_string() };
            let receives = follows.is_some();
            let shown = state.primary || receives && !self.server.hides_timeline.load(SeqCst);
            let follows = follows.filter(|_| shown);
            Ok(vec![
                some((!state.primary).to_string()),
                some(lsn.clone()),
                (!state.primary).then_some(lsn),
                shown.then_some(timeline),
                some(receives.to_string()),
                follows.map(|_| "streaming".to_owned()),
                follows.map(|number| format!("10.0.0.{number}")),
                follows.map(|_| "5432".to_owned()),
                some("0".to_owned()),
                some((!state.primary || state.read_only).to_string()),
                None,
            ])
        })
    }
}

impl Drop for FakeProbe {
    fn drop(&mut self) {
        self.server.probe_connections.fetch_sub(1, SeqCst);
    }
}

impl fmt::Debug for FakeProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProbe").field("server", &self.server).finish()
    }
}
