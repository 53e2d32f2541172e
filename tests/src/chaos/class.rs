//! What a request is about.

use std::fmt;

use fastrand::Rng;

use crate::history::Key;

/// How many people keep a watchlist.
const USERS: u32 = 12;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A page of stocks, without a token.
    List,
    /// One stock, or its closes, without a token.
    Detail,
    /// The screen, which asks for a bound.
    Screen,
    /// Somebody's own watchlist, with their newest token.
    Session,
    /// A new entry of a watchlist.
    Write,
}

impl Class {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u32(..100) {
            0..30 => Self::List,
            30..52 => Self::Detail,
            52..56 => Self::Screen,
            56..78 => Self::Session,
            _ => Self::Write,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Detail => "detail",
            Self::Screen => "screen",
            Self::Session => "watchlist",
            Self::Write => "write",
        })
    }
}

/// What was drawn for one request.
#[derive(Clone, Copy)]
pub(super) struct Drawn {
    pub(super) class: Class,
    pub(super) process: usize,
    pub(super) user: Key,
    pub(super) number: u32,
}

impl Drawn {
    pub(super) fn new(rng: &mut Rng, processes: usize) -> Self {
        let (class, process) = (Class::draw(rng), rng.usize(..processes));
        Self { class, process, user: rng.u32(1..=USERS), number: rng.u32(..) }
    }
}
