//! A new standby: the copy of the primary, from an empty directory to a complete data directory.

use std::{fs::File, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    configuration,
    conninfo::Conninfo,
    copy::Copy,
    data_directory::{Contents, DataDirectoryError},
    join::{Join, Joined},
    join_error::JoinError,
    password::{Password, Written},
    remains::{Before, Remains, SlotBefore, staging},
    upstream::{Slot, SlotError},
};
use crate::error::with_causes;

/// How long the primary may take to notice that the connections of an interrupted copy have ended.
const LET_GO: Duration = Duration::from_secs(10);
/// Between two looks at the slot.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

impl Join<'_> {
    /// Copies the primary and starts the copy. `remains` is what an interrupted call has left.
    pub(super) async fn copy(
        &self,
        lock: Option<File>,
        remains: Option<Remains>,
    ) -> Result<Joined, JoinError> {
        let path = self.directory.path();
        self.client.check_room().await?;
        if remains.is_some() {
            self.progress.step("removing what an interrupted call has copied");
            Remains::clear_copy(path)?;
        }
        let slot_before = self.slot_before(remains.as_ref()).await?;
        let before = match &remains {
            Some(remains) => remains.before,
            None => Before::of(path)?,
        };
        let lock = match lock {
            Some(lock) => lock,
            None => self.directory.lock()?,
        };
        if remains.is_none() && !matches!(self.directory.contents()?, Contents::Empty) {
            return Err(DataDirectoryError::Busy { path: path.to_owned() }.into());
        }
        let (account, system) = (self.programs.account(), &self.identity.system_identifier);
        let slot = (self.options.slot.as_str(), slot_before);
        let mut begun = Remains::begin(path, account, before, slot, system)?;
        let mut written = None;
        if let Err(error) = self.copy_into(&mut begun, &mut written).await {
            return Err(self.take_back(&begun, written.as_ref(), error).await);
        }
        self.progress.step("putting the copy in place");
        begun.put_in_place(path)?;
        let joined = self.follow(true).await;
        drop(lock);
        joined
    }

    /// How the slot was before this call, and before an interrupted one whose slot goes.
    async fn slot_before(&self, remains: Option<&Remains>) -> Result<SlotBefore, JoinError> {
        let slot = self.options.slot.as_str();
        if let Some(remains) = remains.filter(|remains| remains.slot != slot) {
            // Nobody would ever drop it: it would keep WAL until the primary's disk is full.
            if remains.system_identifier == self.identity.system_identifier {
                remains.restore_slot(self.client).await?;
            }
        }
        let own = remains.filter(|remains| remains.slot == slot).map(|remains| remains.slot_before);
        let begun = Instant::now();
        loop {
            match self.client.slot(slot, self.identity).await? {
                Slot::InUse if remains.is_some() && begun.elapsed() < LET_GO => sleep(LOOK_AGAIN).await,
                Slot::InUse => {
                    let (slot, at) = (slot.to_owned(), self.client.at());
                    return Err(SlotError::InUse { slot, at }.into());
                }
                Slot::Missing => return Ok(SlotBefore::Missing),
                found => {
                    let of_others = if found == Slot::Hollow { SlotBefore::Hollow } else { SlotBefore::Kept };
                    let before = own.unwrap_or(of_others);
                    if before == SlotBefore::Missing {
                        self.client.drop_slot(slot).await?;
                    }
                    return Ok(before);
                }
            }
        }
    }

    /// The steps that are taken back when one of them fails.
    async fn copy_into(&self, begun: &mut Remains, written: &mut Option<Written>) -> Result<(), JoinError> {
        let path = self.directory.path();
        if begun.slot_before == SlotBefore::Hollow {
            self.client.drop_slot(&begun.slot).await?;
        }
        if begun.slot_before != SlotBefore::Kept {
            self.client.create_slot(&begun.slot, true).await?;
        }
        let (password, conninfo) = self.standby_access(written)?;
        self.progress.step(&format!("copying {} to {}", self.client.at(), path.display()));
        let target = staging(path);
        let copy = Copy {
            programs: self.programs,
            conninfo: &self.client.conninfo,
            password: &password,
            slot: &self.options.slot,
            max_rate: self.options.max_rate.as_deref(),
            data_dir: path,
            target: &target,
        };
        copy.run(self.progress).await.map_err(JoinError::Copy)?;
        let lines = configuration::own_lines(&conninfo, &self.options.slot, self.options.port);
        let account = self.programs.account();
        configuration::write_own_lines(account, &target, &lines).map_err(self.file("configure"))?;
        Ok(begun.set_complete(path, account)?)
    }

    /// How the standby will reach the primary by itself: with a password file, if there is a password.
    pub(super) fn standby_access(
        &self,
        written: &mut Option<Written>,
    ) -> Result<(Password, Conninfo), JoinError> {
        let mut conninfo = self.client.conninfo.clone();
        let mut password = self.client.password.clone();
        if let Password::Known(secret) = &password {
            let (path, account) = (self.directory.path(), self.programs.account());
            let file = Written::new(path, account, &conninfo, secret);
            let file = written.insert(file.map_err(self.file("write the password file of"))?);
            password = Password::File(file.file().to_owned());
        }
        if let Password::File(file) = &password
            && let Some(file) = file.to_str()
        {
            conninfo.set("passfile", file);
        }
        conninfo.set("application_name", &self.options.slot);
        Ok((password, conninfo))
    }

    /// Leaves the directory, the slot and the password file as they were.
    async fn take_back(&self, begun: &Remains, written: Option<&Written>, error: JoinError) -> JoinError {
        let path = self.directory.path();
        let mut left = Vec::new();
        if let Err(error) = Remains::clear_copy(path) {
            left.push(with_causes(&error));
        }
        if let Err(error) = begun.restore_slot(self.client).await {
            let (slot, at) = (&begun.slot, self.client.at());
            left.push(format!(
                "the slot {slot} may be left on {at}, where it keeps WAL: drop it ({})",
                with_causes(&error)
            ));
        }
        if let Err(error) = begun.clear(path) {
            left.push(with_causes(&error));
        }
        if let Some(Err(error)) = written.map(|written| written.take_back(self.programs.account())) {
            left.push(format!("the password file beside {} is left ({error})", path.display()));
        }
        if left.is_empty() { error } else { JoinError::LeftOver { left, source: Box::new(error) } }
    }

    /// Adapts a file's error: what was tried.
    pub(super) fn file(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> JoinError + use<> {
        let path = self.directory.path().to_owned();
        move |source| JoinError::File { doing, path, source }
    }
}
