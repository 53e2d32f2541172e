//! What an error says about the node. The only place of this crate that looks into a driver's error.

use routing_core::{Access, Fault};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};

use crate::error::{Error, NotWritable};

pub(crate) fn of_error(error: &Error, access: Access) -> Option<Fault> {
    match error {
        // The router has dealt with the node already.
        Error::Route(_) | Error::CommitUnknown(_) => None,
        Error::Saturated => Some(Fault::Saturated),
        Error::Unresponsive(_) => Some(Fault::Unresponsive),
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
        E::Database(error) => error.code().and_then(|code| of_sqlstate(&code, access)),
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

/// The table of SQLSTATEs (manual, appendix "PostgreSQL Error Codes").
fn of_sqlstate(code: &str, access: Access) -> Option<Fault> {
    match (code, access) {
        // admin_shutdown, crash_shutdown: the session is gone.
        ("57P01" | "57P02", _) => Some(Fault::Unreachable),
        // cannot_connect_now, too_many_connections.
        ("57P03" | "53300", _) => Some(Fault::Refusing),
        // connection_exception and all of its class.
        (code, _) if code.starts_with("08") => Some(Fault::Unreachable),
        // serialization_failure, deadlock_detected: on a standby this is how recovery cancels a statement.
        ("40001" | "40P01", _) => Some(Fault::Conflict),
        // read_only_sql_transaction.
        ("25006", Access::Write) => Some(Fault::NotPrimary),
        ("25006", Access::Read) => Some(Fault::Misrouted),
        // feature_not_supported, object_not_in_prerequisite_state: "not possible during recovery".
        ("0A000" | "55000", Access::Read) => Some(Fault::Misrouted),
        _ => None,
    }
}

/// Whether the connection cannot be used after this error.
pub(crate) fn ends_connection(error: &sqlx::Error) -> bool {
    matches!(of_driver(error, Access::Read), Some(Fault::Unreachable | Fault::Refusing | Fault::Unresponsive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_says_what_the_table_says() {
        use Access::{Read, Write};
        let table = [
            ("57P01", Read, Some(Fault::Unreachable)),
            ("57P02", Write, Some(Fault::Unreachable)),
            ("08006", Read, Some(Fault::Unreachable)),
            ("08P01", Write, Some(Fault::Unreachable)),
            ("57P03", Read, Some(Fault::Refusing)),
            ("53300", Read, Some(Fault::Refusing)),
            ("40001", Read, Some(Fault::Conflict)),
            ("40P01", Write, Some(Fault::Conflict)),
            ("25006", Read, Some(Fault::Misrouted)),
            ("25006", Write, Some(Fault::NotPrimary)),
            ("0A000", Read, Some(Fault::Misrouted)),
            ("0A000", Write, None),
            ("55000", Read, Some(Fault::Misrouted)),
            ("55000", Write, None),
            // The query's own affair: a successful use of the node.
            ("57014", Read, None),
            ("23505", Write, None),
            ("42P01", Read, None),
            ("25P02", Write, None),
            ("53100", Write, None),
            ("28P01", Read, None),
        ];
        for (code, access, fault) in table {
            assert_eq!(of_sqlstate(code, access), fault, "{code} {access}");
        }
    }

    #[test]
    fn io_is_a_fault_and_a_missing_row_is_none() {
        let io = sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert_eq!(of_driver(&io, Access::Read), Some(Fault::Unreachable));
        assert_eq!(of_driver(&sqlx::Error::RowNotFound, Access::Read), None);
        let refused = sqlx::Error::AnyDriverError(Box::new(NotWritable::InRecovery));
        assert_eq!(of_driver(&refused, Access::Write), Some(Fault::NotPrimary));
    }
}
