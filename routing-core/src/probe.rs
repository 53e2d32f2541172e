//! What the monitor asks a server, and what the answer means.
//!
//! Both queries run on the probe's own connection, outside every pool and transaction. A role with `pg_monitor` sees
//! everything; a plain LOGIN role sees NULL where this module says so, and the answer degrades instead of failing.
//! Every function is schema-qualified, so that no `search_path` can put another in its place.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::config::NodeConfig;
use crate::fault::Fault;
use crate::lsn::{Lsn, Position, SystemId, Timeline};

/// Asked once for each probe connection: what cannot change while that connection lives. One row of text columns.
///
/// Amazon Aurora is known by a function of its own: many of PostgreSQL's about the log exist there and fail, so none of them is
/// called.
pub const IDENTITY_SQL: &str = "SELECT CASE WHEN pg_catalog.to_regproc('aurora_version') IS NULL \
          THEN (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) ELSE '0' END, \
     pg_catalog.current_setting('server_version_num'), \
     pg_catalog.host(pg_catalog.inet_server_addr()), \
     pg_catalog.inet_server_port()::text, \
     EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())::text, \
     (pg_catalog.to_regproc('aurora_version') IS NOT NULL)::text";

/// Asked at every probe. One row of text columns.
///
/// The role is evaluated once (`OFFSET 0` keeps the planner from inlining it), so a promotion in the middle of the
/// statement cannot mix both branches into an error. The primary's timeline comes from the name of its current WAL
/// file, which is right at once after a promotion; `pg_control_checkpoint` is not. It reads the *flush* position: the
/// insert position can run ahead of anything that a standby will ever receive while the server idles.
pub const PROBE_SQL: &str = "SELECT s.r::text, \
     CASE WHEN s.r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END::text, \
     CASE WHEN s.r THEN pg_catalog.pg_last_wal_receive_lsn() END::text, \
     CASE WHEN s.r THEN w.received_tli::text \
          ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()), 1, 8) END, \
     (w.pid IS NOT NULL)::text, \
     w.status, \
     w.sender_host, \
     w.sender_port::text, \
     (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication)::text, \
     (pg_catalog.current_setting('transaction_read_only') = 'on')::text, \
     CASE WHEN NOT s.r THEN pg_catalog.pg_last_wal_replay_lsn() END::text \
 FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) s LEFT JOIN pg_catalog.pg_stat_wal_receiver w ON true";

/// Asked at every probe of a server of Amazon Aurora. The same columns as [`PROBE_SQL`], and the lag that Aurora claims.
///
/// Written from Aurora's documentation and tested on functions that stand for its own. All its servers share one storage, so
/// there is one timeline, and nobody streams from anybody; positions are not told.
pub const AURORA_PROBE_SQL: &str = "SELECT (s.session_id <> 'MASTER_SESSION_ID')::text, \
     CASE WHEN s.session_id = 'MASTER_SESSION_ID' THEN '0/1' END, \
     NULL::text, \
     CASE WHEN s.session_id = 'MASTER_SESSION_ID' THEN '00000001' ELSE '1' END, \
     'true', \
     NULL::text, \
     NULL::text, \
     NULL::text, \
     '0', \
     (pg_catalog.current_setting('transaction_read_only') = 'on')::text, \
     NULL::text, \
     CASE WHEN s.session_id = 'MASTER_SESSION_ID' THEN NULL ELSE s.replica_lag_in_msec END::text \
 FROM aurora_replica_status() s WHERE s.server_id = aurora_db_instance_identifier()";

/// One row of an answer as the server wrote it: a text for each column, `None` for NULL.
pub type Row = Vec<Option<String>>;

/// Opens probe connections. Implemented by each adapter over its own driver, and by the fake nodes of tests.
///
/// It is *not* responsible for deadlines, intervals or the meaning of an answer: the monitor drops a future that takes
/// too long.
pub trait Prober: Send + Sync + 'static {
    /// Opens a connection to the node's `probe_url`.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the connection; nothing of it may stay behind.
    fn connect<'a>(
        &'a self,
        node: &'a NodeConfig,
    ) -> BoxFuture<'a, Result<Box<dyn ProbeConnection>, ProbeError>>;
}

/// One open probe connection. Dropping it closes it.
pub trait ProbeConnection: Send {
    /// Runs `sql` and returns its only row.
    ///
    /// # Cancel safety
    /// After a dropped future the connection is not used again.
    fn query<'a>(&'a mut self, sql: &'static str) -> BoxFuture<'a, Result<Row, ProbeError>>;
}

/// Why a probe has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The driver reported an error. `fault` is what it says about the node: `None` when it says nothing, as for a
    /// wrong password.
    #[error("{message}")]
    Driver {
        /// What the error says about the node.
        fault: Option<Fault>,
        /// The driver's words, without credentials.
        message: String,
    },
    /// A step took longer than its deadline.
    #[error("no answer within {after:?} while {step}")]
    TimedOut {
        /// What was being done: "connecting", "asking".
        step: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The answer is not one that these queries can have.
    #[error("the server's answer has an unusable {0}")]
    Malformed(&'static str),
}

impl ProbeError {
    /// What it says about the node.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Driver { fault, .. } => *fault,
            Self::TimedOut { .. } => Some(Fault::Unresponsive),
            Self::Malformed(_) => None,
        }
    }
}

