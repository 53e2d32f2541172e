//! Who is the primary.
//!
//! A pure decision over what the servers said. Being out of recovery proves little: a deposed primary goes on
//! answering, a promoted standby can be read-only for half a minute, two promotions can share a timeline number, and
//! the log position of a deposed primary was measured *ahead*. What counts, in this order: the cluster's identifier,
//! writability, the timeline (never below one that was accepted before), and whom the standbys stream from.

use crate::lsn::{SystemId, Timeline};
use crate::node::NodeId;
use crate::probe::{Identity, Probe};

/// What was accepted so far. It only ever rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The cluster that the first accepted primary belongs to.
    pub system_id: Option<SystemId>,
    /// The highest timeline of any accepted primary.
    pub highest: Option<Timeline>,
    /// The last accepted primary and its timeline.
    pub writer: Option<(NodeId, Timeline)>,
    /// How often another node or timeline was accepted.
    pub epoch: u64,
}

/// What is known of one node at the moment of the decision.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// The node.
    pub id: NodeId,
    /// Host and port of its configuration.
    pub configured: (&'a str, u16),
    /// Whether the monitor has tried it at all.
    pub tried: bool,
    /// Who answered there last, fresh or not: a silent node's address still tells whom a standby follows.
    pub known: Option<&'a Identity>,
    /// What it last said, if that is fresh.
    pub said: Option<(&'a Identity, &'a Probe)>,
}

/// What one node is, as far as the primary is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing fresh is known of it.
    Unseen,
    /// A standby.
    Standby,
    /// Out of recovery, writable, on a timeline that may be the primary's.
    Candidate,
    /// Out of recovery and read-only: promoted and not ready, or in maintenance.
    ReadOnly,
    /// Out of recovery on a timeline below the highest accepted one.
    Deposed,
    /// Of another cluster.
    OtherCluster,
    /// The same server as a node earlier in the list.
    Duplicate,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This node is the primary.
    Accepted(NodeId, Timeline),
    /// No node is proven to be.
    Nobody,
    /// These claim to be, and nothing tells them apart.
    Ambiguous(Vec<(NodeId, Timeline)>),
}

