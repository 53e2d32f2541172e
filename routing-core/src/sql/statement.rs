//! How a statement begins, and what that makes of the rest.

use super::StatementKind::{Session, Write};
use super::keyword::{self, key};
use super::lexer::Token;
use super::scan::{Previous, Scan};

impl<'a> Scan<'a> {
    /// The next token, taken note of.
    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.lexer.next();
        if let Some(token) = token {
            self.take(token);
        }
        token
    }

    /// The first word of a statement, behind opening parentheses. `None` when anything else comes first.
    fn first_word(&mut self) -> Option<&'a [u8]> {
        loop {
            match self.lexer.next()? {
                Token::Word(word) => {
                    self.previous = Previous::Expects;
                    if key(word) == keyword::WITH {
                        self.previous = Previous::As;
                    }
                    return Some(word);
                }
                Token::Open => self.take(Token::Open),
                token => {
                    self.take(token);
                    return None;
                }
            }
        }
    }

    /// Reads a statement's beginning, as far as it decides what the rest means.
    pub(super) fn statement(&mut self) {
        self.lexer.skip_semicolons();
        let Some(word) = self.first_word() else { return self.raise(Write) };
        match key(word) {
            keyword::SELECT | keyword::VALUES | keyword::TABLE | keyword::WITH => {}
            _ if self.depth > 0 => self.raise(Write),
            keyword::SHOW => {}
            keyword::EXPLAIN => self.explain(),
            keyword::COPY => self.copy(),
            keyword::CREATE => self.create(),
            keyword::INSERT | keyword::UPDATE | keyword::DELETE | keyword::MERGE => {
                self.previous = Previous::Change;
                self.raise(Write);
            }
            keyword::COMMIT | keyword::ROLLBACK => {
                let second = self.next();
                let prepared = matches!(second, Some(Token::Word(word)) if key(word) == keyword::PREPARED);
                self.raise(if prepared { Write } else { Session });
            }
            keyword::SET
            | keyword::RESET
            | keyword::LISTEN
            | keyword::UNLISTEN
            | keyword::PREPARE
            | keyword::EXECUTE
            | keyword::DISCARD
            | keyword::DECLARE
            | keyword::FETCH
            | keyword::MOVE
            | keyword::CLOSE
            | keyword::LOAD
            | keyword::BEGIN
            | keyword::START
            | keyword::END
            | keyword::ABORT
            | keyword::RELEASE => self.raise(Session),
            _ if keyword::is_long_session_command(word) => self.raise(Session),
            _ => self.raise(Write),
        }
    }

    /// `EXPLAIN [ANALYZE] [VERBOSE] statement` or `EXPLAIN (option, …) statement`. The functions of a statement that is
    /// not executed count all the same: the planner runs some of them.
    fn explain(&mut self) {
        let mut analyzes = false;
        let mut token = self.lexer.next();
        while let Some(Token::Word(word)) = token {
            match key(word) {
                keyword::ANALYZE | keyword::ANALYSE => analyzes = true,
                keyword::VERBOSE => {}
                _ => break,
            }
            token = self.lexer.next();
        }
        if token == Some(Token::Open) {
            self.take(Token::Open);
            token = self.lexer.next();
            let query = match token {
                Some(Token::Word(word)) => is_query(key(word)),
                _ => token == Some(Token::Open),
            };
            if !query {
                analyzes |= self.options(token);
                token = self.lexer.next();
            }
        }
        while token == Some(Token::Open) {
            self.take(Token::Open);
            token = self.lexer.next();
        }
        let Some(Token::Word(word)) = token else {
            if let Some(token) = token {
                self.take(token);
            }
            return self.raise(Write);
        };
        self.executes = analyzes;
        self.previous = Previous::Expects;
        match key(word) {
            word if is_query(word) => {}
            _ if self.depth > 0 => self.raise(Write),
            keyword::INSERT | keyword::UPDATE | keyword::DELETE | keyword::MERGE => {
                self.previous = Previous::Change;
                if analyzes {
                    self.raise(Write);
                }
            }
            keyword::EXECUTE => self.raise(Session),
            _ => self.raise(Write),
        }
    }

    /// The rest of the options of `EXPLAIN`, up to their closing parenthesis: whether the statement may be executed. It is
    /// not if `ANALYZE` is missing, or each has `false`, `off` or `0` and nothing more behind it.
    fn options(&mut self, first: Option<Token<'a>>) -> bool {
        let mut analyzes = false;
        let (mut named, mut off) = (false, false);
        let mut next = first;
        while let Some(token) = next {
            let ends = matches!(token, Token::Comma | Token::Close);
            analyzes |= off && !ends;
            off = named
                && match token {
                    Token::Word(word) => matches!(key(word), keyword::FALSE | keyword::OFF),
                    Token::Constant(constant) => constant == b"0",
                    _ => false,
                };
            analyzes |= named && !off;
            named = match token {
                Token::Word(word) | Token::Quoted(word) => {
                    matches!(key(word), keyword::ANALYZE | keyword::ANALYSE)
                }
                _ => false,
            };
            self.take(token);
            if self.depth == 0 {
                break;
            }
            next = self.lexer.next();
        }
        analyzes
    }

    /// A read only as `COPY … TO STDOUT`, of a table or a query. The query is read like any other.
    fn copy(&mut self) {
        let mut of_query = false;
        let mut token = self.lexer.next();
        if token == Some(Token::Open) {
            self.take(Token::Open);
            of_query = self.first_word().is_some_and(|word| is_query(key(word)));
            if !of_query {
                return self.raise(Write);
            }
            token = self.lexer.next();
        }
        while let Some(current) = token {
            if self.depth == 0
                && self.previous != Previous::Dot
                && let Token::Word(word) = current
                && matches!(key(word), keyword::TO | keyword::FROM)
            {
                let target = self.next();
                let out = matches!(target, Some(Token::Word(word)) if key(word) == keyword::STDOUT);
                if !out || key(word) == keyword::FROM {
                    self.raise(Write);
                }
                return;
            }
            self.take(current);
            if self.depth == 0 && !of_query {
                // A parenthesis behind a table's name holds its columns.
                self.name = &[];
            }
            token = self.lexer.next();
        }
        self.raise(Write);
    }

    fn create(&mut self) {
        self.raise(Write);
        while let Some(Token::Word(word)) = self.next() {
            match key(word) {
                keyword::OR | keyword::REPLACE | keyword::LOCAL | keyword::GLOBAL => {}
                _ if keyword::is_temporary(word) => return self.raise(Session),
                _ => return,
            }
        }
    }
}

fn is_query(word: u64) -> bool {
    matches!(word, keyword::SELECT | keyword::VALUES | keyword::TABLE | keyword::WITH)
}
