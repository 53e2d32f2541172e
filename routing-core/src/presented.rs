//! Texts that clients present as tokens, and what becomes of them.

use std::cell::OnceCell;
use std::time::Duration;

use crate::key::TokenKeys;
use crate::lsn::SystemId;
use crate::metrics;
use crate::token::{InvalidToken, SessionToken, UnixMillis};

/// A text that the client sent.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    text: String,
    /// What it says, once somebody with the right key has read it.
    token: Option<SessionToken>,
    /// It was counted as of no use.
    counted: bool,
    /// A cluster took it for its own.
    ours: bool,
}

impl Presented {
    pub(crate) fn new(text: String) -> Self {
        Self { text, token: None, counted: false, ours: false }
    }

    /// What it says, if it counts for a cluster that was asked.
    pub(crate) fn token(&self) -> Option<SessionToken> {
        self.token.filter(|_| self.ours)
    }
}

/// Who reads what clients present.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) keys: &'a TokenKeys,
    pub(crate) lifetime: Duration,
    pub(crate) system_id: Option<SystemId>,
    wall: OnceCell<UnixMillis>,
}

impl<'a> Reader<'a> {
    /// One with these keys, for this cluster, if it is known.
    pub(crate) fn new(keys: &'a TokenKeys, lifetime: Duration, system_id: Option<SystemId>) -> Self {
        Self { keys, lifetime, system_id, wall: OnceCell::new() }
    }

    /// What the clock showed when it was first asked: most requests bring nothing that ends, and need not look.
    pub(crate) fn wall(&self) -> UnixMillis {
        *self.wall.get_or_init(UnixMillis::now)
    }

    /// What the text says, if that counts.
    pub(crate) fn read(&self, presented: &mut Presented) -> Option<SessionToken> {
        let read = match presented.token {
            Some(token) => Ok(token),
            None => SessionToken::decode(&presented.text, self.keys, self.wall(), self.lifetime),
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
                presented.ours = true;
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
