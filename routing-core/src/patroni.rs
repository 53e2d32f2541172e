//! Patroni's REST API as a discovery and an authority.
//!
//! Any member's `/cluster` names all of them, with the one that holds the leader key (Patroni 3.0.2 and 4.1.5 were run:
//! they differ in the fields and in what they call a running replica). It answers with what the last loop of each member
//! wrote down, up to `loop_wait` (10 s) ago, so nothing of its lag figures is used, and whoever leads must also say by
//! SQL that it is out of recovery and writable.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use crate::authority::Leader;
use crate::config::NodeConfig;
use crate::discovery::{Discovered, Discovery, DiscoveryError};
use crate::lsn::Timeline;
use crate::tls::Tls;
use crate::url::{DatabaseUrl, InvalidUrl};

/// How long one call may take. `/cluster` was measured to answer within 2 ms, and to hang on every member while etcd does.
const CALL: Duration = Duration::from_secs(1);

/// What an answer may be long at most; a member takes some 300 bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// How a Patroni cluster is asked.
#[derive(Clone, Debug)]
pub struct PatroniOptions {
    /// The REST addresses of some members, such as `http://10.0.0.1:8008`. The others are learned from their answers.
    pub members: Vec<String>,
    /// How the application connects to a member: its host and port are put in place of those of this URL.
    pub url: DatabaseUrl,
    /// The same for the monitor. Default: `url`.
    pub probe_url: Option<DatabaseUrl>,
    /// The time between two questions. Default 2 s. A claim that changes is asked about at once.
    pub interval: Duration,
    /// For `https` addresses: whom to trust, and the certificate to show if Patroni wants one. Default: what the operating
    /// system trusts.
    pub tls: Option<rustls::ClientConfig>,
}

impl PatroniOptions {
    /// Asks these members, every two seconds.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = impl Into<String>>, url: DatabaseUrl) -> Self {
        let members = members.into_iter().map(Into::into).collect();
        Self { members, url, probe_url: None, interval: Duration::from_secs(2), tls: None }
    }
}

/// A Patroni cluster: its members are the nodes, and its leader is the only one that may be written to. A member with the
/// tag `noloadbalance` serves no reads, and the tag `zone` names its [zone](NodeConfig::zone). (`nofailover` asks nothing of a router: such a member is never the leader.)
#[derive(Debug)]
pub struct Patroni {
    client: Client<HttpsConnector<HttpConnector>, Empty<&'static [u8]>>,
    options: PatroniOptions,
    seeds: Vec<Url>,
    /// Those that the last answer named; the one that gave it comes first.
    learned: Mutex<Vec<Url>>,
}

/// Why a Patroni cluster cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPatroni {
    /// No member is named.
    #[error("no member of the Patroni cluster is named; name some as http://host:8008")]
    NoMember,
    /// A member's address is wrong.
    #[error("{0:?} is no address of a Patroni member; it has the form http://host:8008")]
    Member(String),
    /// Encrypted calls cannot be made.
    #[error("encrypted calls to Patroni cannot be made: {0}")]
    Tls(String),
}

