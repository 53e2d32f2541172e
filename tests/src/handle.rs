//! A request's handle, whichever ORM it is of.

use crate::orm::Orm;

/// What the tests do with a read handle or a write handle.
pub trait Handle<O: Orm>: Clone + Send + Sync + 'static {
    /// The first column of the only row. It must be a text.
    fn text(&self, sql: &str) -> impl Future<Output = Result<String, O::Failure>> + Send;

    /// Runs statements that return nothing, in one message without parameters.
    fn execute(&self, sql: &str) -> impl Future<Output = Result<(), O::Failure>> + Send;

    /// Runs one statement with one parameter, `$1`.
    fn execute_with(&self, sql: &str, parameter: &str)
    -> impl Future<Output = Result<(), O::Failure>> + Send;

    /// Stores a note, as code of this ORM does it.
    fn insert_note(&self, author: &str, text: &str) -> impl Future<Output = Result<(), O::Failure>> + Send;

    /// Runs statements in one transaction, as [`text`](Self::text) does, and commits; returns their texts.
    fn transaction(
        &self,
        statements: &[&str],
    ) -> impl Future<Output = Result<Vec<String>, O::Failure>> + Send;

    /// Runs statements in one transaction and rolls back.
    fn undone(&self, statements: &[&str]) -> impl Future<Output = Result<(), O::Failure>> + Send;

    /// What the request's last statement was served by.
    fn last_decision(&self) -> Option<routing_core::Decision>;
}
