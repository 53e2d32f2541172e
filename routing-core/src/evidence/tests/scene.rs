//! Three servers that say what a test has them say.

use std::time::Duration;

use crate::breaker::BreakerConfig;
use crate::config::NodeConfig;
use crate::evidence::*;
use crate::lsn::SystemId;

pub(super) struct Scene {
    pub(super) evidence: Evidence,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) start: Instant,
}

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Scene {
    pub(super) fn new() -> Self {
        let config = Arc::new(RouterConfig::default());
        let nodes: Vec<_> = (1..=3)
            .map(|n| {
                let url = format!("postgres://10.0.0.{n}/d").parse().unwrap();
                Arc::new(Node::new(NodeConfig::new(format!("pg{n}"), url), BreakerConfig::default()))
            })
            .collect();
        Self { evidence: Evidence::new(config, &nodes), nodes, start: Instant::now() }
    }

    pub(super) fn answer(&mut self, node: usize, at: u64, probe: Probe) -> Effects {
        let identity = Identity {
            system_id: SystemId(1),
            version: 150_000,
            address: Some(format!("10.0.0.{}", node + 1)),
            port: Some(5432),
            started: "1".to_owned(),
            aurora: false,
        };
        let sent = self.start + ms(at);
        let outcome = Ok((Arc::new(identity), probe));
        self.evidence.observe(Observation { node: self.nodes[node].id(), sent, outcome }, sent)
    }

    pub(super) fn fail(&mut self, node: usize, at: u64) -> Effects {
        let sent = self.start + ms(at);
        let error = ProbeError::TimedOut { step: "asking", after: ms(1_000) };
        self.evidence.observe(Observation { node: self.nodes[node].id(), sent, outcome: Err(error) }, sent)
    }

    /// The primary counts as dead from then on.
    pub(super) fn lose_pg1(&mut self, at: u64) {
        self.fail(0, at);
        self.fail(0, at);
    }

    pub(super) fn at(&mut self, at: u64) -> Topology {
        self.evidence.topology(self.start + ms(at))
    }

    /// pg1 writes, pg2 and pg3 follow it; all at position 100.
    pub(super) fn settled() -> Self {
        let mut scene = Self::new();
        scene.answer(0, 0, writes(1, 100));
        for node in [1, 2] {
            scene.answer(node, 0, follows(0, 1, 100));
        }
        scene
    }
}

pub(super) fn writes(timeline: u32, lsn: u64) -> Probe {
    Probe {
        in_recovery: false,
        lsn: Some(Lsn::from(lsn)),
        receive_lsn: None,
        timeline: Some(Timeline(timeline)),
        wal_receiver: false,
        wal_receiver_status: None,
        sender: None,
        walsenders: 0,
        read_only: false,
        recovered_to: None,
        claimed_lag: None,
    }
}

pub(super) fn follows(node: usize, timeline: u32, lsn: u64) -> Probe {
    Probe {
        in_recovery: true,
        wal_receiver: true,
        wal_receiver_status: Some("streaming".to_owned()),
        sender: Some((format!("10.0.0.{}", node + 1), 5432)),
        read_only: true,
        ..writes(timeline, lsn)
    }
}

pub(super) fn orphan(lsn: u64) -> Probe {
    Probe { in_recovery: true, read_only: true, timeline: None, ..writes(1, lsn) }
}
