//! The operating system's user that the servers run as.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    unistd::{Gid, Uid, User, getegid, geteuid},
};

/// Users tried by root, in this order: PostgreSQL refuses to run as root.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Why no user can run the servers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// Root has no other user to run the servers as.
    #[error("PostgreSQL does not run as root and there is no user postgres or nobody: create one of them")]
    NoUser,
    /// A directory above the wanted one is closed to the servers' user.
    #[error(
        "the servers run as user {user}, who may not enter {}: choose another directory, or open it with `chmod o+x`",
        blocking.display()
    )]
    Blocked {
        /// The servers' user.
        user: String,
        /// The directory that the user may not enter.
        blocking: PathBuf,
    },
    /// The cluster belongs to another user.
    #[error("{} belongs to user id {owner}: run this command as that user or as root", path.display())]
    Foreign {
        /// What belongs to somebody else.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The operating system refused to answer.
    #[error("could not look at {}", path.display())]
    Io {
        /// What was looked at.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// A user that servers run as: this process's own, or another one when this process is root.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    other: bool,
}

impl Account {
    /// The account for a new cluster.
    pub(crate) fn for_new() -> Result<Account, AccountError> {
        if !geteuid().is_root() {
            return Ok(Account::own());
        }
        let found = UNPRIVILEGED.iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = found.filter(|user| !user.uid.is_root()).ok_or(AccountError::NoUser)?;
        Ok(Account { name: user.name, uid: user.uid, gid: user.gid, other: true })
    }

    /// The account that owns `path`, which an earlier run has made.
    pub(crate) fn owning(path: &Path) -> Result<Account, AccountError> {
        let metadata =
            fs::metadata(path).map_err(|source| AccountError::Io { path: path.to_owned(), source })?;
        let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        if uid == geteuid() && !uid.is_root() {
            return Ok(Account::own());
        }
        if !geteuid().is_root() {
            return Err(AccountError::Foreign { path: path.to_owned(), owner: uid.as_raw() });
        }
        if uid.is_root() {
            // Made by root and not yet handed over: an earlier run was interrupted here.
            return Account::for_new();
        }
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        Ok(Account { name, uid, gid, other: true })
    }

    fn own() -> Account {
        let uid = geteuid();
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        Account { name, uid, gid: getegid(), other: false }
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The user's id.
    pub(crate) fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    /// The user's home, as the system's list of users has it; it need not exist.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        User::from_uid(self.uid).ok().flatten().map(|user| user.dir)
    }

    /// User and group ids to switch to, or `None` when this process already is that user.
    pub(crate) fn switch(&self) -> Option<(u32, u32)> {
        self.other.then(|| (self.uid.as_raw(), self.gid.as_raw()))
    }

    /// Gives `path` to the account; a link itself, never what it leads to.
    pub(crate) fn own_path(&self, path: &Path) -> io::Result<()> {
        match self.switch() {
            Some((uid, gid)) => lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Writes a file that only the account can read, in a directory of the account.
    ///
    /// The account could have put a link there, and root must not write through it.
    pub(crate) fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let mut file = options.open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        if let Some((uid, gid)) = self.switch() {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.write_all(text.as_bytes())
    }

    /// Checks that the account may enter `directory` and everything above it.
    pub(crate) fn check_reach(&self, directory: &Path) -> Result<(), AccountError> {
        if !self.other {
            return Ok(());
        }
        let mut above: Vec<&Path> = directory.ancestors().collect();
        above.reverse();
        for step in above {
            let metadata =
                fs::metadata(step).map_err(|source| AccountError::Io { path: step.to_owned(), source })?;
            if !self.may_enter(metadata.mode(), metadata.uid(), metadata.gid()) {
                return Err(AccountError::Blocked { user: self.name.clone(), blocking: step.to_owned() });
            }
        }
        Ok(())
    }

    fn may_enter(&self, mode: u32, uid: u32, gid: u32) -> bool {
        let bit = if uid == self.uid.as_raw() {
            0o100
        } else if gid == self.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        mode & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let account = Account::own();
        assert!(account.write(&link, "overwritten").is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
        account.write(&target, "new").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn entering_needs_the_bit_of_the_own_class() {
        let account =
            Account { name: "p".to_owned(), uid: Uid::from_raw(7), gid: Gid::from_raw(8), other: true };
        for (mode, uid, gid, expected) in [
            (0o700, 7, 0, true),
            (0o700, 0, 0, false),
            (0o710, 0, 8, true),
            (0o701, 0, 8, false),
            (0o711, 0, 0, true),
            (0o077, 7, 8, false),
        ] {
            assert_eq!(account.may_enter(mode, uid, gid), expected, "{mode:o} {uid} {gid}");
        }
    }
}
