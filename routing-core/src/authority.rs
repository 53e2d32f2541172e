//! What an authority beside the servers, such as Patroni, says of who leads.
//!
//! Its word can be old: Patroni was measured to show a dead leader for 21 s, and an answer that was asked for before a
//! server began to claim anything says nothing about that claim. So it is asked again whenever the claims change, and
//! until it has answered, or had the time to, nobody new is accepted.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::lsn::Timeline;
use crate::node_id::NodeId;
use crate::primary::Claim;

/// How long an answer is awaited once the claims have changed: two calls of at most one second each.
const PATIENCE: Duration = Duration::from_millis(2_200);

/// Whom an authority beside the servers, such as Patroni, lets lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// There is none, it is silent, or it names nobody: what the servers say decides alone.
    #[default]
    Absent,
    /// It is silent, or names nobody, and nothing is accepted without it.
    Missing,
    /// It was asked since the claims changed and may yet answer. Until then nobody new is accepted.
    Awaited,
    /// It names a leader.
    Leads {
        /// The node; `None` when it is none of ours.
        node: Option<NodeId>,
        /// Whether it says that the server there runs. Without that it breaks no tie.
        running: bool,
    },
}

impl Authority {
    /// Whether it names a leader, and not this node.
    pub(crate) fn names_another(self, node: NodeId) -> bool {
        matches!(self, Self::Leads { node: leader, .. } if leader != Some(node))
    }
}

/// Whom an authority names as the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The name of its node.
    pub node: Arc<str>,
    /// The timeline that it is said to be on. It can be behind: it is not decided by.
    pub timeline: Option<Timeline>,
    /// Whether its server is said to run.
    pub running: bool,
}

/// What was heard of an authority last.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// When it was asked.
    pub(crate) asked: Instant,
    /// The leader, if it names one; `Err` when it did not answer.
    pub(crate) leader: Result<Option<Leader>, ()>,
}

/// An authority that is followed, and what it was asked about.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    followed: bool,
    word: Option<Word>,
    claims: Vec<Claim>,
    changed: Option<Instant>,
}

impl Hearing {
    /// There is an authority from now on; `word` is what it said last.
    pub(crate) fn hear(&mut self, word: Option<Word>) {
        self.followed = true;
        self.word = word;
    }

    /// These claim to be the primary at `now`.
    pub(crate) fn see(&mut self, claims: Vec<Claim>, now: Instant) {
        if self.claims != claims {
            self.claims = claims;
            self.changed = Some(now);
        }
    }

    /// What it has to say about the claims of now. `node` finds a node by its name.
    pub(crate) fn authority(
        &self,
        node: impl Fn(&str) -> Option<NodeId>,
        required: bool,
        now: Instant,
    ) -> Authority {
        let silent = if required { Authority::Missing } else { Authority::Absent };
        if !self.followed {
            return silent;
        }
        let changed = self.changed.unwrap_or(now);
        match self.word.as_ref().filter(|word| word.asked >= changed) {
            Some(Word { leader: Ok(Some(leader)), .. }) => {
                Authority::Leads { node: node(&leader.node), running: leader.running }
            }
            Some(_) => silent,
            None if now.saturating_duration_since(changed) < PATIENCE => Authority::Awaited,
            None => silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(name: &str) -> Result<Option<Leader>, ()> {
        Ok(Some(Leader { node: name.into(), timeline: None, running: true }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_counts_once_it_was_asked_for_after_the_claims_changed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let node = |name: &str| (name == "a").then(|| NodeId::for_tests(1));
        let claim = (NodeId::for_tests(1), Timeline(1));
        let mut hearing = Hearing::default();
        let judged = |hearing: &Hearing, now| hearing.authority(node, false, now);
        assert_eq!(judged(&hearing, start), Authority::Absent, "nobody is followed");
        hearing.hear(None);
        hearing.see(vec![claim], at(1));
        assert_eq!(judged(&hearing, at(1)), Authority::Awaited);
        assert_eq!(judged(&hearing, at(4)), Authority::Absent, "it does not answer");
        assert_eq!(hearing.authority(node, true, at(4)), Authority::Missing);
        hearing.hear(Some(Word { asked: start, leader: leader("a") }));
        assert_eq!(judged(&hearing, at(2)), Authority::Awaited, "asked too early");
        let named = Authority::Leads { node: Some(NodeId::for_tests(1)), running: true };
        hearing.hear(Some(Word { asked: at(1), leader: leader("a") }));
        assert_eq!(judged(&hearing, at(60)), named);
        hearing.see(vec![claim], at(90));
        assert_eq!(judged(&hearing, at(90)), named, "nothing has changed");
        hearing.see(vec![claim, (NodeId::for_tests(2), Timeline(2))], at(91));
        assert_eq!(judged(&hearing, at(91)), Authority::Awaited);
        hearing.hear(Some(Word { asked: at(92), leader: leader("b") }));
        assert_eq!(judged(&hearing, at(92)), Authority::Leads { node: None, running: true });
        for silence in [Ok(None), Err(())] {
            hearing.hear(Some(Word { asked: at(93), leader: silence }));
            assert_eq!(judged(&hearing, at(93)), Authority::Absent);
        }
    }
}
