//! What one request has been served so far, and what its client has seen before.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::decision::Decision;
use crate::demand::{Floor, Memory};
use crate::key::TokenKeys;
use crate::lsn::{Position, SystemId};
use crate::metrics;
use crate::node::{NO_NODE, Node, NodeId};
use crate::token::{InvalidToken, SessionToken, UnixMillis};

/// Tokens of one request that are looked at; more are counted and left aside.
const MOST_TOKENS: usize = 4;

/// What one request has been served so far, and what its client has seen before: the node that its reads keep to while it
/// serves, whether it wrote, the tokens that it presented, and the last decision.
///
/// Clones share it. A task that belongs to the request is handed a clone; nothing is inherited by itself. For a job or a
/// message that goes on later, [`token`](Self::token) says what the request has written and [`observe`](Self::observe)
/// puts that into the session of the one who goes on.
#[derive(Clone)]
pub struct Session(Arc<State>);

struct State {
    /// The node that served the request's last read; [`NO_NODE`] before the first.
    node: AtomicU32,
    on_primary: AtomicBool,
    wrote: AtomicBool,
    /// Whether `notes` holds anything: most sessions never look.
    noted: AtomicBool,
    notes: Mutex<Notes>,
    last: Mutex<Option<Decision>>,
}

#[derive(Default)]
struct Notes {
    presented: Vec<Presented>,
    observed: Vec<SessionToken>,
    floor: Option<Floor>,
    /// When the kept node last served, and in which generation of its connections.
    served: Option<(Instant, u64)>,
    written: Option<Written>,
}

