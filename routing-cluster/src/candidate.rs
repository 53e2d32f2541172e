//! Candidates for a promotion: whether one lacks writes that the primary, or another replica, has.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    node::NodeRecord,
    operation::{Operation, OperationError, asked},
    promote::PromoteError,
    status::parse_lsn,
};

/// How long the replicas may take to end their streams after the old primary has ended.
const RECEIVED: Duration = Duration::from_secs(10);
/// How long the last record may take through other replicas.
const LAST_RECORD: Duration = Duration::from_secs(2);
/// Between two looks at them.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Operation<'_> {
    /// Before anything is stopped: the target must not be a replica that obviously lacks writes.
    pub(crate) async fn check_complete(
        &self,
        target: &NodeRecord,
        old: &[NodeRecord],
    ) -> Result<(), PromoteError> {
        for primary in old {
            if self.session(primary).await.is_err() {
                continue;
            }
            let streams = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
            let session = self.session(target).await?;
            let streams: bool =
                session.value("ask for the receiver", streams, &[]).await.map_err(asked(target))?;
            return if streams {
                Ok(())
            } else {
                let (node, primary) = (target.name.clone(), primary.name.clone());
                Err(PromoteError::NotStreaming { node, primary })
            };
        }
        self.check_furthest(target).await
    }

    /// No other replica that answers may have more WAL.
    pub(crate) async fn check_furthest(&self, target: &NodeRecord) -> Result<(), PromoteError> {
        let own = self.received(target).await?;
        let mut best = (own, target.name.clone());
        for other in self.nodes() {
            if other.name == target.name || !self.is_standby(&other).await.unwrap_or(false) {
                continue;
            }
            let received = self.received(&other).await?;
            best = best.max((received, if received == own { String::new() } else { other.name }));
        }
        if best.0 > own {
            let (position, better) = best;
            let node = target.name.clone();
            return Err(PromoteError::Behind { node, better, bytes: position - own });
        }
        Ok(())
    }

    /// The end of what a standby has, received or replayed.
    async fn received(&self, node: &NodeRecord) -> Result<u64, OperationError> {
        let session = self.session(node).await?;
        let position = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text";
        let position: Option<String> =
            session.value("ask for the position", position, &[]).await.map_err(asked(node))?;
        Ok(position.as_deref().and_then(parse_lsn).unwrap_or(0))
    }

    /// Waits until the replica no longer receives, so that its position is final.
    pub(crate) async fn settle(&self, node: &NodeRecord) -> Result<(), OperationError> {
        let session = self.session(node).await?;
        let begun = Instant::now();
        let ended = "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
        while begun.elapsed() < RECEIVED {
            // A cascading replica's upstream is still there.
            let ended: bool = session.value("ask for the receiver", ended, &[]).await.map_err(asked(node))?;
            if ended || self.state.upstream(&node.name).is_some() {
                break;
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// A fenced primary that has ended cleanly has a last record, and the candidate must have it.
    pub(crate) async fn check_end(&self, target: &NodeRecord) -> Result<(), PromoteError> {
        let from = self.state.change.as_ref().map_or_else(Vec::new, |change| change.from.clone());
        for name in from {
            let Ok(old) = self.node(&name) else { continue };
            // After a crash nobody knows where its WAL ends.
            let Ok(end) = self.last_checkpoint(&old).await else { continue };
            let Some(wanted) = parse_lsn(&end) else { continue };
            let begun = Instant::now();
            // The checkpoint's own record begins there. A cascading replica gets it a moment later.
            while self.received(target).await? <= wanted {
                if begun.elapsed() > LAST_RECORD {
                    let node = target.name.clone();
                    return Err(PromoteError::LacksEnd { node, primary: name, end });
                }
                sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }
}
