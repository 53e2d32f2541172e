//! The replication role's password: where it comes from, and how the standby finds it again by itself.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{conninfo::Conninfo, secret::Secret};
use crate::account::Account;
use crate::link::read_unlinked;

/// Bits of a file's mode that let others than its owner in. libpq passes over a password file that has any.
const OTHERS: u32 = 0o077;
/// What libpq looks a password up by, in place of a database, when a connection is for replication.
const REPLICATION: &str = "replication";

/// Why the password was not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// The password file that was named cannot be read.
    #[error("the password file {} cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Others may read the password file, so that libpq passes over it.
    #[error("the password file {0} is open to other users: chmod 0600 {0}", file.display())]
    Open {
        /// The file.
        file: PathBuf,
    },
    /// It cannot stand in a password file, which has one line per password.
    #[error("the password has a line break, which no password file can hold")]
    LineBreak,
}

/// How the role proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Password {
    /// Without a password that this host knows of: by its address, a certificate, or not at all.
    None,
    /// By a password that the servers' user cannot read yet.
    Known(Secret),
    /// By a password file that the servers' user can read.
    File(PathBuf),
}

/// Where passwords are looked for beside the URL, in this order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    /// `PGPASSWORD`.
    pub(super) password: Option<Secret>,
    /// `PGPASSFILE`.
    pub(super) passfile: Option<PathBuf>,
    /// The caller's home, whose `.pgpass` counts.
    pub(super) home: Option<PathBuf>,
}

impl Sources {
    /// What this process was given.
    pub(super) fn of_process() -> Sources {
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let password = env::var("PGPASSWORD").ok().filter(|value| !value.is_empty());
        Sources { password: password.map(Secret::new), passfile: path("PGPASSFILE"), home: path("HOME") }
    }
}

/// Finds the password: the URL's own, `PGPASSWORD`, the file that the URL or `PGPASSFILE` names, the caller's `~/.pgpass`,
/// that of the servers' user. The file's name is taken out of `conninfo`.
pub(super) fn find(
    conninfo: &mut Conninfo,
    of_url: Option<&Secret>,
    sources: &Sources,
    account: &Account,
) -> Result<Password, PasswordError> {
    let named = conninfo.take("passfile").map(PathBuf::from);
    if let Some(password) = of_url.or(sources.password.as_ref()) {
        if password.reveal().contains(['\n', '\r']) {
            return Err(PasswordError::LineBreak);
        }
        return Ok(Password::Known(password.clone()));
    }
    if let Some(file) = named.or_else(|| sources.passfile.clone()) {
        let file = std::path::absolute(&file)
            .map_err(|source| PasswordError::Unreadable { file: file.clone(), source })?;
        return Ok(look_up(&file, conninfo, account)?.unwrap_or(Password::None));
    }
    // Nobody named these, so one that is missing or closed is none.
    let of_home = |home: Option<PathBuf>| look_up(&home?.join(".pgpass"), conninfo, account).ok()?;
    if let Some(found) = of_home(sources.home.clone()) {
        return Ok(found);
    }
    // What the servers' user cannot read itself is not its own.
    let of_account = of_home(account.home()).filter(|found| matches!(found, Password::File(_)));
    Ok(of_account.unwrap_or(Password::None))
}

fn look_up(file: &Path, conninfo: &Conninfo, account: &Account) -> Result<Option<Password>, PasswordError> {
    let unreadable = |source| PasswordError::Unreadable { file: file.to_owned(), source };
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let metadata = fs::metadata(file).map_err(unreadable)?;
    if metadata.mode() & OTHERS != 0 {
        return Err(PasswordError::Open { file: file.to_owned() });
    }
    let Some(password) = matching(&text, conninfo) else { return Ok(None) };
    let readable = metadata.uid() == account.uid()
        && file.parent().is_some_and(|parent| account.check_reach(parent).is_ok())
        && file.to_str().is_some();
    Ok(Some(if readable { Password::File(file.to_owned()) } else { Password::Known(Secret::new(password)) }))
}

/// The password of the first line that fits, as libpq reads it (PostgreSQL manual, "The Password File").
fn matching(text: &str, conninfo: &Conninfo) -> Option<String> {
    let wanted = [conninfo.host(), conninfo.port(), REPLICATION, conninfo.get("user").unwrap_or("")];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [keys @ .., password] = fields.as_slice() else { return None };
        let fits =
            keys.len() == wanted.len() && keys.iter().zip(wanted).all(|(key, it)| key == "*" || key == it);
        (fits && !password.is_empty()).then(|| password.clone())
    })
}

