//! A copy that is not in place yet, and the marker that tells it from everybody else's files.
//!
//! Both lie inside the data directory, which may be a mount point: so they are on the same file system, the copy is put in
//! place by renaming, and when another disk is mounted there, nothing on it is taken for ours.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{client::Client, data_directory::DataDirectoryError, upstream::SlotError};
use crate::link::read_unlinked;
use crate::{account::Account, process, state::is_name};

/// The marker's file, inside the data directory.
pub(super) const MARKER: &str = ".routing-cluster-join.json";
/// Where the base backup goes first, inside the data directory.
pub(super) const STAGING: &str = ".routing-cluster-join";
/// A marker that is being written.
pub(super) const UNFINISHED: &str = ".routing-cluster-join.new";
/// The layout of the marker; a higher number is a newer release's.
const FORMAT: u32 = 1;
/// What makes the copy follow its primary: the first to be put in place.
const SIGNAL: &str = "standby.signal";
/// Without it no server starts: the last to be put in place.
const VERSION: &str = "PG_VERSION";

/// What the marker says of an unfinished join. It is on disk before anything that it speaks of is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remains {
    format: u32,
    /// The slot that the copy streams through.
    pub(super) slot: String,
    /// What the join did, or was about to do, with the slot.
    pub(super) slot_before: SlotBefore,
    /// The system that is copied.
    pub(super) system_identifier: String,
    /// How the directory was before; a failure restores that.
    pub(super) before: Before,
    /// Whether the copy has everything and is only being put in place.
    complete: bool,
}

/// The slot before a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SlotBefore {
    /// There was none: the join has made it.
    Missing,
    /// It kept no WAL: the join has made it anew.
    Hollow,
    /// It was there.
    Kept,
}

impl SlotBefore {
    /// Leaves the slot as it was.
    pub(super) async fn restore(self, slot: &str, primary: &Client<'_>) -> Result<(), SlotError> {
        match self {
            SlotBefore::Kept => Ok(()),
            SlotBefore::Missing => primary.drop_slot(slot).await,
            SlotBefore::Hollow => {
                primary.drop_slot(slot).await?;
                primary.create_slot(slot, false).await
            }
        }
    }
}

/// The data directory before a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Before {
    Absent,
    Empty { uid: u32, gid: u32, mode: u32 },
}

impl Before {
    /// Makes the directory if it is missing, and says how it was.
    pub(super) fn of(data_dir: &Path) -> Result<Before, DataDirectoryError> {
        match DirBuilder::new().mode(0o700).create(data_dir) {
            Ok(()) => Ok(Before::Absent),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let old = fs::metadata(data_dir).map_err(DataDirectoryError::io("open", data_dir))?;
                Ok(Before::Empty { uid: old.uid(), gid: old.gid(), mode: old.mode() & 0o7777 })
            }
            Err(error) => Err(DataDirectoryError::io("create", data_dir)(error)),
        }
    }
}

impl Remains {
    /// Marks a directory for a join that is about to begin, and gives it to the account.
    pub(super) fn begin(
        data_dir: &Path,
        account: &Account,
        before: Before,
        slot: (&str, SlotBefore),
        system_identifier: &str,
    ) -> Result<Remains, DataDirectoryError> {
        let remains = Remains {
            format: FORMAT,
            slot: slot.0.to_owned(),
            slot_before: slot.1,
            system_identifier: system_identifier.to_owned(),
            before,
            complete: false,
        };
        if let Err(error) = remains.write(data_dir, account).and_then(|()| own(data_dir, account)) {
            // The first error counts.
            let _ = remains.clear(data_dir);
            return Err(DataDirectoryError::io("mark", data_dir)(error));
        }
        Ok(remains)
    }

