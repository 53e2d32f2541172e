use super::*;
use crate::breaker::BreakerConfig;
use crate::config::NodeConfig;
use crate::lsn::Lsn;
use crate::node::Node;

/// One node of a table: what it says of itself.
#[derive(Clone)]
enum Says {
    /// Out of recovery, writable, on this timeline.
    Writes(u32),
    /// Out of recovery, read-only, on this timeline.
    ReadOnly(u32),
    /// In recovery, streaming from the node with this number, on this timeline.
    Follows(usize, u32),
    /// In recovery, streaming on this timeline from a server under a name that nobody here knows.
    FollowsAlias(u32),
    /// In recovery without a WAL receiver.
    Orphan,
    /// Nothing fresh.
    Silent,
    /// The monitor has not tried it yet.
    Untried,
    /// Writable, of another cluster.
    Foreign(u32),
    /// The same server as the node with this number, writable on this timeline.
    SameAs(usize, u32),
}
use Says::*;

#[derive(Debug, PartialEq)]
enum Expected {
    Node(usize),
    /// The accepted primary, which may be read and not written to.
    Readable(usize),
    Nobody,
    Ambiguous,
    /// A claim that is not believed.
    Doubted(usize, Doubt),
}
use Expected::{Ambiguous, Doubted, Nobody as None_, Node as Is, Readable};

struct Table {
    nodes: Vec<Node>,
}

impl Table {
    fn new() -> Self {
        let nodes = (0..5)
            .map(|n| {
                let url = format!("postgres://h{n}/d").parse().unwrap();
                Node::new(NodeConfig::new(format!("pg{n}"), url), BreakerConfig::default())
            })
            .collect();
        Self { nodes }
    }

    fn judge(&self, lineage: &Lineage, says: &[Says], quorum: u32) -> Expected {
        self.judge_with(lineage, says, quorum, Authority::Absent)
    }

    fn judge_with(&self, lineage: &Lineage, says: &[Says], quorum: u32, authority: Authority) -> Expected {
        let said: Vec<_> = says.iter().enumerate().map(|(index, says)| statement(index, says)).collect();
        let hosts: Vec<_> = (0..says.len()).map(|n| format!("10.0.0.{n}")).collect();
        let witnesses: Vec<_> = said
            .iter()
            .enumerate()
            .map(|(index, said)| Witness {
                id: self.nodes[index].id(),
                configured: (&hosts[index], 5432),
                tried: !matches!(says[index], Untried),
                known: said.as_ref().map(|(identity, _)| identity),
                said: said.as_ref().map(|(identity, probe)| (identity, probe)),
            })
            .collect();
        let place = |id| self.nodes.iter().position(|node| node.id() == id).unwrap();
        match judge(lineage, &witnesses, quorum, authority) {
            Verdict::Nobody => None_,
            Verdict::Ambiguous(_) => Ambiguous,
            Verdict::Accepted(id, _) => Is(place(id)),
            Verdict::ReadOnly(id, _) => Readable(place(id)),
            Verdict::Doubted(id, _, doubt) => Doubted(place(id), doubt),
        }
    }

    /// What holds after node 0 was accepted on timeline 3.
    fn after_pg0_on_3(&self) -> Lineage {
        Lineage {
            system_id: Some(SystemId(1)),
            highest: Some(Timeline(3)),
            writer: Some((self.nodes[0].id(), Timeline(3))),
            epoch: 1,
        }
    }
}

