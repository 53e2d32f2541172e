//! What an error says about the node. The only place of this crate that looks into a driver's error.
//!
//! Diesel keeps eight SQLSTATEs and hides the rest as `Unknown`, whose text depends on the server's language. Nothing is
//! read out of texts: what Diesel hides, the connection itself knows (see `Backend::diagnose`).

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use routing_core::{Access, Fault};
use tokio_postgres::error::Severity;

use crate::error::{ConnectError, Error, is_refused_password};

pub(crate) fn of_error(error: &Error, access: Access) -> Option<Fault> {
    match error {
        // The router has dealt with the node already.
        Error::Route(_) | Error::CommitUnknown(_) => None,
        Error::Saturated => Some(Fault::Saturated),
        Error::Unresponsive => Some(Fault::Unresponsive),
        Error::Closed => Some(Fault::Unreachable),
        Error::Connect(error) => of_connect(error, access),
        Error::Database(error) => of_diesel(error, access),
    }
}

pub(crate) fn of_connect(error: &ConnectError, access: Access) -> Option<Fault> {
    match error {
        ConnectError::Io(_) | ConnectError::Tls(_) => Some(Fault::Unreachable),
        // Our own files and passwords: the node is not to blame.
        ConnectError::Url(_) | ConnectError::Password(_) => None,
        ConnectError::Postgres(error) => of_driver(error, access),
        ConnectError::Setup(diesel::ConnectionError::CouldntSetupConfiguration(error)) => {
            of_diesel(error, access)
        }
        ConnectError::Setup(_) => None,
        ConnectError::NotWritable(_) => Some(Fault::NotPrimary),
    }
}

/// An error of the driver, which shows its SQLSTATE.
pub(crate) fn of_driver(error: &tokio_postgres::Error, access: Access) -> Option<Fault> {
    match error.as_db_error() {
        // The node answers and is well; nobody is let in with this password.
        Some(said) if is_refused_password(said) => None,
        Some(said) => {
            let fatal = match said.parsed_severity() {
                Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
                // A pooler's own errors have only the field that a server translates; a pooler does not.
                None => matches!(said.severity(), "FATAL" | "PANIC"),
            };
            Fault::of_server_error(said.code().code(), fatal, access)
        }
        // The server said nothing: the connection failed. A bad parameter of the URL is found at the start.
        None => Some(Fault::Unreachable),
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn of_diesel(error: &DieselError, access: Access) -> Option<Fault> {
    use DatabaseErrorKind as Kind;
    match error {
        DieselError::DatabaseError(kind, _) => match kind {
            Kind::SerializationFailure => Some(Fault::Conflict),
            Kind::ReadOnlyTransaction => Fault::of_server_error("25006", false, access),
            Kind::ClosedConnection => Some(Fault::Unreachable),
            // Nothing came back, for whatever reason: a probe tells more than a guess. (Also said of a statement that could
            // not be sent at all; the connection itself knows, see `Backend::diagnose`.)
            Kind::UnableToSendCommand => Some(Fault::Unresponsive),
            Kind::UniqueViolation
            | Kind::ForeignKeyViolation
            | Kind::RestrictViolation
            | Kind::NotNullViolation
            | Kind::CheckViolation
            | Kind::ExclusionViolation
            | Kind::Unknown => None,
            // The enum is open; a kind that Diesel adds says nothing until it is looked at.
            _ => None,
        },
        DieselError::BrokenTransactionManager => Some(Fault::Unresponsive),
        DieselError::RollbackErrorOnCommit { commit_error, .. } => of_diesel(commit_error, access),
        DieselError::InvalidCString(_)
        | DieselError::NotFound
        | DieselError::QueryBuilderError(_)
        | DieselError::DeserializationError(_)
        | DieselError::SerializationError(_)
        | DieselError::RollbackTransaction
        | DieselError::AlreadyInTransaction
        | DieselError::NotInTransaction
        | DieselError::IntegerConversion(_) => None,
        // As above.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(kind: DatabaseErrorKind) -> DieselError {
        DieselError::DatabaseError(kind, Box::new("in any language".to_owned()))
    }

    #[test]
    fn each_kind_says_what_it_can() {
        use Access::{Read, Write};
        let table = [
            (database(DatabaseErrorKind::SerializationFailure), Read, Some(Fault::Conflict)),
            (database(DatabaseErrorKind::ReadOnlyTransaction), Read, Some(Fault::Misrouted)),
            (database(DatabaseErrorKind::ReadOnlyTransaction), Write, Some(Fault::NotPrimary)),
            (database(DatabaseErrorKind::ClosedConnection), Read, Some(Fault::Unreachable)),
            (database(DatabaseErrorKind::UnableToSendCommand), Read, Some(Fault::Unresponsive)),
            (database(DatabaseErrorKind::Unknown), Read, None),
            (database(DatabaseErrorKind::UniqueViolation), Write, None),
            (DieselError::NotFound, Read, None),
        ];
        for (error, access, fault) in table {
            assert_eq!(of_diesel(&error, access), fault, "{error:?} {access}");
        }
    }

    #[test]
    fn a_server_that_is_not_to_be_written_to_is_not_the_primary() {
        let error = Error::Connect(routing_core::NotWritable::InRecovery.into());
        assert_eq!(of_error(&error, Access::Write), Some(Fault::NotPrimary));
        let error = Error::Connect(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
        assert_eq!(of_error(&error, Access::Read), Some(Fault::Unreachable));
    }
}
