//! Failover engines as they are: Patroni on etcd, and `pg_auto_failover`, as plain processes of this machine.
//!
//! Each lives in a [`Place`] of its own and ends with it, whatever it has started meanwhile. Faults are signals to single
//! processes. What they need is installed by `./test --ha`.

mod agent;
mod auto_failover;
mod patroni;
mod patroni_api;
mod patroni_config;
mod pgbouncer;
mod place;

pub use agent::Agent;
pub use auto_failover::AutoFailoverCluster;
pub use patroni::{NAMES, PatroniCluster, PatroniSettings};
pub use pgbouncer::PgBouncers;
pub use place::{Place, kill};

/// What the environment must name: `./test --ha` does.
fn program(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run these tests by ./test --ha"))
}
