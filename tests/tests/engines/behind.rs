//! What the tests of all engines share.

mod auto_failover;
mod change;
mod etcd;
mod members;
mod split_brain;

use std::time::Duration;

use routing_core::{Consistency, Router, RouterConfig};
use routing_tests::{Orm, PATIENCE, Readers, Tally};

/// How many write and how many read: enough that each moment of a failover meets some.
const WRITERS: usize = 10;
const READERS: usize = 20;

/// Requests wait for as long as a busy machine may take. How long they did wait is printed.
fn patient() -> RouterConfig {
    RouterConfig { write_wait: PATIENCE, acquire_deadline: PATIENCE, ..RouterConfig::default() }
}

/// Readers that ask for no more than any replica can give: no failover may cost them an error.
fn readers<O: Orm>(router: &Router<O>) -> Readers {
    let levels = [Consistency::Eventual, Consistency::Session];
    Readers::start_with(router, READERS, &levels, Duration::from_millis(100))
}

fn assert_no_errors(tally: &Tally) {
    let (count, first) = (tally.errors.len(), tally.errors.first());
    assert_eq!(count, 0, "{count} errors beside {} answers, the first: {first:?}", tally.total());
}
