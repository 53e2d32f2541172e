//! What one request has been served so far, and what its client has seen before.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::decision::Decision;
use crate::demand::{Floor, Memory};
use crate::lsn::Position;
use crate::metrics;
use crate::node_id::{NO_NODE, NodeId};
use crate::notes::{Notes, Serving, Written};
use crate::presented::{Presented, Reader};
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
    /// The node that a read of the request was sent to last: reads at the same time follow it, before any has an answer.
    leaning: AtomicU32,
    on_primary: AtomicBool,
    wrote: AtomicBool,
    /// Whether `notes` holds anything: most sessions never look.
    noted: AtomicBool,
    notes: Mutex<Notes>,
    last: Mutex<Option<Decision>>,
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
            leaning: AtomicU32::new(NO_NODE),
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
        notes.presented.push(Presented::new(text.into()));
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
    /// instead. `None` when it neither wrote nor was given a token. What a client presented counts here from the session's first
    /// statement on: only a router can read it.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn token(&self) -> Option<SessionToken> {
        let written = self.notes().written.clone();
        match written {
            // What it was given lies before what it has written.
            Some(written) => written.by.token(written.epoch).await,
            None => self.notes().given(UnixMillis::now()),
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
        memory.token = notes.token(reader);
        memory
    }

    /// What a read beside one that is under way must heed: a session of its own that knows all that this one knows, and keeps
    /// to no node. What its node has shown so far the primary has at `now`.
    pub(crate) fn beside(&self, now: Instant) -> Self {
        let beside = Self::new();
        {
            let notes = self.notes();
            let floor = self.kept_node().map_or(notes.floor, |_| Some(Floor::PrimaryAfter(now)));
            beside.0.wrote.store(self.wrote(), Relaxed);
            beside.0.on_primary.store(self.0.on_primary.load(Relaxed), Relaxed);
            beside.0.noted.store(floor.is_some() || self.0.noted.load(Relaxed), Relaxed);
            *beside.notes() = notes.beside(floor);
        }
        beside
    }

    pub(crate) fn serves(&self, id: NodeId) -> bool {
        self.0.node.load(Relaxed) == id.as_u32()
    }

    /// The number of the node that its reads keep to.
    pub(crate) fn kept_node(&self) -> Option<u32> {
        Some(self.0.node.load(Relaxed)).filter(|node| *node != NO_NODE)
    }

    /// The number of the node that reads should rather go to than to another: it is kept to, or another read is on its way there.
    pub(crate) fn preferred(&self) -> Option<u32> {
        self.kept_node().or_else(|| Some(self.0.leaning.load(Relaxed)).filter(|node| *node != NO_NODE))
    }

    /// A read is on its way to this node.
    pub(crate) fn lean_to(&self, id: NodeId) {
        self.0.leaning.store(id.as_u32(), Relaxed);
    }

    /// No read is on its way anywhere.
    #[cfg(feature = "testing")]
    pub(crate) fn lean_to_none(&self) {
        self.0.leaning.store(NO_NODE, Relaxed);
    }

    /// A read was served. `continues`: when it began its node was kept to already.
    pub(crate) fn keep_to(&self, serving: Serving, on_primary: bool, continues: bool) {
        let id = serving.node.as_u32();
        if on_primary {
            self.0.on_primary.store(true, Relaxed);
            self.0.node.store(id, Relaxed);
            return;
        }
        let mut notes = self.notes();
        let before = self.0.node.swap(id, Relaxed);
        if notes.serve(serving, before, continues) {
            notes.floor = Some(Floor::PrimaryAfter(Instant::now()));
            self.0.noted.store(true, Relaxed);
        }
    }

    /// A connection of a replica is handed out: what it shows from now on is not told here.
    pub(crate) fn lend(&self) {
        self.notes().lent = true;
    }

    /// A read beside another was served first, heeding what `beside` knew. When nothing was shown since then, there is nothing
    /// more that what comes next must not be behind.
    pub(crate) fn move_to(&self, serving: Serving, beside: &Self) {
        let known = beside.notes().reads;
        let mut notes = self.notes();
        if notes.shows_no_more_than(known) {
            self.0.node.store(serving.node.as_u32(), Relaxed);
            notes.served = Some(serving);
        }
    }

    /// Since when this node, a replica that the session keeps to, has served it.
    pub(crate) fn served_by(&self, id: NodeId) -> Option<Serving> {
        self.notes().served.filter(|serving| serving.node == id && self.serves(id))
    }

    /// The node that it kept to serves no more, or may have gone back in time: whoever comes next must have what the primary
    /// has after `now`.
    pub(crate) fn lose_node(&self, now: Instant) {
        let mut notes = self.notes();
        self.0.node.store(NO_NODE, Relaxed);
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

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("wrote", &self.wrote())
            .field("last_decision", &self.last_decision())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::breaker::BreakerConfig;
    use crate::config::NodeConfig;
    use crate::lsn::{Lsn, Timeline};
    use crate::node::Node;

    fn node() -> Node {
        Node::new(NodeConfig::new("pg2", "postgres://h/d".parse().unwrap()), BreakerConfig::default())
    }

    fn floor(session: &Session) -> Option<Floor> {
        session.notes().floor
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_reads_at_once_on_one_node_the_first_beginning_counts_however_they_end() {
        let node = node();
        let first = Serving::begin(&node);
        tokio::time::advance(Duration::from_millis(5)).await;
        let second = Serving::begin(&node);
        for order in [[first, second], [second, first]] {
            let session = Session::new();
            for serving in order {
                session.keep_to(serving, false, false);
            }
            // A connection from between the two may not show what the first has seen.
            assert_eq!(session.served_by(node.id()).unwrap().since, first.since);
            assert_eq!(floor(&session), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_reads_at_once_before_and_after_a_loss_bind_what_comes_next_and_one_behind_the_other_do_not()
    {
        let node = node();
        let before = Serving::begin(&node);
        node.next_generation();
        let after = Serving::begin(&node);
        for order in [[before, after], [after, before]] {
            let session = Session::new();
            for serving in order {
                session.keep_to(serving, false, false);
            }
            assert_eq!(floor(&session), Some(Floor::PrimaryAfter(Instant::now())));
        }
        // The second was sent to the node that the first had kept to: its connection was looked at.
        let session = Session::new();
        session.keep_to(before, false, false);
        session.keep_to(after, false, true);
        assert_eq!(floor(&session), None);
        assert_eq!(session.served_by(node.id()).unwrap().generation, after.generation);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_beside_another_binds_what_comes_next_only_if_something_was_shown_meanwhile() {
        let (first, second) = (node(), node());
        type Meanwhile = fn(&Session, &Node);
        let nothing: Meanwhile = |_, _| {};
        let read: Meanwhile = |session, first| session.keep_to(Serving::begin(first), false, true);
        let lent: Meanwhile = |session, _| session.lend();
        for (meanwhile, binds) in [(nothing, false), (read, true), (lent, true)] {
            let session = Session::new();
            session.keep_to(Serving::begin(&first), false, false);
            let beside = session.beside(Instant::now());
            meanwhile(&session, &first);
            let serving = Serving::begin(&second);
            session.move_to(serving, &beside);
            session.keep_to(serving, false, false);
            assert_eq!(floor(&session).is_some(), binds);
            assert_eq!(session.served_by(second.id()).unwrap().since, serving.since);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_an_earlier_loss_settles_no_later_one() {
        let (session, position) = (Session::new(), Position { timeline: Timeline(1), lsn: Lsn::from(7) });
        let first = Instant::now();
        session.lose_node(first);
        tokio::time::advance(Duration::from_millis(5)).await;
        let second = Instant::now();
        session.lose_node(second);
        session.settle_floor(first, position);
        assert_eq!(floor(&session), Some(Floor::PrimaryAfter(second)));
        session.settle_floor(second, position);
        assert_eq!(floor(&session), Some(Floor::At(position)));
    }
}
