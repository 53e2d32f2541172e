//! What the bytes of a connection say about its session.
//!
//! A driver's error can hide the SQLSTATE that the server sent, and a dropped future does not tell whether the server
//! still works for it. The bytes do: this reads the frames of PostgreSQL's protocol 3 (manual, "Frontend/Backend
//! Protocol") as they pass in either direction, without changing them, and keeps what a pool must know. It is pure: an
//! adapter feeds it from around its socket.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::decision::Access;
use crate::fault::Fault;
use crate::frames::Frames;
use crate::sql::{controls_transaction, keeps_session_state};

/// The state of one session, shared between the socket and the pool.
#[derive(Debug, Default)]
pub struct Wire {
    /// Answers that the server owes: each Sync, simple query or function call is answered by one ReadyForQuery.
    owed: AtomicI64,
    /// The last ReadyForQuery's status: `I`dle, in a `T`ransaction, in a failed one (`E`). 0 before the first.
    status: AtomicU8,
    /// Commands completed during this lease.
    completed: AtomicU32,
    /// The driver has let go of the socket.
    ended: AtomicBool,
    /// A statement that may keep session state was sent since the last reset.
    keeps_state: AtomicBool,
    /// One was prepared: it can be run again unseen, so a reset does not clear this.
    prepared_state: AtomicBool,
    /// In the answer that is coming in: a row or a completed command was there already.
    answered: AtomicBool,
    /// An error came behind a row or a completed command: whoever took the row for a success was wrong.
    late_error: AtomicBool,
    /// During this lease the server ended the wait of a COMMIT for a synchronous standby.
    unreplicated: AtomicBool,
    /// The last error during this lease.
    last_error: Mutex<Option<ServerError>>,
}

/// What an ErrorResponse says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ServerError {
    sqlstate: [u8; 5],
    /// Its severity is FATAL or PANIC: the session is over.
    fatal: bool,
}

impl Wire {
    /// A session before its start-up message.
    #[must_use]
    pub fn new() -> Self {
        // The start-up is answered by a ReadyForQuery as well.
        Self { owed: AtomicI64::new(1), ..Self::default() }
    }

    /// A new lease begins: what earlier ones did is forgotten.
    pub fn begin_lease(&self) {
        self.completed.store(0, Relaxed);
        self.late_error.store(false, Relaxed);
        self.unreplicated.store(false, Relaxed);
        *self.error() = None;
    }

    /// What was sent so far counts as the session's own set-up: it keeps no state.
    pub fn set_up(&self) {
        self.keeps_state.store(false, Relaxed);
        self.prepared_state.store(false, Relaxed);
        self.begin_lease();
    }

    /// The session was brought back to how it started.
    pub fn was_reset(&self) {
        self.keeps_state.store(false, Relaxed);
    }

