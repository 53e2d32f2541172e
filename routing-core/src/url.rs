//! Database URLs, which are secrets.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use url::Url;

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
}

impl DatabaseUrl {
    /// The whole URL with its credentials, for a driver. Do not print it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
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

    /// The database's name; empty when the URL names none.
    #[must_use]
    pub fn database(&self) -> &str {
        self.0.path().trim_start_matches('/')
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
    fn credentials_are_replaced_whole() {
        let url: DatabaseUrl = "postgres://app:one@h:5500/d?sslmode=disable".parse().unwrap();
        let other = url.with_credentials("monitor", "t/w@o");
        assert_eq!(other.expose(), "postgres://monitor:t%2Fw%40o@h:5500/d?sslmode=disable");
        assert_eq!(other.to_string(), "h:5500/d");
    }
}
