//! Why a server was not reached, or did not let a replication connection in: what libpq said, and what to do.

use crate::command::{CommandError, quoted};

/// Why a server was not reached, or did not do what a replication connection asked. Every variant repeats what libpq or
/// the server said.
///
/// Before a login the protocol gives a program no code, only words. They are known in English; a server that
/// speaks another language is quoted as it is ([`UpstreamError::Other`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The host's name leads to no address.
    #[error("the name of {at} leads nowhere: correct the host, or this host's resolver{}", quoted(.said))]
    UnknownHost {
        /// Host and port.
        at: String,
        /// What libpq said.
        said: String,
    },
    /// The host answers, and nothing listens on the port.
    #[error(
        "nothing listens on {at}: start the server there, correct the port, or let it listen on that address (listen_addresses){}",
        quoted(.said)
    )]
    NothingListens {
        /// Host and port.
        at: String,
        /// What libpq said.
        said: String,
    },
    /// The host, or the server on it, does not answer.
    #[error(
        "no answer from {at}: the host is down, a firewall drops what is sent there, or the server hangs{}",
        quoted(.said)
    )]
    Silent {
        /// Host and port.
        at: String,
        /// What libpq said.
        said: String,
    },
    /// The two sides found no encryption that both take.
    #[error(
        "no encrypted connection to {at} as the URL asks for it: see its sslmode and sslrootcert, and the server's ssl and certificate{}",
        quoted(.said)
    )]
    Encryption {
        /// Host and port.
        at: String,
        /// What libpq said.
        said: String,
    },
    /// The server did not believe who this is.
    #[error(
        "{at} did not accept the role or its password: see the user in the URL, and PGPASSFILE, ~/.pgpass or PGPASSWORD (a password file's database is `replication`){}",
        quoted(.said)
    )]
    Authentication {
        /// Host and port.
        at: String,
        /// What the server said.
        said: String,
    },
    /// The server's rules let no replication connection in from here.
    #[error(
        "the rules of {at} let no replication connection in from here: add a line like `hostssl replication ROLE ADDRESS/32 scram-sha-256` to its pg_hba.conf, and reload it (pg_ctl reload){}",
        quoted(.said)
    )]
    AccessRules {
        /// Host and port.
        at: String,
        /// What the server said.
        said: String,
    },
    /// The role is let in, but not to replicate.
    #[error("the role may not replicate from {at}: ALTER ROLE … REPLICATION there{}", quoted(.said))]
    NotReplication {
        /// Host and port.
        at: String,
        /// What the server said.
        said: String,
    },
    /// All places for standbys, or for clients, are taken. A base backup needs two.
    #[error(
        "{at} has no room for the two connections of a base backup: raise max_wal_senders (or max_connections) there, or end what is not needed{}",
        quoted(.said)
    )]
    NoRoom {
        /// Host and port.
        at: String,
        /// What the server said.
        said: String,
    },
    /// All slots are taken.
    #[error("{at} has no room for another slot: raise max_replication_slots there, or drop one{}", quoted(.said))]
    NoSlotFree {
        /// Host and port.
        at: String,
        /// What the server said.
        said: String,
    },
    /// The server is there, and lets nobody in yet or any more.
    #[error("{at} is starting or stopping: wait, then repeat{}", quoted(.said))]
    NotReady {
        /// Host and port.
        at: String,
        /// What the server said.
        said: String,
    },
    /// Something else was refused.
    #[error("{at} refused{}", quoted(.said))]
    Other {
        /// Host and port.
        at: String,
        /// What libpq or the server said.
        said: String,
    },
    /// `psql` itself could not be run.
    #[error(transparent)]
    Client(CommandError),
    /// The server's answer is not one that this protocol knows.
    #[error("{at} answered {answer:?}, which is no answer of a PostgreSQL server")]
    Answer {
        /// Host and port.
        at: String,
        /// What came instead.
        answer: String,
    },
}