    /// The marker in `data_dir`, if there is one.
    pub(super) fn read(data_dir: &Path) -> Result<Option<Remains>, DataDirectoryError> {
        let path = data_dir.join(MARKER);
        let text = match read_unlinked(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(DataDirectoryError::io("read", &path))?,
        };
        let read: Option<Remains> = serde_json::from_str(&text).ok();
        let strange = || io::Error::new(ErrorKind::InvalidData, "it is not a marker of this release");
        // The slot's name becomes part of a command.
        match read.filter(|remains| remains.format == FORMAT && is_name(&remains.slot)) {
            Some(remains) => Ok(Some(remains)),
            None => Err(DataDirectoryError::io("understand", &path)(strange())),
        }
    }

    /// Whether the copy has everything.
    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// Says that the copy has everything, from which on it is only put in place.
    pub(super) fn set_complete(
        &mut self,
        data_dir: &Path,
        account: &Account,
    ) -> Result<(), DataDirectoryError> {
        let complete = Remains { complete: true, ..self.clone() };
        complete.write(data_dir, account).map_err(DataDirectoryError::io("mark", data_dir))?;
        *self = complete;
        Ok(())
    }

    fn write(&self, data_dir: &Path, account: &Account) -> io::Result<()> {
        let (path, unfinished) = (data_dir.join(MARKER), data_dir.join(UNFINISHED));
        account.write(&unfinished, &serde_json::to_string(self)?)?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync(data_dir)?;
        data_dir.parent().map_or(Ok(()), sync)
    }

    /// Puts the complete copy in place; a repeated call goes on.
    pub(super) fn put_in_place(&self, data_dir: &Path) -> Result<(), DataDirectoryError> {
        let staging = staging(data_dir);
        let mut names = Vec::new();
        // A link could lead to files that only root may move.
        if staging.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            // As the primary's, which says whether its group may read.
            let mode = fs::metadata(&staging).map_err(DataDirectoryError::io("open", &staging))?.mode();
            fs::set_permissions(data_dir, Permissions::from_mode(mode & 0o7777))
                .map_err(DataDirectoryError::io("close", data_dir))?;
            for entry in fs::read_dir(&staging).map_err(DataDirectoryError::io("list", &staging))? {
                names.push(entry.map_err(DataDirectoryError::io("list", &staging))?.file_name());
            }
        }
        // Half-way it must be no server's data directory, and when it becomes one, a standby's.
        names.sort_by_key(|name| (name == VERSION, name != SIGNAL));
        let put = || {
            for name in &names {
                if name == VERSION {
                    sync(data_dir)?;
                }
                fs::rename(staging.join(name), data_dir.join(name))?;
            }
            sync(data_dir)?;
            gone(fs::remove_dir(&staging))?;
            gone(fs::remove_file(data_dir.join(MARKER)))?;
            sync(data_dir)
        };
        put().map_err(DataDirectoryError::io("put the copy in place in", data_dir))
    }

    /// Ends what still works on an unfinished copy, and removes the copy. The marker stays.
    pub(super) fn clear_copy(data_dir: &Path) -> Result<(), DataDirectoryError> {
        let staging = staging(data_dir);
        process::kill_family(&staging)
            .and_then(|_| gone(fs::remove_dir_all(&staging)))
            .map_err(DataDirectoryError::io("remove the unfinished copy", &staging))
    }

    /// Leaves the slot as it was before the join.
    pub(super) async fn restore_slot(&self, primary: &Client<'_>) -> Result<(), SlotError> {
        self.slot_before.restore(&self.slot, primary).await
    }

    /// Removes all that an unfinished copy has left; the directory is as it was before.
    pub(super) fn clear(&self, data_dir: &Path) -> Result<(), DataDirectoryError> {
        Remains::clear_copy(data_dir)?;
        let clear = || {
            gone(fs::remove_file(data_dir.join(UNFINISHED)))?;
            // The marker comes last: until then the next call knows whose remains these are.
            gone(fs::remove_file(data_dir.join(MARKER)))?;
            match self.before {
                Before::Absent => match fs::remove_dir(data_dir) {
                    // Somebody has put something there meanwhile.
                    Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
                    removed => gone(removed),
                },
                Before::Empty { uid, gid, mode } => {
                    fs::set_permissions(data_dir, Permissions::from_mode(mode))?;
                    let now = fs::metadata(data_dir)?;
                    if (now.uid(), now.gid()) == (uid, gid) {
                        return Ok(());
                    }
                    lchown(data_dir, Some(uid), Some(gid))
                }
            }
        };
        clear().map_err(DataDirectoryError::io("clear", data_dir))
    }
}

