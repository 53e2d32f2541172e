//! The WAL archive of a cluster: where it lies, whose it is, and how servers write to it and read from it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};

use crate::{
    account::Account,
    settings::{Setting, setting},
};

/// The format of the marker; one of another format is refused, not guessed at.
const FORMAT: u32 = 1;
/// Says whose archive it is.
const MARKER: &str = "archive.json";
/// The program that archives one file, in the cluster's directory.
const SCRIPT: &str = "archive-wal";

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It holds the WAL of another cluster, which this one must not mix with its own.
    #[error(
        "{} holds the WAL of another cluster{}: `restore` brings that one back; to begin anew, move the archive away",
        dir.display(), system.as_ref().map_or_else(String::new, |id| format!(" (system identifier {id})"))
    )]
    Foreign {
        /// The archive's directory.
        dir: PathBuf,
        /// The other cluster's system identifier, where the archive says it.
        system: Option<String>,
    },
    /// Archiving begins when the servers start, and some run.
    #[error(
        "archiving begins when the servers start: stop the cluster with `down`, then repeat `up --archive`"
    )]
    Running,
    /// The cluster's directory has no name that the archive's could be made from.
    #[error("there is no place for an archive beside {}: choose another directory with --dir", dir.display())]
    NoPlace {
        /// The cluster's directory.
        dir: PathBuf,
    },
    /// A file of the archive does not hold what it should.
    #[error("{} cannot be understood ({problem}): it was changed by hand or by a newer release", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The operating system refused.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { doing, path: path.to_owned(), source }
}

/// A cluster's archive, as its state file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Archive {
    pub(crate) dir: PathBuf,
    /// What tells this cluster from another of the same system identifier, such as one that was restored from it.
    owner: String,
    /// Whether the archive's marker names this cluster; before that no server writes to it.
    pub(crate) claimed: bool,
}

/// What the archive itself says of its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    format: u32,
    pub(crate) system_identifier: String,
    owner: String,
}

impl Archive {
    /// The directory beside the cluster's own, which outlives it.
    pub(crate) fn beside(cluster: &Path) -> Result<PathBuf, ArchiveError> {
        let name = cluster.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| ArchiveError::NoPlace { dir: cluster.to_owned() })?;
        Ok(cluster.with_file_name(format!("{name}-archive")))
    }

    /// An archive for a cluster that is about to be made; refused when the directory is another's.
    pub(crate) fn planned(dir: PathBuf) -> Result<Archive, ArchiveError> {
        check_free(&dir)?;
        let mut bytes = [0_u8; 8];
        SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
            let source = io::Error::other(error);
            ArchiveError::Io { doing: "name the owner of", path: dir.clone(), source }
        })?;
        let owner = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Archive { dir, owner, claimed: false })
    }

    /// The same for a restored cluster: its archive is never the one that it was restored from.
    pub(crate) fn fresh(cluster: &Path) -> Result<Archive, ArchiveError> {
        let first = Archive::beside(cluster)?;
        let mut found = Archive::planned(first.clone());
        for number in 2..=99 {
            let Err(ArchiveError::Foreign { .. }) = found else { break };
            let mut name = first.clone().into_os_string();
            name.push(format!("-{number}"));
            found = Archive::planned(name.into());
        }
        found
    }

    pub(crate) fn wal(&self) -> PathBuf {
        wal_dir(&self.dir)
    }

    /// Makes the archive this cluster's, once and for all.
    pub(crate) fn claim(&self, system_identifier: &str, account: &Account) -> Result<(), ArchiveError> {
        make_dir(&self.dir, 0o755, None)?;
        let own = Marker {
            format: FORMAT,
            system_identifier: system_identifier.to_owned(),
            owner: self.owner.clone(),
        };
        match marker(&self.dir)? {
            Some(marker) if marker == own => {}
            Some(_) => check_free(&self.dir)?,
            None => {
                check_free(&self.dir)?;
                let path = self.dir.join(MARKER);
                let text = serde_json::to_string_pretty(&own).map_err(io::Error::other);
                let written = text.and_then(|text| publish(&path, &text));
                written.map_err(io_error("write", &path))?;
            }
        }
        make_dir(&self.wal(), 0o700, Some(account))
    }

    /// Writes the program that the servers archive with.
    pub(crate) fn write_script(&self, cluster: &Path) -> Result<(), ArchiveError> {
        let path = cluster.join(SCRIPT);
        let text = self.script();
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        let unfinished = path.with_extension("new");
        let write = || {
            fs::write(&unfinished, &text)?;
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755))?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(io_error("write", &path))
    }

    fn script(&self) -> String {
        let archive = shell_quote(&self.dir.display().to_string());
        include_str!("archive-wal.sh").replace("@ARCHIVE@", &archive).replace("@OWNER@", &self.owner)
    }

    /// What the servers are told, every one of them: any may become the primary.
    pub(crate) fn settings(&self, cluster: &Path) -> Vec<Setting> {
        let script = cluster.join(SCRIPT).display().to_string();
        let command = match self.claimed {
            true => format!("sh {} %p %f", literal(&script)),
            false => String::new(),
        };
        vec![
            setting(
                "archive_mode",
                "on",
                "turning it on needs a restart, and any node may become the primary",
            ),
            setting("archive_command", command, "copies a finished WAL file whole, and never over another"),
            setting(
                "archive_timeout",
                "60s",
                "what only the primary's disk has is at most a minute of writes; each file costs its full size",
            ),
            setting(
                "restore_command",
                restore_command(&self.wal()),
                "a standby whose WAL is gone from its primary finds it in the archive",
            ),
        ]
    }
}