/// The fields of a line: colons divide them, and a backslash takes the next character as it is.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut rest = line.trim_end_matches(['\r', '\n']).chars();
    while let Some(c) = rest.next() {
        match (c, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(rest.next()),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    fields
}

/// The password file of the standby in `data_dir`: beside the directory, not in it, where base backups and
/// `pg_rewind` would take it along or away.
pub(super) fn own_file(data_dir: &Path) -> PathBuf {
    let name = data_dir.file_name().unwrap_or_default().to_string_lossy();
    data_dir.with_file_name(format!("{name}.pgpass"))
}

/// A password file that this process has written, and what was there before.
#[derive(Debug)]
pub(super) struct Written {
    file: PathBuf,
    old: Option<Secret>,
}

impl Written {
    /// Writes the password file of the standby in `data_dir`; at no moment can others read it.
    pub(super) fn new(
        data_dir: &Path,
        account: &Account,
        conninfo: &Conninfo,
        password: &Secret,
    ) -> io::Result<Written> {
        let file = own_file(data_dir);
        let old = match read_unlinked(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            old => Some(Secret::new(old?)),
        };
        replace(&file, account, &line(conninfo, password))?;
        Ok(Written { file, old })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Puts back what was there before.
    pub(super) fn take_back(&self, account: &Account) -> io::Result<()> {
        match &self.old {
            Some(old) => replace(&self.file, account, old.reveal()),
            None => fs::remove_file(&self.file),
        }
    }
}

fn replace(file: &Path, account: &Account, text: &str) -> io::Result<()> {
    let unfinished = file.with_extension("pgpass.new");
    account.write(&unfinished, text)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, file)
}

/// The content of that file. Any host, because the role and its password are the same on whichever node becomes the
/// primary.
pub(super) fn line(conninfo: &Conninfo, password: &Secret) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let user = escaped(conninfo.get("user").unwrap_or("*"));
    format!("*:*:{REPLICATION}:{user}:{}\n", escaped(password.reveal()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn conninfo() -> Conninfo {
        Conninfo::parse("host=db1 port=5433 user=rep").unwrap()
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        for (text, expected) in [
            ("db1:5433:replication:rep:a\n*:*:*:*:b\n", Some("a")),
            (
                "# db1:5433:replication:rep:no\ndb2:*:*:*:no\ndb1:5432:*:*:no\n*:*:postgres:*:no\n*:*:*:*:b",
                Some("b"),
            ),
            (r"*:*:*:rep:a\:b\\c", Some(r"a:b\c")),
            ("*:*:*:someone:no\nnonsense\n*:*:*:rep:\n", None),
        ] {
            assert_eq!(matching(text, &conninfo()).as_deref(), expected, "{text}");
        }
        let secret = Secret::new(r"a:b\c".to_owned());
        assert_eq!(matching(&line(&conninfo(), &secret), &conninfo()).as_deref(), Some(secret.reveal()));
    }

    #[test]
    fn what_is_nearer_wins_and_a_named_file_must_be_there() {
        let account = Account::owning(Path::new("/")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".pgpass");
        fs::write(&file, "*:*:*:rep:of the file\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let known = |text: &str| Password::Known(Secret::new(text.to_owned()));
        let secret = |text: &str| Some(Secret::new(text.to_owned()));

        let home = Sources { home: Some(dir.path().to_owned()), ..Sources::default() };
        let found = find(&mut conninfo(), None, &home, &account).unwrap();
        // Whether the servers' user can read it depends on who runs the test.
        assert!(found == known("of the file") || found == Password::File(file.clone()), "{found:?}");
        let both = Sources { password: secret("of the variable"), ..home };
        assert_eq!(find(&mut conninfo(), None, &both, &account).unwrap(), known("of the variable"));
        let url = secret("of the URL");
        assert_eq!(find(&mut conninfo(), url.as_ref(), &both, &account).unwrap(), known("of the URL"));

        let missing = Sources { passfile: Some(dir.path().join("none")), ..Sources::default() };
        let refused = find(&mut conninfo(), None, &missing, &account).unwrap_err();
        assert!(matches!(refused, PasswordError::Unreadable { .. }), "{refused}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let open = Sources { passfile: Some(file), ..Sources::default() };
        let refused = find(&mut conninfo(), None, &open, &account).unwrap_err();
        assert!(matches!(refused, PasswordError::Open { .. }), "{refused}");
    }
}
