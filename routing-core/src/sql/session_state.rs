//! Whether a statement leaves something in its session.

use super::StatementKind;
use super::functions::{self, Folded};
use super::keyword::{self, key};
use super::lexer::{Lexer, Token};

/// Whether a statement may leave state in its session: settings, listeners, advisory locks, prepared statements,
/// temporary tables, open cursors or an open transaction. `false` is said only of a single ordinary query or data
/// change that uses no word known to keep state.
///
/// A function of the user's own may keep state unseen; that is its author's concern, as it is with every pool.
///
/// ```
/// use routing_core::sql::keeps_session_state;
///
/// assert!(!keeps_session_state("SELECT name FROM stocks WHERE note = 'SET role'"));
/// assert!(keeps_session_state("SET search_path = tenant_7"));
/// assert!(keeps_session_state("SELECT pg_advisory_lock(1)"));
/// ```
#[must_use]
pub fn keeps_session_state(sql: &str) -> bool {
    let mut words = Words::new(sql);
    let first = words.next();
    let ordinary = first.is_some_and(|word| {
        matches!(
            key(word),
            keyword::SELECT
                | keyword::INSERT
                | keyword::UPDATE
                | keyword::DELETE
                | keyword::WITH
                | keyword::VALUES
                | keyword::TABLE
                | keyword::MERGE
        )
    });
    if !ordinary {
        return true;
    }
    let keeps = words.by_ref().any(|word| {
        keyword::is_temporary(word)
            || is_stateful_function(word)
            || starts_with(word, "pg_advisory")
            || starts_with(word, "pg_try_advisory")
    });
    keeps || words.unsure() || words.statements > 1
}

/// Whether a text is a single command that begins or ends a transaction or savepoint, or no command at all.
#[must_use]
pub(crate) fn controls_transaction(sql: &str) -> bool {
    let mut words = Words::new(sql);
    let controls = words.next().is_none_or(|word| {
        is_any(word, &["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"])
    });
    words.by_ref().for_each(drop);
    controls && !words.unsure() && words.statements <= 1
}

/// Whether a text may leave a transaction open: it begins one, or holds several statements, or cannot be read.
#[must_use]
pub fn may_begin_transaction(sql: &str) -> bool {
    let mut words = Words::new(sql);
    let begins = words.next().is_some_and(|word| is_any(word, &["begin", "start"]));
    words.by_ref().for_each(drop);
    begins || words.unsure() || words.statements > 1
}

fn is_stateful_function(name: &[u8]) -> bool {
    functions::may_have_effect(name) && functions::effect(&Folded::new(name)) == Some(StatementKind::Session)
}

fn is_any(word: &[u8], list: &[&str]) -> bool {
    list.iter().any(|entry| word.eq_ignore_ascii_case(entry.as_bytes()))
}

fn starts_with(word: &[u8], prefix: &str) -> bool {
    word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The words of a text that are neither constants nor commented out. A quoted identifier is a word too: it can name a
/// function.
struct Words<'a> {
    lexer: Lexer<'a>,
    /// Text after a semicolon makes another statement.
    statements: u32,
    ended: bool,
    /// An identifier whose name is not known.
    escaped: bool,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        Self { lexer: Lexer::new(text), statements: 0, ended: true, escaped: false }
    }

    fn unsure(&self) -> bool {
        self.escaped || self.lexer.is_flawed()
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let token = self.lexer.next()?;
            if token == Token::Semicolon {
                self.ended = true;
                continue;
            }
            if std::mem::take(&mut self.ended) {
                self.statements = self.statements.saturating_add(1);
            }
            match token {
                Token::Word(word) | Token::Quoted(word) => return Some(word),
                Token::Escaped => self.escaped = true,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_statements_keep_no_state() {
        for sql in [
            "SELECT 1",
            "select * from t where a = 'SET x' -- LISTEN\n",
            "/* SET */ INSERT INTO t VALUES (1) RETURNING id;",
            "WITH a AS (SELECT 1) UPDATE t SET x = 2",
            "SELECT $$ pg_advisory_lock $$, $tag$ set_config $tag$, E'\\' set_config'",
            "SELECT $1, $2",
            "(SELECT 1) UNION (SELECT 2)",
            "DELETE FROM t WHERE note = 'it''s temp'",
            "SELECT \"temperature\" FROM t",
            "SELECT x FROM t WHERE note ~ '^\\d+$'",
        ] {
            assert!(!keeps_session_state(sql), "{sql}");
        }
    }

    #[test]
    fn what_may_keep_state_is_found() {
        for sql in [
            "",
            "SET x = 1",
            "  /* a /* nested */ b */ LISTEN c",
            "BEGIN",
            "SELECT set_config('a', 'b', false)",
            "SELECT pg_catalog.pg_try_advisory_lock(1)",
            "SELECT \"pg_advisory_lock\"(1)",
            "SELECT set_limit(0.9)",
            "SELECT dblink_connect_u('a', 'b')",
            "SELECT pg_replication_origin_session_setup('a')",
            "SELECT U&\"\\0070g_advisory_lock\"(1)",
            "SELECT * INTO TEMP t FROM u",
            "CREATE TEMPORARY TABLE t ()",
            "PREPARE p AS SELECT 1",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "SELECT 1; SET x = 1",
            "SELECT 1; SELECT 2",
            "SELECT 1 -- a carriage return ends a comment\r; SET x = 1",
            "SELECT 'never closed",
            "SELECT $$ never closed",
            "SELECT /* never closed",
            "SELECT '\\' || set_config",
        ] {
            assert!(keeps_session_state(sql), "{sql}");
        }
    }

    #[test]
    fn commands_that_control_a_transaction_are_told_from_others() {
        for sql in ["", "BEGIN", "/* x */ commit;", "ROLLBACK TO SAVEPOINT a", "release a"] {
            assert!(controls_transaction(sql), "{sql}");
        }
        for sql in ["SELECT 1", "COMMIT; SELECT 1", "COMMIT '"] {
            assert!(!controls_transaction(sql), "{sql}");
        }
        for sql in ["begin", "START TRANSACTION", "SELECT 1; BEGIN", "SELECT '"] {
            assert!(may_begin_transaction(sql), "{sql}");
        }
        for sql in ["SELECT 1", "COMMIT", "INSERT INTO t VALUES ('BEGIN; x')"] {
            assert!(!may_begin_transaction(sql), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_hang(sql in "(?s).{0,80}") {
            let _ = keeps_session_state(&sql);
        }

        #[test]
        fn a_setting_is_found_behind_any_comment(comment in "[^*/]{0,20}") {
            let text = format!("/*{comment}*/ SET x = 1");
            prop_assert!(keeps_session_state(&text));
        }
    }
}
