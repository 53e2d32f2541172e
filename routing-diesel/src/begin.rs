//! How a transaction begins.

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
