//! Making a complete data directory follow the primary: its settings, its start, and the proof that it streams.

use super::{
    configuration::{self, DEBIAN, NOT_BELOW_THE_PRIMARY, Place},
    conninfo::Conninfo,
    join::{Join, Joined, JoinedBy},
    join_error::JoinError,
    password::Written,
    receiver::{self, NotStreaming, Sight},
    remains::SlotBefore,
    server::{HostServer, LogStart},
    upstream::{Slot, SlotError},
};
use crate::{
    command::{CommandError, last_lines},
    error::with_causes,
    process::{self, KillGuard},
};

/// What is to be taken back when the standby does not follow.
#[derive(Debug, Default)]
struct Changed {
    slot: Option<SlotBefore>,
    password: Option<Written>,
    settings: Option<String>,
}

impl Join<'_> {
    /// Makes the standby in the data directory stream from the primary. A `fresh` copy stays when that fails.
    pub(super) async fn follow(&self, fresh: bool) -> Result<Joined, JoinError> {
        let path = self.directory.path();
        let place = Place::find(path, self.identity.release, DEBIAN.as_ref());
        let mut server = HostServer { programs: self.programs, data_dir: path, place };
        let running = process::postmaster(path).is_some();
        let mut notes = Vec::new();
        if self.identity.standby {
            notes.push(format!(
                "{} is a standby itself: when it is promoted, this one follows it; when its primary is lost, so are both",
                self.client.at()
            ));
        }
        let followed = self.followed(&server).await;
        let receives = running && Sight::of(&process::titles(path)).receiver.is_some();
        let own_slot = receives && followed.as_ref().is_some_and(|(_, old)| *old == self.options.slot);
        if own_slot
            && followed.as_ref().is_some_and(|(old, _)| self.is_wanted(old))
            && self.streams(&server).await.is_ok()
        {
            return Ok(self.joined(&server, JoinedBy::Nothing, notes));
        }
        let mut changed = Changed::default();
        let guard = (!running).then(|| {
            let mut guard = KillGuard::default();
            guard.watch(path.to_owned());
            guard
        });
        let result = self.make_follow(&mut server, running, own_slot, &mut changed, &mut notes).await;
        if let Err(error) = result {
            if !running {
                server.stop().await;
            }
            drop(guard);
            return Err(match fresh {
                true => self.unfinished(error),
                false => self.take_back_changes(&server, running, &changed, error).await,
            });
        }
        if let Some(guard) = guard {
            guard.disarm();
        }
        if let Some((conninfo, old)) =
            followed.filter(|(_, old)| !old.is_empty() && *old != self.options.slot)
        {
            notes.push(format!(
                "the slot {old} on {} is no longer used by this standby, and keeps WAL: drop it there",
                conninfo.place()
            ));
        }
        let by = if fresh {
            JoinedBy::Copying
        } else if running {
            JoinedBy::Repointing
        } else {
            JoinedBy::Starting
        };
        Ok(self.joined(&server, by, notes))
    }

    /// Whom the standby is told to follow, and through which slot, as far as that can be read.
    async fn followed(&self, server: &HostServer<'_>) -> Option<(Conninfo, String)> {
        let conninfo = server.setting("primary_conninfo").await.ok()?;
        let slot = server.setting("primary_slot_name").await.ok()?;
        Some((Conninfo::parse(&conninfo).ok()?, slot))
    }

    fn is_wanted(&self, old: &Conninfo) -> bool {
        let wanted = &self.client.conninfo;
        (old.host(), old.port(), old.get("user")) == (wanted.host(), wanted.port(), wanted.get("user"))
    }

    async fn streams(&self, server: &HostServer<'_>) -> Result<(), NotStreaming> {
        receiver::streams(server, self.client, &self.options.slot, self.identity).await
    }

    async fn make_follow(
        &self,
        server: &mut HostServer<'_>,
        running: bool,
        own_slot: bool,
        changed: &mut Changed,
        notes: &mut Vec<String>,
    ) -> Result<(), JoinError> {
        let (path, account) = (server.data_dir, self.programs.account());
        changed.slot = self.have_slot(own_slot).await?;
        let (_, conninfo) = self.standby_access(&mut changed.password)?;
        if server.place == Place::Nowhere {
            let mut limits = Vec::new();
            for name in NOT_BELOW_THE_PRIMARY {
                limits.push((name, self.client.setting(name).await?));
            }
            configuration::write_minimal(account, path, &limits).map_err(self.file("configure"))?;
            server.place = Place::Inside;
            notes.push(format!(
                "the primary keeps its configuration outside its data directory, so the standby has a minimal one: write postgresql.conf and pg_hba.conf in {} before clients come",
                path.display()
            ));
        }
        let lines = configuration::own_lines(&conninfo, &self.options.slot, self.options.port);
        let old = configuration::write_own_lines(account, path, &lines).map_err(self.file("configure"))?;
        changed.settings = Some(old);
        let log = server.log_start();
        if running {
            self.progress.step("telling the standby whom to follow");
            server.reload().await.map_err(|source| self.program("reload", source))?;
        } else {
            self.progress.step("starting the standby");
            if let Err(error) = server.start().await {
                return Err(self.not_started(server, &log, error).await);
            }
        }
        self.progress.step("waiting until it streams");
        if self.streams(server).await.is_err() {
            let (path, at) = (path.to_owned(), self.client.at());
            return Err(JoinError::NotStreaming { path, at, log: server.log_since(&log).await });
        }
        Ok(())
    }

    /// Makes the slot, unless it is there; returns how it was before. One that this standby uses is the wanted one.
    async fn have_slot(&self, own: bool) -> Result<Option<SlotBefore>, JoinError> {
        let slot = &self.options.slot;
        match self.client.slot(slot, self.identity).await? {
            Slot::InUse if own => Ok(None),
            Slot::InUse => {
                let (slot, at) = (slot.clone(), self.client.at());
                Err(SlotError::InUse { slot, at }.into())
            }
            Slot::Free => Ok(None),
            Slot::Missing => {
                self.client.create_slot(slot, true).await?;
                Ok(Some(SlotBefore::Missing))
            }
            Slot::Hollow => {
                self.client.drop_slot(slot).await?;
                self.client.create_slot(slot, true).await?;
                Ok(Some(SlotBefore::Hollow))
            }
        }
    }

    async fn not_started(&self, server: &HostServer<'_>, log: &LogStart, error: CommandError) -> JoinError {
        let path = server.data_dir.to_owned();
        let log = server.log_since(log).await;
        let log = if log.is_empty() { last_lines(&with_causes(&error)) } else { log };
        JoinError::NotStarted { path, log }
    }

    fn unfinished(&self, error: JoinError) -> JoinError {
        let (path, slot) = (self.directory.path().to_owned(), self.options.slot.clone());
        JoinError::Unfinished { path, slot, source: Box::new(error) }
    }

    /// Leaves the standby as it was: with its settings, its slot and its password file.
    async fn take_back_changes(
        &self,
        server: &HostServer<'_>,
        running: bool,
        changed: &Changed,
        error: JoinError,
    ) -> JoinError {
        let (path, account) = (server.data_dir, self.programs.account());
        let mut left = Vec::new();
        if let Some(old) = &changed.settings {
            if let Err(error) = configuration::write_automatic(account, path, old) {
                left.push(format!("its settings stay as this call has written them ({error})"));
            } else if running && let Err(error) = server.reload().await {
                left.push(format!("it was not told that its settings are the old ones ({error})"));
            }
        }
        if let Some(Err(error)) = changed.password.as_ref().map(|written| written.take_back(account)) {
            left.push(format!("the password file beside {} is left ({error})", path.display()));
        }
        if let Some(before) = changed.slot
            && let Err(error) = before.restore(&self.options.slot, self.client).await
        {
            left.push(format!(
                "the slot {} may be left on {}: {}",
                self.options.slot,
                self.client.at(),
                with_causes(&error)
            ));
        }
        if left.is_empty() { error } else { JoinError::LeftOver { left, source: Box::new(error) } }
    }

    fn program(&self, doing: &'static str, source: CommandError) -> JoinError {
        JoinError::Program { doing, path: self.directory.path().to_owned(), source }
    }

    fn joined(&self, server: &HostServer<'_>, by: JoinedBy, notes: Vec<String>) -> Joined {
        Joined {
            by,
            data_dir: server.data_dir.to_owned(),
            primary: self.client.at(),
            system_identifier: self.identity.system_identifier.clone(),
            timeline: self.identity.timeline,
            position: self.identity.position.clone(),
            slot: self.options.slot.clone(),
            port: server.address().map(|(port, _)| port),
            notes,
        }
    }
}