/// Where the base backup goes first.
pub(super) fn staging(data_dir: &Path) -> PathBuf {
    data_dir.join(STAGING)
}

fn own(data_dir: &Path, account: &Account) -> io::Result<()> {
    account.own_path(data_dir)?;
    fs::set_permissions(data_dir, Permissions::from_mode(0o700))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What is missing already is as gone as what was removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory as a copy leaves it when it is complete.
    fn copied(dir: &Path) -> Remains {
        let before = Before::of(dir).unwrap();
        let account = Account::owning(dir).unwrap();
        let slot = ("s1", SlotBefore::Missing);
        let mut remains = Remains::begin(dir, &account, before, slot, "7").unwrap();
        fs::create_dir_all(staging(dir).join("global")).unwrap();
        for name in [VERSION, "base", SIGNAL, "global/pg_control"] {
            fs::write(staging(dir).join(name), name).unwrap();
        }
        remains.set_complete(dir, &account).unwrap();
        remains
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_copy_that_is_put_in_place_half_way_is_put_in_place_by_the_next_call() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("data");
        copied(&dir);
        // A kill after the first two renames.
        for name in [SIGNAL, "base"] {
            fs::rename(staging(&dir).join(name), dir.join(name)).unwrap();
        }
        let remains = Remains::read(&dir).unwrap().unwrap();
        assert!(remains.complete());
        remains.put_in_place(&dir).unwrap();
        assert_eq!(names(&dir), [VERSION, "base", "global", SIGNAL]);
        assert_eq!(Remains::read(&dir).unwrap(), None);
    }

    #[test]
    fn half_way_it_is_no_servers_and_a_standbys_first() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("data");
        let remains = copied(&dir);
        // Something that cannot be renamed over.
        fs::create_dir_all(dir.join("base/x")).unwrap();
        fs::create_dir_all(dir.join("global/x")).unwrap();
        remains.put_in_place(&dir).unwrap_err();
        assert!(dir.join(SIGNAL).exists() && !dir.join(VERSION).exists());
    }

    #[test]
    fn a_cleared_directory_is_as_it_was_before() {
        let temp = tempfile::tempdir().unwrap();
        let (absent, empty) = (temp.path().join("absent"), temp.path().join("empty"));
        fs::create_dir(&empty).unwrap();
        fs::set_permissions(&empty, Permissions::from_mode(0o751)).unwrap();
        for dir in [&absent, &empty] {
            let owner = dir.metadata().map(|it| it.uid()).ok();
            let remains = copied(dir);
            remains.clear(dir).unwrap();
            assert_eq!(dir.metadata().map(|it| it.uid()).ok(), owner);
        }
        assert!(!absent.exists());
        assert_eq!(names(&empty), [""; 0]);
        assert_eq!(empty.metadata().unwrap().mode() & 0o7777, 0o751);
    }

    #[test]
    fn a_marker_that_is_not_ours_is_not_believed() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(Remains::read(temp.path()).unwrap(), None);
        let injecting = r#"{"format":1,"slot":"s\" ","slot_before":"missing","system_identifier":"7","before":"absent","complete":false}"#;
        for text in ["", "{}", r#"{"format":2}"#, injecting] {
            fs::write(temp.path().join(MARKER), text).unwrap();
            let refused = Remains::read(temp.path()).unwrap_err();
            assert!(refused.to_string().contains("could not understand"), "{refused}");
        }
    }
}
