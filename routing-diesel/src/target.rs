//! Where a node is reached, as whom, and how encrypted.

use routing_core::DatabaseUrl;
use routing_core::tls::{ChannelBinding, Tls, TlsError, TlsProblem, UnusableUrl};
use tokio_postgres::config::{self, SslMode, SslNegotiation};
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{CancelToken, Client, Config, Connection};

use crate::backend::DieselOptions;
use crate::error::ConnectError;
use crate::session;
use crate::tls::{Encrypted, Stream};

/// A URL and an application's options, as everything here that opens connections takes them.
#[derive(Clone)]
pub(crate) struct Target {
    config: Config,
    tls: Tls,
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
        Ok(Self { config, tls })
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

    /// A new stream to the server.
    pub(crate) async fn open(&self) -> Result<Box<dyn Stream>, ConnectError> {
        session::open(&self.config, &self.tls).await
    }

    /// Logs in on such a stream.
    pub(crate) async fn connect<S: TlsStream + Unpin>(
        &self,
        stream: S,
    ) -> Result<(Client, Connection<S, S>), ConnectError> {
        self.config.connect_raw(stream, Encrypted).await.map_err(|error| match TlsProblem::find(&error) {
            // With TLS 1.3 a server says only now what it thinks of our certificate.
            Some(problem) => TlsError { server: self.server(), mode: self.tls.mode, problem }.into(),
            None => error.into(),
        })
    }

    /// Cancels the statement of a connection.
    pub(crate) async fn cancel(&self, token: &CancelToken) -> Result<(), ConnectError> {
        Ok(token.cancel_query_raw(self.open().await?, Encrypted).await?)
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
