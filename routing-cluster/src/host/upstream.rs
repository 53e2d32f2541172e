//! What is asked of the primary before a standby joins it, and the slot that the standby gets there.

use super::{client::Client, refusal::UpstreamError};
use crate::status::parse_lsn;

/// The first release with READ_REPLICATION_SLOT.
const READS_SLOTS: u32 = 15;
/// What `psql` says when a server has begun to stream, which it cannot read.
const STREAMS: &str = "unexpected PQresultStatus";
/// SQLSTATEs: a slot in use, a slot that is missing.
const IN_USE: &str = "55006";
const MISSING: &str = "42704";

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Which database system it is: all nodes of one cluster have the same.
    pub(super) system_identifier: String,
    pub(super) timeline: u32,
    /// How far it has written, as it prints it.
    pub(super) position: String,
    /// Its major release.
    pub(super) release: u32,
    /// Whether it is itself in recovery.
    pub(super) standby: bool,
}

/// Why the slot cannot be the standby's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// Another standby uses it.
    #[error(
        "the slot {slot} on {at} is in use by another standby: choose another --slot, or stop that standby (pg_stat_replication there says where it is); a connection that was cut holds it for up to wal_sender_timeout"
    )]
    InUse {
        /// The slot.
        slot: String,
        /// Host and port.
        at: String,
    },
    /// It is none that a standby could stream through, or it could not be made.
    #[error("the slot {slot} cannot be had")]
    Refused {
        /// The slot.
        slot: String,
        /// What the server said.
        source: UpstreamError,
    },
}

/// A slot as the primary has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// There is none of that name.
    Missing,
    /// Nobody uses it, and WAL is kept for it.
    Free,
    /// Nobody uses it, and no WAL is kept for it: it was never used, or has lost what it kept.
    Hollow,
    /// A standby uses it.
    InUse,
}

impl Client<'_> {
    /// Who is there, and whether it lets replication connections in.
    pub(super) async fn identify(&self) -> Result<Identity, UpstreamError> {
        let asked = ["IDENTIFY_SYSTEM", "SHOW server_version_num", "SHOW in_hot_standby"];
        let answers = self.ask(&asked).await?;
        identity(&answers)
            .ok_or_else(|| UpstreamError::Answer { at: self.at(), answer: format!("{answers:?}") })
    }

    /// Whether two connections at once are let in, which a base backup needs: a new one is opened before the old one ends.
    pub(super) async fn check_room(&self) -> Result<(), UpstreamError> {
        self.ask(&["IDENTIFY_SYSTEM", "\\connect"]).await.map(drop)
    }

    /// A setting that every replication role may read.
    pub(super) async fn setting(&self, name: &str) -> Result<String, UpstreamError> {
        let answers = self.ask(&[&format!("SHOW {name}")]).await?;
        Ok(answers.into_iter().flatten().next().unwrap_or_default())
    }

    /// Looks at a slot. `identity` is the server's.
    pub(super) async fn slot(&self, slot: &str, identity: &Identity) -> Result<Slot, SlotError> {
        let hollow = if identity.release >= READS_SLOTS {
            match self.read_slot(slot).await.map_err(refused(slot))? {
                None => return Ok(Slot::Missing),
                Some(position) => position.is_empty(),
            }
        } else {
            false
        };
        // Whether a slot is in use is only said to who wants to use it. `psql` gives up as soon as it is let.
        let start = format!("START_REPLICATION SLOT \"{slot}\" PHYSICAL {}", identity.position);
        match self.ask(&[&start]).await {
            Err(UpstreamError::Other { said, .. }) if said.contains(STREAMS) => {}
            Ok(_) => {}
            Err(error) if error.has_code(IN_USE) => return Ok(Slot::InUse),
            Err(error) if error.has_code(MISSING) => return Ok(Slot::Missing),
            // Newer releases do not even begin to stream through a slot that has lost its WAL.
            Err(_) if hollow => {}
            Err(error) => return Err(refused(slot)(error)),
        }
        Ok(if hollow { Slot::Hollow } else { Slot::Free })
    }

    /// How far the standby has confirmed to have come; `None` when there is no such slot, an empty text when it has
    /// confirmed nothing.
    async fn read_slot(&self, slot: &str) -> Result<Option<String>, UpstreamError> {
        let answers = self.ask(&[&format!("READ_REPLICATION_SLOT \"{slot}\"")]).await?;
        let mut fields = answers.into_iter().flatten();
        match (fields.next(), fields.next()) {
            (Some(kind), Some(position)) if !kind.is_empty() => Ok(Some(position)),
            _ => Ok(None),
        }
    }

    /// What the standby that uses the slot has confirmed; `None` where the release does not say.
    pub(super) async fn confirmed(&self, slot: &str, release: u32) -> Result<Option<u64>, UpstreamError> {
        if release < READS_SLOTS {
            return Ok(None);
        }
        Ok(self.read_slot(slot).await?.as_deref().and_then(parse_lsn))
    }

    /// Makes a slot that keeps WAL from now on, or, if not `keeping`, from its first use.
    pub(super) async fn create_slot(&self, slot: &str, keeping: bool) -> Result<(), SlotError> {
        let keeping = if keeping { " RESERVE_WAL" } else { "" };
        let create = format!("CREATE_REPLICATION_SLOT \"{slot}\" PHYSICAL{keeping}");
        self.ask(&[&create]).await.map(drop).map_err(refused(slot))
    }

    /// Drops a slot, as soon as a connection that has just ended has let it go; one that is missing is fine.
    pub(super) async fn drop_slot(&self, slot: &str) -> Result<(), SlotError> {
        match self.ask(&[&format!("DROP_REPLICATION_SLOT \"{slot}\" WAIT")]).await {
            Err(error) if error.has_code(MISSING) => Ok(()),
            dropped => dropped.map(drop).map_err(refused(slot)),
        }
    }
}

fn refused(slot: &str) -> impl Fn(UpstreamError) -> SlotError + use<> {
    let slot = slot.to_owned();
    move |source| SlotError::Refused { slot: slot.clone(), source }
}

fn identity(answers: &[Vec<String>]) -> Option<Identity> {
    let [system, version, standby] = answers else { return None };
    let [system_identifier, timeline, position, ..] = system.as_slice() else { return None };
    parse_lsn(position)?;
    // 150018 is 15.18.
    let release = version.first()?.parse::<u32>().ok()? / 10_000;
    Some(Identity {
        system_identifier: system_identifier.clone(),
        timeline: timeline.parse().ok()?,
        position: position.clone(),
        release,
        standby: standby.first()? == "on",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_or_refused_whole() {
        let line = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        let answers = [line("7711758519414160406|3|0/CAE000|"), line("150018"), line("on")];
        let found = identity(&answers).unwrap();
        assert_eq!((found.timeline, found.release, found.standby), (3, 15, true));
        assert_eq!(identity(&answers[..2]), None);
        assert_eq!(identity(&[line("7|3|nowhere|"), line("150018"), line("on")]), None);
    }
}