    /// The driver has let go of the socket.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Whether the driver has let go of the socket.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether the server owes an answer: it may still work.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.owed.load(Relaxed) > 0
    }

    /// Whether a transaction is open, be it failed.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        matches!(self.status.load(Relaxed), b'T' | b'E')
    }

    /// Whether a command was completed during this lease.
    #[must_use]
    pub fn has_completed(&self) -> bool {
        self.completed.load(Relaxed) > 0
    }

    /// Whether session state may have been set.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.keeps_state.load(Relaxed) || self.prepared_state.load(Relaxed)
    }

    /// Whether the open transaction has failed: its COMMIT would roll back, and report success.
    #[must_use]
    pub fn transaction_failed(&self) -> bool {
        self.status.load(Relaxed) == b'E'
    }

    /// Whether the last error of this lease is one after which a prepared statement stays unusable (0A000, "cached plan
    /// must not change result type").
    #[must_use]
    pub fn spoiled_statement(&self) -> bool {
        self.error().is_some_and(|error| &error.sqlstate == b"0A000")
    }

    /// Whether an error came behind a row or a completed command during this lease. It tells of nothing that is still to
    /// come: ask when the server owes nothing.
    #[must_use]
    pub fn failed_late(&self) -> bool {
        self.late_error.load(Relaxed)
    }

    /// Whether the server said during this lease that it ended the wait of a COMMIT for a synchronous standby.
    #[must_use]
    pub fn is_unreplicated(&self) -> bool {
        self.unreplicated.load(Relaxed)
    }

    /// What the end of the connection, or the last error of this lease, says about the node. An end comes first: what was
    /// sent before it says nothing about what was lost with it.
    #[must_use]
    pub fn fault(&self, access: Access) -> Option<Fault> {
        let error = *self.error();
        let said = error.and_then(|error| {
            Fault::of_server_error(std::str::from_utf8(&error.sqlstate).ok()?, error.fatal, access)
        });
        match (self.has_ended(), error) {
            (true, Some(error)) if error.fatal => said,
            (true, _) => Some(Fault::Unreachable),
            (false, _) => said,
        }
    }

    fn error(&self) -> std::sync::MutexGuard<'_, Option<ServerError>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self, kind: u8, body: &[u8]) {
        match kind {
            b'Z' => {
                self.status.store(body.first().copied().unwrap_or(0), Relaxed);
                self.answered.store(false, Relaxed);
                self.owed.fetch_sub(1, Relaxed);
            }
            b'D' => self.answered.store(true, Relaxed),
            b'C' => {
                self.answered.store(true, Relaxed);
                self.completed.fetch_add(1, Relaxed);
            }
            b'E' => {
                self.late_error.fetch_or(self.answered.load(Relaxed), Relaxed);
                *self.error() = server_error(body);
            }
            // The code of this warning is that of any other, and its text is in the server's language.
            b'N' if field(body, b"R") == Some(b"SyncRepWaitForLSN") => self.unreplicated.store(true, Relaxed),
            _ => {}
        }
    }

    fn sent(&self, kind: u8, body: &[u8], whole: bool) {
        match kind {
            b'Q' => {
                self.owed.fetch_add(1, Relaxed);
                if may_keep_state(body, whole) {
                    self.keeps_state.store(true, Relaxed);
                }
            }
            b'S' | b'F' => {
                self.owed.fetch_add(1, Relaxed);
            }
            // Parse: the name of the prepared statement, then its text.
            b'P' => {
                let text = body.iter().position(|byte| *byte == 0).map_or(body, |end| &body[end + 1..]);
                if may_keep_state(text, whole) {
                    self.prepared_state.store(true, Relaxed);
                }
            }
            _ => {}
        }
    }
}

/// Transactions are no state that a reset must find: the status of ReadyForQuery tells of them.
fn may_keep_state(text: &[u8], whole: bool) -> bool {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let sql = std::str::from_utf8(&text[..end]).ok().filter(|_| whole);
    sql.is_none_or(|sql| keeps_session_state(sql) && !controls_transaction(sql))
}

/// The fields of an ErrorResponse: each is a letter and a text that ends with a zero byte. `V` is the severity in English
/// whatever the server's language.
fn server_error(body: &[u8]) -> Option<ServerError> {
    // A pooler's own errors have only the field that a server translates; a pooler does not.
    let severity = field(body, b"V").or_else(|| field(body, b"S"));
    let fatal = matches!(severity, Some(b"FATAL" | b"PANIC"));
    Some(ServerError { sqlstate: field(body, b"C")?.try_into().ok()?, fatal })
}

/// A field of an error or a notice: `R` is the routine of the server that reports it.
fn field<'a>(body: &'a [u8], letter: &[u8]) -> Option<&'a [u8]> {
    body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(letter))
}

/// Reads what the server sends.
#[derive(Debug, Default)]
pub struct FromServer(Frames);

impl FromServer {
    /// Takes in the next bytes.
    pub fn feed(&mut self, bytes: &[u8], wire: &Wire) {
        let wanted = |kind| matches!(kind, b'Z' | b'E' | b'N');
        self.0.feed(bytes, wanted, |kind, body, _| wire.received(kind, body));
    }
}

