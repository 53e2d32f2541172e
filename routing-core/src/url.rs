//! Database URLs, which are secrets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use url::Url;

use crate::tls::is_about_encryption;

/// A `postgres://` URL. Its user, password and parameters never print: `Debug` and `Display` show host, port and
/// database only.
///
/// ```
/// use routing_core::DatabaseUrl;
///
/// let url: DatabaseUrl = "postgres://app:hunter2@db1.internal/shop".parse().unwrap();
/// assert_eq!(url.to_string(), "db1.internal:5432/shop");
/// assert!(!format!("{url:?}").contains("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl(Url);

/// Why a database URL was refused. It never repeats the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// It does not parse as a URL.
    #[error(
        "a database URL does not parse ({0}); it has the form postgres://user:password@host:port/database"
    )]
    Syntax(#[source] url::ParseError),
    /// Its scheme is neither `postgres` nor `postgresql`.
    #[error("a database URL has the scheme {0:?}; it must begin with postgres:// or postgresql://")]
    Scheme(String),
    /// It names no host.
    #[error("a database URL names no host; it has the form postgres://user:password@host:port/database")]
    NoHost,
    /// It has a `#`, or an `@` behind the host that is no parameter's value: something in the password has ended it too early, and
    /// the rest would show as the host or as the database's name.
    #[error(
        "a database URL has a # in it, or an @ behind its host; in a password @ is written %40, / is %2F, ? is %3F and \
         # is %23, and in the name of a database @ is %40"
    )]
    Misplaced,
}

impl DatabaseUrl {
    /// The whole URL with its credentials, for a driver. Do not print it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The whole URL without the parameters that [`Tls`](crate::tls::Tls) reads, for a driver that has ideas of its own
    /// about them. Do not print it.
    #[must_use]
    pub fn expose_without_tls(&self) -> String {
        let mut url = self.0.clone();
        let kept = self.raw_parameters().filter(|raw| !is_about_encryption(&parameter(raw).0));
        let kept = kept.collect::<Vec<_>>().join("&");
        url.set_query((!kept.is_empty()).then_some(kept.as_str()));
        url.into()
    }

    /// Whether the server is on this machine: the host is a loopback address, `localhost`, or the directory of a
    /// Unix-domain socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.to_ascii_lowercase().starts_with("%2f")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Its parameters, decoded, in their order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (String, String)> {
        self.raw_parameters().map(parameter)
    }

    fn raw_parameters(&self) -> impl Iterator<Item = &str> {
        self.0.query().unwrap_or_default().split('&').filter(|raw| !raw.is_empty())
    }

    /// The host: a name or an address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port; 5432 when the URL names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port().unwrap_or(5432)
    }

    /// The user, decoded; empty when the URL names none.
    #[must_use]
    pub fn user(&self) -> String {
        percent_decode_str(self.0.username()).decode_utf8_lossy().into_owned()
    }

    /// The database's name; empty when the URL names none.
    #[must_use]
    pub fn database(&self) -> &str {
        self.0.path().trim_start_matches('/')
    }

    /// The same URL for another host, a name or an address, and port. `None` when no URL can hold that host.
    #[must_use]
    pub fn with_place(&self, host: &str, port: u16) -> Option<Self> {
        let mut url = self.0.clone();
        let bracketed = host.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]"));
        url.set_host(Some(bracketed.as_deref().unwrap_or(host))).ok()?;
        url.set_port(Some(port)).ok()?;
        Some(Self(url)).filter(|url| !url.host().is_empty())
    }

    /// The same URL with another user and password.
    #[must_use]
    pub fn with_credentials(&self, user: &str, password: &str) -> Self {
        let mut url = self.0.clone();
        // Both refuse only URLs without a host, and this type has one.
        let _ = url.set_username(user);
        let _ = url.set_password(Some(password));
        Self(url)
    }
}

/// Whether something that belongs into a user or a password stands behind the host. The text itself tells: a parsed path has lost
/// what stood before `..`.
fn is_misplaced(text: &str) -> bool {
    // As the parser reads it.
    let text = text.replace(['\t', '\n', '\r'], "");
    let place = text.split_once("://").map_or("", |(_, place)| place);
    let behind = place.find(['/', '?', '#']).map_or("", |end| &place[end..]);
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    let mut names = query.split('&').map(|raw| raw.split('=').next().unwrap_or_default());
    behind.contains('#') || path.contains('@') || names.any(|name| name.contains('@'))
}