fn statement(index: usize, says: &Says) -> Option<(Identity, Probe)> {
    /// An address that no node has.
    const ALIAS: usize = 99;
    let (server, system, recovery, read_only, timeline, follows) = match says {
        FollowsAlias(timeline) => (index, 1, true, true, Some(*timeline), Some(ALIAS)),
        Writes(timeline) => (index, 1, false, false, Some(*timeline), None),
        ReadOnly(timeline) => (index, 1, false, true, Some(*timeline), None),
        Follows(from, timeline) => (index, 1, true, true, Some(*timeline), Some(*from)),
        Orphan => (index, 1, true, true, None, None),
        Foreign(timeline) => (index, 2, false, false, Some(*timeline), None),
        SameAs(other, timeline) => (*other, 1, false, false, Some(*timeline), None),
        Silent | Untried => return None,
    };
    let identity = Identity {
        system_id: SystemId(system),
        version: 150_000,
        address: Some(format!("10.0.0.{server}")),
        port: Some(5432),
        started: "1".to_owned(),
        aurora: false,
    };
    let probe = Probe {
        in_recovery: recovery,
        lsn: Some(Lsn::from(100)),
        receive_lsn: None,
        timeline: timeline.map(Timeline),
        wal_receiver: follows.is_some(),
        wal_receiver_status: follows.map(|_| "streaming".to_owned()),
        sender: follows.map(|from| (format!("10.0.0.{from}"), 5432)),
        walsenders: 0,
        read_only,
        recovered_to: None,
        claimed_lag: None,
    };
    Some((identity, probe))
}

#[test]
fn the_first_primary_is_accepted_on_evidence_only() {
    let table = Table::new();
    let cases: &[(&str, &[Says], Expected)] = &[
        ("a primary and its standbys", &[Writes(1), Follows(0, 1), Follows(0, 1)], Is(0)),
        ("the primary is listed last", &[Follows(2, 1), Follows(2, 1), Writes(1)], Is(2)),
        ("a primary alone", &[Writes(1)], Is(0)),
        ("only standbys", &[Follows(1, 1), Follows(0, 1)], None_),
        ("a node was not tried yet", &[Writes(1), Untried], None_),
        ("a node does not answer", &[Writes(1), Silent], Is(0)),
        ("promoted and not yet writable", &[ReadOnly(2), Follows(0, 2)], None_),
        ("two claims, the standby follows one", &[Writes(2), Writes(2), Follows(1, 2)], Is(1)),
        ("two claims, no standby, timelines differ", &[Writes(2), Writes(3)], Is(1)),
        ("two claims on one timeline", &[Writes(2), Writes(2)], Ambiguous),
        ("two claims on one timeline, an orphan", &[Writes(2), Writes(2), Orphan], Ambiguous),
        (
            "two claims, the standbys are divided",
            &[Writes(2), Writes(2), Follows(0, 2), Follows(1, 2)],
            Ambiguous,
        ),
        ("a follower outweighs a timeline", &[Writes(2), Writes(3), Follows(0, 2)], Is(0)),
        ("votes travel through a cascade", &[Writes(2), Writes(2), Follows(1, 2), Follows(2, 2)], Is(1)),
        (
            "a lone claim while the standbys stream from a node that is silent",
            &[Writes(2), Silent, Follows(1, 1)],
            Doubted(0, Doubt::Outvoted { standbys: 1 }),
        ),
        (
            "a lone claim in another cluster than the rest",
            &[Foreign(1), Orphan, Orphan],
            Doubted(0, Doubt::Minority),
        ),
        ("two claims in two clusters", &[Foreign(1), Writes(1)], Ambiguous),
        ("one server listed twice", &[Writes(1), SameAs(0, 1), Follows(0, 1)], Is(0)),
        ("standbys know the primary by another name", &[Writes(1), FollowsAlias(1), FollowsAlias(1)], Is(0)),
        ("under that name they follow one of two", &[Writes(2), Writes(3), FollowsAlias(2)], Is(0)),
        ("under that name they may follow either", &[Writes(2), Writes(2), FollowsAlias(2)], Ambiguous),
        ("a cascade under another name", &[Writes(2), Writes(3), FollowsAlias(2), Follows(2, 2)], Is(0)),
        (
            "a deposed primary, the new one is not ours to reach",
            &[Writes(1), FollowsAlias(2)],
            Doubted(0, Doubt::Outvoted { standbys: 1 }),
        ),
    ];
    for (name, says, expected) in cases {
        assert_eq!(table.judge(&Lineage::default(), says, 0), *expected, "{name}");
    }
}

