//! One pass over the tokens of a text that finds everything which keeps it from being a read.
//!
//! It knows where in PostgreSQL's grammar (`gram.y`) a change of data, a lock or a new table can stand inside a query,
//! not the grammar itself. A text that the server would refuse may get any kind.

use super::StatementKind::{self, Read, Session, Write};
use super::classification::{Classifier, UnknownFunctions};
use super::functions::{self, Folded};
use super::harmless;
use super::keyword::{self, key};
use super::lexer::{Lexer, Token};

/// What the last token was, as far as it decides about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Previous {
    /// Behind it no data-modifying statement can begin, so a word like `update` is a name: a comma, an operator, `SELECT`,
    /// `FROM` and `TABLE`.
    Expects,
    Dot,
    Cast,
    /// `AS` and `WITH`: the next word is a name.
    As,
    /// `FOR`, then `FOR KEY`.
    For,
    ForKey,
    /// `INTO` of a `SELECT`.
    Into,
    /// `INSERT`, `UPDATE`, `DELETE`, `MERGE`.
    Change,
    Other,
}

#[derive(Debug)]
pub(super) struct Scan<'a> {
    classifier: &'a Classifier,
    pub(super) lexer: Lexer<'a>,
    /// The highest kind so far.
    kind: StatementKind,
    /// The words that change, lock or make something have their effect: not under `EXPLAIN` without `ANALYZE`.
    pub(super) executes: bool,
    pub(super) depth: u32,
    unbalanced: bool,
    pub(super) previous: Previous,
    /// The last token, if it is an identifier or the dot behind one: a parenthesis makes it the name of a function.
    /// Else empty.
    pub(super) name: &'a [u8],
    /// The classifier has more to say of functions than the built-in table.
    has_rules: bool,
    /// What the name is, known if the classifier has rules.
    role: Role,
}

/// What an identifier in front of a parenthesis is.
#[derive(Clone, Copy, Debug)]
struct Role {
    quoted: bool,
    /// The schema in front of it is `pg_catalog`, or there is none.
    catalog: bool,
    /// It names a type or an alias: the parenthesis holds a modifier or columns.
    declared: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(classifier: &'a Classifier, sql: &'a str) -> Self {
        Self {
            classifier,
            lexer: Lexer::new(sql),
            kind: Read,
            executes: true,
            depth: 0,
            unbalanced: false,
            previous: Previous::Other,
            name: &[],
            has_rules: classifier.has_own() || classifier.unknown_functions == UnknownFunctions::Refuse,
            role: Role { quoted: false, catalog: true, declared: false },
        }
    }

    pub(super) fn run(mut self) -> StatementKind {
        self.statement();
        while let Some(token) = self.lexer.cut() {
            self.note(token);
        }
        if self.lexer.is_flawed() || self.unbalanced || self.depth > 0 {
            return Write;
        }
        self.kind
    }

    pub(super) fn raise(&mut self, kind: StatementKind) {
        self.kind = self.kind.max(kind);
    }

    /// Looks at one token.
    pub(super) fn take(&mut self, token: Token<'a>) {
        self.note(token);
    }

    /// [`take`](Self::take), for the one loop that must be fast.
    #[inline(always)]
    fn note(&mut self, token: Token<'a>) {
        let name = std::mem::take(&mut self.name);
        self.previous = match token {
            Token::Word(word) => {
                self.identifier(name, word, false);
                self.word(word)
            }
            Token::Quoted(text) => {
                self.identifier(name, text, true);
                Previous::Other
            }
            Token::Escaped => {
                self.raise(Write);
                Previous::Other
            }
            Token::Constant(_) | Token::Parameter => Previous::Other,
            Token::Open => {
                if self.has_rules || functions::may_have_effect(name) {
                    self.call(name);
                }
                self.depth = self.depth.saturating_add(1);
                Previous::Other
            }
            Token::Close => {
                self.close();
                Previous::Other
            }
            Token::Dot => {
                if is_temporary_schema(name) {
                    self.raise(Session);
                }
                self.name = name;
                Previous::Dot
            }
            Token::Cast => Previous::Cast,
            Token::Comma | Token::Operator(_) => Previous::Expects,
            Token::Semicolon => {
                self.end();
                Previous::Other
            }
        };
    }

    fn close(&mut self) {
        self.unbalanced |= self.depth == 0;
        self.depth = self.depth.saturating_sub(1);
    }

