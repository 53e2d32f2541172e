//! How a transaction begins.

use sea_orm::{AccessMode, IsolationLevel};

/// BEGIN with its characteristics, in one statement.
pub(crate) fn begin_sql(isolation: Option<IsolationLevel>, access: Option<AccessMode>) -> String {
    let mut sql = "BEGIN".to_owned();
    if let Some(isolation) = isolation {
        sql += match isolation {
            IsolationLevel::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
            IsolationLevel::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
            IsolationLevel::ReadUncommitted => " ISOLATION LEVEL READ UNCOMMITTED",
            IsolationLevel::Serializable => " ISOLATION LEVEL SERIALIZABLE",
        };
    }
    if let Some(access) = access {
        sql += match access {
            AccessMode::ReadOnly => " READ ONLY",
            AccessMode::ReadWrite => " READ WRITE",
        };
    }
    sql
}

/// What the three types that begin transactions have in common, over their own `begin_as(isolation, access)`.
macro_rules! begins_transactions {
    ($handle:ty) => {
        impl $handle {
            /// PostgreSQL. It saves a qualified call where both traits that have this method are in scope.
            #[must_use]
            pub fn get_database_backend(&self) -> sea_orm::DbBackend {
                sea_orm::DbBackend::Postgres
            }

            /// `TransactionTrait::transaction` for an async closure.
            ///
            /// # Errors
            /// The closure's, or that of a step of the transaction.
            pub async fn transaction_async<F, T, E>(
                &self,
                callback: F,
            ) -> Result<T, sea_orm::TransactionError<E>>
            where
                F: for<'c> AsyncFnOnce(&'c $crate::RoutedTransaction) -> Result<T, E> + Send,
                T: Send,
                E: std::fmt::Display + std::fmt::Debug + Send,
            {
                let begun = self.begin_as(None, None).await;
                let transaction = begun.map_err(sea_orm::TransactionError::Connection)?;
                let outcome = callback(&transaction).await;
                transaction.conclude(outcome).await
            }
        }

        #[async_trait::async_trait]
        impl sea_orm::TransactionTrait for $handle {
            type Transaction = $crate::RoutedTransaction;

            async fn begin(&self) -> Result<$crate::RoutedTransaction, sea_orm::DbErr> {
                self.begin_as(None, None).await
            }

            async fn begin_with_config(
                &self,
                isolation: Option<sea_orm::IsolationLevel>,
                access: Option<sea_orm::AccessMode>,
            ) -> Result<$crate::RoutedTransaction, sea_orm::DbErr> {
                self.begin_as(isolation, access).await
            }

            async fn begin_with_options(
                &self,
                options: sea_orm::TransactionOptions,
            ) -> Result<$crate::RoutedTransaction, sea_orm::DbErr> {
                self.begin_as(options.isolation_level, options.access_mode).await
            }

            async fn transaction<F, T, E>(&self, callback: F) -> Result<T, sea_orm::TransactionError<E>>
            where
                F: for<'c> FnOnce(
                        &'c $crate::RoutedTransaction,
                    )
                        -> std::pin::Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
                    + Send,
                T: Send,
                E: std::fmt::Display + std::fmt::Debug + Send,
            {
                self.transaction_with_config(callback, None, None).await
            }

            async fn transaction_with_config<F, T, E>(
                &self,
                callback: F,
                isolation: Option<sea_orm::IsolationLevel>,
                access: Option<sea_orm::AccessMode>,
            ) -> Result<T, sea_orm::TransactionError<E>>
            where
                F: for<'c> FnOnce(
                        &'c $crate::RoutedTransaction,
                    )
                        -> std::pin::Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>
                    + Send,
                T: Send,
                E: std::fmt::Display + std::fmt::Debug + Send,
            {
                let begun = self.begin_as(isolation, access).await;
                let transaction = begun.map_err(sea_orm::TransactionError::Connection)?;
                let outcome = callback(&transaction).await;
                transaction.conclude(outcome).await
            }
        }
    };
}

pub(crate) use begins_transactions;
