//! The standby's configuration: where it lies, and the lines of it that are the standby's own.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::conninfo::Conninfo;
use crate::link::read_unlinked;
use crate::{account::Account, settings::quote};

/// Read by the server after everything else.
const AUTOMATIC: &str = "postgresql.auto.conf";
const MAIN: &str = "postgresql.conf";
const RULES: &str = "pg_hba.conf";
const IDENTITIES: &str = "pg_ident.conf";
/// Where Debian and its descendants keep configurations, in a folder per release and server.
pub(super) const DEBIAN: &str = "/etc/postgresql";
/// What a standby may not have less of than its primary (PostgreSQL manual, "Administrator's Overview" of hot standby).
pub(super) const NOT_BELOW_THE_PRIMARY: [&str; 5] = [
    "max_connections",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_wal_senders",
    "max_worker_processes",
];

/// Where a server reads its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the data directory, as PostgreSQL has it by default.
    Inside,
    /// In this file.
    Outside(PathBuf),
    /// Nowhere yet: the primary keeps its own outside of what is copied.
    Nowhere,
}

impl Place {
    /// Finds it; `debian` is the folder of configurations, whose servers name their data directories.
    pub(super) fn find(data_dir: &Path, release: u32, debian: &Path) -> Place {
        if let Some(file) = of_last_start(data_dir) {
            return Place::Outside(file);
        }
        if data_dir.join(MAIN).exists() {
            return Place::Inside;
        }
        let servers = fs::read_dir(debian.join(release.to_string())).into_iter().flatten().flatten();
        let files = servers.map(|server| server.path().join(MAIN));
        files.filter(|file| serves(file, data_dir) == Some(true)).min().map_or(Place::Nowhere, Place::Outside)
    }

    /// What the server's programs are told about it.
    pub(super) fn option(&self) -> Option<OsString> {
        let Place::Outside(file) = self else { return None };
        let mut option = OsString::from("config_file=");
        option.push(file);
        Some(option)
    }
}

/// The configuration file that the server was started with, if it was told one.
fn of_last_start(data_dir: &Path) -> Option<PathBuf> {
    let options = fs::read_to_string(data_dir.join("postmaster.opts")).ok()?;
    let option = options.split('"').find_map(|word| word.strip_prefix("config_file="))?;
    let file = PathBuf::from(option.trim_matches('\''));
    // A copy of files may have brought it from another host, where it had another meaning.
    (file.is_file() && serves(&file, data_dir) != Some(false)).then_some(file)
}

/// Whether the file configures a server of this data directory; `None` when it does not say.
fn serves(file: &Path, data_dir: &Path) -> Option<bool> {
    let text = fs::read_to_string(file).ok()?;
    let named = text.lines().filter_map(|line| value_of(line, "data_directory")).next_back()?;
    Some(fs::canonicalize(named).is_ok_and(|named| named == data_dir))
}

/// The value in a line that sets `name`.
fn value_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.trim_start().strip_prefix(name)?;
    let value = rest.trim_start().trim_start_matches('=').trim_start();
    let value = value.strip_prefix('\'').map_or(value, |quoted| quoted.split('\'').next().unwrap_or(""));
    (rest.len() != value.len()).then(|| value.split('#').next().unwrap_or("").trim())
}

/// The lines that make the server this primary's standby; a port of its own if it is given one.
pub(super) fn own_lines(conninfo: &Conninfo, slot: &str, port: Option<u16>) -> Vec<(&'static str, String)> {
    let mut lines = vec![("primary_conninfo", conninfo.render()), ("primary_slot_name", slot.to_owned())];
    lines.extend(port.map(|port| ("port", port.to_string())));
    lines
}

