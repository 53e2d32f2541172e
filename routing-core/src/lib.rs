//! Decides which node of a replicated PostgreSQL serves a read or a write.
//!
//! This crate knows no driver and no HTTP server. An adapter (`routing-seaorm`) gives it connections, `routing-axum`
//! gives its handles to handlers.
//!
//! # Words
//!
//! - **node**: one PostgreSQL server, known by a name. **role**: what it says of itself.
//! - **primary**: the one node that the **topology**, an immutable picture of all nodes, proves to be it.
//! - **position**: a **lsn** on a timeline. **lag**: how long a replica has been behind, for people. **staleness**: how
//!   old its data may be at most, proven.
//! - **probe**: one question of the **monitor** to a node; its answers are the **evidence**.
//! - **lease**: a connection held with its permits. **fault**: what an error says about the node, not the query.
//! - **session**: what one request has been served. **consistency**: how much a read may miss.
//! - **decision**: the node that was **choose**n (by a **balance**r), with the reason; or why each was refused.
//! - **breaker**: `Closed` admits, `Open` refuses, `HalfOpen` admits one at a time.

pub mod balance;
pub mod breaker;
pub mod evidence;
pub mod lag;
pub mod pool;
pub mod position;
pub mod primary;
pub mod probe;
#[cfg(feature = "testing")]
pub mod testing;

mod acquire;
mod attempts;
mod authority;
mod backend;
mod candidates;
mod cap;
mod certificates;
mod choose;
mod cluster;
mod config;
mod config_error;
mod connector;
mod consistency;
mod control;
mod decision;
mod demand;
mod difference;
mod discoverer;
mod discovery;
#[cfg(feature = "dns")]
mod dns;
mod durations;
mod ejection;
mod eligible;
mod environment;
mod error;
mod event;
mod fading;
mod fault;
mod flaps;
mod frames;
mod freshness;
mod gate;
mod handshake;
mod hedge;
mod hedged;
mod invalid_tls;
mod key;
mod lease;
#[cfg(test)]
mod logged;
mod lsn;
mod members;
mod membership;
mod metrics;
mod misrouted;
mod monitor;
mod node;
mod node_id;
mod notes;
mod opening;
mod password;
#[cfg(feature = "patroni")]
mod patroni;
mod picture;
mod pools;
mod presented;
mod priority;
mod read;
mod recent;
mod record;
mod refusal;
mod refuse;
mod retry;
mod role;
mod routed;
mod router;
mod rules;
mod sabotage;
mod seen;
mod selection;
mod session;
mod shared;
mod shutdown;
mod signal;
mod slow_start;
pub mod sql;
mod status;
mod step;
mod straggler;
mod sync;
mod ticket;
pub mod tls;
mod token;
mod topology;
mod transitions;
mod tried;
mod url;
mod votes;
mod watch;
mod watcher;
pub mod wire;
mod work;
mod write;
mod writer;
mod zone;

pub use authority::{Authority, Leader};
pub use backend::{AutomaticBackend, Backend, Failure, PoolStatus, SendFn, Usage};
pub use breaker::BreakerConfig;
pub use cluster::Cluster;
pub use config::{NodeConfig, RouterConfig};
pub use config_error::ConfigError;
pub use consistency::Consistency;
pub use decision::{Access, Decision, Reason, Refusal, Refusals};
pub use discoverer::DiscoveryStatus;
pub use discovery::{Discovered, Discovery, DiscoveryError, FileDiscovery};
#[cfg(feature = "dns")]
pub use dns::{DnsDiscovery, DnsOptions, InvalidDns};
pub use error::{Claims, CommitUnknown, NotWritable, RouteError};
pub use event::{Event, EventKind};
pub use fault::Fault;
pub use gate::Admission;
pub use hedge::HedgeConfig;
pub use key::{InvalidKeys, TokenKeys};
pub use lease::Lease;
pub use lsn::{InvalidLsn, Lsn, Position, SystemId, Timeline};
pub use membership::{MembershipChange, MembershipError};
pub use misrouted::Misrouted;
pub use node::Node;
pub use node_id::NodeId;
pub use password::{Password, PasswordError, PasswordRequest, PasswordSource, Passwords};
#[cfg(feature = "patroni")]
pub use patroni::{InvalidPatroni, Patroni, PatroniOptions};
pub use priority::Priority;
pub use recent::RecentDecision;
pub use retry::{RetryConfig, RetryPolicy};
pub use role::Role;
pub use routed::Routed;
pub use router::Router;
pub use session::Session;
pub use shutdown::Shutdown;
pub use status::{ConfigStatus, DecisionCount, NodeStatus, RouterStatus};
pub use straggler::Straggler;
pub use token::{InvalidToken, Mark, SessionToken, UnixMillis};
pub use topology::{NodeState, Primary, Topology};
pub use url::{DatabaseUrl, InvalidUrl};
pub use watch::LeaseWatch;
