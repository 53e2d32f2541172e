//! Points at which a recovery can stop: a moment, or a position in the WAL.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

use crate::status::parse_lsn;

/// A moment, to the microsecond, as PostgreSQL stamps a commit.
///
/// ```
/// use routing_cluster::Moment;
///
/// let moment: Moment = "2026-03-01T12:00:00.5+01:00".parse().unwrap();
/// assert_eq!(moment.to_string(), "2026-03-01T11:00:00.500000Z");
/// // PostgreSQL's own form, as long as it names its zone.
/// assert_eq!("2026-03-01 11:00:00.5+00".parse::<Moment>().unwrap(), moment);
/// assert!("2026-03-01 11:00:00".parse::<Moment>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(OffsetDateTime);

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMoment {
    /// It names no zone, so it means another moment on every machine.
    #[error("{0:?} names no time zone: end it with Z for UTC, or with an offset such as +02:00")]
    NoZone(String),
    /// It does not read as a date and a time.
    #[error("{0:?} is not a time: write it like 2026-03-01T12:00:00Z or 2026-03-01 12:00:00+00")]
    Syntax(String),
}

impl Moment {
    /// The moment as a server's configuration takes it, where the letter Z is no zone.
    pub(crate) fn in_settings(self) -> String {
        self.to_string().replace('T', " ").replace('Z', "+00")
    }
}

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Moment, InvalidMoment> {
        let invalid = || InvalidMoment::Syntax(text.to_owned());
        let trimmed = text.trim();
        let (date, rest) = trimmed.split_once(['T', 't', ' ']).ok_or_else(invalid)?;
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(rest.len());
        let (time, zone) = rest.split_at(end);
        let zone = match zone.trim() {
            "" => return Err(InvalidMoment::NoZone(text.to_owned())),
            "Z" | "z" | "UTC" => "+00:00".to_owned(),
            // PostgreSQL prints whole hours alone.
            hours if hours.len() == 3 => format!("{hours}:00"),
            offset => offset.to_owned(),
        };
        let moment = OffsetDateTime::parse(&format!("{date}T{time}{zone}"), &Rfc3339);
        let moment = moment.map_err(|_| invalid())?.to_offset(UtcOffset::UTC);
        let micros = moment.microsecond();
        moment.replace_microsecond(micros).map(Moment).map_err(|_| invalid())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.0.date(), self.0.time());
        let (hour, minute, second, micros) = time.as_hms_micro();
        write!(f, "{date}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl TryFrom<String> for Moment {
    type Error = InvalidMoment;

    fn try_from(text: String) -> Result<Moment, InvalidMoment> {
        text.parse()
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.to_string()
    }
}

/// A position in the WAL, as PostgreSQL prints it: `0/3000148`.
///
/// ```
/// use routing_cluster::Lsn;
///
/// let position: Lsn = "1/A0".parse().unwrap();
/// assert_eq!(position.to_string(), "1/A0");
/// assert!(position > "0/FFFFFFFF".parse().unwrap());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub(crate) u64);

/// A text is not a position in the WAL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position in the WAL: write it as pg_current_wal_lsn() prints it, such as 0/3000148")]
pub struct InvalidLsn(String);

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Lsn, InvalidLsn> {
        parse_lsn(text.trim()).map(Lsn).ok_or_else(|| InvalidLsn(text.to_owned()))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl TryFrom<String> for Lsn {
    type Error = InvalidLsn;

    fn try_from(text: String) -> Result<Lsn, InvalidLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_taken_in_both_forms_and_only_with_a_zone() {
        let noon = "2026-03-01T12:00:00.000000Z";
        for (text, expected) in [
            ("2026-03-01T12:00:00Z", Some(noon)),
            ("2026-03-01 12:00:00Z", Some(noon)),
            ("2026-03-01T14:00:00+02:00", Some(noon)),
            ("2026-03-01 14:00:00+02", Some(noon)),
            ("2026-03-01 06:30:00-05:30", Some(noon)),
            ("2026-03-01 12:00:00 UTC", Some(noon)),
            ("2026-03-01 12:00:00.1234567+00", Some("2026-03-01T12:00:00.123456Z")),
            ("2026-03-01T12:00:00", None),
            ("2026-03-01", None),
            ("2026-02-30T12:00:00Z", None),
            ("2026-03-01 12:00:00 Europe/Vienna", None),
            ("12:00Z", None),
            ("now", None),
            ("", None),
        ] {
            let moment = text.parse::<Moment>().ok().map(|moment| moment.to_string());
            assert_eq!(moment.as_deref(), expected, "{text}");
        }
        assert_eq!(noon.parse::<Moment>().unwrap().in_settings(), "2026-03-01 12:00:00.000000+00");
        let error = "2026-03-01 12:00:00".parse::<Moment>().unwrap_err();
        assert!(matches!(error, InvalidMoment::NoZone(_)), "{error}");
    }

    #[test]
    fn positions_are_ordered_as_numbers() {
        assert!("0/9".parse::<Lsn>().unwrap() < "0/10".parse().unwrap());
        for text in ["", "0", "0/", "/0", "0/G", "0/100000000"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
