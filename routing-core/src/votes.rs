//! Whom the standbys follow.

use crate::node_id::NodeId;
use crate::primary::{Lineage, Standing, Witness, standings};

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
pub(crate) fn votes(
    lineage: &Lineage,
    witnesses: &[Witness<'_>],
    standings: &[Standing],
) -> Vec<Option<NodeId>> {
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
