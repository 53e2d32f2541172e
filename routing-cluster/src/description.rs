//! What a backup says of itself, in a small file beside its data.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    access::Access,
    account::Account,
    position::{Lsn, Moment},
    wal::is_segment,
};

/// The format of the file; one of another format is refused, not guessed at.
const FORMAT: u32 = 1;
const FILE: &str = "backup.json";

/// A backup that was verified when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Backup {
    format: u32,
    /// Its name, which is its directory's: when it was begun, in UTC.
    pub label: String,
    /// Where it lies: the description, the passwords and the folder `data`.
    #[serde(skip)]
    pub dir: PathBuf,
    /// What tells one database cluster of PostgreSQL from every other; replicas share it, and so do restored clusters.
    pub system_identifier: String,
    /// The server's release in its own words, such as `15.18`.
    pub postgres: String,
    /// The major release, whose programs alone can start the data.
    pub major: u32,
    /// The timeline of the primary that was copied.
    pub timeline: u32,
    /// The first WAL file that it needs; older ones it does not.
    pub first_wal: String,
    /// Where its WAL begins.
    pub start_lsn: Lsn,
    /// The earliest position that it can be restored to.
    pub stop_lsn: Lsn,
    /// When it was begun, by the primary's clock.
    pub started: Moment,
    /// The earliest moment that it can be restored to, by the primary's clock.
    pub stopped: Moment,
    /// The size of its data, in bytes.
    pub bytes: u64,
    /// The archive that has the WAL after it; `None`: it can only be restored to its own end.
    pub archive: Option<PathBuf>,
    /// Whether the cluster's servers flush to disk.
    pub durable: bool,
    #[serde(flatten)]
    pub(crate) access: Access,
}

/// What the cluster knows of a backup, beside what PostgreSQL has written into it.
#[derive(Debug, Clone)]
pub(crate) struct Circumstances {
    pub(crate) label: String,
    pub(crate) system_identifier: String,
    pub(crate) postgres: String,
    pub(crate) major: u32,
    pub(crate) started: Moment,
    pub(crate) stopped: Moment,
    pub(crate) archive: Option<PathBuf>,
    pub(crate) durable: bool,
    pub(crate) access: Access,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "Files")]
    files: Vec<ManifestFile>,
    #[serde(rename = "WAL-Ranges")]
    ranges: Vec<ManifestRange>,
}

#[derive(Deserialize)]
struct ManifestFile {
    #[serde(rename = "Size")]
    size: u64,
}

#[derive(Deserialize)]
struct ManifestRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

impl Backup {
    /// Describes the backup in `dir` by the manifest and the label that PostgreSQL has written.
    pub(crate) fn describe(dir: &Path, known: Circumstances) -> io::Result<Backup> {
        let data = dir.join("data");
        let manifest: Manifest = serde_json::from_str(&fs::read_to_string(data.join("backup_manifest"))?)?;
        let label = fs::read_to_string(data.join("backup_label"))?;
        let odd = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem.to_owned());
        let [range] = manifest.ranges.as_slice() else {
            return Err(odd("its manifest does not have one range of WAL"));
        };
        let first_wal = first_wal(&label).ok_or_else(|| odd("its label names no WAL file"))?;
        Ok(Backup {
            format: FORMAT,
            label: known.label,
            dir: dir.to_owned(),
            system_identifier: known.system_identifier,
            postgres: known.postgres,
            major: known.major,
            timeline: range.timeline,
            first_wal: first_wal.to_owned(),
            start_lsn: range.start,
            stop_lsn: range.end,
            started: known.started,
            stopped: known.stopped,
            bytes: manifest.files.iter().map(|file| file.size).sum(),
            archive: known.archive,
            durable: known.durable,
            access: known.access,
        })
    }

    /// Reads the description of the backup in `dir`; `None` when there is none, and so no backup.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Backup>> {
        let text = match fs::read_to_string(dir.join(FILE)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            text => text?,
        };
        let backup: Backup = serde_json::from_str(&text)?;
        if backup.format != FORMAT {
            let problem = format!("its format is {} instead of {FORMAT}", backup.format);
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        Ok(Some(Backup { dir: dir.to_owned(), ..backup }))
    }

    pub(crate) fn write(&self, account: &Account) -> io::Result<()> {
        account.write(&self.dir.join(FILE), &serde_json::to_string_pretty(self)?)
    }

    /// The data directory inside a backup.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The passwords of the cluster that was copied.
    pub(crate) fn credentials_file(&self) -> PathBuf {
        credentials_file(&self.dir)
    }
}

pub(crate) fn credentials_file(dir: &Path) -> PathBuf {
    dir.join("credentials.json")
}

/// The WAL file that PostgreSQL's label of a backup names.
fn first_wal(label: &str) -> Option<&str> {
    let line = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "))?;
    let name = line.split_once("(file ")?.1.trim_end_matches(')');
    is_segment(name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_names_the_first_wal_file() {
        let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nLABEL: x\n";
        assert_eq!(first_wal(label), Some("000000010000000000000002"));
        assert_eq!(first_wal("START WAL LOCATION: 0/2000028 (file ../x)"), None);
        assert_eq!(first_wal(""), None);
    }

    #[test]
    fn what_is_no_backup_is_not_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Backup::read(dir.path()).unwrap().is_none());
        assert!(Backup::read(&dir.path().join("none")).unwrap().is_none());
        for text in ["", "{}", r#"{"format": 2}"#] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(Backup::read(dir.path()).is_err(), "{text}");
        }
    }
}
