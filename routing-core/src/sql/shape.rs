//! What remains of a statement when its values are taken away.

use std::fmt;

use super::keyword::{self, key};
use super::lexer::{Lexer, Token};

/// A statement without its values: equal for texts that differ only in constants and parameters, white space, comments,
/// letter case of unquoted words, a semicolon at the end, and the length of `IN` lists of plain values.
///
/// Made to remember statements, for one process: it is a hash of 64 bits that may change with each version of this
/// crate, and a text can be made to collide with another, so nothing may rest on its being unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape(u64);

impl Shape {
    /// The hash itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The shape of a text. The time is proportional to its length, and nothing is allocated.
///
/// ```
/// use routing_core::sql::shape;
///
/// let one = shape("SELECT name FROM stocks WHERE id IN (1, 2) AND country = 'DE'");
/// assert_eq!(one, shape("select name from stocks /* hot */ where id in ($1,$2,$3) and country = $4;"));
/// assert_ne!(one, shape("SELECT name FROM stocks WHERE id IN (1, 2) OR country = 'DE'"));
/// ```
#[must_use]
pub fn shape(sql: &str) -> Shape {
    let mut lexer = Lexer::new(sql);
    let mut hash = Hash(0);
    let mut list = List::None;
    let mut semicolon = false;
    while let Some(token) = lexer.next() {
        if token == Token::Semicolon {
            semicolon = true;
            continue;
        }
        if std::mem::take(&mut semicolon) {
            hash.token(Token::Semicolon);
        }
        let counts;
        (list, counts) = list.next(token);
        if counts {
            hash.token(token);
        }
    }
    Shape(hash.0)
}

/// Where in an `IN` list of plain values the text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    In,
    Open,
    Value,
    Comma,
}

impl List {
    /// The place after a token, and whether the token counts: of the values and commas in a list, the first does.
    fn next(self, token: Token<'_>) -> (Self, bool) {
        match (self, token) {
            (_, Token::Word(word)) if key(word) == keyword::IN => (Self::In, true),
            (Self::In, Token::Open) => (Self::Open, true),
            (Self::Open, Token::Constant(_) | Token::Parameter) => (Self::Value, true),
            (Self::Value, Token::Comma) => (Self::Comma, false),
            (Self::Comma, Token::Constant(_) | Token::Parameter) => (Self::Value, false),
            _ => (Self::None, true),
        }
    }
}

/// Multiplication by an odd constant (2^64 divided by the golden ratio) and a rotation for each word of eight bytes.
struct Hash(u64);

impl Hash {
    fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Folding sets the bit that lower case letters have.
    fn bytes(&mut self, kind: u64, bytes: &[u8], fold: u64) {
        self.add(kind | (bytes.len() as u64) << 8);
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.add(u64::from_le_bytes(*chunk) | fold);
        }
        self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)) | fold);
    }

    fn token(&mut self, token: Token<'_>) {
        match token {
            Token::Word(word) => self.bytes(1, word, 0x2020_2020_2020_2020),
            Token::Quoted(text) => self.bytes(2, text, 0),
            Token::Escaped => self.add(3),
            Token::Constant(_) | Token::Parameter => self.add(4),
            Token::Open => self.add(5),
            Token::Close => self.add(6),
            Token::Dot => self.add(7),
            Token::Comma => self.add(8),
            Token::Semicolon => self.add(9),
            Token::Cast => self.add(10),
            Token::Operator(byte) => self.add(11 | u64::from(byte) << 8),
        }
    }
}
