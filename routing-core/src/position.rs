//! Where the primary is after a write.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use crate::backend::Backend;
use crate::consistency::Consistency;
use crate::lsn::{Lsn, Position, Timeline};
use crate::notes::{TokenSource, Written};
use crate::router::{Router, RouterInner};
use crate::session::Session;
use crate::token::{Mark, SessionToken, UnixMillis};

/// Asked on the primary after a commit: the position that everything committed before lies at or below, and the timeline in
/// hexadecimal digits. One row of text columns; on a standby it is an error.
///
/// The flush position, because what a synchronous commit has returned for is flushed, and because the insert position can
/// run ahead of anything that a standby will receive while the server idles.
pub const POSITION_SQL: &str = "SELECT pg_catalog.pg_current_wal_flush_lsn()::text, \
     pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 1, 8)";

/// The same where commits are asynchronous: they return before they are flushed.
pub const INSERT_POSITION_SQL: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text, \
     pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// Reads the answer to [`POSITION_SQL`]; `None` when it is none.
///
/// ```
/// use routing_core::position::position;
///
/// assert_eq!(position("0/3000148", "0000000A").unwrap().timeline.0, 10);
/// assert!(position("0/3000148", "").is_none());
/// ```
#[must_use]
pub fn position(lsn: &str, timeline: &str) -> Option<Position> {
    let timeline = u32::from_str_radix(timeline, 16).ok()?;
    Some(Position { timeline: Timeline(timeline), lsn: lsn.parse::<Lsn>().ok()? })
}

impl<B: Backend> Router<B> {
    /// Who tells the session where its writes of this epoch end.
    pub(crate) fn written_in(&self, epoch: u64) -> Written {
        Written { by: self.inner().clone(), epoch }
    }

    /// The primary's position, if it still is the one of this epoch.
    async fn position(&self, epoch: u64) -> Option<Position> {
        let shared = self.cluster().shared();
        let deadline = Instant::now() + shared.config.checkout_timeout;
        let sql = match shared.config.asynchronous_commit {
            Some(_) => INSERT_POSITION_SQL,
            None => POSITION_SQL,
        };
        // A session of its own: asking is no decision of the request.
        let routed = self.routed(Session::new(), Consistency::Strong);
        let asking = async {
            let mut lease = routed.writer(deadline).await.ok()?;
            let watch = routed.watch(&lease);
            let answer = watch.unless_lost(pin!(B::position(&mut lease, sql))).await?;
            let found = answer.ok();
            // What went wrong, if anything, the connection itself tells.
            if found.is_some() && lease.epoch() == epoch {
                lease.end(None);
                return found;
            }
            None
        };
        timeout_at(deadline, asking).await.ok().flatten()
    }
}

impl<B: Backend> TokenSource for RouterInner<B> {
    fn token(self: Arc<Self>, epoch: u64) -> BoxFuture<'static, Option<SessionToken>> {
        let router = Router::from_inner(self);
        Box::pin(async move {
            let position = router.position(epoch).await;
            let shared = router.cluster().shared();
            let topology = shared.topology();
            let issued_at = UnixMillis::now();
            // The position is the primary's of the same epoch, so it is of this cluster.
            let system_id = topology.lineage.system_id?;
            let (timeline, mark) = match position {
                Some(position) => (position.timeline, Mark::Position(position.lsn)),
                None => {
                    tracing::debug!("no position after a write: its session is pinned to the primary");
                    let timeline = topology.lineage.writer.map(|(_, timeline)| timeline)?;
                    (timeline, Mark::Pin(issued_at.after(shared.config.token_lifetime)))
                }
            };
            Some(SessionToken { system_id, timeline, mark, issued_at })
        })
    }

    fn sign(&self, token: &SessionToken) -> String {
        token.encode(&self.shared().keys)
    }
}
