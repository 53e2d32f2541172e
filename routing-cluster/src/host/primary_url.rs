//! Where the primary is, as an operator says it.

use std::fmt;

use super::{conninfo::Conninfo, conninfo::InvalidConninfo, secret::Secret};

/// Keywords of libpq, beside `password`, whose value nobody else may read. `primary_conninfo` is no place for them.
const SECRETS: [&str; 4] = ["sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"];

/// The address of a primary and the role that replicates from it, such as
/// `postgres://replicator@db1.example.com:5432/?sslmode=verify-full`. Every parameter of libpq is taken.
///
/// `Debug` and `Display` show no password.
#[derive(Clone)]
pub struct PrimaryUrl {
    pub(super) conninfo: Conninfo,
    pub(super) password: Option<Secret>,
}

/// Why a text does not say where a primary is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPrimary {
    /// It does not read as a connection string.
    #[error("the primary's URL cannot be read: {0}")]
    Syntax(InvalidConninfo),
    /// It names no host.
    #[error("the primary's URL names no host: give postgres://USER@HOST:PORT/")]
    NoHost,
    /// It names more than one host.
    #[error("the primary's URL names several hosts: give the one that is the primary now")]
    SeveralHosts,
    /// It names no role.
    #[error(
        "the primary's URL names no role: give postgres://USER@HOST:PORT/ with the role that may replicate"
    )]
    NoUser,
    /// An argument holds a password.
    #[error(
        "the primary's URL holds a password, and every user of this host can read it in the list of processes: leave it out, and give it in a password file (PGPASSFILE, or ~/.pgpass), in PGPASSWORD, or with the whole URL in PRIMARY_URL"
    )]
    PasswordInArgument,
    /// It holds another secret.
    #[error(
        "the primary's URL holds {keyword}, which the standby would have to show to everyone who may read its settings: use a password file, or a client key without a passphrase"
    )]
    Secret {
        /// The keyword.
        keyword: String,
    },
}

impl PrimaryUrl {
    /// An address out of an argument list, which other users of the host can read: it holds no password.
    ///
    /// # Errors
    ///
    /// When it does not say where and as whom, or holds a password.
    pub fn from_argument(text: &str) -> Result<PrimaryUrl, InvalidPrimary> {
        let url = PrimaryUrl::from_secret(text)?;
        if url.password.is_some() {
            return Err(InvalidPrimary::PasswordInArgument);
        }
        Ok(url)
    }

    /// An address that nobody else could read, as in an environment variable; it may hold a password.
    ///
    /// # Errors
    ///
    /// When it does not say where and as whom.
    pub fn from_secret(text: &str) -> Result<PrimaryUrl, InvalidPrimary> {
        let mut conninfo = Conninfo::parse(text).map_err(InvalidPrimary::Syntax)?;
        if let Some(keyword) = conninfo.keywords().find(|keyword| SECRETS.contains(keyword)) {
            return Err(InvalidPrimary::Secret { keyword: keyword.to_owned() });
        }
        if conninfo.host().is_empty() {
            return Err(InvalidPrimary::NoHost);
        }
        if conninfo.host().contains(',') {
            return Err(InvalidPrimary::SeveralHosts);
        }
        if conninfo.get("user").is_none() {
            return Err(InvalidPrimary::NoUser);
        }
        let password = conninfo.take("password").map(Secret::new);
        // The standby is known by its slot's name, and replicates the whole server.
        for keyword in ["application_name", "fallback_application_name", "dbname", "replication"] {
            conninfo.take(keyword);
        }
        Ok(PrimaryUrl { conninfo, password })
    }
}

impl fmt::Display for PrimaryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.conninfo.place())
    }
}

impl fmt::Debug for PrimaryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrimaryUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_comes_only_from_where_nobody_else_reads() {
        for text in
            ["postgres://u:hunter2@h/", "postgres://u@h/?password=hunter2", "host=h user=u password=hunter2"]
        {
            assert_eq!(PrimaryUrl::from_argument(text).unwrap_err(), InvalidPrimary::PasswordInArgument);
            let url = PrimaryUrl::from_secret(text).unwrap();
            assert_eq!(url.password.as_ref().unwrap().reveal(), "hunter2");
            assert!(!format!("{url} {url:?} {}", url.conninfo.render()).contains("hunter2"));
        }
        assert!(PrimaryUrl::from_argument("postgres://u@h/").is_ok());
    }

    #[test]
    fn an_incomplete_address_says_what_it_lacks() {
        for (text, expected) in [
            ("postgres://h/", InvalidPrimary::NoUser),
            ("postgres:///?user=u", InvalidPrimary::NoHost),
            ("host=a,b user=u", InvalidPrimary::SeveralHosts),
            ("postgres://u@h/?sslpassword=x", InvalidPrimary::Secret { keyword: "sslpassword".to_owned() }),
        ] {
            assert_eq!(PrimaryUrl::from_argument(text).unwrap_err(), expected, "{text}");
        }
    }
}
