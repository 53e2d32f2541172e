//! A promise that was broken.

use std::fmt;

use crate::history::operation::{Key, Operation, Value};

/// A promise that was broken, and the operations that show it, by their places in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A read presented a token and missed an entry that the token covers.
    Stale {
        /// The read.
        read: usize,
        /// What it saw.
        seen: Value,
        /// The write that it missed.
        missed: usize,
        /// Whose answer brought the token.
        issuer: usize,
    },
    /// A read missed an entry that was older than the bound when it was asked.
    OlderThanBound {
        /// The read.
        read: usize,
        /// What it saw.
        seen: Value,
        /// The write that it missed.
        missed: usize,
    },
    /// Of the reads of one request a later one saw less, or one saw less than the request had written.
    WentBack {
        /// The request.
        request: usize,
    },
    /// A read saw what nobody had asked to write yet.
    NeverWritten {
        /// The read.
        read: usize,
        /// What it saw.
        seen: Value,
    },
    /// A read presented a token of the present timeline and saw an entry that only the past one had.
    Abandoned {
        /// The read.
        read: usize,
        /// The write that was lost with the old primary.
        lost: usize,
    },
    /// An acknowledged write is gone, and no primary was lost that could have taken it along.
    Lost {
        /// The write.
        write: usize,
    },
    /// One write has several rows.
    Twice {
        /// Of what.
        key: Key,
        /// Which.
        value: Value,
    },
    /// A write was refused, and done all the same.
    RefusedAndDone {
        /// The write.
        write: usize,
    },
    /// Two nodes acknowledged writes as if both were the primary, or one went on after it was lost.
    SecondPrimary {
        /// A write on the one.
        first: usize,
        /// A write on the other.
        second: usize,
    },
    /// An acknowledged write of a client came without a token.
    NoToken {
        /// The write.
        write: usize,
    },
    /// A request was not answered.
    Unanswered {
        /// The request.
        request: usize,
    },
}

impl Violation {
    /// The operations that show it.
    #[must_use]
    pub fn operations(&self) -> Vec<usize> {
        match *self {
            Self::Stale { read, missed, issuer, .. } => vec![missed, issuer, read],
            Self::OlderThanBound { read, missed, .. } => vec![missed, read],
            Self::WentBack { request } | Self::Unanswered { request } => vec![request],
            Self::NeverWritten { read, .. } => vec![read],
            Self::Abandoned { read, lost } => vec![lost, read],
            Self::Lost { write } | Self::RefusedAndDone { write } | Self::NoToken { write } => vec![write],
            Self::SecondPrimary { first, second } => vec![first, second],
            Self::Twice { .. } => Vec::new(),
        }
    }

    /// What was broken, with the operations that show it in the order in which they were asked.
    #[must_use]
    pub fn describe(&self, operations: &[Operation]) -> String {
        let mut shown = self.operations();
        shown.sort_by_key(|index| operations[*index].invoked);
        shown.dedup();
        let lines = shown.iter().map(|index| format!("\n    #{index} {}", operations[*index]));
        format!("{self}{}", lines.collect::<String>())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { read, seen, missed, issuer } => write!(
                f,
                "stale: #{read} saw {seen} and missed #{missed}, which the token that came with #{issuer} covers"
            ),
            Self::OlderThanBound { read, seen, missed } => {
                write!(f, "older than its bound: #{read} saw {seen} and missed #{missed}")
            }
            Self::WentBack { request } => {
                write!(f, "went back: #{request} saw less than it had seen or written")
            }
            Self::NeverWritten { read, seen } => write!(f, "never written: #{read} saw {seen}"),
            Self::Abandoned { read, lost } => {
                write!(f, "of an abandoned timeline: #{read} saw #{lost}, which was lost with its primary")
            }
            Self::Lost { write } => write!(f, "lost: #{write} was acknowledged and is gone"),
            Self::Twice { key, value } => write!(f, "done twice: {key}={value} has several rows"),
            Self::RefusedAndDone { write } => write!(f, "refused and done all the same: #{write}"),
            Self::SecondPrimary { first, second } => write!(f, "a second primary: #{first} and #{second}"),
            Self::NoToken { write } => write!(f, "no token: #{write} was acknowledged without one"),
            Self::Unanswered { request } => write!(f, "no answer: #{request}"),
        }
    }
}
