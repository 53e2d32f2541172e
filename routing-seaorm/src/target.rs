//! Where a node is reached, as whom, and how encrypted.

use routing_core::tls::{Tls, UnusableUrl};
use routing_core::{DatabaseUrl, Passwords};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::backend::SeaOrmOptions;
use crate::fault::is_refused_password;
use crate::tls;

/// A URL and an application's options, as everything here that opens connections takes them.
#[derive(Clone)]
pub(crate) struct Target {
    options: PgConnectOptions,
    tls: Tls,
    /// What gives the password, and for whom.
    passwords: Option<(Passwords, DatabaseUrl)>,
}

impl Target {
    pub(crate) fn new(url: &DatabaseUrl, options: &SeaOrmOptions) -> Result<Self, UnusableUrl> {
        let tls = Tls::of(url)?;
        let parsed = url.expose_without_tls().parse::<PgConnectOptions>();
        // What is slow shows in the router's metrics; sqlx would write statements into the log.
        let mut connect = parsed.map_err(|_| UnusableUrl::Driver)?.disable_statement_logging();
        // An address of IPv6 comes in brackets, and no certificate is made out to those.
        if connect.get_host().starts_with('[') {
            connect = connect.host(url.host());
        }
        if let Some(name) = &options.application_name {
            connect = connect.application_name(name);
        }
        if let Some(capacity) = options.statement_cache_capacity {
            connect = connect.statement_cache_capacity(capacity.max(1));
        }
        let passwords = options.passwords.clone().map(|passwords| (passwords, url.clone()));
        Ok(Self { options: tls::apply(connect, &tls)?, tls, passwords })
    }

    /// The same, with one more start-up option for the server.
    pub(crate) fn with_option(mut self, option: (&str, &str)) -> Self {
        self.options = self.options.options([option]);
        self
    }

    /// How its connections are encrypted.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Looks at the files that it names.
    pub(crate) fn check(&self) -> Result<(), UnusableUrl> {
        self.tls.client_config()?;
        Ok(())
    }

    /// For a pool of the driver's own, with the password of now.
    pub(crate) async fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        self.options_after(false).await
    }

    async fn options_after(&self, refused: bool) -> Result<PgConnectOptions, sqlx::Error> {
        let Some((passwords, url)) = &self.passwords else { return Ok(self.options.clone()) };
        let password = passwords.ask(url, refused).await;
        let password = password.map_err(|error| sqlx::Error::Configuration(Box::new(error)))?;
        Ok(self.options.clone().password(password.expose()))
    }

    /// A new connection. A password that is refused is asked for once more.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection.
    pub(crate) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let opened = open(self.options().await?).await;
        let opened = match opened {
            Err(error)
                if self.passwords.is_some() && error.as_database_error().is_some_and(is_refused_password) =>
            {
                open(self.options_after(true).await?).await
            }
            opened => opened,
        };
        opened.map_err(|error| self.explain(error))
    }

    /// An error of a connection that did not come about, in our words where encryption is to blame.
    pub(crate) fn explain(&self, error: sqlx::Error) -> sqlx::Error {
        let server = || format!("{}:{}", self.options.get_host(), self.options.get_port());
        tls::explain(error, &self.tls, server)
    }

    /// What an error says, and what to do.
    pub(crate) fn describe(&self, error: &sqlx::Error) -> String {
        match error {
            // Its own words name no SQLSTATE.
            sqlx::Error::Database(said) => {
                let sqlstate = said.code().unwrap_or_default();
                format!("{} (SQLSTATE {sqlstate}){}", said.message(), self.tls.advice(&sqlstate))
            }
            // sqlx puts "error occurred while …" before them.
            sqlx::Error::Tls(found) => found.to_string(),
            sqlx::Error::Configuration(found) => found.to_string(),
            other => other.to_string(),
        }
    }
}

/// Opens a connection on a thread of its own.
///
/// sqlx hashes the password in 800 small steps and waits for its turn after each: in a runtime with much to do, as after a
/// failover, when everybody waits for a new connection, that took seconds.
///
/// # Cancel safety
/// Dropping the future abandons the connection.
async fn open(options: PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    // Dropped with this future.
    let (_wanted, abandoned) = oneshot::channel::<()>();
    let runtime = Handle::current();
    let opening = spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                opened = PgConnection::connect_with(&options) => opened,
                _ = abandoned => Err(sqlx::Error::WorkerCrashed),
            }
        })
    });
    opening.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> PgConnectOptions {
        Target::new(&url.parse().unwrap(), &SeaOrmOptions::default()).unwrap().options
    }

    #[test]
    fn each_mode_reaches_sqlx_as_what_it_means() {
        let table = [
            ("sslmode=disable", "Disable"),
            ("sslmode=allow", "Prefer"),
            ("sslmode=prefer", "Prefer"),
            ("sslmode=require", "Require"),
            ("sslmode=verify-full&sslrootcert=/ca.crt", "VerifyFull"),
            ("sslrootcert=system", "VerifyFull"),
        ];
        for (parameters, expected) in table {
            let options = options(&format!("postgres://app@db1/shop?{parameters}"));
            assert_eq!(format!("{:?}", options.get_ssl_mode()), expected, "{parameters}");
        }
        let socket = options("postgres://app@%2Frun%2Fpostgresql/shop?sslmode=require");
        assert_eq!(format!("{:?}", socket.get_ssl_mode()), "Disable");
    }

    #[test]
    fn a_certificate_is_compared_with_an_address_without_brackets() {
        assert_eq!(options("postgres://app@[::1]:6000/shop").get_host(), "::1");
    }
}