/// What each witness is, in their order.
#[must_use]
pub fn standings(lineage: &Lineage, witnesses: &[Witness<'_>]) -> Vec<Standing> {
    let mut standings: Vec<Standing> = Vec::with_capacity(witnesses.len());
    for (index, witness) in witnesses.iter().enumerate() {
        let standing = match witness.said {
            None => Standing::Unseen,
            Some((identity, _)) if lineage.system_id.is_some_and(|pinned| pinned != identity.system_id) => {
                Standing::OtherCluster
            }
            Some((identity, _)) if witnesses[..index].iter().any(|other| same_server(other, identity)) => {
                Standing::Duplicate
            }
            Some((_, probe)) if probe.in_recovery => Standing::Standby,
            Some((_, probe)) if probe.timeline < lineage.highest => Standing::Deposed,
            Some((_, probe)) if probe.read_only => Standing::ReadOnly,
            Some(_) => Standing::Candidate,
        };
        standings.push(standing);
    }
    standings
}

fn same_server(other: &Witness<'_>, identity: &Identity) -> bool {
    other.said.is_some_and(|(seen, _)| seen.address.is_some() && seen == identity)
}

/// Decides who is the primary.
///
/// `quorum` standbys must be seen on its timeline. Before anyone was ever accepted, every node must have been tried, so
/// that the first answer of a deposed primary does not win by being first.
#[must_use]
pub fn judge(lineage: &Lineage, witnesses: &[Witness<'_>], quorum: u32) -> Verdict {
    if lineage.writer.is_none() && !witnesses.iter().all(|witness| witness.tried) {
        return Verdict::Nobody;
    }
    let standings = standings(lineage, witnesses);
    let candidates: Vec<Claim> = witnesses
        .iter()
        .zip(&standings)
        .filter(|(_, standing)| **standing == Standing::Candidate)
        .filter_map(|(witness, _)| Some((witness.id, witness.said?.1.timeline?)))
        .collect();
    let votes = votes(lineage, witnesses, &standings);
    let votes_for = |id: NodeId| votes.iter().filter(|vote| **vote == Some(id)).count();

    let chosen = match candidates.as_slice() {
        [] => return Verdict::Nobody,
        [only] => {
            // Standbys that stream from a node which we cannot reach know better than we do.
            let own = votes_for(only.0);
            if votes.len() > own && votes.len() >= 2 * own {
                return Verdict::Nobody;
            }
            *only
        }
        several => match most(several, |claim| votes_for(claim.0)).or_else(|| most(several, |claim| claim.1))
        {
            Some(claim) => claim,
            None => return Verdict::Ambiguous(candidates),
        },
    };
    if foreign(lineage, witnesses, chosen.0) {
        return if candidates.len() > 1 { Verdict::Ambiguous(candidates) } else { Verdict::Nobody };
    }
    let followers = witnesses.iter().zip(&standings).filter(|(witness, standing)| {
        **standing == Standing::Standby
            && witness.said.is_some_and(|(_, probe)| probe.timeline == Some(chosen.1))
    });
    if followers.count() < quorum as usize {
        return Verdict::Nobody;
    }
    Verdict::Accepted(chosen.0, chosen.1)
}

type Claim = (NodeId, Timeline);

/// The claim that alone has the most of `measure`; `None` when the most is shared or nothing.
fn most<M: Ord + Default>(claims: &[Claim], measure: impl Fn(&Claim) -> M) -> Option<Claim> {
    let highest = claims.iter().map(&measure).max()?;
    let mut with = claims.iter().filter(|claim| measure(claim) == highest);
    let first = *with.next()?;
    (with.next().is_none() && highest > M::default()).then_some(first)
}

/// Before a cluster is pinned, the candidate's must not be in the minority among the nodes that answer.
fn foreign(lineage: &Lineage, witnesses: &[Witness<'_>], candidate: NodeId) -> bool {
    if lineage.system_id.is_some() {
        return false;
    }
    let clusters: Vec<SystemId> = witnesses.iter().filter_map(|w| Some(w.said?.0.system_id)).collect();
    let own = witnesses.iter().find(|w| w.id == candidate).and_then(|w| Some(w.said?.0.system_id));
    let size = |system| clusters.iter().filter(|other| Some(**other) == system).count();
    clusters.iter().any(|other| size(Some(*other)) > size(own))
}

/// Where a standby's WAL comes from.
#[derive(Clone, Copy)]
enum Upstream {
    /// This witness, by its index.
    Witness(usize),
    /// A server that is none of ours, or one that cannot be told apart.
    Elsewhere,
}

/// What a standby streams from: by the address that it connected to, else by the timeline that it receives. An address may
/// well be unknown here: standbys often call their primary by another name than applications do.
fn upstream(witnesses: &[Witness<'_>], standings: &[Standing], index: usize) -> Option<Upstream> {
    let (_, probe) = witnesses[index].said?;
    if standings[index] != Standing::Standby || !probe.receives() {
        return None;
    }
    let (host, port) = probe.sender.as_ref()?;
    let by_address = witnesses.iter().position(|witness| {
        let configured = witness.configured == (host.as_str(), *port);
        let seen = witness.known.is_some_and(|identity| {
            identity.address.as_deref() == Some(host) && identity.port == Some(*port)
        });
        configured || seen
    });
    if let Some(index) = by_address {
        return Some(Upstream::Witness(index));
    }
    let received = probe.timeline?;
    let writes_it = |index: &usize| {
        let outside = matches!(standings[*index], Standing::Candidate | Standing::ReadOnly);
        outside && witnesses[*index].said.is_some_and(|(_, probe)| probe.timeline == Some(received))
    };
    let mut writers = (0..witnesses.len()).filter(writes_it);
    match (writers.next(), writers.next()) {
        (Some(only), None) => Some(Upstream::Witness(only)),
        _ => Some(Upstream::Elsewhere),
    }
}

/// Whether a standby streams from this node itself.
pub(crate) fn follows(lineage: &Lineage, witnesses: &[Witness<'_>], index: usize, id: NodeId) -> bool {
    let standings = standings(lineage, witnesses);
    matches!(upstream(witnesses, &standings, index), Some(Upstream::Witness(at)) if witnesses[at].id == id)
}

/// Whom each standby streams from in the end, through cascades; `None` is a server that is not among the witnesses.
fn votes(lineage: &Lineage, witnesses: &[Witness<'_>], standings: &[Standing]) -> Vec<Option<NodeId>> {
    let mut votes = Vec::new();
    for (index, witness) in witnesses.iter().enumerate() {
        let Some(mut source) = upstream(witnesses, standings, index) else { continue };
        // A standby that is still on a timeline below the accepted one speaks for the past.
        if witness.said.is_some_and(|(_, probe)| probe.timeline.is_some() && probe.timeline < lineage.highest)
        {
            continue;
        }
        for _ in 0..witnesses.len() {
            let Upstream::Witness(at) = source else { break };
            match upstream(witnesses, standings, at) {
                Some(next) => source = next,
                None => break,
            }
        }
        match source {
            Upstream::Elsewhere => votes.push(None),
            // So does one that follows a deposed primary.
            Upstream::Witness(at) if !matches!(standings[at], Standing::Deposed | Standing::OtherCluster) => {
                votes.push(Some(witnesses[at].id));
            }
            Upstream::Witness(_) => {}
        }
    }
    votes
}

#[cfg(test)]
mod tests;
