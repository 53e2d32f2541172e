//! Who is the primary.
//!
//! A pure decision over what the servers said. Being out of recovery proves little: a deposed primary goes on
//! answering, a promoted standby can be read-only for half a minute, two promotions can share a timeline number, and
//! the log position of a deposed primary was measured *ahead*. What counts, in this order: the cluster's identifier,
//! writability, the timeline (never below one that was accepted before), and whom the standbys stream from.

use std::fmt;

use crate::authority::Authority;
use crate::lsn::{SystemId, Timeline};
use crate::node_id::NodeId;
use crate::probe::{Identity, Probe};
use crate::sabotage::{Sabotage, disabled};
use crate::votes::votes;

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
    /// This node is the primary that was accepted, and its sessions start read-only: in maintenance, or out of disk space.
    /// It may be read; nobody succeeds it.
    ReadOnly(NodeId, Timeline),
    /// No node is proven to be.
    Nobody,
    /// This node alone claims to be, and there is a reason to doubt it.
    Doubted(NodeId, Timeline, Doubt),
    /// These claim to be, and nothing tells them apart.
    Ambiguous(Vec<(NodeId, Timeline)>),
}

/// Why a claim is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// So many standbys are seen on its timeline, and so many must be.
    NoQuorum {
        /// Seen.
        seen: u32,
        /// Needed.
        needed: u32,
    },
    /// So many standbys stream from another server, one that does not answer us.
    Outvoted {
        /// How many.
        standbys: u32,
    },
    /// It has just shown itself, and not every node was looked at since.
    Unconfirmed,
    /// More nodes belong to another cluster.
    Minority,
    /// The authority lets another node lead.
    NotLeader,
    /// The authority has not said yet who leads.
    Awaited,
    /// The authority is silent or names nobody, and is required.
    NoAuthority,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoQuorum { seen, needed } => {
                write!(f, "{seen} standbys are seen on that timeline, and write_quorum is {needed}")
            }
            Self::Outvoted { standbys } => {
                write!(f, "standbys stream from another server that does not answer ({standbys})")
            }
            Self::Unconfirmed => f.write_str("every other node is looked at first"),
            Self::Minority => f.write_str("more nodes belong to another cluster"),
            Self::NotLeader => f.write_str("the authority lets another node lead"),
            Self::Awaited => f.write_str("the authority has not said yet who leads"),
            Self::NoAuthority => f.write_str("the authority, which is required, names no leader"),
        }
    }
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
            Some((_, probe)) if probe.timeline < lineage.highest && !disabled(Sabotage::Deposal) => {
                Standing::Deposed
            }
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
///
/// A server's own word decides whether it *can* be written to; an authority, where there is one, whether it *may*. Its leader
/// wins over votes and timelines, and nobody else is accepted.
#[must_use]
pub fn judge(lineage: &Lineage, witnesses: &[Witness<'_>], quorum: u32, authority: Authority) -> Verdict {
    if lineage.writer.is_none() && !witnesses.iter().all(|witness| witness.tried) {
        return Verdict::Nobody;
    }
    let standings = standings(lineage, witnesses);
    let candidates = claims(witnesses, &standings);
    let votes = votes(lineage, witnesses, &standings);
    let votes_for = |id: NodeId| votes.iter().filter(|vote| **vote == Some(id)).count();

    let outvoted = |id: NodeId| {
        // Standbys that stream from a node which we cannot reach know better than we do.
        let own = votes_for(id);
        let others = votes.len() - own;
        (others > 0 && others >= own).then(|| Doubt::Outvoted { standbys: count(others) })
    };
    let chosen = match candidates.as_slice() {
        [] => match read_only_writer(lineage, witnesses, &standings) {
            Some((id, timeline)) if outvoted(id).is_none() && !authority.names_another(id) => {
                return Verdict::ReadOnly(id, timeline);
            }
            _ => return Verdict::Nobody,
        },
        [only] => {
            let doubt = match authority {
                Authority::Leads { .. } => authority.names_another(only.0).then_some(Doubt::NotLeader),
                Authority::Awaited if lineage.writer != Some(*only) => Some(Doubt::Awaited),
                Authority::Missing => Some(Doubt::NoAuthority),
                Authority::Absent | Authority::Awaited => outvoted(only.0),
            };
            match doubt {
                Some(doubt) => return Verdict::Doubted(only.0, only.1, doubt),
                None => *only,
            }
        }
        several if authority != Authority::Absent => match named(several, authority) {
            Some(claim) => claim,
            None => return Verdict::Ambiguous(candidates),
        },
        several => match most(several, |claim| votes_for(claim.0)).or_else(|| most(several, |claim| claim.1))
        {
            Some(claim) => claim,
            None => return Verdict::Ambiguous(candidates),
        },
    };
    if foreign(lineage, witnesses, chosen.0) {
        return match candidates.as_slice() {
            [(id, timeline)] => Verdict::Doubted(*id, *timeline, Doubt::Minority),
            _ => Verdict::Ambiguous(candidates),
        };
    }
    let followers = witnesses.iter().zip(&standings).filter(|(witness, standing)| {
        **standing == Standing::Standby
            && witness.said.is_some_and(|(_, probe)| probe.timeline == Some(chosen.1))
    });
    let seen = count(followers.count());
    if seen < quorum {
        return Verdict::Doubted(chosen.0, chosen.1, Doubt::NoQuorum { seen, needed: quorum });
    }
    Verdict::Accepted(chosen.0, chosen.1)
}

/// The accepted primary, if it is out of recovery on its timeline and read-only.
fn read_only_writer(lineage: &Lineage, witnesses: &[Witness<'_>], standings: &[Standing]) -> Option<Claim> {
    let (id, timeline) = lineage.writer?;
    let index = witnesses.iter().position(|witness| witness.id == id)?;
    let same = witnesses[index].said.is_some_and(|(_, probe)| probe.timeline == Some(timeline));
    (standings[index] == Standing::ReadOnly && same).then_some((id, timeline))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(crate) type Claim = (NodeId, Timeline);

/// Who is out of recovery, writable, and on a timeline that may be the primary's.
pub(crate) fn claims(witnesses: &[Witness<'_>], standings: &[Standing]) -> Vec<Claim> {
    let candidates = witnesses.iter().zip(standings);
    let candidates = candidates.filter(|(_, standing)| **standing == Standing::Candidate);
    candidates.filter_map(|(witness, _)| Some((witness.id, witness.said?.1.timeline?))).collect()
}

/// The claim of the authority's leader, if its server runs.
fn named(claims: &[Claim], authority: Authority) -> Option<Claim> {
    let Authority::Leads { node: Some(leader), running: true } = authority else { return None };
    claims.iter().find(|claim| claim.0 == leader).copied()
}

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

#[cfg(test)]
mod tests;