/// What a refusal is known by. The first that fits counts: rules are asked before passwords, and their message also
/// speaks of encryption.
const KNOWN: [(&[&str], Make); 10] = [
    (&["53400: "], |at, said| UpstreamError::NoSlotFree { at, said }),
    (&["no pg_hba.conf entry", "pg_hba.conf rejects"], |at, said| UpstreamError::AccessRules { at, said }),
    (
        &["must be superuser or replication role", "permission denied to start WAL sender", "42501: "],
        |at, said| UpstreamError::NotReplication { at, said },
    ),
    (
        &[
            "requested standby connections exceeds",
            "too many clients",
            "too many connections",
            "connection slots are reserved",
        ],
        |at, said| UpstreamError::NoRoom { at, said },
    ),
    (&["the database system is", "terminating connection due to"], |at, said| UpstreamError::NotReady {
        at,
        said,
    }),
    (
        &["authentication failed", "no password supplied", "FATAL:  role \"", "is not permitted to log in"],
        |at, said| UpstreamError::Authentication { at, said },
    ),
    (&["SSL", "certificate", "TLS"], |at, said| UpstreamError::Encryption { at, said }),
    (&["could not translate host name"], |at, said| UpstreamError::UnknownHost { at, said }),
    (
        &[
            "timeout expired",
            "timed out",
            "No route to host",
            "Network is unreachable",
            "Host is down",
            "server closed the connection unexpectedly",
        ],
        |at, said| UpstreamError::Silent { at, said },
    ),
    (&["Connection refused"], |at, said| UpstreamError::NothingListens { at, said }),
];

type Make = fn(String, String) -> UpstreamError;

impl UpstreamError {
    /// Sorts what `psql` said of a connection to `at`.
    pub(super) fn sort(at: &str, said: &str) -> UpstreamError {
        let (at, said) = (at.to_owned(), said.to_owned());
        match KNOWN.iter().find(|(words, _)| words.iter().any(|word| said.contains(word))) {
            Some((_, make)) => make(at, said),
            None => UpstreamError::Other { at, said },
        }
    }

    /// Why a run of `psql` failed.
    pub(super) fn of_program(at: &str, error: CommandError) -> UpstreamError {
        match error {
            CommandError::Failed { output, .. } => UpstreamError::sort(at, &without_locations(&output)),
            // It was connected, or as good as: a server that takes connections and then says nothing.
            CommandError::TimedOut { output, .. } => {
                UpstreamError::Silent { at: at.to_owned(), said: without_locations(&output) }
            }
            other @ CommandError::Spawn { .. } => UpstreamError::Client(other),
        }
    }

    /// Whether it is proven that no server runs where the connection led: every address of the host has refused it.
    pub(super) fn proves_nothing_listens(&self) -> bool {
        let UpstreamError::NothingListens { said, .. } = self else { return false };
        let mut attempts = said.lines().filter(|line| line.contains("failed: ")).peekable();
        attempts.peek().is_some() && attempts.all(|line| line.contains("failed: Connection refused"))
    }

    /// Whether a server's own SQLSTATE stands in what it said.
    pub(super) fn has_code(&self, code: &str) -> bool {
        match self {
            UpstreamError::Other { said, .. }
            | UpstreamError::Authentication { said, .. }
            | UpstreamError::NotReplication { said, .. } => said.contains(&format!("{code}: ")),
            _ => false,
        }
    }
}