#[test]
fn a_successor_is_accepted_on_evidence_only() {
    let table = Table::new();
    let lineage = table.after_pg0_on_3();
    let cases: &[(&str, &[Says], Expected)] = &[
        ("nothing changed", &[Writes(3), Follows(0, 3)], Is(0)),
        ("promoted while the old one is down", &[Silent, Writes(4), Follows(1, 4)], Is(1)),
        ("the old one came back", &[Writes(3), Writes(4)], Is(1)),
        ("a deposed primary alone", &[Silent, Writes(2)], None_),
        ("a promotion on the same timeline number", &[Writes(3), Writes(3)], Ambiguous),
        (
            "a rogue promotion while one probe of the primary is lost",
            &[Silent, Writes(4), Follows(0, 3)],
            Doubted(1, Doubt::Outvoted { standbys: 1 }),
        ),
        ("a rogue promotion beside the real primary", &[Writes(3), Writes(4), Follows(0, 3)], Is(0)),
        (
            "a rogue promotion with as many followers as the silent primary",
            &[Silent, Writes(4), Follows(0, 3), Follows(1, 4)],
            Doubted(1, Doubt::Outvoted { standbys: 1 }),
        ),
        (
            "a rogue promotion while the standby follows the silent primary under another name",
            &[Silent, Writes(4), FollowsAlias(3)],
            Doubted(1, Doubt::Outvoted { standbys: 1 }),
        ),
        (
            "a rogue promotion beside the real primary that has another name",
            &[Writes(3), Writes(4), FollowsAlias(3)],
            Is(0),
        ),
        (
            "a standby that follows the new primary under another name",
            &[Silent, Writes(4), FollowsAlias(4)],
            Is(1),
        ),
        ("another cluster on a high timeline", &[Silent, Foreign(9)], None_),
        ("another cluster beside the primary", &[Writes(3), Foreign(9)], Is(0)),
        ("the primary became a standby", &[Follows(1, 4), Writes(4)], Is(1)),
        ("a standby still follows the deposed primary", &[Writes(2), Writes(3), Follows(0, 2)], Is(1)),
        ("the primary is read-only for maintenance", &[ReadOnly(3), Follows(0, 3)], Readable(0)),
        ("the primary alone is read-only", &[ReadOnly(3), Silent], Readable(0)),
        ("another node on its timeline is read-only", &[Silent, ReadOnly(3)], None_),
        ("the primary comes back read-only on a later timeline", &[ReadOnly(4), Silent], None_),
        ("a switchover: the old one is read-only", &[ReadOnly(3), Writes(4)], Is(1)),
        ("promoted and not yet writable", &[Silent, ReadOnly(4), Follows(1, 4)], None_),
        (
            "a rogue promotion while the primary is read-only",
            &[ReadOnly(3), Writes(4), Follows(0, 3)],
            Doubted(1, Doubt::Outvoted { standbys: 1 }),
        ),
        (
            "the read-only primary, while its standbys stream from a server that is silent",
            &[ReadOnly(3), Silent, Follows(1, 4)],
            None_,
        ),
    ];
    for (name, says, expected) in cases {
        assert_eq!(table.judge(&lineage, says, 0), *expected, "{name}");
    }
}

#[test]
fn a_quorum_of_standbys_must_be_on_the_candidates_timeline() {
    let table = Table::new();
    let lineage = table.after_pg0_on_3();
    let cases: &[(&[Says], u32, Expected)] = &[
        (&[Writes(3), Follows(0, 3), Silent], 1, Is(0)),
        (&[Writes(3), Silent, Silent], 1, Doubted(0, Doubt::NoQuorum { seen: 0, needed: 1 })),
        (&[Writes(3), Follows(0, 3), Silent], 2, Doubted(0, Doubt::NoQuorum { seen: 1, needed: 2 })),
        (&[Silent, Writes(4), Follows(1, 3)], 1, Doubted(1, Doubt::NoQuorum { seen: 0, needed: 1 })),
    ];
    for (says, quorum, expected) in cases {
        assert_eq!(table.judge(&lineage, says, *quorum), *expected);
    }
}

