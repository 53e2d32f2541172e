//! A real replicated PostgreSQL on this machine, made from the server's own binaries.
//!
//! [`LocalCluster::up`] makes one primary and its streaming replicas in one directory, and starts them again
//! later with their data. Everything runs on 127.0.0.1, with passwords, and never as root. Faults are part of
//! the interface: a node can be killed, paused, stopped and started again. So are the operator's changes: a replica
//! is promoted, trades places with the primary, rejoins, is added or removed, and the nodes are compared. Finished WAL
//! can be archived; with a backup, a destroyed cluster comes back as it was at any moment since.
//!
//! ```no_run
//! use routing_cluster::{ClusterOptions, LocalCluster, Login, SilentProgress};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = LocalCluster::up(ClusterOptions::default(), &SilentProgress).await?;
//! let primary = cluster.url("pg1", Login::Application)?;
//!
//! // The primary crashes; a replica takes its place, and it comes back as a replica.
//! cluster.kill("pg1").await?;
//! cluster.promote("pg2", false, &SilentProgress).await?;
//! cluster.rejoin("pg1", false, &SilentProgress).await?;
//!
//! // Back to where it was: nothing is lost, and nobody has to be fenced.
//! cluster.switchover("pg1", &SilentProgress).await?;
//! cluster.add_replica(None, Some("pg2"), &SilentProgress).await?;
//! assert!(cluster.verify(&SilentProgress).await?.differences.is_empty());
//! cluster.down(true).await?;
//! # Ok(())
//! # }
//! ```
//!
//! On a machine of its own a node is made and promoted by [`host`] instead.
//!
//! # Who the primary is
//!
//! Servers say what they are; the state file only says what must not be: a *deposed* primary never starts as it is.
//! Every change writes down what it is about to do before it does it, so a change that was killed half-way is ended by
//! the same command, or taken back by `up` while nobody was promoted. `status` names whatever is left to do.
//!
//! It needs PostgreSQL 14 or newer, found in `PG_BIN_DIR`, on `PATH`, in the packages' folders, or in a local
//! `.postgres`. It is tested on Linux; elsewhere `ps` stands in for `/proc`, and paths must not contain spaces.
//!
//! # Words
//!
//! A *cluster* is one directory with its nodes (its *layout* and *state* file), made by *options*. A *node* is one
//! *server*, with a name, a port and a data directory; its role is what the server reports, and its *condition* is
//! whether it may start. An *account* is the operating system's user that servers run as; *binaries* are PostgreSQL's
//! programs, run as *commands*. *Access* is who may connect from which *network*, and a *certificate* is what a server shows
//! to whom it encrypts. To *provision* is to make a primary from nothing or a *standby* from a base backup, with
//! *settings* and *credentials*; *up* does what is missing of it. *Status* is what the nodes answer to *SQL*; *ports*,
//! *processes* and shared *memory* are the system's; *progress* tells a person how far it is, and an *error* why not.
//!
//! An *operation* holds the cluster's lock. A *change* of the primary is to *promote* a *candidate* after a *fence* around
//! its predecessor, or a *switchover*: a *handover* without loss. The others *follow* the new primary, each by its own
//! *slot*. A node that cannot is taken back by *rejoin*, which is a *rewind* or a copy. *Replicas* are added, and leave by
//! *removal*; *sync* is whether commits wait for them, and to *verify* is to compare them.
//!
//! An *archive* holds finished *WAL* files; *archiving* makes it the cluster's, and the *archiver* is who writes to it. A
//! *backup* is a verified *base backup* with a *description*, in a folder that has a *catalog* and an *expiry*. A *restore* goes
//! from a *source*, by a *recovery*, to a *position*; *restoring* are its steps. *Fragments* are the
//! settings for servers in production. The command's *arguments* and the *table* that it prints are for people.

mod access;
mod account;
mod archive;
mod archiver;
mod archiving;
mod backup;
mod base_backup;
mod binaries;
mod candidate;
mod catalog;
mod certificate;
mod change;
mod cluster;
mod command;
mod condition;
mod credentials;
mod description;
mod error;
mod expiry;
mod fence;
mod follow;
mod fragments;
mod handover;
pub mod host;
mod layout;
mod link;
mod memory;
mod node;
mod operation;
mod options;
mod plan;
mod ports;
mod position;
mod process;
mod progress;
mod promote;
mod provision;
mod recovery;
mod rejoin;
mod removal;
mod replica;
mod restore;
mod restoring;
mod rewind;
mod server;
mod settings;
mod slot;
mod source;
mod sql;
mod standby;
mod state;
mod status;
mod switchover;
mod sync;
mod template;
mod up;
mod verify;
mod wal;

pub use access::{InvalidNetwork, Network};
pub use account::AccountError;
pub use archive::ArchiveError;
pub use archiver::ArchiverStatus;
pub use backup::{BackupError, BackupOptions};
pub use binaries::BinariesError;
pub use catalog::RestoreTarget;
pub use cluster::LocalCluster;
pub use command::CommandError;
pub use condition::Condition;
pub use credentials::{Credentials, Login};
pub use description::Backup;
pub use error::{DownError, NodeError, OpenError, UnknownNode, UpError};
pub use fence::FenceError;
pub use follow::Unfollowed;
pub use fragments::{Fragment, production_settings};
pub use layout::DirectoryError;
pub use node::NodeRecord;
pub use operation::OperationError;
pub use options::ClusterOptions;
pub use ports::PortError;
pub use position::{InvalidLsn, InvalidMoment, Lsn, Moment};
pub use progress::{LineProgress, Progress, SilentProgress, SpinnerProgress, progress_on_stderr};
pub use promote::{PromoteError, Promotion};
pub use provision::ProvisionError;
pub use rejoin::{RejoinError, Rejoined};
pub use removal::RemoveReplicaError;
pub use replica::AddReplicaError;
pub use restore::{RestoreError, RestoreOptions, Restored};
pub use server::ServerError;
pub use settings::{Setting, shared_settings};
pub use slot::SlotStatus;
pub use source::SourceError;
pub use sql::SqlError;
pub use status::{ClusterStatus, NodeRole, NodeState, NodeStatus, StandbyStatus};
pub use switchover::SwitchoverError;
pub use sync::{SyncError, SyncMode};
pub use verify::{Difference, TableSum, Verification, VerifyError};