/// Reads what the client sends.
#[derive(Debug)]
pub struct FromClient(Frames);

impl Default for FromClient {
    fn default() -> Self {
        Self(Frames::of_a_client())
    }
}

impl FromClient {
    /// Takes in the next bytes.
    pub fn feed(&mut self, bytes: &[u8], wire: &Wire) {
        let wanted = |kind| matches!(kind, b'Q' | b'P');
        self.0.feed(bytes, wanted, |kind, body, whole| wire.sent(kind, body, whole));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn startup() -> Vec<u8> {
        message(b'x', b"\0\x03\0\0user\0app\0\0")[1..].to_vec()
    }

    fn error(severity: &str, code: &str) -> Vec<u8> {
        message(b'E', format!("SFATAL\0V{severity}\0C{code}\0Mterminating\0\0").as_bytes())
    }

    /// A session that is open and idle.
    fn open() -> (Wire, FromClient, FromServer) {
        let (wire, mut client, mut server) = (Wire::new(), FromClient::default(), FromServer::default());
        assert!(wire.is_busy());
        client.feed(&startup(), &wire);
        server.feed(&[message(b'R', b"\0\0\0\0"), message(b'Z', b"I")].concat(), &wire);
        assert!(!wire.is_busy() && !wire.keeps_state());
        (wire, client, server)
    }

    #[test]
    fn it_knows_whether_a_commit_waited_in_vain_for_a_standby() {
        let (wire, mut client, mut server) = open();
        let warning = |routine: &str| {
            message(b'N', format!("SWARNUNG\0VWARNING\0C01000\0Mstorniere\0R{routine}\0\0").as_bytes())
        };
        client.feed(&message(b'Q', b"COMMIT\0"), &wire);
        server.feed(&warning("EndTransactionBlock"), &wire);
        assert!(!wire.is_unreplicated());
        server.feed(&warning("SyncRepWaitForLSN"), &wire);
        server.feed(&[message(b'C', b"COMMIT\0"), message(b'Z', b"I")].concat(), &wire);
        assert!(wire.is_unreplicated());
        wire.begin_lease();
        assert!(!wire.is_unreplicated());
    }

    #[test]
    fn it_knows_whether_an_answer_is_owed_and_whether_a_transaction_is_open() {
        let (wire, mut client, mut server) = open();
        client.feed(&message(b'Q', b"BEGIN\0"), &wire);
        assert!(wire.is_busy());
        server.feed(&[message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat(), &wire);
        assert!(!wire.is_busy() && wire.in_transaction() && wire.has_completed());

        let statement = [
            message(b'P', b"s1\0SELECT 1\0\0\0"),
            message(b'B', b""),
            message(b'E', b""),
            message(b'S', b""),
        ];
        client.feed(&statement.concat(), &wire);
        server.feed(&[error("ERROR", "40P01"), message(b'Z', b"E")].concat(), &wire);
        assert!(!wire.is_busy() && wire.in_transaction());
        assert_eq!(wire.fault(Access::Read), Some(Fault::Conflict));
        wire.begin_lease();
        assert_eq!((wire.fault(Access::Read), wire.has_completed()), (None, false));
    }

    #[test]
    fn it_sees_the_fatal_error_that_ends_a_session() {
        let (wire, mut client, mut server) = open();
        client.feed(&message(b'S', b""), &wire);
        server.feed(&error("FATAL", "57P01"), &wire);
        assert_eq!(wire.fault(Access::Write), Some(Fault::Unreachable));
        assert!(wire.is_busy());
    }

    #[test]
    fn a_pooler_that_has_lost_its_server_ends_the_session_too() {
        let (wire, _, mut server) = open();
        server.feed(&message(b'E', b"SFATAL\0C08P01\0Mserver conn crashed?\0\0"), &wire);
        assert_eq!(wire.fault(Access::Read), Some(Fault::Unreachable));
    }

    #[test]
    fn an_end_says_more_than_an_error_that_came_before() {
        let (wire, _, mut server) = open();
        server.feed(&error("ERROR", "40P01"), &wire);
        wire.end();
        assert_eq!(wire.fault(Access::Write), Some(Fault::Unreachable));
    }

    #[test]
    fn the_codes_of_a_lost_connection_mean_nothing_when_the_session_goes_on() {
        let (wire, _, mut server) = open();
        server.feed(&error("ERROR", "08006"), &wire);
        assert_eq!(wire.fault(Access::Read), None);
    }

    #[test]
    fn an_error_behind_a_row_is_told_from_one_that_came_first() {
        let (wire, _, mut server) = open();
        server.feed(&[error("ERROR", "23505"), message(b'Z', b"I")].concat(), &wire);
        assert!(!wire.failed_late());
        let row = [message(b'D', b"\0\0"), message(b'C', b"INSERT 0 1\0")].concat();
        server.feed(&row, &wire);
        assert!(!wire.failed_late());
        server.feed(&[error("ERROR", "23503"), message(b'Z', b"I")].concat(), &wire);
        assert!(wire.failed_late());
        wire.begin_lease();
        assert!(!wire.failed_late());
    }

    #[test]
    fn a_transaction_leaves_no_state_to_reset_and_a_reset_clears_all_but_what_was_prepared() {
        let (wire, mut client, _) = open();
        for sql in [&b"BEGIN\0"[..], b"COMMIT\0", b"SAVEPOINT a\0", b"\0"] {
            client.feed(&message(b'Q', sql), &wire);
        }
        assert!(!wire.keeps_state());
        client.feed(&message(b'Q', b"SET x = 1\0"), &wire);
        assert!(wire.keeps_state());
        wire.was_reset();
        assert!(!wire.keeps_state());
        client.feed(&message(b'P', b"s\0SET x = 1\0\0\0"), &wire);
        wire.was_reset();
        assert!(wire.keeps_state());
    }

    #[test]
    fn an_end_without_a_word_is_a_fault_as_well() {
        let (wire, _, _) = open();
        wire.end();
        assert_eq!(wire.fault(Access::Read), Some(Fault::Unreachable));
    }

    #[test]
    fn statements_that_keep_state_are_seen_prepared_or_not() {
        for (kind, body, keeps) in [
            (b'Q', &b"SELECT 1\0"[..], false),
            (b'Q', b"SET x = 1\0", true),
            (b'P', b"s7\0SELECT 1\0\0\0", false),
            (b'P', b"\0LISTEN c\0\0\0", true),
        ] {
            let (wire, mut client, _) = open();
            client.feed(&message(kind, body), &wire);
            assert_eq!(wire.keeps_state(), keeps, "{}", String::from_utf8_lossy(body));
        }
        let (wire, mut client, _) = open();
        client.feed(&message(b'Q', &vec![b' '; crate::frames::KEPT + 1]), &wire);
        assert!(wire.keeps_state(), "what is too long to look into is not trusted");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stream_is_cut(cuts in prop::collection::vec(1_usize..9, 1..200)) {
            let (wire, mut client, mut server) = open();
            let sent = [message(b'P', b"s\0SET x = 1\0\0\0"), message(b'S', b""), message(b'Q', b"BEGIN\0")].concat();
            let received = [message(b'1', b""), message(b'Z', b"I"), error("FATAL", "57P03"), message(b'Z', b"T")].concat();
            let mut cuts = cuts.iter().cycle();
            let mut pieces = |bytes: &[u8], feed: &mut dyn FnMut(&[u8])| {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (piece, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                    feed(piece);
                    rest = tail;
                }
            };
            pieces(&sent, &mut |piece| client.feed(piece, &wire));
            pieces(&received, &mut |piece| server.feed(piece, &wire));
            prop_assert!(!wire.is_busy() && wire.in_transaction() && wire.keeps_state());
            prop_assert_eq!(wire.fault(Access::Read), Some(Fault::Refusing));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (wire, mut client, mut server) = open();
            client.feed(&bytes, &wire);
            server.feed(&bytes, &wire);
        }
    }
}
