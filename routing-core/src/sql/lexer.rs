//! From bytes to tokens, as PostgreSQL's own lexer cuts them (`scan.l`), without their values.
//!
//! Where releases or settings of the server would cut a text differently, the lexer says that it is flawed.

/// One token. What stands in comments is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an unquoted identifier, as written.
    Word(&'a [u8]),
    /// A quoted identifier without its quotes. A doubled quote in it stays doubled.
    Quoted(&'a [u8]),
    /// An identifier with Unicode escapes: `U&"…"`. What it names is not known.
    Escaped,
    /// A string, bit string or number, as written.
    Constant(&'a [u8]),
    /// `$1`
    Parameter,
    Open,
    Close,
    Dot,
    Comma,
    Semicolon,
    /// `::`
    Cast,
    /// One byte of an operator, or one that begins no token.
    Operator(u8),
}

/// Cuts a text into tokens. Each byte is looked at a constant number of times; nothing is allocated.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    flawed: bool,
    #[cfg(test)]
    pub(super) examined: std::cell::Cell<usize>,
}

const fn word_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let ascii = byte as u8;
        table[byte] = ascii == b'_' || ascii == b'$' || ascii.is_ascii_alphanumeric() || ascii >= 0x80;
        byte += 1;
    }
    table
}

static WORD_BYTES: [bool; 256] = word_bytes();

