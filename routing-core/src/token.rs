//! What a client has written, on its way through the client and back.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::key::{MAC_BYTES, TokenKeys};
use crate::lsn::{Lsn, SystemId, Timeline};

/// The version of the format, which is part of what is signed.
const VERSION: &str = "v1.";
/// Kind, system identifier, timeline, position or end of the pin, time of issue.
const PAYLOAD_BYTES: usize = 1 + 8 + 4 + 8 + 8;
/// Longer texts are no tokens: they are not even decoded.
const LONGEST: usize = 128;
/// How far the clocks of two processes may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// Milliseconds since 1970, by the clock of whoever says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This process's clock.
    #[must_use]
    pub fn now() -> Self {
        #[cfg(feature = "testing")]
        if let Some(wall) = crate::testing::wall() {
            return wall;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// This much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What reads must not miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Everything up to this position.
    Position(Lsn),
    /// The position could not be read: the primary serves until then.
    Pin(UnixMillis),
}

/// What a client has seen or written, as a position of one cluster. It travels as signed text: see
/// [`encode`](Self::encode).
///
/// It names the cluster and the timeline, so that it means nothing elsewhere: positions of two clusters, or of two
/// timelines, do not compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionToken {
    /// The cluster's identifier.
    pub system_id: SystemId,
    /// The primary's timeline.
    pub timeline: Timeline,
    /// What reads must not miss.
    pub mark: Mark,
    /// When it was issued.
    pub issued_at: UnixMillis,
}

/// Why a text is not a token that counts. Such a text is ignored and counted, never an error of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// It is longer than any token.
    #[error("longer than any token")]
    Oversized,
    /// It is cut off, of another version, or no token at all.
    #[error("not a token of a known version")]
    Malformed,
    /// No key of ours signed it.
    #[error("signed with none of the keys")]
    Forged,
    /// It is older than tokens are honoured.
    #[error("expired")]
    Expired,
    /// It is of another cluster.
    #[error("of another cluster")]
    OtherCluster,
    /// A request presented more tokens than are looked at.
    #[error("one token too many")]
    TooMany,
}

impl InvalidToken {
    pub(crate) const ALL: [Self; 6] =
        [Self::Oversized, Self::Malformed, Self::Forged, Self::Expired, Self::OtherCluster, Self::TooMany];

    /// The reason's name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::OtherCluster => "other_cluster",
            Self::TooMany => "too_many",
        }
    }
}

impl SessionToken {
    /// The signed text: `v1.` and 82 characters of base64url, safe in URLs, cookies and headers. It holds no secret, but
    /// whoever has it can tell how much the cluster writes.
    #[must_use]
    pub fn encode(&self, keys: &TokenKeys) -> String {
        let (kind, value) = match self.mark {
            Mark::Position(lsn) => (0_u8, lsn.as_u64()),
            Mark::Pin(until) => (1, until.0),
        };
        let mut bytes = Vec::with_capacity(PAYLOAD_BYTES + MAC_BYTES);
        bytes.push(kind);
        bytes.extend(self.system_id.0.to_be_bytes());
        bytes.extend(self.timeline.0.to_be_bytes());
        bytes.extend(value.to_be_bytes());
        bytes.extend(self.issued_at.0.to_be_bytes());
        let signature = keys.sign(&[VERSION.as_bytes(), &bytes]);
        bytes.extend(signature);
        let mut text = VERSION.to_owned();
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        text
    }