/// A text that the client sent.
struct Presented {
    text: String,
    /// What it says, once somebody with the right key has read it.
    token: Option<SessionToken>,
    /// It was counted as of no use.
    counted: bool,
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

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A request that has been served nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(State {
            node: AtomicU32::new(NO_NODE),
            on_primary: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            noted: AtomicBool::new(false),
            notes: Mutex::default(),
            last: Mutex::new(None),
        }))
    }

    /// Takes in a text that the client says is a token. It is read, and found valid or not, by the router that serves the
    /// request; one that is of no use is counted and left aside. Of more than four the rest is left aside at once.
    pub fn present(&self, text: impl Into<String>) {
        let mut notes = self.notes();
        if notes.presented.len() >= MOST_TOKENS {
            return metrics::token_rejected(InvalidToken::TooMany);
        }
        notes.presented.push(Presented { text: text.into(), token: None, counted: false });
        self.0.noted.store(true, Relaxed);
    }

    /// From now on this session's reads miss nothing that the token covers: for a job that was begun by another request,
    /// or the reader of a message.
    pub fn observe(&self, token: SessionToken) {
        self.notes().observed.push(token);
        self.0.noted.store(true, Relaxed);
    }

    /// A token for what this session has written through the router and for what it was given, to hand to whoever reads
    /// next. After a write it costs one question to the primary; where that has no answer, a pin to the primary comes
    /// instead. `None` when it neither wrote nor was given a token.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn token(&self) -> Option<SessionToken> {
        let written = self.notes().written.clone();
        match written {
            // What it was given lies before what it has written.
            Some(written) => written.by.token(written.epoch).await,
            None => {
                let notes = self.notes();
                let given = notes.presented.iter().filter_map(|presented| presented.token);
                given.chain(notes.observed.iter().copied()).reduce(SessionToken::stricter)
            }
        }
    }

    /// A token for what this session has written, as signed text for the client; `None` when it wrote nothing.
    ///
    /// # Cancel safety
    /// As [`token`](Self::token).
    pub async fn signed_token(&self) -> Option<String> {
        let written = self.notes().written.clone()?;
        let token = written.by.clone().token(written.epoch).await?;
        Some(written.by.sign(&token))
    }

    /// Whether a write was sent for the request. It stays `true` when the write's outcome is unknown.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.0.wrote.load(Relaxed)
    }

    /// The last decision made for the request.
    #[must_use]
    pub fn last_decision(&self) -> Option<Decision> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a read must heed. Texts that nobody has read yet are read now, if they are of this cluster's keys.
    pub(crate) fn memory(&self, reader: &Reader<'_>) -> Memory {
        let mut memory = Memory {
            wrote: self.wrote(),
            on_primary: self.0.on_primary.load(Relaxed),
            token: None,
            floor: None,
        };
        if !self.0.noted.load(Relaxed) {
            return memory;
        }
        let mut notes = self.notes();
        memory.floor = notes.floor;
        let read = notes.presented.iter_mut().filter_map(|presented| reader.read(presented));
        let tokens: Vec<SessionToken> = read.collect();
        let ours = |token: &SessionToken| reader.system_id.is_none_or(|own| own == token.system_id);
        memory.token = tokens
            .into_iter()
            .chain(notes.observed.iter().copied())
            .filter(ours)
            .reduce(SessionToken::stricter);
        memory
    }

    pub(crate) fn serves(&self, id: NodeId) -> bool {
        self.0.node.load(Relaxed) == id.as_u32()
    }

    /// The number of the node that its reads keep to.
    pub(crate) fn kept_node(&self) -> Option<u32> {
        Some(self.0.node.load(Relaxed)).filter(|node| *node != NO_NODE)
    }

    pub(crate) fn keep_to(&self, node: &Node, on_primary: bool) {
        self.0.node.store(node.id().as_u32(), Relaxed);
        if on_primary {
            self.0.on_primary.store(true, Relaxed);
        } else {
            self.notes().served = Some((Instant::now(), node.generation()));
        }
    }

    /// When the kept node last served, and in which generation, if it is a replica.
    pub(crate) fn served(&self) -> Option<(Instant, u64)> {
        self.notes().served
    }

    /// The node that it kept to serves no more, or may have gone back in time: whoever comes next must have what the primary
    /// has after `now`.
    pub(crate) fn lose_node(&self, now: Instant) {
        self.0.node.store(NO_NODE, Relaxed);
        let mut notes = self.notes();
        notes.floor = Some(Floor::PrimaryAfter(now));
        notes.served = None;
        self.0.noted.store(true, Relaxed);
    }

    /// The primary has said where the floor lies.
    pub(crate) fn settle_floor(&self, asked: Instant, position: Position) {
        let mut notes = self.notes();
        // Another loss may have come in between.
        if notes.floor == Some(Floor::PrimaryAfter(asked)) {
            notes.floor = Some(Floor::At(position));
        }
    }

    /// Set before a write is sent, so that a response knows of it even when the handler is dropped after that.
    pub(crate) fn mark_wrote(&self, written: Written) {
        self.0.wrote.store(true, Relaxed);
        self.notes().written = Some(written);
    }

    pub(crate) fn decided(&self, decision: Decision) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision);
    }
}

/// Who reads what clients present.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) keys: &'a TokenKeys,
    pub(crate) lifetime: std::time::Duration,
    pub(crate) system_id: Option<SystemId>,
    pub(crate) wall: UnixMillis,
}

impl Reader<'_> {
    fn read(&self, presented: &mut Presented) -> Option<SessionToken> {
        let read = match presented.token {
            Some(token) => Ok(token),
            None => SessionToken::decode(&presented.text, self.keys, self.wall, self.lifetime),
        };
        let read = match read {
            Ok(token) if self.system_id.is_some_and(|own| own != token.system_id) => {
                presented.token = Some(token);
                Err(InvalidToken::OtherCluster)
            }
            read => read,
        };
        match read {
            Ok(token) => {
                presented.token = Some(token);
                Some(token)
            }
            Err(why) => {
                if !std::mem::replace(&mut presented.counted, true) {
                    metrics::token_rejected(why);
                    tracing::debug!(%why, "a session token does not count");
                }
                None
            }
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("wrote", &self.wrote())
            .field("last_decision", &self.last_decision())
            .finish_non_exhaustive()
    }
}