/// Replaces these settings in what `ALTER SYSTEM` has written; returns the old text.
pub(super) fn write_own_lines(
    account: &Account,
    data_dir: &Path,
    lines: &[(&'static str, String)],
) -> io::Result<String> {
    let path = data_dir.join(AUTOMATIC);
    let old = match read_unlinked(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    write_automatic(account, data_dir, &with_lines(&old, lines))?;
    Ok(old)
}

/// Replaces the whole file in one step, so that a server that reloads sees the old or the new one.
pub(super) fn write_automatic(account: &Account, data_dir: &Path, text: &str) -> io::Result<()> {
    let (path, unfinished) = (data_dir.join(AUTOMATIC), data_dir.join("postgresql.auto.conf.join"));
    account.write(&unfinished, text)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, &path)?;
    fs::File::open(data_dir)?.sync_all()
}

fn with_lines(text: &str, lines: &[(&'static str, String)]) -> String {
    let sets = |line: &str| {
        let name = line.trim_start().split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or("");
        lines.iter().any(|(own, _)| name.eq_ignore_ascii_case(own))
    };
    let kept = text.lines().filter(|line| !sets(line)).flat_map(|line| [line, "\n"]);
    let own = lines.iter().map(|(name, value)| format!("{name} = {}\n", quote(value)));
    kept.map(str::to_owned).chain(own).collect()
}

/// Writes the least that a server needs, for a copy of a primary that keeps its configuration elsewhere. `limits` are the
/// primary's.
pub(super) fn write_minimal(
    account: &Account,
    data_dir: &Path,
    limits: &[(&'static str, String)],
) -> io::Result<()> {
    let head = "# Written by `routing-cluster join`: the primary keeps its configuration outside its data directory.\n";
    let limits: String = limits.iter().map(|(name, value)| format!("{name} = {}\n", quote(value))).collect();
    let main = format!(
        "{head}# Clients of other hosts need listen_addresses here, and rules in {RULES}.\n\
         # Not below the primary's, or this server does not start:\n{limits}"
    );
    account.write(&data_dir.join(IDENTITIES), head)?;
    account.write(&data_dir.join(RULES), &format!("{head}local all all peer\n"))?;
    account.write(&data_dir.join(MAIN), &main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_replace_all_older_ones_and_nothing_else() {
        let old = "# Do not edit\nPrimary_ConnInfo 'host=old'\nprimary_conninfo = 'host=older'\nport= 1\nwork_mem = '4MB'\n";
        let conninfo = Conninfo::parse(r"host=h passfile='/it\'s'").unwrap();
        let text = with_lines(old, &own_lines(&conninfo, "s1", None));
        assert_eq!(
            text,
            "# Do not edit\nport= 1\nwork_mem = '4MB'\nprimary_conninfo = 'host=h passfile=''/it\\\\''s'''\nprimary_slot_name = 's1'\n"
        );
        let text = with_lines(&text, &own_lines(&conninfo, "s2", Some(2)));
        assert!(
            !text.contains("port= 1") && text.ends_with("primary_slot_name = 's2'\nport = '2'\n"),
            "{text}"
        );
    }

    #[test]
    fn the_configuration_is_found_where_it_lies() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        let (data_dir, debian) = (root.join("data"), root.join("etc"));
        fs::create_dir(&data_dir).unwrap();
        assert_eq!(Place::find(&data_dir, 15, &debian), Place::Nowhere);
        for (server, named) in [("main", root.join("other")), ("second", data_dir.clone())] {
            let folder = debian.join("15").join(server);
            fs::create_dir_all(&folder).unwrap();
            let text =
                format!("#data_directory = 'x'\ndata_directory = '{}' # moved\nport = 1\n", named.display());
            fs::write(folder.join(MAIN), text).unwrap();
        }
        let second = debian.join("15/second").join(MAIN);
        assert_eq!(Place::find(&data_dir, 15, &debian), Place::Outside(second.clone()));
        assert_eq!(Place::find(&data_dir, 16, &debian), Place::Nowhere);
        fs::write(data_dir.join(MAIN), "").unwrap();
        assert_eq!(Place::find(&data_dir, 15, &debian), Place::Inside);
        let started =
            |file: &Path| format!("/bin/postgres \"-D\" \"/x\" \"-c\" \"config_file={}\"\n", file.display());
        fs::write(data_dir.join("postmaster.opts"), started(&second)).unwrap();
        assert_eq!(Place::find(&data_dir, 15, &debian), Place::Outside(second));
        // It was started so when it lay elsewhere.
        fs::write(data_dir.join("postmaster.opts"), started(&debian.join("15/main").join(MAIN))).unwrap();
        assert_eq!(Place::find(&data_dir, 15, &debian), Place::Inside);
    }
}