    /// Reads a text that a client presents at `now`. Tokens are honoured for `lifetime`; the clocks of the processes that
    /// share the keys may differ by a minute. One from further in the future pins its reader to the primary: its position
    /// may be right, and its age cannot be.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn decode(
        text: &str,
        keys: &TokenKeys,
        now: UnixMillis,
        lifetime: Duration,
    ) -> Result<Self, InvalidToken> {
        if text.len() > LONGEST {
            return Err(InvalidToken::Oversized);
        }
        let body = text.strip_prefix(VERSION).ok_or(InvalidToken::Malformed)?;
        let mut bytes = [0; LONGEST];
        let length = URL_SAFE_NO_PAD.decode_slice(body, &mut bytes).map_err(|_| InvalidToken::Malformed)?;
        let (payload, signature) =
            bytes[..length].split_at_checked(PAYLOAD_BYTES).ok_or(InvalidToken::Malformed)?;
        if signature.len() != MAC_BYTES {
            return Err(InvalidToken::Malformed);
        }
        if !keys.verify(&[VERSION.as_bytes(), payload], signature) {
            return Err(InvalidToken::Forged);
        }
        Self::of(payload).ok_or(InvalidToken::Malformed)?.at(now, lifetime)
    }

    fn of(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let (system_id, rest) = rest.split_first_chunk()?;
        let (timeline, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (issued_at, _) = rest.split_first_chunk()?;
        let value = u64::from_be_bytes(*value);
        let mark = match kind {
            0 => Mark::Position(Lsn::from(value)),
            1 => Mark::Pin(UnixMillis(value)),
            _ => return None,
        };
        Some(Self {
            system_id: SystemId(u64::from_be_bytes(*system_id)),
            timeline: Timeline(u32::from_be_bytes(*timeline)),
            mark,
            issued_at: UnixMillis(u64::from_be_bytes(*issued_at)),
        })
    }

    /// What it means at `now`.
    fn at(self, now: UnixMillis, lifetime: Duration) -> Result<Self, InvalidToken> {
        if now > self.issued_at.after(lifetime).after(SKEW) {
            return Err(InvalidToken::Expired);
        }
        let latest = now.after(lifetime);
        let token = match self.mark {
            _ if self.issued_at > now.after(SKEW) => Self { mark: Mark::Pin(latest), ..self },
            // Its end is by the clock of whoever issued it, which may be behind ours. Nobody is pinned for longer than a token
            // of now would pin.
            Mark::Pin(until) => Self { mark: Mark::Pin(until.after(SKEW).min(latest)), ..self },
            Mark::Position(_) => self,
        };
        if token.is_over(now) { Err(InvalidToken::Expired) } else { Ok(token) }
    }

    /// Whether it demands nothing any more: a pin whose end has come.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        matches!(self.mark, Mark::Pin(until) if now >= until)
    }

    /// What two tokens of one cluster demand together. Of two positions that is the one on the higher timeline, else the
    /// higher one. A pin demands more than any position, so the pin remains, on the higher timeline of the two: leave out
    /// one that [is over](Self::is_over).
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let mark = match (self.mark, other.mark) {
            (Mark::Position(own), Mark::Position(others)) => {
                let rank = |token: &Self, lsn: Lsn| (token.timeline, lsn, token.issued_at);
                return if rank(&other, others) > rank(&self, own) { other } else { self };
            }
            (Mark::Pin(own), Mark::Pin(others)) => Mark::Pin(own.max(others)),
            (pin @ Mark::Pin(_), _) | (_, pin) => pin,
        };
        let (timeline, issued_at) = (self.timeline.max(other.timeline), self.issued_at.max(other.issued_at));
        Self { timeline, mark, issued_at, ..self }
    }
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mark {
            Mark::Position(lsn) => {
                write!(f, "{lsn} on timeline {} of cluster {}", self.timeline, self.system_id)
            }
            Mark::Pin(_) => write!(f, "the primary of cluster {}", self.system_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn keys(text: &str) -> TokenKeys {
        text.parse().unwrap()
    }

    fn ours() -> TokenKeys {
        keys("an old key that is long enough to be used")
    }

    fn token(mark: Mark) -> SessionToken {
        SessionToken { system_id: SystemId(7), timeline: Timeline(3), mark, issued_at: NOW }
    }

    fn read(text: &str) -> Result<SessionToken, InvalidToken> {
        SessionToken::decode(text, &ours(), NOW, LIFETIME)
    }

    #[test]
    fn a_token_survives_its_text_and_fits_anywhere() {
        for mark in [Mark::Position(Lsn::from(0x16_B374_D848)), Mark::Pin(NOW.after(LIFETIME))] {
            let text = token(mark).encode(&ours());
            assert_eq!(read(&text), Ok(token(mark)));
            assert_eq!(text.len(), 85);
            assert!(
                text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_was_changed_or_cut_does_not_count() {
        let text = token(Mark::Position(Lsn::from(99))).encode(&ours());
        for length in 0..text.len() {
            assert!(read(&text[..length]).is_err(), "{length}");
        }
        for at in 3..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let refused = read(&changed).unwrap_err();
            assert!(matches!(refused, InvalidToken::Forged | InvalidToken::Malformed), "{at}: {refused}");
        }
        assert_eq!(read(&format!("v2.{}", &text[3..])), Err(InvalidToken::Malformed));
        assert_eq!(read(&format!("{text}{text}")), Err(InvalidToken::Oversized));
        assert_eq!(read(&format!("{text}AAAA")), Err(InvalidToken::Malformed));
    }

    #[test]
    fn keys_rotate_without_a_gap() {
        let (old, new) =
            ("an old key that is long enough to be used", "a new key that is long enough to be used");
        let text = token(Mark::Position(Lsn::from(99))).encode(&keys(old));
        // First everyone learns the new key, then everyone signs with it, then the old one goes.
        for (present, counts) in [
            (old.to_owned(), true),
            (format!("{old},{new}"), true),
            (format!("{new},{old}"), true),
            (new.to_owned(), false),
        ] {
            let read = SessionToken::decode(&text, &keys(&present), NOW, LIFETIME);
            assert_eq!(read.is_ok(), counts, "{present}");
        }
    }

    #[test]
    fn age_decides_by_a_clock_that_may_be_a_minute_off() {
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        let at = |now: UnixMillis, mark| {
            let text = token(mark).encode(&ours());
            SessionToken::decode(&text, &ours(), now, LIFETIME).map(|token| token.mark)
        };
        let position = Mark::Position(Lsn::from(99));
        assert_eq!(at(NOW.after(seconds(359)), position), Ok(position));
        assert_eq!(at(NOW.after(seconds(361)), position), Err(InvalidToken::Expired));
        // Issued in the future of this process.
        assert_eq!(at(UnixMillis(NOW.0 - 59_000), position), Ok(position));
        let early = UnixMillis(NOW.0 - 61_000);
        assert_eq!(at(early, position), Ok(Mark::Pin(early.after(LIFETIME))));
        // A pin's end is by a clock that may be a minute behind.
        let pin = Mark::Pin(NOW.after(seconds(30)));
        let short = |now: UnixMillis| {
            let text = token(pin).encode(&ours());
            SessionToken::decode(&text, &ours(), now, seconds(30)).map(|token| token.is_over(now))
        };
        assert_eq!(short(NOW.after(seconds(89))), Ok(false));
        assert_eq!(short(NOW.after(seconds(91))), Err(InvalidToken::Expired));
        assert_eq!(at(NOW.after(seconds(91)), pin), Err(InvalidToken::Expired), "however long ours live");
        // A pin lasts no longer than one of now would.
        assert_eq!(at(NOW, Mark::Pin(UnixMillis(u64::MAX))), Ok(Mark::Pin(NOW.after(LIFETIME))));
    }

    #[test]
    fn a_pin_and_a_position_together_keep_the_pin_and_the_higher_timeline() {
        let pin = token(Mark::Pin(NOW.after(LIFETIME)));
        let newer = SessionToken {
            timeline: Timeline(4),
            issued_at: NOW.after(Duration::from_secs(1)),
            ..token(Mark::Position(Lsn::from(9)))
        };
        let both = SessionToken { mark: pin.mark, ..newer };
        assert_eq!((pin.stricter(newer), newer.stricter(pin)), (both, both));
    }

    proptest! {
        #[test]
        fn no_text_panics_or_counts(text in "(v1\\.)?[A-Za-z0-9_-]{0,120}|.{0,140}") {
            prop_assert!(read(&text).is_err());
        }

        #[test]
        fn every_token_survives_its_text(
            system in any::<u64>(), timeline in any::<u32>(), lsn in any::<u64>(), age in 0..300_000_u64,
        ) {
            let token = SessionToken {
                system_id: SystemId(system),
                timeline: Timeline(timeline),
                mark: Mark::Position(Lsn::from(lsn)),
                issued_at: UnixMillis(NOW.0 - age),
            };
            prop_assert_eq!(read(&token.encode(&ours())), Ok(token));
        }

        #[test]
        fn merging_takes_the_maximum_in_any_order(
            marks in proptest::collection::vec((any::<bool>(), 0..4_u32, 0..50_u64), 1..6),
        ) {
            let tokens: Vec<_> = marks.iter().map(|(pin, timeline, value)| SessionToken {
                timeline: Timeline(*timeline),
                ..token(if *pin { Mark::Pin(UnixMillis(*value)) } else { Mark::Position(Lsn::from(*value)) })
            }).collect();
            let merged = tokens.iter().copied().reduce(SessionToken::stricter).unwrap();
            let backwards = tokens.iter().rev().copied().reduce(SessionToken::stricter).unwrap();
            prop_assert_eq!(merged, backwards);
            for token in tokens {
                prop_assert_eq!(merged.stricter(token), merged);
            }
        }
    }
}
