//! What kind of statement a text is.

use super::functions::Folded;
use super::scan::Scan;

/// Where a statement may run. The kinds are ordered: a text is of the highest kind that anything in it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatementKind {
    /// Proven to change nothing, to lock nothing and to keep nothing in its session: any node may run it.
    Read,
    /// It writes, locks, or has another effect; or nothing proves that it does not. For the primary.
    Write,
    /// It keeps state in its session, or needs what the session keeps: settings, cursors, prepared statements,
    /// temporary tables, advisory locks, an open transaction. For a connection that stays with its caller, to the
    /// primary. A text of several statements is of this kind too.
    Session,
}

/// What the call of a function makes of a statement when nothing is known of the function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownFunctions {
    /// Nothing: the statement may still be a read. A function that writes then fails on a standby without effect
    /// (SQLSTATE 25006), and the statement can be run on the primary. One that takes an advisory lock, or works
    /// outside the database, does not fail there: name such functions with [`Classifier::writing`]. The default.
    #[default]
    Allow,
    /// A write. Only functions of the system catalogue that are known to read, and those named with
    /// [`Classifier::reading`], leave a statement a read. A name counts, not what it resolves to: a function of the
    /// user's own in front of the catalogue in `search_path`, or one that is named like a keyword of the grammar of
    /// queries, passes. The column list of an alias without `AS`, and of a second `WITH` query, looks like a call.
    Refuse,
}

/// The kind of a text, with the default rules: see [`Classifier::classify`].
///
/// ```
/// use routing_core::sql::{StatementKind, classify};
///
/// assert_eq!(classify("SELECT name FROM stocks WHERE note = 'for update'"), StatementKind::Read);
/// assert_eq!(classify("SELECT name FROM stocks FOR UPDATE"), StatementKind::Write);
/// assert_eq!(classify("SELECT nextval('stocks_id_seq')"), StatementKind::Write);
/// assert_eq!(classify("SET search_path = tenant_7"), StatementKind::Session);
/// ```
#[must_use]
pub fn classify(sql: &str) -> StatementKind {
    const DEFAULT: Classifier = Classifier::new(UnknownFunctions::Allow);
    DEFAULT.classify(sql)
}

/// Rules by which texts are classified: what is thought of functions.
///
/// ```
/// use routing_core::sql::{Classifier, StatementKind, UnknownFunctions};
///
/// let careful = Classifier::new(UnknownFunctions::Refuse).reading(["price_in"]);
/// assert_eq!(careful.classify("SELECT lower(name), price_in('EUR') FROM stocks"), StatementKind::Read);
/// assert_eq!(careful.classify("SELECT rank_stock(7)"), StatementKind::Write);
///
/// let usual = Classifier::default().writing(["enqueue"]);
/// assert_eq!(usual.classify("SELECT jobs.enqueue('mail')"), StatementKind::Write);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    /// What the call of a function makes of a statement when nothing is known of the function. Default: `Allow`.
    pub unknown_functions: UnknownFunctions,
    own: Vec<(Box<[u8]>, StatementKind)>,
}

impl Classifier {
    /// Rules that know PostgreSQL's own functions, and those of the extensions that come with it.
    #[must_use]
    pub const fn new(unknown_functions: UnknownFunctions) -> Self {
        Self { unknown_functions, own: Vec::new() }
    }

    /// Functions that only read, whatever the built-in list says of their names. Of a name with a schema the last
    /// part counts, in every schema, and letter case does not; what was said last of a name holds.
    #[must_use]
    pub fn reading<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with(names, StatementKind::Read)
    }

    /// Functions that write, or have another effect. Names are matched as in [`reading`](Self::reading).
    ///
    /// PostgreSQL also calls `f` of a row `r` for `r.f`, so a column of such a name makes a statement a write as well.
    #[must_use]
    pub fn writing<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with(names, StatementKind::Write)
    }

    /// Functions that keep state in their session, or need such state. Names are matched as in
    /// [`writing`](Self::writing).
    #[must_use]
    pub fn keeping_state<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with(names, StatementKind::Session)
    }

    fn with<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>, kind: StatementKind) -> Self {
        for name in names {
            let name = name.as_ref().rsplit('.').next().unwrap_or_default().trim_matches('"');
            let folded = Folded::new(name.as_bytes());
            match self.own.binary_search_by(|(known, _)| known.as_ref().cmp(folded.as_bytes())) {
                Ok(found) => self.own[found].1 = kind,
                Err(place) => self.own.insert(place, (folded.as_bytes().into(), kind)),
            }
        }
        self
    }

    /// What the user said of a function.
    pub(super) fn own(&self, name: &Folded) -> Option<StatementKind> {
        let found = self.own.binary_search_by(|(known, _)| known.as_ref().cmp(name.as_bytes())).ok()?;
        self.own.get(found).map(|(_, kind)| *kind)
    }

    pub(super) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// The kind of a text.
    ///
    /// `Read` is said only of one query (`SELECT`, `VALUES`, `TABLE`, `WITH`), `SHOW`, `COPY … TO STDOUT`, or
    /// `EXPLAIN` that executes nothing but a query, in which no part changes data, locks rows, makes a table, or calls
    /// a function known to do more than read. Hints and other comments decide nothing. What differs from node to node
    /// (activity, statistics, files and locks of a server) is a read.
    ///
    /// `Write` is said of everything else that does not need its session, and of every text that cannot be read with
    /// certainty: an unclosed quote, comment or parenthesis, a zero byte, a constant whose end depends on
    /// `standard_conforming_strings`, an identifier with Unicode escapes, and a text without any statement.
    ///
    /// A view, an operator, a cast, a policy, and a function of the user's own can write unseen. On a standby that
    /// fails without effect; only what succeeds there (advisory locks, settings, work outside the database) must be
    /// made known here.
    ///
    /// The time is proportional to the length of the text, and nothing is allocated.
    #[must_use]
    pub fn classify(&self, sql: &str) -> StatementKind {
        Scan::new(self, sql).run()
    }
}