#[test]
fn a_timeline_below_the_highest_accepted_is_deposed() {
    let table = Table::new();
    let said = statement(0, &Writes(2)).unwrap();
    let witness = Witness {
        id: table.nodes[0].id(),
        configured: ("h0", 5432),
        tried: true,
        known: None,
        said: Some((&said.0, &said.1)),
    };
    assert_eq!(standings(&table.after_pg0_on_3(), &[witness]), [Standing::Deposed]);
    assert_eq!(standings(&Lineage::default(), &[witness]), [Standing::Candidate]);
}

#[test]
fn an_authority_says_who_may_lead_and_the_servers_who_can() {
    let table = Table::new();
    let lineage = table.after_pg0_on_3();
    let leads = |index: usize| Authority::Leads { node: Some(table.nodes[index].id()), running: true };
    let stopped = |index: usize| Authority::Leads { node: Some(table.nodes[index].id()), running: false };
    let stranger = Authority::Leads { node: None, running: true };
    let (absent, awaited, missing) = (Authority::Absent, Authority::Awaited, Authority::Missing);
    let not_leader = |index| Doubted(index, Doubt::NotLeader);
    let cases: &[(&str, &[Says], Authority, Expected)] = &[
        ("it names the primary", &[Writes(3), Follows(0, 3)], leads(0), Is(0)),
        ("the leader's server is said to be starting", &[Writes(3), Follows(0, 3)], stopped(0), Is(0)),
        ("it names another node", &[Writes(3), Follows(0, 3)], leads(1), not_leader(0)),
        ("it names a server that is none of ours", &[Writes(3), Follows(0, 3)], stranger, not_leader(0)),
        ("its agent was killed: two on two timelines", &[Writes(3), Writes(4)], leads(1), Is(1)),
        ("a rogue promotion of a lone standby", &[Writes(3), Writes(4)], leads(0), Is(0)),
        ("a rogue promotion with a follower", &[Writes(3), Writes(4), Follows(1, 4)], leads(0), Is(0)),
        ("two on one timeline", &[Writes(3), Writes(3)], leads(0), Is(0)),
        ("two, and the leader is said to be stopping", &[Writes(3), Writes(4)], stopped(0), Ambiguous),
        ("two, and it names neither", &[Writes(3), Writes(4), Orphan], leads(2), Ambiguous),
        ("the leader is not writable yet", &[Silent, ReadOnly(4), Follows(1, 4)], leads(1), None_),
        ("the leader is in recovery", &[Silent, Follows(0, 3)], leads(1), None_),
        ("a deposed primary is named", &[Writes(2), Silent], leads(0), None_),
        ("the primary while it is asked", &[Writes(3), Follows(0, 3)], awaited, Is(0)),
        ("a successor while it is asked", &[Silent, Writes(4)], awaited, Doubted(1, Doubt::Awaited)),
        ("two while it is asked", &[Writes(3), Writes(4)], awaited, Ambiguous),
        ("it is silent", &[Silent, Writes(4), Follows(1, 4)], absent, Is(1)),
        ("it is silent and required", &[Writes(3), Follows(0, 3)], missing, Doubted(0, Doubt::NoAuthority)),
        ("it is silent and required, two", &[Writes(3), Writes(4)], missing, Ambiguous),
        ("the read-only primary is not named", &[ReadOnly(3), Silent], leads(1), None_),
        ("the read-only primary is named", &[ReadOnly(3), Silent], leads(0), Readable(0)),
    ];
    for (name, says, authority, expected) in cases {
        assert_eq!(table.judge_with(&lineage, says, 0, *authority), *expected, "{name}");
    }
    // A quorum is wanted beside it.
    let alone = table.judge_with(&lineage, &[Writes(3), Silent], 1, leads(0));
    assert_eq!(alone, Doubted(0, Doubt::NoQuorum { seen: 0, needed: 1 }));
}
