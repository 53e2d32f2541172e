//! How a transaction ends.

use crate::connection::Connection;
use crate::error::made_here;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};

/// Commits it. The server would answer the COMMIT of a transaction in which a statement has failed with a rollback, and
/// call that a success; here it is an error, and the transaction is rolled back.
pub(crate) async fn commit(connection: &mut Connection) -> Result<(), DieselError> {
    // The end of an error's answer comes behind the error.
    connection.settle().await?;
    if connection.wire().transaction_failed() {
        rollback(connection).await?;
        let message = "a statement failed in the transaction: it was rolled back, not committed";
        return Err(made_here(DatabaseErrorKind::Unknown, message));
    }
    let inner: &mut AsyncPgConnection = connection;
    AnsiTransactionManager::commit_transaction(inner).await?;
    connection.settle().await?;
    if connection.wire().in_transaction() {
        // A nested transaction was dropped midway: Diesel has ended that one.
        let message = "a nested transaction was left without an end: all was rolled back, nothing committed";
        return Err(made_here(DatabaseErrorKind::Unknown, message));
    }
    Ok(())
}

/// Rolls it back.
pub(crate) async fn rollback(connection: &mut AsyncPgConnection) -> Result<(), DieselError> {
    AnsiTransactionManager::rollback_transaction(connection).await
}