impl Patroni {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// When no member is named, or wrongly.
    pub fn new(options: PatroniOptions) -> Result<Self, InvalidPatroni> {
        let seeds = options.members.iter().map(|member| {
            let url = Url::parse(member).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            url.filter(Url::has_host).ok_or_else(|| InvalidPatroni::Member(member.clone()))
        });
        let seeds = seeds.collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err(InvalidPatroni::NoMember);
        }
        let tls = match &options.tls {
            Some(tls) => tls.clone(),
            None => trusting_the_system()?,
        };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, options, seeds, learned: Mutex::default() })
    }

    async fn ask(&self) -> Result<Discovered, DiscoveryError> {
        let known = self.known();
        let mut last = String::from("nobody was asked");
        if let Some((first, others)) = known.split_first() {
            match self.call(first).await {
                Ok(cluster) => return Ok(self.take(&cluster, first)),
                Err(why) => last = format!("{}: {why}", place(first)),
            }
            // Whoever answers first.
            let mut calls: FuturesUnordered<_> =
                others.iter().map(|url| async move { (url, self.call(url).await) }).collect();
            while let Some((url, answer)) = calls.next().await {
                match answer {
                    Ok(cluster) => return Ok(self.take(&cluster, url)),
                    Err(why) => last = format!("{}: {why}", place(url)),
                }
            }
        }
        Err(DiscoveryError {
            asked: "patroni".into(),
            why: format!("none of {} members answers; the last was {last}", known.len()).into(),
            ask_again: Some(self.options.interval),
        })
    }

    /// Members to ask: those of the last answer, then those of the configuration.
    fn known(&self) -> Vec<Url> {
        let mut known = self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for seed in &self.seeds {
            if !known.iter().any(|url| place(url) == place(seed)) {
                known.push(seed.clone());
            }
        }
        known
    }

    async fn call(&self, member: &Url) -> Result<Members, String> {
        let mut url = member.clone();
        url.set_path("/cluster");
        url.set_query(None);
        let uri = url.as_str().parse().map_err(|_| "its address is no URI".to_owned())?;
        let called = async {
            let response = self.client.get(uri).await.map_err(|error| said(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
            Ok::<_, String>((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let (status, body) =
            timeout(CALL, called).await.map_err(|_| format!("no answer within {CALL:?}"))??;
        let members: Members = serde_json::from_slice(&body)
            .map_err(|_| format!("its answer ({status}) is not that of Patroni's /cluster"))?;
        if members.members.is_empty() { Err("it names no members".to_owned()) } else { Ok(members) }
    }

    /// What an answer means.
    fn take(&self, cluster: &Members, from: &Url) -> Discovered {
        let mut learned: Vec<Url> = vec![from.clone()];
        learned.extend(cluster.members.iter().filter_map(|member| Url::parse(member.api_url.as_ref()?).ok()));
        learned.dedup_by(|one, other| place(one) == place(other));
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = learned;
        let leader = cluster.members.iter().find(|member| member.leads()).map(|member| Leader {
            node: member.name.as_str().into(),
            timeline: member.timeline.map(Timeline),
            running: member.runs(),
        });
        let nodes = cluster.members.iter().filter_map(|member| self.node(member)).collect();
        Discovered { nodes, leader, ask_again: Some(self.options.interval) }
    }

    fn node(&self, member: &Member) -> Option<NodeConfig> {
        let (host, port) = (member.host.as_ref()?, member.port?);
        let url = self.options.url.with_place(host, port)?;
        let probe_url = match &self.options.probe_url {
            Some(url) => Some(url.with_place(host, port)?),
            None => None,
        };
        let reads = !member.tags.get("noloadbalance").is_some_and(is_true);
        let zone = member.tags.get("zone").and_then(name);
        Some(NodeConfig { probe_url, reads, zone, ..NodeConfig::new(member.name.as_str(), url) })
    }
}

impl Discovery for Patroni {
    fn discover(&self) -> BoxFuture<'_, Result<Discovered, DiscoveryError>> {
        Box::pin(self.ask())
    }

    fn is_authority(&self) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        // One call to the member that answered last, then one to all others at once.
        2 * CALL + Duration::from_millis(100)
    }

    fn kind(&self) -> &'static str {
        "patroni"
    }
}

/// Whom the operating system trusts, as for a database URL that says so.
fn trusting_the_system() -> Result<rustls::ClientConfig, InvalidPatroni> {
    let says: DatabaseUrl = "postgres://patroni/?sslmode=verify-full&sslrootcert=system"
        .parse()
        .map_err(|error: InvalidUrl| InvalidPatroni::Tls(error.to_string()))?;
    let tls = Tls::of(&says).map_err(|error| InvalidPatroni::Tls(error.to_string()))?;
    tls.client_config().map_err(|error| InvalidPatroni::Tls(error.to_string()))
}

/// The answer of `/cluster`. What is not used is not read: `lag` is a number or the word `unknown`.
#[derive(Debug, Deserialize)]
struct Members {
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    api_url: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    timeline: Option<u32>,
    #[serde(default)]
    tags: serde_json::Map<String, serde_json::Value>,
}

impl Member {
    /// Whether it holds the leader key. A `standby_leader` leads a cluster of standbys: nobody in it can be written to.
    fn leads(&self) -> bool {
        self.role == "leader"
    }

    fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "streaming")
    }
}

/// Patroni takes a tag for set when it is true, or a word that YAML or people take for it.
fn is_true(tag: &serde_json::Value) -> bool {
    match tag {
        serde_json::Value::Bool(set) => *set,
        serde_json::Value::Number(number) => number.as_f64() != Some(0.0),
        serde_json::Value::String(word) => {
            matches!(word.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1")
        }
        _ => false,
    }
}

/// A name that a tag gives. YAML takes `1` for a number, and people mean a name by it.
fn name(tag: &serde_json::Value) -> Option<String> {
    match tag {
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::String(name) => Some(name.trim().to_owned()).filter(|name| !name.is_empty()),
        _ => None,
    }
}

fn place(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

/// An error with its first cause.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("the call failed: {cause}")
}

#[cfg(test)]
mod tests;
