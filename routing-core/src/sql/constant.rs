//! How the lexer cuts constants: strings of every kind, numbers, parameters.

use super::lexer::{Lexer, Token, WORD_BYTES, begins_word};

// Each begins behind the first byte of its token.
impl<'a> Lexer<'a> {
    /// A single letter in front of a quote or an ampersand.
    pub(super) fn prefixed(&mut self) -> Token<'a> {
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

    /// A constant in which a backslash means itself, or escapes, as `standard_conforming_strings` has it. Both readings
    /// end at the same quote unless an odd number of backslashes stands before one. The same holds for a line that
    /// continues a constant with `E`.
    pub(super) fn plain_string(&mut self) {
        let begin = self.at;
        loop {
            let quote = self.find_byte(self.at, b'\'');
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
    pub(super) fn dollar(&mut self) -> Token<'a> {
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
            self.at = self.find_byte(self.at, b'$');
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

    pub(super) fn number(&mut self) -> Token<'a> {
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
}
