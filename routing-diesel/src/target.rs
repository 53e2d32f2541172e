//! Where a node is reached, as whom, and how encrypted.

use routing_core::tls::{ChannelBinding, Tls, TlsError, TlsProblem, UnusableUrl};
use routing_core::{DatabaseUrl, Passwords};
use tokio_postgres::config::{self, SslMode, SslNegotiation};
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{CancelToken, Client, Config, Connection};

use crate::backend::DieselOptions;
use crate::cancel::UntilClosed;
use crate::error::ConnectError;
use crate::session;
use crate::tls::{Encrypted, Stream};

/// A URL and an application's options, as everything here that opens connections takes them.
#[derive(Clone)]
pub(crate) struct Target {
    config: Config,
    tls: Tls,
    /// What gives the password, and for whom.
    passwords: Option<(Passwords, DatabaseUrl)>,
}

impl Target {
    pub(crate) fn new(url: &DatabaseUrl, options: &DieselOptions) -> Result<Self, UnusableUrl> {
        let tls = Tls::of(url)?;
        let mut config: Config = url.expose_without_tls().parse().map_err(|_| UnusableUrl::Driver)?;
        if let Some(name) = &options.application_name {
            config.application_name(name);
        }
        // It gets streams that are encrypted already, where they should be.
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        config.channel_binding(match tls.channel_binding {
            ChannelBinding::Disable => config::ChannelBinding::Disable,
            ChannelBinding::Prefer => config::ChannelBinding::Prefer,
            ChannelBinding::Require => config::ChannelBinding::Require,
        });
        let passwords = options.passwords.clone().map(|passwords| (passwords, url.clone()));
        Ok(Self { config, tls, passwords })
    }

    /// The same, with more start-up options for the server.
    pub(crate) fn with_options(mut self, more: &str) -> Self {
        let options = format!("{} {more}", self.config.get_options().unwrap_or_default());
        self.config.options(options.trim());
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

    /// Logs in on a new stream, which `wrap` may watch. A password that is refused is asked for once more.
    pub(crate) async fn connect<S: TlsStream + Unpin, X>(
        &self,
        wrap: impl Fn(Box<dyn Stream>) -> (S, X),
    ) -> Result<(Client, Connection<S, S>, X), ConnectError> {
        match self.log_in(&wrap, false).await {
            Err(error) if self.passwords.is_some() && error.is_refused_password() => {
                self.log_in(&wrap, true).await
            }
            logged_in => logged_in,
        }
    }

    async fn log_in<S: TlsStream + Unpin, X>(
        &self,
        wrap: impl Fn(Box<dyn Stream>) -> (S, X),
        refused: bool,
    ) -> Result<(Client, Connection<S, S>, X), ConnectError> {
        let mut config = self.config.clone();
        if let Some((passwords, url)) = &self.passwords {
            config.password(passwords.ask(url, refused).await?.expose());
        }
        let (stream, extra) = wrap(self.open().await?);
        let (client, connection) =
            config.connect_raw(stream, Encrypted).await.map_err(|error| match TlsProblem::find(&error) {
                // With TLS 1.3 a server says only now what it thinks of our certificate.
                Some(problem) => TlsError { server: self.server(), mode: self.tls.mode, problem }.into(),
                None => ConnectError::from(error),
            })?;
        Ok((client, connection, extra))
    }

    /// A new stream to the server.
    async fn open(&self) -> Result<Box<dyn Stream>, ConnectError> {
        session::open(&self.config, &self.tls).await
    }

    /// Cancels the statement of a connection; returns when the server has dealt with that.
    pub(crate) async fn cancel(&self, token: &CancelToken) -> Result<(), ConnectError> {
        let stream = UntilClosed::new(self.open().await?);
        Ok(token.cancel_query_raw(stream, Encrypted).await?)
    }

    /// What an error says, and what to do.
    pub(crate) fn describe(&self, error: &ConnectError) -> String {
        let advice = error.sqlstate().map_or("", |sqlstate| self.tls.advice(sqlstate));
        format!("{error}{advice}")
    }

    fn server(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(config::Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(config::Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        format!("{host}:{}", self.config.get_ports().first().copied().unwrap_or(5432))
    }
}
