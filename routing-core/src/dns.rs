//! Every address of a name as a node.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use crate::config::NodeConfig;
use crate::discovery::{Discovered, Discovery, DiscoveryError};
use crate::url::DatabaseUrl;

/// How long one name server may take for one attempt, of two.
const ATTEMPT: Duration = Duration::from_secs(1);

/// How a name is resolved.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// How the application connects; its host is the name. A name that begins with an underscore, such as
    /// `_postgresql._tcp.db.internal`, is looked up as SRV: each target is a node, with its own port.
    pub url: DatabaseUrl,
    /// The same for the monitor; its host does not count. Default: `url`.
    pub probe_url: Option<DatabaseUrl>,
    /// The name is not asked about more often, however short its time to live. Default 5 s: some services say 0 or 1.
    pub floor: Duration,
    /// It is asked about at least this often, however long its time to live. Default 30 s.
    pub ceiling: Duration,
    /// Name servers. Default: none, those of the operating system.
    pub servers: Vec<SocketAddr>,
}

impl DnsOptions {
    /// Asks the operating system's name servers about the host of `url`.
    #[must_use]
    pub fn new(url: DatabaseUrl) -> Self {
        let (floor, ceiling) = (Duration::from_secs(5), Duration::from_secs(30));
        Self { url, probe_url: None, floor, ceiling, servers: Vec::new() }
    }
}

/// Follows a name: each of its addresses is a node called `address:port`. (IPv6 addresses count when there are no others: a
/// server that has both is one server.)
///
/// A certificate must then name the addresses for `sslmode=verify-full`, since the address is what a connection is opened to.
/// With SRV it must name the targets.
pub struct DnsDiscovery {
    resolver: TokioResolver,
    options: DnsOptions,
}

/// Why a name cannot be asked about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDns {
    /// The host is an address already.
    #[error("the host {0} is an address, not a name: list it as a node")]
    Address(IpAddr),
    /// The operating system's resolver has no configuration that can be read.
    #[error("the name servers of this machine cannot be found out: {0}")]
    System(String),
}

impl DnsDiscovery {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// When the URL's host is an address, or the name servers cannot be found out.
    pub fn new(options: DnsOptions) -> Result<Self, InvalidDns> {
        if let Ok(address) = options.url.host().parse() {
            return Err(InvalidDns::Address(address));
        }
        let system = |error: NetError| InvalidDns::System(error.to_string());
        let mut builder = if options.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(system)?
        } else {
            let servers = options.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        tune(builder.options_mut());
        Ok(Self { resolver: builder.build().map_err(system)?, options })
    }

    async fn resolve(&self) -> Result<Discovered, DiscoveryError> {
        let name = self.options.url.host();
        let found = if name.starts_with('_') {
            self.resolver.srv_lookup(name).await
        } else {
            self.resolver.lookup_ip(name).await.map(|found| found.as_lookup().clone())
        };
        let found = found.map_err(|error| DiscoveryError {
            asked: name.into(),
            why: error.to_string().into(),
            ask_again: Some(self.options.floor),
        })?;
        #[expect(
            clippy::disallowed_types,
            reason = "the resolver's answers are on the standard library's clock"
        )]
        let left = found.valid_until().saturating_duration_since(std::time::Instant::now());
        let ask_again = left.max(self.options.floor).min(self.options.ceiling);
        Ok(Discovered { nodes: self.nodes(&found), leader: None, ask_again: Some(ask_again) })
    }

    fn nodes(&self, found: &Lookup) -> Vec<NodeConfig> {
        let port = self.options.url.port();
        let mut places: Vec<(String, u16)> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(address) => Some((address.0.to_string(), port)),
                RData::AAAA(address) => Some((address.0.to_string(), port)),
                RData::SRV(service) => {
                    Some((service.target.to_ascii().trim_end_matches('.').to_owned(), service.port))
                }
                _ => None,
            })
            .collect();
        // Name servers rotate what they answer.
        places.sort_unstable();
        places.dedup();
        places.iter().filter_map(|(host, port)| self.node(host, *port)).collect()
    }

    fn node(&self, host: &str, port: u16) -> Option<NodeConfig> {
        let probe_url = match &self.options.probe_url {
            Some(url) => Some(url.with_place(host, port)?),
            None => None,
        };
        let url = self.options.url.with_place(host, port)?;
        Some(NodeConfig { probe_url, ..NodeConfig::new(format!("{host}:{port}"), url) })
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn tune(options: &mut ResolverOpts) {
    options.timeout = ATTEMPT;
    options.attempts = 2;
    // Whoever asks wants to know what is true now.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
}

impl Discovery for DnsDiscovery {
    fn discover(&self) -> BoxFuture<'_, Result<Discovered, DiscoveryError>> {
        Box::pin(self.resolve())
    }

    fn patience(&self) -> Duration {
        // Two attempts, and the second kind of address.
        4 * ATTEMPT
    }

    fn kind(&self) -> &'static str {
        "dns"
    }
}

impl std::fmt::Debug for DnsDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsDiscovery").field("options", &self.options).finish_non_exhaustive()
    }
}
