//! One request, from the outside.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What entries are filed under. Each is written by one client alone, in rising values.
pub type Key = u32;
/// What an entry says; 0 is no entry.
pub type Value = u64;
/// A session token as text.
pub type Token = Arc<str>;

/// One request: what was asked and answered, and when. Times count from the beginning of the history.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Which process was asked; `None` for a write past the router.
    pub instance: Option<usize>,
    /// Just before the request was sent.
    pub invoked: Duration,
    /// Just after the answer was there.
    pub completed: Duration,
    /// The tokens that the answer must heed.
    pub presented: Vec<Token>,
    /// What was asked.
    pub asked: Ask,
    /// What was answered.
    pub answer: Answer,
    /// The token that came with the answer.
    pub issued: Option<Token>,
    /// Who served its last statement, as the debug headers say.
    pub served: Option<Served>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To store an entry.
    Write {
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// How.
        form: WriteForm,
    },
    /// The newest entry.
    Read {
        /// Of what.
        key: Key,
        /// How often to look, within the one request.
        times: u32,
        /// How old it may be.
        bound: Option<Duration>,
    },
}

/// How an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteForm {
    /// By one statement.
    Statement,
    /// By a transaction.
    Transaction,
    /// By one statement, and then the handler fails.
    ThenError,
    /// By one statement, and then the handler reads it.
    ThenRead,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is committed, and this was read after that in the same request.
    Written(Option<Value>),
    /// What was read, in order.
    Read(Vec<Value>),
    /// It was refused before anything was done.
    Refused(String),
    /// A write may or may not have been done; a read failed.
    Unknown(String),
    /// There was no answer in a time that is long for any answer.
    Nothing,
}

/// Who served a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The node's name.
    pub node: String,
    /// Its role.
    pub role: String,
    /// Why it was chosen.
    pub reason: String,
}

impl Operation {
    /// The entry that the request asks to store.
    #[must_use]
    pub fn written(&self) -> Option<(Key, Value)> {
        match self.asked {
            Ask::Write { key, value, .. } => Some((key, value)),
            Ask::Read { .. } => None,
        }
    }

    /// Whether its entry was acknowledged as committed.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.answer, Answer::Written(_))
    }

    /// What the request read, in order, and of what.
    #[must_use]
    pub fn seen(&self) -> (Key, &[Value]) {
        match (&self.asked, &self.answer) {
            (Ask::Write { key, .. }, Answer::Written(seen)) => (*key, seen.as_slice()),
            (Ask::Read { key, .. }, Answer::Read(seen)) => (*key, seen),
            (Ask::Write { key, .. } | Ask::Read { key, .. }, _) => (*key, &[]),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.invoked.as_secs_f64(), self.completed.as_secs_f64());
        write!(f, "{from:.6}..{to:.6} s, ")?;
        match self.instance {
            Some(instance) => write!(f, "client {} to process {instance}: {}", self.client, self.asked)?,
            None => write!(f, "past the router: {}", self.asked)?,
        }
        write!(f, " => {}", self.answer)?;
        if let Some(Served { node, role, reason }) = &self.served {
            write!(f, ", by {node} ({role}, {reason})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { key, value, form } => write!(f, "write {key}={value} ({form:?})"),
            Self::Read { key, times, bound } => {
                write!(f, "read {key}")?;
                if *times > 1 {
                    write!(f, " {times} times")?;
                }
                bound.map_or(Ok(()), |bound| write!(f, ", at most {bound:?} old"))
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(None) => f.write_str("committed"),
            Self::Written(Some(seen)) => write!(f, "committed, then read {seen}"),
            Self::Read(seen) => write!(f, "{seen:?}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
            Self::Nothing => f.write_str("no answer"),
        }
    }
}