/// The words without the place in the server's source code, which codes come with.
fn without_locations(said: &str) -> String {
    let kept = said.lines().filter(|line| !line.trim_start().starts_with("LOCATION: "));
    kept.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::{io, process::ExitStatus, time::Duration};

    use super::*;

    /// The variant's name.
    fn sorted(said: &str) -> String {
        let shown = format!("{:?}", UpstreamError::sort("h, port 1", said));
        shown.split([' ', '(']).next().unwrap().to_owned()
    }

    #[test]
    fn every_refusal_is_known_by_its_words() {
        let failed = |why: &str| {
            format!("  psql: error: connection to server at \"h\" (10.0.0.1), port 5432 failed: {why}")
        };
        for (said, expected) in [
            (
                "  psql: error: could not translate host name \"h\" to address: Name or service not known"
                    .to_owned(),
                "UnknownHost",
            ),
            (failed("Connection refused\n  \tIs the server running on that host?"), "NothingListens"),
            (failed("timeout expired"), "Silent"),
            (failed("No route to host"), "Silent"),
            (failed("server does not support SSL, but SSL was required"), "Encryption"),
            (failed("SSL error: certificate verify failed"), "Encryption"),
            (
                failed(
                    "root certificate file \"/x\" does not exist\n  Either provide the file or change sslmode",
                ),
                "Encryption",
            ),
            (failed("FATAL:  password authentication failed for user \"r\""), "Authentication"),
            (failed("fe_sendauth: no password supplied"), "Authentication"),
            (failed("FATAL:  role \"r\" does not exist"), "Authentication"),
            (
                failed(
                    "FATAL:  no pg_hba.conf entry for replication connection from host \"10.0.0.2\", user \"r\", SSL encryption",
                ),
                "AccessRules",
            ),
            (failed("FATAL:  must be superuser or replication role to start walsender"), "NotReplication"),
            (
                failed(
                    "FATAL:  permission denied to start WAL sender\n  DETAIL:  Only roles with the REPLICATION attribute",
                ),
                "NotReplication",
            ),
            (
                failed(
                    "FATAL:  number of requested standby connections exceeds max_wal_senders (currently 10)",
                ),
                "NoRoom",
            ),
            (
                failed(
                    "FATAL:  number of requested standby connections exceeds \"max_wal_senders\" (currently 1)",
                ),
                "NoRoom",
            ),
            (failed("FATAL:  sorry, too many clients already"), "NoRoom"),
            (failed("FATAL:  the database system is starting up"), "NotReady"),
            ("  ERROR:  53400: all replication slots are in use".to_owned(), "NoSlotFree"),
            (failed("FATAL:  Passwort-Authentifizierung für Benutzer »r« fehlgeschlagen"), "Other"),
        ] {
            assert_eq!(sorted(&said), expected, "{said}");
        }
    }

    #[test]
    fn only_refusals_from_every_address_prove_that_nothing_listens() {
        let failed = |address: &str, why: &str| {
            format!(
                "connection to server at \"h\" ({address}), port 5432 failed: {why}\n\tIs the server running?\n"
            )
        };
        let proves = |said: &str| UpstreamError::sort("h", said).proves_nothing_listens();
        assert!(proves(&failed("10.0.0.1", "Connection refused")));
        assert!(proves(&(failed("::1", "Connection refused") + &failed("127.0.0.1", "Connection refused"))));
        assert!(!proves(
            &(failed("::1", "Cannot assign requested address") + &failed("127.0.0.1", "Connection refused"))
        ));
        assert!(!proves(
            &(failed("10.0.0.1", "timeout expired") + &failed("10.0.0.2", "Connection refused"))
        ));
        assert!(!proves("Connection refused"));
    }

    #[test]
    fn codes_are_found_and_places_in_the_source_are_not_shown() {
        let failed = CommandError::Failed {
            program: "psql".to_owned(),
            status: ExitStatus::default(),
            output: "  ERROR:  55006: replication slot \"s\" is active for PID 7\n  LOCATION:  f, slot.c:1"
                .to_owned(),
        };
        let error = UpstreamError::of_program("h", failed);
        assert!(error.has_code("55006") && !error.has_code("42704"));
        assert_eq!(
            error.to_string(),
            "h refused:\n  ERROR:  55006: replication slot \"s\" is active for PID 7"
        );
        let spawn = CommandError::Spawn { program: "psql".to_owned(), source: io::Error::other("x") };
        assert!(matches!(UpstreamError::of_program("h", spawn), UpstreamError::Client(_)));
        let slow = CommandError::TimedOut {
            program: "psql".to_owned(),
            deadline: Duration::ZERO,
            output: String::new(),
        };
        assert!(matches!(UpstreamError::of_program("h", slow), UpstreamError::Silent { .. }));
    }
}
