//! The cluster's logins and the files that hold their passwords.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rand::{TryRng as _, rngs::SysRng};
use serde::{Deserialize, Serialize};

/// Random bytes in a password: 192 bits, as 48 hexadecimal digits that need no quoting anywhere.
const PASSWORD_BYTES: usize = 24;

/// The role that replicas stream as; its password never leaves the cluster directory.
pub(crate) const REPLICATOR: &str = "replicator";
/// How libpq's programs call this machine. A certificate is compared with a name: releases before 15 do not find
/// addresses in it (PostgreSQL 15, release notes).
pub(crate) const LOOPBACK: &str = "localhost";
/// The application's database.
pub(crate) const DATABASE: &str = "app";

/// A role that people and programs log in as. The replication role is not among them: only servers use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Login {
    /// `app`, the owner of the database `app`, without any privilege beside it.
    Application,
    /// `monitor`, a member of `pg_monitor` that may connect to the database `app` and reads no table of it.
    Monitor,
    /// `postgres`, the superuser, in the database `postgres`.
    Superuser,
}

impl Login {
    /// The role's name.
    pub fn user(self) -> &'static str {
        match self {
            Login::Application => "app",
            Login::Monitor => "monitor",
            Login::Superuser => "postgres",
        }
    }

    /// The database that the role connects to.
    pub fn database(self) -> &'static str {
        match self {
            Login::Application | Login::Monitor => DATABASE,
            Login::Superuser => "postgres",
        }
    }
}

/// What a client needs to log in, beside the address. `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The role's name.
    pub user: String,
    /// The password, in plain text: keep it out of logs.
    pub password: String,
    /// The database to connect to.
    pub database: String,
    /// The certificate to verify the server by (libpq's `sslrootcert` with `sslmode=verify-full`); `None`: the cluster
    /// does not encrypt.
    pub root_certificate: Option<PathBuf>,
}

impl Credentials {
    /// A `postgres://` URL of the server on this port of this machine, the password included.
    pub(crate) fn url(&self, port: u16) -> String {
        let Credentials { user, password, database, root_certificate } = self;
        let encryption = root_certificate.as_ref().map_or_else(String::new, |file| {
            format!("&sslmode=verify-full&sslrootcert={}", percent_encoded(file))
        });
        format!(
            "postgres://{user}:{password}@127.0.0.1:{port}/{database}?application_name={user}{encryption}"
        )
    }
}

/// A path inside a URL's query.
fn percent_encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let encoded = path.as_os_str().as_bytes().iter().map(|byte| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("password", &"…")
            .field("database", &self.database)
            .field("root_certificate", &self.root_certificate)
            .finish()
    }
}

/// All passwords of one cluster, as its file holds them.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Passwords {
    superuser: String,
    replicator: String,
    monitor: String,
    application: String,
    #[serde(skip)]
    root_certificate: Option<PathBuf>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords(…)")
    }
}

impl Passwords {
    /// New passwords from the operating system's generator.
    pub(crate) fn generate() -> io::Result<Passwords> {
        Ok(Passwords {
            superuser: random()?,
            replicator: random()?,
            monitor: random()?,
            application: random()?,
            root_certificate: None,
        })
    }

    /// The same passwords for servers that are verified by this certificate before they see one.
    pub(crate) fn over_tls(mut self, root_certificate: PathBuf) -> Passwords {
        self.root_certificate = Some(root_certificate);
        self
    }

    pub(crate) fn read(path: &Path) -> io::Result<Passwords> {
        let text = fs::read_to_string(path)?;
        // The parser's own message may quote the text, and the text is secret.
        serde_json::from_str(&text)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a file of passwords"))
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        write_secret(path, &text)
    }

    pub(crate) fn credentials(&self, login: Login) -> Credentials {
        let password = match login {
            Login::Application => &self.application,
            Login::Monitor => &self.monitor,
            Login::Superuser => &self.superuser,
        };
        Credentials {
            user: login.user().to_owned(),
            password: password.clone(),
            database: login.database().to_owned(),
            root_certificate: self.root_certificate.clone(),
        }
    }

    pub(crate) fn replicator(&self) -> &str {
        &self.replicator
    }

    /// The line that lets libpq find the replication password, on any port of this machine.
    pub(crate) fn replication_line(&self) -> String {
        format!("{LOOPBACK}:*:*:{REPLICATOR}:{}\n", self.replicator)
    }
}

/// Writes `text` so that nobody but the owner can read it at any moment, and no reader sees half of it.
pub(crate) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    // The mode above only counts for a file that did not exist.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn random() -> io::Result<String> {
    let mut bytes = [0_u8; PASSWORD_BYTES];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_differ_and_survive_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        let written = Passwords::generate().unwrap();
        written.write(&path).unwrap();
        let read = Passwords::read(&path).unwrap();
        assert_eq!(read.replicator(), written.replicator());
        assert_ne!(read.credentials(Login::Monitor).password, read.credentials(Login::Application).password);
        assert_eq!(read.replicator().len(), 2 * PASSWORD_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_secret_file_closes_even_when_an_open_one_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(path.with_extension("new"), "left over").unwrap();
        fs::write(&path, "open").unwrap();
        write_secret(&path, "closed").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "closed");
    }

    #[test]
    fn debug_shows_no_password() {
        let passwords = Passwords::generate().unwrap();
        let credentials = passwords.credentials(Login::Application);
        assert!(!format!("{credentials:?}{passwords:?}").contains(&credentials.password));
    }
}
