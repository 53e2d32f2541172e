//! What a session remembers of what its client was given, and of what served it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::demand::Floor;
use crate::node::Node;
use crate::node_id::{NO_NODE, NodeId};
use crate::presented::{Presented, Reader};
use crate::token::{SessionToken, UnixMillis};

/// The part of a session that its reads seldom look at, behind its lock.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) presented: Vec<Presented>,
    pub(crate) observed: Vec<SessionToken>,
    /// What the replacement for a lost node must have.
    pub(crate) floor: Option<Floor>,
    pub(crate) served: Option<Serving>,
    pub(crate) written: Option<Written>,
    /// Reads that replicas have served.
    pub(crate) reads: u64,
    /// A caller may read on a connection of its own.
    pub(crate) lent: bool,
}

/// A node that serves a read of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serving {
    pub(crate) node: NodeId,
    /// When the read began at the latest. A connection from before that which still lives shows no less.
    pub(crate) since: Instant,
    /// The node's generation then.
    pub(crate) generation: u64,
}

impl Serving {
    /// A read begins.
    pub(crate) fn begin(node: &Node) -> Self {
        Self { node: node.id(), since: Instant::now(), generation: node.generation() }
    }
}

/// Who can tell where a write has ended, and in which epoch it was made.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) by: Arc<dyn TokenSource>,
    pub(crate) epoch: u64,
}

/// Makes tokens for what a session has written.
pub(crate) trait TokenSource: Send + Sync {
    /// A token for everything written before now in this epoch: a position, else a pin.
    fn token(self: Arc<Self>, epoch: u64) -> BoxFuture<'static, Option<SessionToken>>;

    /// The token as text.
    fn sign(&self, token: &SessionToken) -> String;
}

impl Notes {
    /// What all tokens of the reader's cluster demand together. Texts that nobody has read yet are read now.
    pub(crate) fn token(&mut self, reader: &Reader<'_>) -> Option<SessionToken> {
        let presented = self.presented.iter_mut().filter_map(|presented| reader.read(presented));
        presented
            .chain(self.observed.iter().copied())
            .filter(|token| reader.system_id.is_none_or(|own| own == token.system_id))
            .filter(|token| !token.is_over(reader.wall()))
            .reduce(SessionToken::stricter)
    }

    /// The strictest token that the session was given, of those that were read.
    pub(crate) fn given(&self, now: UnixMillis) -> Option<SessionToken> {
        let presented = self.presented.iter().filter_map(Presented::token);
        presented
            .chain(self.observed.iter().copied())
            .filter(|token| !token.is_over(now))
            .reduce(SessionToken::stricter)
    }

    /// What a read beside this session's own is told.
    pub(crate) fn beside(&self, floor: Option<Floor>) -> Self {
        Self {
            presented: self.presented.clone(),
            observed: self.observed.clone(),
            floor,
            reads: self.reads,
            ..Self::default()
        }
    }

    /// A replica has served a read; the session kept to the node `before`. Whether what comes next needs a floor: it must not be
    /// behind what two nodes have shown, or one before and after it lost connections.
    pub(crate) fn serve(&mut self, serving: Serving, before: u32, continues: bool) -> bool {
        self.reads += 1;
        let kept = before == serving.node.as_u32();
        let earlier = self.served.filter(|earlier| earlier.generation == serving.generation);
        self.served = Some(serving);
        if before == NO_NODE || kept && continues {
            return false;
        }
        match earlier {
            // Two reads at the same time, of one node.
            Some(earlier) if kept => {
                self.served = Some(Serving { since: earlier.since.min(serving.since), ..serving });
                false
            }
            _ => true,
        }
    }

    /// Whether nothing more was shown to the client since so many reads.
    pub(crate) fn shows_no_more_than(&self, reads: u64) -> bool {
        self.reads == reads && !self.lent
    }
}
