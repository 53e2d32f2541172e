//! On a real host, where the other nodes are elsewhere: a standby that joins a primary, and one that takes over from it.
//!
//! [`join()`] does what a set-up script does, and [`promote`] what a failover script does. Both look first, refuse with the
//! reason and what to do, change nothing when they are repeated, and prove what they say. They talk to other nodes by
//! replication connections alone, so they need no login of their own there.
//!
//! # Words
//!
//! The *primary's URL* becomes a *connection string* (`conninfo`), with the *encryption* that the environment asks for; its
//! *password* is a *secret*. *Programs* of PostgreSQL are run as the servers' user; one of them is the *client* that asks
//! the *upstream*, whose answers may be *refusals*. A *data directory* has *control data*, a *configuration*, and a
//! *server*, which a *receiver* makes a streaming standby. To *join*, a *newcomer* takes a *copy*, whose *remains* the next
//! call finds when it was interrupted, and then lets it *follow*. A *promotion* looks at the *old primary* first, and *local SQL* tells it what is not replayed. A
//! *link* in a directory of the servers' user is not read through.

mod client;
mod configuration;
mod conninfo;
mod control_data;
mod copy;
mod data_directory;
mod encryption;
mod follow;
mod join;
mod join_error;
mod local_sql;
mod newcomer;
mod old_primary;
mod password;
mod primary_url;
mod programs;
mod promote_error;
mod promotion;
mod receiver;
mod refusal;
mod remains;
mod secret;
mod server;
mod upstream;

pub use conninfo::InvalidConninfo;
pub use copy::CopyError;
pub use data_directory::DataDirectoryError;
pub use join::{JoinOptions, Joined, JoinedBy, abandon, join};
pub use join_error::JoinError;
pub use password::PasswordError;
pub use primary_url::{InvalidPrimary, PrimaryUrl};
pub use promote_error::PromoteError;
pub use promotion::{Promoted, promote};
pub use refusal::UpstreamError;
pub use upstream::SlotError;
