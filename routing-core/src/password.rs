//! Passwords that change while the process runs.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::url::DatabaseUrl;

/// A password. It never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<str>);

impl Password {
    /// The password itself, for a driver. Do not print it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Password {
    fn from(password: T) -> Self {
        Self(password.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// For whom a password is asked, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasswordRequest<'a> {
    /// The server's host, as the node's URL names it.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The role: the application's or the monitor's.
    pub user: &'a str,
    /// The server has just refused what was given before: whoever keeps passwords for a while has to look again.
    pub refused: bool,
}

/// Why there is no password. It must not hold one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no password was to be had: {why}")]
pub struct PasswordError {
    /// What failed, in the source's words.
    pub why: Arc<str>,
}

/// Gives the passwords of new connections: a file that is renewed, a vault, a token that a cloud issues for minutes.
///
/// It is asked for each new connection, the monitor's too, and once more when the server refuses what it gave (SQLSTATE
/// 28P01 or 28000). Connections that are open go on: PostgreSQL asks for a password once. It works within
/// `connect_timeout`, so one that asks others keeps what they said for a while.
///
/// It is *not* responsible for the user: that is the URL's.
pub trait PasswordSource: Send + Sync + 'static {
    /// The password of now.
    ///
    /// # Cancel safety
    /// Dropping the future must change nothing: it is dropped when the connection takes too long.
    fn password<'a>(&'a self, request: PasswordRequest<'a>)
    -> BoxFuture<'a, Result<Password, PasswordError>>;
}

/// A [`PasswordSource`] for an adapter's options, instead of the passwords of the URLs.
///
/// ```
/// use routing_core::{Password, PasswordError, PasswordRequest, PasswordSource, Passwords};
///
/// /// A file that something else renews.
/// struct Renewed(std::path::PathBuf);
///
/// impl PasswordSource for Renewed {
///     fn password<'a>(
///         &'a self,
///         _: PasswordRequest<'a>,
///     ) -> futures_util::future::BoxFuture<'a, Result<Password, PasswordError>> {
///         Box::pin(async {
///             let text = std::fs::read_to_string(&self.0)
///                 .map_err(|error| PasswordError { why: error.to_string().into() })?;
///             Ok(text.trim_end().into())
///         })
///     }
/// }
///
/// let passwords = Passwords::new(Renewed("/run/secrets/database".into()));
/// assert_eq!(format!("{passwords:?}"), "Passwords(..)");
/// ```
#[derive(Clone)]
pub struct Passwords(Arc<dyn PasswordSource>);

impl Passwords {
    /// Asks this source.
    #[must_use]
    pub fn new(source: impl PasswordSource) -> Self {
        Self(Arc::new(source))
    }

    /// The password of now for the role of a URL.
    ///
    /// # Errors
    /// The source's.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ask(&self, url: &DatabaseUrl, refused: bool) -> Result<Password, PasswordError> {
        let user = url.user();
        let request = PasswordRequest { host: url.host(), port: url.port(), user: &user, refused };
        self.0.password(request).await
    }

    /// Whether a server refuses a password with this SQLSTATE (PostgreSQL manual, appendix A, class 28) and these words. The words
    /// count only where a pooler speaks: `PgBouncer` 1.18 says everything with 08P01, and everything in English.
    #[must_use]
    pub fn is_refusal(sqlstate: &str, message: &str) -> bool {
        match sqlstate {
            "28P01" | "28000" => true,
            "08P01" => message.ends_with("authentication failed"),
            _ => false,
        }
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_print() {
        let password = Password::from("hunter2");
        assert_eq!(format!("{password:?}"), "Password(..)");
        assert_eq!(password.expose(), "hunter2");
    }

    #[test]
    fn servers_and_poolers_refuse_a_password_in_their_own_ways() {
        let table = [
            ("28P01", "Passwort-Authentifizierung fehlgeschlagen", true),
            ("28000", "no pg_hba.conf entry for host", true),
            ("08P01", "SASL authentication failed", true),
            ("08P01", "password authentication failed", true),
            ("08P01", "server conn crashed?", false),
            ("57P03", "the database system is starting up", false),
        ];
        for (sqlstate, message, refused) in table {
            assert_eq!(Passwords::is_refusal(sqlstate, message), refused, "{sqlstate} {message}");
        }
    }
}