/// Where an archive's WAL files lie.
pub(crate) fn wal_dir(archive: &Path) -> PathBuf {
    archive.join("wal")
}

/// Where a cluster's backups lie when nothing else was said.
pub(crate) fn backups_dir(archive: &Path) -> PathBuf {
    archive.join("backups")
}

/// The command by which a server fetches one file from an archive; it fails with 1 when there is none.
pub(crate) fn restore_command(wal: &Path) -> String {
    let wal = literal(&wal.display().to_string());
    format!("[ -f {wal}/%f ] && cp {wal}/%f %p")
}

/// What an archive says of its owner; `None` when nobody has claimed it.
pub(crate) fn marker(dir: &Path) -> Result<Option<Marker>, ArchiveError> {
    let path = dir.join(MARKER);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(io_error("read", &path))?,
    };
    let damaged = |problem: String| ArchiveError::Damaged { path: path.clone(), problem };
    let marker: Marker = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    match marker.format {
        FORMAT => Ok(Some(marker)),
        other => Err(damaged(format!("format {other} instead of {FORMAT}"))),
    }
}

/// Refuses a directory that holds anybody's WAL.
fn check_free(dir: &Path) -> Result<(), ArchiveError> {
    let system = marker(dir)?.map(|marker| marker.system_identifier);
    let wal = wal_dir(dir);
    let holds_wal = match fs::read_dir(&wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        entries => entries.map_err(io_error("list", &wal))?.next().is_some(),
    };
    match system.is_some() || holds_wal {
        true => Err(ArchiveError::Foreign { dir: dir.to_owned(), system }),
        false => Ok(()),
    }
}

/// Makes a directory unless it is there; with an account, it is that account's.
pub(crate) fn make_dir(dir: &Path, mode: u32, account: Option<&Account>) -> Result<(), ArchiveError> {
    let make = || {
        match fs::DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        // Whatever the umask.
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
        account.map_or(Ok(()), |account| account.own_path(dir))?;
        sync_parent(dir)
    };
    make().map_err(io_error("create", dir))
}

/// Writes a file that everyone may read, on disk when this returns, so that no reader sees half of it.
pub(crate) fn publish(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_parent(path)
}

/// A name is on disk when its directory is.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// A word for a POSIX shell, whatever it holds.
fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The same inside a command of PostgreSQL, which replaces `%p` and `%f`.
fn literal(text: &str) -> String {
    shell_quote(text).replace('%', "%%")
}
