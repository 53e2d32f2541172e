//! The proof that a standby streams, taken without a login on it.
//!
//! PostgreSQL's processes say in the process list what they do. The WAL receiver says how far it has received, but not before
//! it has received something. On an idle primary whose WAL ends with a segment that does not happen, and then the slot says
//! that it is in use and what the standby has confirmed.

use std::{collections::HashSet, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    client::Client,
    server::HostServer,
    upstream::{Identity, Slot},
};
use crate::{process, status::parse_lsn};

/// How long a standby may stand still, without replaying or receiving anything, before it counts as one that does not
/// stream. While it catches up it is waited for.
const STILL: Duration = Duration::from_secs(60);
/// Receivers that were seen to come and go, and how long the standby stands still meanwhile, before their reason will not
/// go away by itself: a new one comes every `wal_retrieve_retry_interval`, 5 s by default.
const IN_VAIN: usize = 5;
const IN_VAIN_FOR: Duration = Duration::from_secs(10);
/// How long a receiver that names no position must have been the same process before the slot is asked: one that cannot
/// connect ends at once.
const STEADY: Duration = Duration::from_millis(700);
/// Between two looks at the process list.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What the standby's processes say of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sight {
    /// The WAL receiver's process, and how far it has received.
    pub(super) receiver: Option<(i32, Option<u64>)>,
    /// What the startup process does, such as `recovering 000000010000000000000003`.
    pub(super) replay: Option<String>,
}

impl Sight {
    pub(super) fn of(titles: &[(i32, String)]) -> Sight {
        let mut sight = Sight::default();
        for (pid, title) in titles.iter().filter(|(_, title)| title.starts_with("postgres: ")) {
            // A cluster's name may stand in between.
            if let Some(doing) = work(title, ": walreceiver") {
                sight.receiver = Some((*pid, doing.strip_prefix("streaming ").and_then(parse_lsn)));
            } else if let Some(doing) = work(title, ": startup") {
                sight.replay = Some(doing.to_owned());
            }
        }
        sight
    }
}

/// What a process of that name does.
fn work<'a>(title: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = title.rsplit_once(name)?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim())
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotStreaming {
    /// The server has ended.
    Ended,
    /// It runs, and nothing moves.
    Still,
}

/// Waits until the standby streams through the slot and has received what the primary had written when it was asked.
pub(super) async fn streams(
    server: &HostServer<'_>,
    primary: &Client<'_>,
    slot: &str,
    identity: &Identity,
) -> Result<(), NotStreaming> {
    let wanted = parse_lsn(&identity.position).unwrap_or(u64::MAX);
    let (mut last, mut moved) = (None, Instant::now());
    let mut steady: Option<(i32, Instant)> = None;
    let mut receivers = HashSet::new();
    loop {
        if process::postmaster(server.data_dir).is_none() {
            return Err(NotStreaming::Ended);
        }
        let Sight { receiver, replay } = Sight::of(&process::titles(server.data_dir));
        match (receiver, steady) {
            (Some((_, Some(received))), _) if received >= wanted => return Ok(()),
            (Some((pid, None)), Some((same, since))) if pid == same => {
                if since.elapsed() > STEADY {
                    if confirmed(server, primary, slot, identity, wanted).await {
                        return Ok(());
                    }
                    steady = Some((pid, Instant::now()));
                }
            }
            (Some((pid, _)), _) => steady = Some((pid, Instant::now())),
            (None, _) => steady = None,
        }
        let now = Some((replay, receiver.and_then(|(_, received)| received)));
        if now != last {
            (last, moved) = (now, Instant::now());
            receivers.clear();
        }
        receivers.extend(receiver.map(|(pid, _)| pid));
        let in_vain = receivers.len() > IN_VAIN && moved.elapsed() > IN_VAIN_FOR;
        if in_vain || moved.elapsed() > STILL {
            return Err(NotStreaming::Still);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether the standby, or the primary, says that it streams, where the process list does not.
async fn confirmed(
    server: &HostServer<'_>,
    primary: &Client<'_>,
    slot: &str,
    identity: &Identity,
    wanted: u64,
) -> bool {
    let ask = "SELECT status, flushed_lsn, slot_name FROM pg_stat_wal_receiver";
    if let Some([status, flushed, own]) = server.ask_locally(ask).await.as_deref()
        && !status.is_empty()
    {
        return status == "streaming" && own == slot && parse_lsn(flushed) >= Some(wanted);
    }
    // The look at the slot would take it from a standby that is just about to connect, which then tries again.
    if !matches!(primary.slot(slot, identity).await, Ok(Slot::InUse)) {
        return false;
    }
    match primary.confirmed(slot, identity.release).await {
        Ok(Some(confirmed)) => confirmed >= wanted,
        // Releases before 15 do not say it.
        Ok(None) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_say_what_they_do() {
        let titles = |texts: &[&str]| -> Vec<(i32, String)> {
            texts
                .iter()
                .enumerate()
                .map(|(pid, text)| (i32::try_from(pid).unwrap(), (*text).to_owned()))
                .collect()
        };
        let sight = Sight::of(&titles(&[
            "/usr/bin/postgres",
            "postgres: db: a: walreceiver streaming 0/41AAB68",
            "postgres: db: a: startup recovering 000000010000000000000004",
        ]));
        assert_eq!(sight.receiver, Some((1, Some(0x41A_AB68))));
        assert_eq!(sight.replay.as_deref(), Some("recovering 000000010000000000000004"));
        assert_eq!(Sight::of(&titles(&["postgres: walreceiver"])).receiver, Some((0, None)));
        // Newer releases say what the receiver waits for.
        assert_eq!(Sight::of(&titles(&["postgres: walreceiver waiting"])).receiver, Some((0, None)));
        let others = titles(&["psql: walreceiver streaming 0/1", "postgres: walreceivers db [local] idle"]);
        assert_eq!(Sight::of(&others), Sight::default());
    }
}