fn begins_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphabetic() || byte >= 0x80
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.as_bytes();
        Self {
            text,
            at: 0,
            // The protocol ends a text at a zero byte.
            flawed: text.contains(&0),
            #[cfg(test)]
            examined: std::cell::Cell::default(),
        }
    }

    /// Whether the text so far cannot be cut with certainty: a quote or comment was not closed, the end of a constant
    /// depends on `standard_conforming_strings`, a word touches a number (releases before 15 cut there), or a zero
    /// byte ends the text early.
    pub(super) fn is_flawed(&self) -> bool {
        self.flawed
    }

    /// The byte at a place; 0 past the end.
    fn byte(&self, at: usize) -> u8 {
        #[cfg(test)]
        self.examined.set(self.examined.get() + 1);
        self.text.get(at).copied().unwrap_or(0)
    }

    /// The first place from `from` on with such a byte, or the end of the text.
    fn find(&self, from: usize, is_it: impl Fn(u8) -> bool) -> usize {
        let mut at = from;
        while let Some(byte) = self.text.get(at)
            && !is_it(*byte)
        {
            at += 1;
        }
        #[cfg(test)]
        self.examined.set(self.examined.get() + at - from + 1);
        at
    }

    fn taken(&self, begin: usize) -> &'a [u8] {
        self.text.get(begin..self.at).unwrap_or_default()
    }

    /// Ends here: what should have been closed was not.
    fn unclosed(&mut self) {
        (self.at, self.flawed) = (self.text.len(), true);
    }

    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        self.cut()
    }

    /// Goes past empty statements.
    pub(super) fn skip_semicolons(&mut self) {
        loop {
            let begin = self.at;
            if self.next() != Some(Token::Semicolon) {
                self.at = begin;
                return;
            }
        }
    }

    /// [`next`](Self::next), for the one loop that must be fast.
    #[inline(always)]
    pub(super) fn cut(&mut self) -> Option<Token<'a>> {
        loop {
            let begin = self.at;
            let byte = self.byte(begin);
            self.at = begin + 1;
            return Some(match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => continue,
                b'"' => self.identifier(),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => self.word(),
                b'.' if !self.byte(begin + 1).is_ascii_digit() => Token::Dot,
                b',' => Token::Comma,
                b'(' => Token::Open,
                b')' => Token::Close,
                b'$' => self.dollar(),
                b'0'..=b'9' | b'.' => self.number(),
                b'\'' => {
                    self.plain_string();
                    Token::Constant(self.taken(begin))
                }
                b':' if self.byte(begin + 1) == b':' => {
                    self.at += 1;
                    Token::Cast
                }
                b'-' if self.byte(begin + 1) == b'-' => {
                    self.at = self.find(begin, |byte| matches!(byte, b'\n' | b'\r'));
                    continue;
                }
                b'/' if self.byte(begin + 1) == b'*' => {
                    self.block_comment();
                    continue;
                }
                b';' => Token::Semicolon,
                0 if begin >= self.text.len() => {
                    self.at = begin;
                    return None;
                }
                _ => Token::Operator(byte),
            });
        }
    }

    // What follows begins behind the first byte of its token.

    #[inline]
    fn word(&mut self) -> Token<'a> {
        let begin = self.at - 1;
        self.at = self.find(self.at, |byte| !WORD_BYTES[usize::from(byte)]);
        if self.at == begin + 1 && matches!(self.byte(self.at), b'\'' | b'&') {
            return self.prefixed();
        }
        Token::Word(self.taken(begin))
    }

    /// A single letter in front of a quote or an ampersand.
    fn prefixed(&mut self) -> Token<'a> {
        let begin = self.at - 1;
        match (self.byte(begin) | 0x20, self.byte(self.at), self.byte(self.at + 1)) {
            (b'e', b'\'', _) => {
                self.at += 1;
                self.escape_string();
            }
            (b'b' | b'x', b'\'', _) => self.at = self.skip_quoted(self.at + 1, b'\''),
            (b'n', b'\'', _) => {
                self.at += 1;
                self.plain_string();
            }
            // The server refuses these constants while backslashes escape, so they do not here.
            (b'u', b'&', b'\'') => self.at = self.skip_quoted(self.at + 2, b'\''),
            (b'u', b'&', b'"') => {
                self.at = self.skip_quoted(self.at + 2, b'"');
                return Token::Escaped;
            }
            _ => return Token::Word(self.taken(begin)),
        }
        Token::Constant(self.taken(begin))
    }

    #[inline]
    fn identifier(&mut self) -> Token<'a> {
        let begin = self.at;
        self.at = self.skip_quoted(begin, b'"');
        Token::Quoted(self.text.get(begin..self.at - 1).unwrap_or_default())
    }

    /// The place behind the quote that ends what began before `from`. Doubled quotes are part of it.
    fn skip_quoted(&mut self, from: usize, quote: u8) -> usize {
        let mut at = from;
        loop {
            at = self.find(at, |byte| byte == quote);
            if at >= self.text.len() {
                self.flawed = true;
                return at;
            }
            if self.byte(at + 1) != quote {
                return at + 1;
            }
            at += 2;
        }
    }

    /// A constant in which a backslash means itself, or escapes, as `standard_conforming_strings` has it. Both readings
    /// end at the same quote unless an odd number of backslashes stands before one. The same holds for a line that
    /// continues a constant with `E`.
    fn plain_string(&mut self) {
        let begin = self.at;
        loop {
            let quote = self.find(self.at, |byte| byte == b'\'');
            if quote >= self.text.len() {
                return self.unclosed();
            }
            let mut backslashes = 0;
            while quote - backslashes > begin && self.byte(quote - backslashes - 1) == b'\\' {
                backslashes += 1;
            }
            self.flawed |= backslashes % 2 == 1;
            if self.byte(quote + 1) != b'\'' {
                self.at = quote + 1;
                return;
            }
            self.at = quote + 2;
        }
    }

    fn escape_string(&mut self) {
        while self.at < self.text.len() {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'\\', _) | (b'\'', b'\'') => self.at += 2,
                (b'\'', _) => {
                    self.at += 1;
                    return;
                }
                _ => self.at += 1,
            }
        }
        self.unclosed();
    }

    /// A parameter, a dollar-quoted constant, or a lone dollar sign.
    fn dollar(&mut self) -> Token<'a> {
        let begin = self.at - 1;
        if self.byte(self.at).is_ascii_digit() {
            self.at = self.find(self.at, |byte| !byte.is_ascii_digit());
            self.flawed |= begins_word(self.byte(self.at));
            return Token::Parameter;
        }
        let end = self.find(self.at, |byte| byte == b'$' || !WORD_BYTES[usize::from(byte)]);
        if self.byte(end) != b'$' {
            return Token::Operator(b'$');
        }
        let tag = self.text.get(begin..=end).unwrap_or_default();
        self.at = end + 1;
        loop {
            self.at = self.find(self.at, |byte| byte == b'$');
            if self.at >= self.text.len() {
                self.unclosed();
                break;
            }
            let same =
                (1..tag.len()).take_while(|offset| self.byte(self.at + offset) == tag[*offset]).count() + 1;
            if same == tag.len() {
                self.at += same;
                break;
            }
            // What was the same holds no other dollar sign, so none is skipped.
            self.at += same;
        }
        Token::Constant(self.taken(begin))
    }

    fn number(&mut self) -> Token<'a> {
        let begin = self.at - 1;
        let base = match (self.byte(begin), self.byte(begin + 1) | 0x20) {
            (b'0', b'x') => 16,
            (b'0', b'o') => 8,
            (b'0', b'b') => 2,
            _ => 10,
        };
        if base == 10 {
            self.at = begin;
            self.digits(base);
            if self.byte(self.at) == b'.' {
                self.at += 1;
                self.digits(base);
            }
            if self.byte(self.at) | 0x20 == b'e' {
                let sign = usize::from(matches!(self.byte(self.at + 1), b'+' | b'-'));
                if self.byte(self.at + 1 + sign).is_ascii_digit() {
                    self.at += 1 + sign;
                    self.digits(base);
                }
            }
        } else {
            self.at = begin + 2;
            self.digits(base);
        }
        self.flawed |= begins_word(self.byte(self.at));
        Token::Constant(self.taken(begin))
    }

    /// Goes past digits, which a single underscore may part.
    fn digits(&mut self, base: u32) {
        let mut at = self.at;
        loop {
            if char::from(self.byte(at)).is_digit(base) {
                at += 1;
                self.at = at;
            } else if self.byte(at) == b'_' && at == self.at {
                at += 1;
            } else {
                return;
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 1_u32;
        self.at += 1;
        while self.at < self.text.len() {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'/', b'*') => (depth, self.at) = (depth.saturating_add(1), self.at + 2),
                (b'*', b'/') => {
                    (depth, self.at) = (depth.saturating_sub(1), self.at + 2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.unclosed();
    }
}
