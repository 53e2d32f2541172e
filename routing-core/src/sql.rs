//! What SQL text shows about a statement.
//!
//! A byte lexer: comments (nested), string constants of every kind, dollar quotes and quoted identifiers are passed
//! over, so that nothing in them is taken for a keyword. It knows words, not grammar, and errs on the safe side.

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
        is_any(word, &["select", "insert", "update", "delete", "with", "values", "table", "merge"])
    });
    if !ordinary {
        return true;
    }
    let keeps = words.by_ref().any(|word| {
        is_any(word, &["set_config", "temp", "temporary", "dblink_connect", "setseed", "lo_open"])
            || starts_with(word, "pg_advisory")
            || starts_with(word, "pg_try_advisory")
    });
    keeps || words.unsure || words.statements > 1
}

/// Whether a text is a single command that begins or ends a transaction or savepoint, or no command at all.
#[must_use]
pub(crate) fn controls_transaction(sql: &str) -> bool {
    let mut words = Words::new(sql);
    let controls = words.next().is_none_or(|word| {
        is_any(word, &["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"])
    });
    words.by_ref().for_each(drop);
    controls && !words.unsure && words.statements <= 1
}

/// Whether a text may leave a transaction open: it begins one, or holds several statements, or cannot be read.
#[must_use]
pub fn may_begin_transaction(sql: &str) -> bool {
    let mut words = Words::new(sql);
    let begins = words.next().is_some_and(|word| is_any(word, &["begin", "start"]));
    words.by_ref().for_each(drop);
    begins || words.unsure || words.statements > 1
}

fn is_any(word: &str, list: &[&str]) -> bool {
    list.iter().any(|entry| word.eq_ignore_ascii_case(entry))
}

fn starts_with(word: &str, prefix: &str) -> bool {
    word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The words of a statement that are neither quoted nor commented out. A quoted identifier is a word too: it can name
/// a function.
struct Words<'a> {
    text: &'a str,
    at: usize,
    /// Text after a semicolon makes another statement.
    statements: u32,
    ended: bool,
    /// A quote or comment was not closed, or its end depends on a setting of the server.
    unsure: bool,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, statements: 0, ended: true, unsure: false }
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(0)
    }

    fn token_begins(&mut self) {
        if std::mem::take(&mut self.ended) {
            self.statements += 1;
        }
    }

    /// Goes past the next `end`; to the end of the text, and unsure, when there is none.
    fn skip_past(&mut self, from: usize, end: &str) {
        match self.text.get(from..).and_then(|rest| rest.find(end)) {
            Some(found) => self.at = from + found + end.len(),
            None => (self.at, self.unsure) = (self.text.len(), true),
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0_u32;
        while self.at < self.text.len() {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', b'/') => {
                    (depth, self.at) = (depth - 1, self.at + 2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.unsure = true;
    }

    /// Goes past a constant that opened before `from`. A doubled quote is part of it; so is an escaped one, if
    /// backslashes escape.
    fn skip_quoted(&mut self, from: usize, quote: u8, backslash_escapes: bool) {
        self.at = from;
        while self.at < self.text.len() {
            let byte = self.byte(self.at);
            self.at += 1;
            if byte == quote {
                if self.byte(self.at) != quote {
                    return;
                }
                self.at += 1;
            } else if byte == b'\\' && quote == b'\'' {
                if backslash_escapes {
                    self.at += 1;
                } else {
                    // With standard_conforming_strings off the constant would end elsewhere.
                    self.unsure = true;
                }
            }
        }
        self.unsure = true;
    }

    /// Goes past a dollar-quoted constant, if one begins here; else past the dollar sign.
    fn skip_dollar(&mut self) {
        let tag_end = (self.at + 1..self.text.len()).find(|at| {
            let byte = self.byte(*at);
            !(byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80)
        });
        let starts_with_digit = self.byte(self.at + 1).is_ascii_digit();
        match tag_end {
            Some(end) if self.byte(end) == b'$' && !starts_with_digit => {
                let tag = &self.text[self.at..=end];
                self.skip_past(end + 1, tag);
            }
            _ => self.at += 1,
        }
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte == b'_' || byte == b'$' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        while self.at < self.text.len() {
            let byte = self.byte(self.at);
            match byte {
                b'-' if self.byte(self.at + 1) == b'-' => match self.text[self.at..].find('\n') {
                    Some(end) => self.at += end + 1,
                    None => self.at = self.text.len(),
                },
                b'/' if self.byte(self.at + 1) == b'*' => self.skip_block_comment(),
                b'\'' => {
                    self.token_begins();
                    self.skip_quoted(self.at + 1, b'\'', false);
                }
                b'$' => {
                    self.token_begins();
                    self.skip_dollar();
                }
                b'"' => {
                    self.token_begins();
                    let begin = self.at + 1;
                    self.skip_quoted(begin, b'"', false);
                    return self.text.get(begin..self.at - 1).or(Some(""));
                }
                b';' => {
                    self.ended = true;
                    self.at += 1;
                }
                _ if byte.is_ascii_whitespace() => self.at += 1,
                _ if is_word_byte(byte) => {
                    self.token_begins();
                    let begin = self.at;
                    while is_word_byte(self.byte(self.at)) {
                        self.at += 1;
                    }
                    let word = &self.text[begin..self.at];
                    if self.byte(self.at) == b'\'' && is_any(word, &["e", "b", "x", "n"]) {
                        self.skip_quoted(self.at + 1, b'\'', word.eq_ignore_ascii_case("e"));
                        continue;
                    }
                    return Some(word);
                }
                _ => {
                    self.token_begins();
                    self.at += 1;
                }
            }
        }
        None
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
            "SELECT * INTO TEMP t FROM u",
            "CREATE TEMPORARY TABLE t ()",
            "PREPARE p AS SELECT 1",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "SELECT 1; SET x = 1",
            "SELECT 1; SELECT 2",
            "SELECT 'never closed",
            "SELECT $$ never closed",
            "SELECT /* never closed",
            "SELECT '\\' || set_config",
        ] {
            assert!(keeps_session_state(sql), "{sql}");
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
