//! What tests measured, in one form, so that the figures of a run can be gathered into a table.

use std::time::Duration;

use crate::orm::Orm;

/// Prints one measured time: `gap | scenario | ORM | what | 123 ms`.
pub fn gap<O: Orm>(scenario: &str, what: &str, took: Duration) {
    eprintln!("gap | {scenario} | {} | {what} | {} ms", O::NAME, took.as_millis());
}

/// Prints one counted number: `count | scenario | ORM | what | 123`.
pub fn count<O: Orm>(scenario: &str, what: &str, number: usize) {
    eprintln!("count | {scenario} | {} | {what} | {number}", O::NAME);
}