fn parameter(raw: &str) -> (String, String) {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
    (decoded(name), decoded(value))
}

impl FromStr for DatabaseUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let url = Url::parse(text).map_err(InvalidUrl::Syntax)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(InvalidUrl::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(InvalidUrl::NoHost);
        }
        if is_misplaced(text) {
            return Err(InvalidUrl::Misplaced);
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = InvalidUrl;

    fn try_from(text: String) -> Result<Self, InvalidUrl> {
        text.parse()
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host(), self.port(), self.database())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_url_does_not_print_its_password() {
        for text in
            ["mysql://u:hunter2@h/d", "postgres://u:hunter2@/d", "postgres://u:hunter2@h:99999/d", "hunter2"]
        {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            let mut shown = format!("{error} {error:?}");
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                shown += &format!("{cause} {cause:?}");
                source = cause.source();
            }
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_password_with_something_unescaped_is_no_host_and_no_database() {
        for text in [
            "postgres://app:5/hunter2@h/d",
            "postgres://app/hunter2@h/d",
            "postgres://app:a@hunter2#b@h/d",
            "postgres://app:a@hunter2?b@h/d",
            "postgres://app:5?a=b&c@h/d",
        ] {
            assert_eq!(text.parse::<DatabaseUrl>(), Err(InvalidUrl::Misplaced), "{text}");
        }
        let url: DatabaseUrl = "postgres://app@h/a%40b?application_name=a@b".parse().unwrap();
        assert_eq!(url.to_string(), "h:5432/a%40b");
    }

    #[test]
    fn a_driver_sees_every_parameter_but_those_about_encryption() {
        let table = [
            ("postgres://a:p%40@h/d", "postgres://a:p%40@h/d"),
            ("postgres://a@h/d?sslmode=require", "postgres://a@h/d"),
            (
                "postgres://a@h/d?options=-c%20a%3Db&sslrootcert=%2Fca.crt&application_name=x+y&channel_binding=prefer",
                "postgres://a@h/d?options=-c%20a%3Db&application_name=x+y",
            ),
            ("postgres://a@h/d?%73slmode=require&&x=1", "postgres://a@h/d?x=1"),
        ];
        for (url, expected) in table {
            assert_eq!(url.parse::<DatabaseUrl>().unwrap().expose_without_tls(), expected);
        }
    }

    #[test]
    fn another_place_keeps_everything_else() {
        let url: DatabaseUrl = "postgres://a:p%40@h/d?x=1".parse().unwrap();
        for (host, port, expected) in [
            ("db1.internal", 5433, Some("postgres://a:p%40@db1.internal:5433/d?x=1")),
            ("10.0.0.1", 5432, Some("postgres://a:p%40@10.0.0.1:5432/d?x=1")),
            ("fd00::1", 5432, Some("postgres://a:p%40@[fd00::1]:5432/d?x=1")),
            ("", 5432, None),
            ("a b", 5432, None),
        ] {
            assert_eq!(url.with_place(host, port).as_ref().map(DatabaseUrl::expose), expected, "{host}");
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        for (host, local) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("[::1]", true),
            ("localhost", true),
            ("%2Fvar%2Frun%2Fpostgresql", true),
            ("10.0.0.1", false),
            ("localhost.example.com", false),
        ] {
            let url: DatabaseUrl = format!("postgres://a@{host}/d").parse().unwrap();
            assert_eq!(url.is_local(), local, "{host}");
        }
    }

    #[test]
    fn credentials_are_replaced_whole() {
        let url: DatabaseUrl = "postgres://app:one@h:5500/d?sslmode=disable".parse().unwrap();
        let other = url.with_credentials("monitor", "t/w@o");
        assert_eq!(other.expose(), "postgres://monitor:t%2Fw%40o@h:5500/d?sslmode=disable");
        assert_eq!(other.to_string(), "h:5500/d");
    }
}
