//! What an error says about the node. The only place of this crate that looks into a driver's error.

use routing_core::{Access, Fault, NotWritable, Passwords};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::error::Error;

pub(crate) fn of_error(error: &Error, access: Access) -> Option<Fault> {
    match error {
        // The router has dealt with the node already.
        Error::Route(_) | Error::CommitUnknown(_) => None,
        Error::Saturated => Some(Fault::Saturated),
        Error::Unresponsive => Some(Fault::Unresponsive),
        Error::Closed => Some(Fault::Unreachable),
        Error::Database(error) => of_database(error, access),
    }
}

pub(crate) fn of_database(error: &DbErr, access: Access) -> Option<Fault> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => of_driver(error, access),
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => Some(Fault::Saturated),
        DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => Some(Fault::Unreachable),
        // SeaORM's own: the server has answered.
        _ => None,
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn of_driver(error: &sqlx::Error, access: Access) -> Option<Fault> {
    use sqlx::Error as E;
    match error {
        // The node answers and is well; nobody is let in with this password.
        E::Database(error) if is_refused_password(&**error) => None,
        E::Database(error) => {
            error.code().and_then(|code| Fault::of_server_error(&code, is_fatal(&**error), access))
        }
        E::Io(_) | E::Tls(_) | E::WorkerCrashed | E::PoolClosed => Some(Fault::Unreachable),
        // The stream is out of step with the protocol: what comes next on it cannot be trusted.
        E::Protocol(_) => Some(Fault::Unreachable),
        E::PoolTimedOut => Some(Fault::Saturated),
        E::AnyDriverError(source) => {
            if source.is::<NotWritable>() {
                Some(Fault::NotPrimary)
            } else {
                source.downcast_ref::<Error>().and_then(|error| of_error(error, access))
            }
        }
        E::Configuration(_)
        | E::InvalidArgument(_)
        | E::RowNotFound
        | E::TypeNotFound { .. }
        | E::ColumnIndexOutOfBounds { .. }
        | E::ColumnNotFound(_)
        | E::ColumnDecode { .. }
        | E::Encode(_)
        | E::Decode(_)
        | E::InvalidSavePointStatement
        | E::BeginFailed => None,
        // The enum is open, so the compiler wants the last arm: a variant that sqlx adds says nothing until it is looked
        // at, and the lint above then names it here.
        E::Migrate(_) | _ => None,
    }
}

/// Whether the server did not take the password.
pub(crate) fn is_refused_password(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|sqlstate| Passwords::is_refusal(&sqlstate, error.message()))
}

fn is_fatal(error: &dyn DatabaseError) -> bool {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// Whether the connection is better closed when it comes back: after "cached plan must not change result type" (0A000)
/// sqlx would go on using the prepared statement.
pub(crate) fn spoils_statement(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("0A000")
}

/// Whether it says "cached plan must not change result type": the connection's prepared statement is out of date, wherever it
/// runs. The server's function that says so tells it from what no standby can run, in every language.
pub(crate) fn is_stale_plan(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    let said = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    said.is_some_and(|said| said.code() == "0A000" && said.routine() == Some("RevalidateCachedQuery"))
}

/// Whether the connection cannot be used after this error.
pub(crate) fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => is_fatal(&**error),
        _ => of_driver(error, Access::Read).is_some_and(Fault::ends_connection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_a_fault_and_a_missing_row_is_none() {
        let io = sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert_eq!(of_driver(&io, Access::Read), Some(Fault::Unreachable));
        assert_eq!(of_driver(&sqlx::Error::RowNotFound, Access::Read), None);
        let refused = sqlx::Error::AnyDriverError(Box::new(NotWritable::InRecovery));
        assert_eq!(of_driver(&refused, Access::Write), Some(Fault::NotPrimary));
    }
}