/// Which server answers: fixed while the probe connection lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that the server belongs to.
    pub system_id: SystemId,
    /// As `server_version_num`: 150018 is 15.18.
    pub version: u32,
    /// The address that the server was reached at, as it sees it; `None` over a Unix-domain socket.
    pub address: Option<String>,
    /// The port that goes with it.
    pub port: Option<u16>,
    /// When the server was started, as it writes it. With the address it tells two servers apart that a network makes
    /// look alike, and shows one server that is listed twice.
    pub started: String,
    /// Whether it is a server of Amazon Aurora, which is asked [`AURORA_PROBE_SQL`].
    pub aurora: bool,
}

impl Identity {
    /// What to ask the server at every probe.
    #[must_use]
    pub fn probe_sql(&self) -> &'static str {
        if self.aurora { AURORA_PROBE_SQL } else { PROBE_SQL }
    }
}

/// What a server said of itself at one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether it is in recovery: a standby.
    pub in_recovery: bool,
    /// A standby's replay position, a primary's flush position. `None` on a standby that has replayed nothing yet.
    pub lsn: Option<Lsn>,
    /// A standby's receive position. It can be *below* the replay position, and proves nothing by itself.
    pub receive_lsn: Option<Lsn>,
    /// The timeline. `None` on a standby without a WAL receiver, or for a role that may not see it.
    pub timeline: Option<Timeline>,
    /// Whether a standby has a WAL receiver process.
    pub wal_receiver: bool,
    /// That process's state: `streaming` and others. `None` for a role that may not see it.
    pub wal_receiver_status: Option<String>,
    /// Whom a standby streams from: host and port as its configuration says. `None` for a role that may not see it.
    pub sender: Option<(String, u16)>,
    /// How many standbys stream from this server.
    pub walsenders: u32,
    /// Whether its sessions start read-only.
    pub read_only: bool,
    /// Where a primary's recovery ended, if it came out of one since it was started: its timeline branched off there. (The function
    /// for it keeps its last answer after a promotion: measured.)
    pub recovered_to: Option<Lsn>,
    /// How far a standby says that it lags, where that is all it says. It proves nothing: reads with a bound or a token are
    /// not served by it.
    pub claimed_lag: Option<Duration>,
}

impl Probe {
    /// Timeline and place in it, when both are known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        Some(Position { timeline: self.timeline?, lsn: self.lsn? })
    }

    /// Whether the server is a standby that receives the log now, as far as the role may see.
    #[must_use]
    pub fn receives(&self) -> bool {
        self.wal_receiver && self.wal_receiver_status.as_deref().is_none_or(|status| status == "streaming")
    }

    /// Reads the answer to [`PROBE_SQL`] or [`AURORA_PROBE_SQL`].
    ///
    /// # Errors
    /// [`ProbeError::Malformed`] names the column.
    pub fn parse(row: &[Option<String>]) -> Result<Self, ProbeError> {
        let mut columns = Columns(row.iter());
        let in_recovery = columns.required("role", boolean)?;
        let probe = Self {
            in_recovery,
            lsn: columns.optional("position", |text| text.parse().ok())?,
            receive_lsn: columns.optional("receive position", |text| text.parse().ok())?,
            // A standby reports a decimal number, the name of a WAL file is hexadecimal.
            timeline: columns.optional("timeline", |text| {
                u32::from_str_radix(text, if in_recovery { 10 } else { 16 }).ok().map(Timeline)
            })?,
            wal_receiver: columns.required("WAL receiver", boolean)?,
            wal_receiver_status: columns.optional("WAL receiver's status", |text| Some(text.to_owned()))?,
            sender: {
                let host = columns.optional("sender's host", |text| Some(text.to_owned()))?;
                let port = columns.optional("sender's port", |text| text.parse().ok())?;
                host.zip(port)
            },
            walsenders: columns.required("number of WAL senders", |text| text.parse().ok())?,
            read_only: columns.required("read-only setting", boolean)?,
            recovered_to: columns.optional("end of recovery", |text| text.parse().ok())?,
            claimed_lag: match columns.0.len() {
                0 => None,
                _ => columns.optional("lag", milliseconds)?,
            },
        };
        if !probe.in_recovery && probe.position().is_none() {
            return Err(ProbeError::Malformed("position of a primary"));
        }
        Ok(probe)
    }
}

