//! Telling running standbys whom to follow, and seeing that they do.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::{
    condition::Condition,
    error::with_causes,
    node::NodeRecord,
    operation::{Operation, OperationError, asked, files},
    process,
    settings::quote,
    sql::Session,
};

/// How long a standby that was told its new upstream may take to stream; it takes a tenth of a second.
const FOLLOWING: Duration = Duration::from_secs(8);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A node that does not follow the new primary, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfollowed {
    /// The node.
    pub node: String,
    /// Why it does not follow, and what to do.
    pub why: String,
}

impl Operation<'_> {
    /// Makes a running standby follow `upstream` without a restart, and sees it stream on that timeline.
    pub(crate) async fn repoint(
        &self,
        node: &NodeRecord,
        upstream: &NodeRecord,
    ) -> Result<(), OperationError> {
        self.keep_slot(node, upstream).await?;
        let conninfo = self.provision().conninfo(upstream, &node.name);
        let conninfo = conninfo.map_err(files("write the connection of", node))?;
        let session = self.session(node).await?;
        for statement in [
            format!("ALTER SYSTEM SET primary_conninfo = {}", quote(&conninfo)),
            format!("ALTER SYSTEM SET primary_slot_name = {}", quote(&node.name)),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            session.run("change the upstream", &statement).await.map_err(asked(node))?;
        }
        self.sees_streaming(&session, node, upstream).await
    }

    /// Waits until the standby receives the upstream's own timeline, and the upstream says that it streams.
    async fn sees_streaming(
        &self,
        session: &Session,
        node: &NodeRecord,
        upstream: &NodeRecord,
    ) -> Result<(), OperationError> {
        let of = self.session(upstream).await?;
        let timeline = timeline(&of).await.map_err(asked(upstream))?;
        let begun = Instant::now();
        loop {
            let receiver = "SELECT coalesce(max(received_tli), 0) FROM pg_stat_wal_receiver
                            WHERE status = 'streaming'";
            let received: i32 = session.value("ask the standby", receiver, &[]).await.map_err(asked(node))?;
            let sender = "SELECT EXISTS (SELECT FROM pg_stat_replication
                          WHERE application_name = $1 AND state = 'streaming')";
            let sent: bool =
                of.value("ask the upstream", sender, &[&node.name]).await.map_err(asked(upstream))?;
            if sent && received == timeline {
                return Ok(());
            }
            if begun.elapsed() > FOLLOWING {
                return Err(crate::ProvisionError::NotFollowing {
                    node: node.name.clone(),
                    upstream: upstream.name.clone(),
                    timeline,
                    received,
                    log: node.log_file.display().to_string(),
                }
                .into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Makes every standby that is to follow the primary do so; returns those that do not. They are marked.
    pub(crate) async fn follow_all(
        &mut self,
        primary: &NodeRecord,
    ) -> Result<Vec<Unfollowed>, OperationError> {
        let followers: Vec<NodeRecord> =
            self.nodes().into_iter().filter(|node| self.follows(node, primary)).collect();
        let operation = &*self;
        let told = join_all(followers.iter().map(|node| async move {
            match process::postmaster(&node.data_dir) {
                None => Err("it is stopped: its next start tells it whom to follow".to_owned()),
                Some(process) if process.is_paused() => {
                    Err(format!("it is paused: when it goes on, `rejoin {}`", node.name))
                }
                Some(_) => operation
                    .repoint(node, primary)
                    .await
                    .map_err(|error| format!("{}: `rejoin {}`", with_causes(&error), node.name)),
            }
        }))
        .await;
        let mut unfollowed = Vec::new();
        for (node, told) in followers.iter().zip(told) {
            let condition = if told.is_ok() { Condition::Sound } else { Condition::Astray };
            self.state.set_condition(&node.name, condition);
            if let Err(why) = told {
                unfollowed.push(Unfollowed { node: node.name.clone(), why });
            }
        }
        self.save()?;
        Ok(unfollowed)
    }

    fn follows(&self, node: &NodeRecord, primary: &NodeRecord) -> bool {
        node.name != primary.name
            && self.state.condition(&node.name).may_start()
            && self.state.upstream(&node.name).is_none()
            && node.starts_as_standby()
    }
}

/// The timeline that a node writes or replays.
pub(crate) async fn timeline(session: &Session) -> Result<i32, crate::SqlError> {
    let timeline = "SELECT CASE WHEN s.recovering THEN coalesce(
                (SELECT received_tli FROM pg_stat_wal_receiver), (pg_control_checkpoint()).timeline_id)
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int END
        FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) s";
    session.value("ask for the timeline", timeline, &[]).await
}
