//! The steps of a transaction.

use diesel::result::Error as DieselError;
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use routing_core::Access;

/// Begins a transaction: READ ONLY for reading, whatever the session's default.
pub(crate) async fn begin(connection: &mut AsyncPgConnection, access: Access) -> Result<(), DieselError> {
    match access {
        Access::Read => AnsiTransactionManager::begin_transaction_sql(connection, "BEGIN READ ONLY").await,
        Access::Write => AnsiTransactionManager::begin_transaction(connection).await,
    }
}

/// Commits it.
pub(crate) async fn commit(connection: &mut AsyncPgConnection) -> Result<(), DieselError> {
    AnsiTransactionManager::commit_transaction(connection).await
}

/// Rolls it back.
pub(crate) async fn rollback(connection: &mut AsyncPgConnection) -> Result<(), DieselError> {
    AnsiTransactionManager::rollback_transaction(connection).await
}