    /// Behind a semicolon: anything but another one makes the text several statements.
    #[cold]
    fn end(&mut self) {
        self.unbalanced |= self.depth > 0;
        while let Some(token) = self.lexer.next() {
            match token {
                Token::Semicolon => continue,
                Token::Open => self.depth = self.depth.saturating_add(1),
                Token::Close => self.close(),
                _ => {}
            }
            self.raise(Session);
        }
    }

    #[inline(always)]
    fn identifier(&mut self, qualifier: &'a [u8], text: &'a [u8], quoted: bool) {
        if self.has_rules {
            self.look_closer(qualifier, text, quoted);
        }
        self.name = text;
    }

    /// An identifier, behind the one that qualifies it if a dot stands between them.
    fn look_closer(&mut self, qualifier: &[u8], text: &[u8], quoted: bool) {
        let dotted = self.previous == Previous::Dot;
        // Behind a row and a dot, a function needs no parentheses.
        if dotted
            && self.classifier.has_own()
            && let Some(kind) = self.classifier.own(&Folded::new(text))
        {
            self.raise(kind);
        }
        let declared = matches!(self.previous, Previous::Cast | Previous::As) || dotted && self.role.declared;
        let catalog = !dotted
            || qualifier == b"pg_catalog"
            || !self.role.quoted && qualifier.eq_ignore_ascii_case(b"pg_catalog");
        self.role = Role { quoted, catalog, declared };
    }

    /// An unquoted word: what it decides, and what it is to the next token.
    #[inline]
    fn word(&mut self, word: &[u8]) -> Previous {
        if !keyword::may_decide(word) {
            return Previous::Other;
        }
        let key = key(word);
        match (self.previous, key) {
            // `UPDATE`, behind `FOR` or `FOR NO KEY`, is found below.
            (Previous::For | Previous::ForKey, keyword::SHARE) => self.changes(Write),
            (Previous::For, keyword::KEY) => return Previous::ForKey,
            (Previous::Into, keyword::LOCAL | keyword::GLOBAL) => return Previous::Into,
            (Previous::Into, _) if keyword::is_temporary(word) => self.changes(Session),
            (Previous::As, _) if word.eq_ignore_ascii_case(b"recursive") => return Previous::As,
            (Previous::Dot, _) => {}
            (Previous::As | Previous::Cast, _) if !matches!(key, keyword::FOR | keyword::INTO) => {}
            (_, keyword::FOR) => return Previous::For,
            (Previous::Change, keyword::INTO) => {}
            (_, keyword::INTO) => {
                self.changes(Write);
                return Previous::Into;
            }
            (_, keyword::SELECT | keyword::FROM | keyword::TABLE) => return Previous::Expects,
            (_, keyword::AS | keyword::WITH) => return Previous::As,
            (Previous::Expects, _) => {}
            (_, keyword::INSERT | keyword::UPDATE | keyword::DELETE | keyword::MERGE) => {
                self.changes(Write);
                return Previous::Change;
            }
            _ => {}
        }
        Previous::Other
    }

    fn changes(&mut self, kind: StatementKind) {
        if self.executes {
            self.raise(kind);
        }
    }

    /// A parenthesis behind a name; an empty one is none.
    fn call(&mut self, name: &[u8]) {
        if name.is_empty() {
            return;
        }
        let folded = Folded::new(name);
        let known = self.classifier.own(&folded).or_else(|| functions::effect(&folded));
        if let Some(kind) = known {
            return self.raise(kind);
        }
        if self.classifier.unknown_functions == UnknownFunctions::Refuse && !self.role.declared {
            let Role { quoted, catalog, .. } = self.role;
            let harmless = if quoted {
                catalog && harmless::is_function(name)
            } else {
                catalog && harmless::is_function(folded.as_bytes()) || harmless::is_syntax(folded.as_bytes())
            };
            if !harmless {
                self.raise(Write);
            }
        }
    }
}

/// `pg_temp`, or the name behind it with a number.
fn is_temporary_schema(name: &[u8]) -> bool {
    match name.split_at_checked(7) {
        // The first letter tells nearly all.
        Some((schema, rest)) if schema[0] | 0x20 == b'p' => {
            schema.eq_ignore_ascii_case(b"pg_temp") && rest.first().is_none_or(|byte| *byte == b'_')
        }
        _ => false,
    }
}
