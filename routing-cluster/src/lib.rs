//! A real replicated PostgreSQL on this machine, made from the server's own binaries.
//!
//! [`LocalCluster::up`] makes one primary and its streaming replicas in one directory, and starts them again
//! later with their data. Everything runs on 127.0.0.1, with passwords, and never as root. Faults are part of
//! the interface: a node can be killed, paused, stopped and started again.
//!
//! ```no_run
//! use routing_cluster::{ClusterOptions, LocalCluster, Login, SilentProgress};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = LocalCluster::up(ClusterOptions::default(), &SilentProgress).await?;
//! let primary = cluster.url("pg1", Login::Application)?;
//! cluster.kill("pg2").await?;
//! cluster.start("pg2").await?;
//! cluster.down(true).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It needs PostgreSQL 14 or newer, found in `PG_BIN_DIR`, on `PATH`, in the packages' folders, or in a local
//! `.postgres`. It is tested on Linux; elsewhere `ps` stands in for `/proc`, and paths must not contain spaces.
//!
//! # Words
//!
//! A *cluster* is one directory with its nodes (its *layout* and *state* file), made by *options*. A *node* is one *server*, with a
//! name, a port and a data directory; its role is what the server reports. An *account* is the operating system's user
//! that servers run as; *binaries* are PostgreSQL's programs, run as *commands*. To *provision* is to make a
//! primary from nothing or a *standby* from a base backup, with *settings* and *credentials*; *up* does what is
//! missing of it. *Status* is what the nodes answer to *SQL*; *ports*, *processes* and shared *memory* are the system's; *progress*
//! tells a person how far it is, and an *error* why not.

mod account;
mod binaries;
mod cluster;
mod command;
mod credentials;
mod error;
mod layout;
mod memory;
mod node;
mod options;
mod ports;
mod process;
mod progress;
mod provision;
mod server;
mod settings;
mod sql;
mod standby;
mod state;
mod status;
mod up;

pub use account::AccountError;
pub use binaries::BinariesError;
pub use cluster::LocalCluster;
pub use command::CommandError;
pub use credentials::{Credentials, Login};
pub use error::{DownError, NodeError, OpenError, UnknownNode, UpError};
pub use layout::DirectoryError;
pub use node::NodeRecord;
pub use options::ClusterOptions;
pub use ports::PortError;
pub use progress::{LineProgress, Progress, SilentProgress, SpinnerProgress, progress_on_stderr};
pub use provision::ProvisionError;
pub use server::ServerError;
pub use settings::{Setting, shared_settings};
pub use sql::SqlError;
pub use status::{ClusterStatus, NodeRole, NodeState, NodeStatus, SlotStatus, StandbyStatus};