impl Identity {
    /// Reads the answer to [`IDENTITY_SQL`].
    ///
    /// # Errors
    /// [`ProbeError::Malformed`] names the column.
    pub fn parse(row: &[Option<String>]) -> Result<Self, ProbeError> {
        let mut columns = Columns(row.iter());
        Ok(Self {
            system_id: columns.required("system identifier", |text| text.parse().ok().map(SystemId))?,
            version: columns.required("version", |text| text.parse().ok())?,
            address: columns.optional("address", |text| Some(text.to_owned()))?,
            port: columns.optional("port", |text| text.parse().ok())?,
            started: columns.required("start time", |text| Some(text.to_owned()))?,
            aurora: columns.required("aurora_version", boolean)?,
        })
    }
}

struct Columns<'a>(std::slice::Iter<'a, Option<String>>);

impl Columns<'_> {
    fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ProbeError> {
        match self.0.next() {
            None => Err(ProbeError::Malformed(name)),
            Some(None) => Ok(None),
            Some(Some(text)) => read(text).map(Some).ok_or(ProbeError::Malformed(name)),
        }
    }

    fn required<T>(&mut self, name: &'static str, read: impl Fn(&str) -> Option<T>) -> Result<T, ProbeError> {
        self.optional(name, read)?.ok_or(ProbeError::Malformed(name))
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    let milliseconds = text.parse::<f64>().ok()?.max(0.0);
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[&str]) -> Row {
        columns.iter().map(|text| (*text != "NULL").then(|| (*text).to_owned())).collect()
    }

    #[test]
    fn a_primary_and_a_standby_are_read_with_every_column() {
        let primary = row(&[
            "false",
            "0/3000148",
            "NULL",
            "0000000A",
            "false",
            "NULL",
            "NULL",
            "NULL",
            "2",
            "false",
            "0/3000060",
        ]);
        let probe = Probe::parse(&primary).unwrap();
        assert_eq!(probe.position(), Some(Position { timeline: Timeline(10), lsn: Lsn::from(0x300_0148) }));
        assert_eq!((probe.in_recovery, probe.walsenders, probe.read_only), (false, 2, false));
        assert_eq!(probe.recovered_to, Some(Lsn::from(0x300_0060)));

        let standby = row(&[
            "true",
            "0/3000148",
            "0/3000000",
            "10",
            "true",
            "streaming",
            "127.0.0.1",
            "5500",
            "0",
            "true",
            "NULL",
        ]);
        let probe = Probe::parse(&standby).unwrap();
        assert!(probe.in_recovery && probe.receives());
        assert_eq!(probe.timeline, Some(Timeline(10)));
        assert_eq!(probe.sender, Some(("127.0.0.1".to_owned(), 5500)));
    }

    #[test]
    fn what_a_plain_login_role_cannot_see_degrades_the_answer() {
        let standby = row(&[
            "true",
            "0/3000148",
            "0/3000148",
            "NULL",
            "true",
            "NULL",
            "NULL",
            "NULL",
            "0",
            "true",
            "NULL",
        ]);
        let probe = Probe::parse(&standby).unwrap();
        assert!(probe.receives());
        assert_eq!((probe.timeline, probe.sender, probe.lsn), (None, None, Some(Lsn::from(0x300_0148))));
    }

    #[test]
    fn a_reader_of_aurora_claims_a_lag_and_no_position() {
        let columns =
            ["true", "NULL", "NULL", "1", "true", "NULL", "NULL", "NULL", "0", "true", "NULL", "12.5"];
        let reader = Probe::parse(&row(&columns)).unwrap();
        assert!(reader.receives());
        assert_eq!((reader.lsn, reader.claimed_lag), (None, Some(Duration::from_micros(12_500))));
        let writer = row(&[
            "false", "0/1", "NULL", "00000001", "true", "NULL", "NULL", "NULL", "0", "false", "NULL", "NULL",
        ]);
        let writer = Probe::parse(&writer).unwrap();
        assert_eq!((writer.timeline, writer.claimed_lag), (Some(Timeline(1)), None));
    }

    #[test]
    fn a_standby_without_a_receiver_does_not_receive() {
        let standby =
            row(&["true", "0/1", "0/1", "NULL", "false", "NULL", "NULL", "NULL", "0", "true", "NULL"]);
        assert!(!Probe::parse(&standby).unwrap().receives());
        let waiting = row(&["true", "0/1", "0/1", "1", "true", "waiting", "h", "1", "0", "true", "NULL"]);
        assert!(!Probe::parse(&waiting).unwrap().receives());
    }

    #[test]
    fn an_answer_that_cannot_be_is_refused_with_the_column() {
        let table: &[(&[&str], &str)] = &[
            (&[], "role"),
            (&["maybe"], "role"),
            (&["true", "elsewhere"], "position"),
            (&["true", "0/1", "0/1", "x"], "timeline"),
            (
                &["false", "NULL", "NULL", "00000001", "false", "NULL", "NULL", "NULL", "0", "false", "NULL"],
                "position of a primary",
            ),
        ];
        for (columns, named) in table {
            assert_eq!(Probe::parse(&row(columns)), Err(ProbeError::Malformed(named)));
        }
        assert_eq!(Identity::parse(&row(&["x"])), Err(ProbeError::Malformed("system identifier")));
    }
}
