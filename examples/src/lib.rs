//! A notes API, before and after it moves onto replicas.
//!
//! `diff` the two of a pair to see what moving takes: [`seaorm_before`] and [`seaorm_after`], [`diesel_before`] and
//! [`diesel_after`]. A test serves all four on one cluster and compares their answers.

pub mod diesel_after;
pub mod diesel_before;
pub mod seaorm_after;
pub mod seaorm_before;

mod error;
pub mod note;
mod schema;

pub use error::AppError;
