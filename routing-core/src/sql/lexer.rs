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
    pub(super) text: &'a [u8],
    pub(super) at: usize,
    pub(super) flawed: bool,
}

#[cfg(test)]
thread_local! {
    /// Bytes that this thread's lexers have looked at, each as often as they did.
    pub(super) static EXAMINED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts looks at bytes, for tests.
#[cfg(test)]
fn examine(bytes: usize) {
    EXAMINED.set(EXAMINED.get() + bytes);
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

pub(super) static WORD_BYTES: [bool; 256] = word_bytes();

pub(super) fn begins_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphabetic() || byte >= 0x80
}

/// The first place of a byte among eight; 8 when it is not there.
#[inline(always)]
fn place_in(eight: &[u8; 8], byte: u8) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    // What equals the byte becomes zero, and the first zero sets its high bit (Mycroft, 1987).
    let zeros = u64::from_le_bytes(*eight) ^ ONES.wrapping_mul(u64::from(byte));
    (zeros.wrapping_sub(ONES) & !zeros & HIGH_BITS).trailing_zeros() as usize / 8
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.as_bytes();
        Self {
            text,
            at: 0,
            // The protocol ends a text at a zero byte. The least of all bytes is found sixteen at a time.
            flawed: text.iter().copied().fold(u8::MAX, u8::min) == 0,
        }
    }

    /// Whether the text so far cannot be cut with certainty: a quote or comment was not closed, the end of a constant
    /// depends on `standard_conforming_strings`, a word touches a number (releases before 15 cut there), or a zero
    /// byte ends the text early.
    pub(super) fn is_flawed(&self) -> bool {
        self.flawed
    }

    /// The byte at a place; 0 past the end.
    pub(super) fn byte(&self, at: usize) -> u8 {
        #[cfg(test)]
        examine(1);
        self.text.get(at).copied().unwrap_or(0)
    }

    /// The first place from `from` on with such a byte, or the end of the text.
    pub(super) fn find(&self, from: usize, is_it: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        let length = rest.iter().position(|byte| is_it(*byte)).unwrap_or(rest.len());
        #[cfg(test)]
        examine(length + 1);
        from + length
    }

    /// [`find`](Self::find) of one byte, eight at a time.
    pub(super) fn find_byte(&self, from: usize, byte: u8) -> usize {
        let mut at = from;
        while let Some(eight) = self.eight(at) {
            let place = place_in(eight, byte);
            at += place;
            if place < 8 {
                #[cfg(test)]
                examine(at - from + 1);
                return at;
            }
        }
        #[cfg(test)]
        examine(at - from);
        self.find(at, |other| other == byte)
    }

    /// The eight bytes from a place on, if there are so many.
    fn eight(&self, from: usize) -> Option<&'a [u8; 8]> {
        self.text.get(from..)?.first_chunk()
    }

    pub(super) fn taken(&self, begin: usize) -> &'a [u8] {
        self.text.get(begin..self.at).unwrap_or_default()
    }

    /// Ends here: what should have been closed was not.
    pub(super) fn unclosed(&mut self) {
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

    #[inline]
    fn identifier(&mut self) -> Token<'a> {
        let begin = self.at;
        // Most are short.
        if let Some(eight) = self.eight(begin) {
            let length = place_in(eight, b'"');
            #[cfg(test)]
            examine(length + 2);
            if let (Some(name), Some(next)) = (eight.get(..length), eight.get(length + 1))
                && *next != b'"'
            {
                self.at = begin + length + 1;
                return Token::Quoted(name);
            }
        }
        self.at = self.skip_quoted(begin, b'"');
        Token::Quoted(self.text.get(begin..self.at - 1).unwrap_or_default())
    }

    /// The place behind the quote that ends what began before `from`. Doubled quotes are part of it.
    pub(super) fn skip_quoted(&mut self, from: usize, quote: u8) -> usize {
        let mut at = from;
        loop {
            at = self.find_byte(at, quote);
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

#[cfg(test)]
mod tests {
    use super::Token::*;
    use super::*;

    fn tokens(text: &str) -> (Vec<Token<'_>>, bool) {
        let mut lexer = Lexer::new(text);
        let tokens = std::iter::from_fn(|| lexer.next()).collect();
        (tokens, lexer.is_flawed())
    }

    fn cut(text: &str) -> Vec<Token<'_>> {
        let (tokens, flawed) = tokens(text);
        assert!(!flawed, "{text}");
        tokens
    }

    #[test]
    fn words_and_identifiers() {
        assert_eq!(cut("a B_1 c$2 é名"), [Word(b"a"), Word(b"B_1"), Word(b"c$2"), Word("é名".as_bytes())]);
        assert_eq!(cut(r#""a b" "c""d" "" "#), [Quoted(b"a b"), Quoted(br#"c""d"#), Quoted(b"")]);
        assert_eq!(cut(r#"u&"a" U&"b""c" u & "d""#)[..2], [Escaped, Escaped]);
        assert_eq!(cut("a.b::c"), [Word(b"a"), Dot, Word(b"b"), Cast, Word(b"c")]);
    }

    #[test]
    fn identifiers_of_every_length_end_at_their_own_quote() {
        for length in 0..20 {
            let name = "a".repeat(length);
            for rest in ["b", "b            "] {
                assert_eq!(cut(&format!("\"{name}\"{rest}")), [Quoted(name.as_bytes()), Word(b"b")]);
                let doubled = format!("{name}\"\"c");
                assert_eq!(cut(&format!("\"{doubled}\"{rest}")), [Quoted(doubled.as_bytes()), Word(b"b")]);
                assert!(tokens(&format!("\"{name}{rest}")).1, "{length} {rest:?}");
            }
        }
    }

    #[test]
    fn constants() {
        for text in [
            "'a'",
            "''",
            "''''",
            "'a''b'",
            "'\n'",
            "'a\\b'",
            "'\\\\'",
            "e'\\''",
            "E'\\\\'",
            "E'a''b\\é'",
            "n'a'",
            "N''",
            "b'1'",
            "X'1f'",
            "u&'\\'",
            "U&'a''b'",
            "$$a$$",
            "$a$ $$ $b$ $a$",
            "$é1$'$é1$",
            "$a$a$a$",
            "$a$$a$",
            "$a$ $a $a$",
            "1",
            "1.5",
            ".5",
            "5.",
            "1e5",
            "1.5E-3",
            "1e+5",
            "0x1F",
            "0XaB",
            "0o17",
            "0b11",
            "1_000",
            "1_0.0_1",
        ] {
            assert_eq!(cut(text), [Constant(text.as_bytes())], "{text}");
            assert_eq!(cut(&format!("({text},"))[1..], [Constant(text.as_bytes()), Comma], "{text}");
        }
        assert_eq!(cut("$1+$23"), [Parameter, Operator(b'+'), Parameter]);
        assert_eq!(cut("a'b'"), [Word(b"a"), Constant(b"'b'")]);
        assert_eq!(cut("ee'b'"), [Word(b"ee"), Constant(b"'b'")]);
        assert_eq!(cut("1..2"), [Constant(b"1."), Constant(b".2")]);
        assert_eq!(cut("$ $a"), [Operator(b'$'), Operator(b'$'), Word(b"a")]);
    }

    #[test]
    fn comments_and_white_space() {
        for text in [
            "/**/a",
            "a/* /* ' */ \" */",
            "a-- '",
            "-- '\na",
            "-- '\ra",
            "a--",
            "/***/a",
            "/*/**/*/a",
            "\ta\n",
            "\u{b}a\u{c}",
            "/*--*/a",
            "--/*\na",
        ] {
            assert_eq!(cut(text), [Word(b"a")], "{text}");
        }
        assert_eq!(cut("a*/**/b"), [Word(b"a"), Operator(b'*'), Word(b"b")]);
        assert_eq!(cut("a-/b"), [Word(b"a"), Operator(b'-'), Operator(b'/'), Word(b"b")]);
        assert_eq!(cut("a\u{a0}"), [Word("a\u{a0}".as_bytes())]);
    }

    #[test]
    fn what_cannot_be_cut_with_certainty_is_flawed() {
        for text in [
            "'", "'a", "'a''", "\"", "\"a", "\"\"\"", "e'", "e'\\'", "e'\\", "u&'", "u&\"", "x'", "n'", "$$",
            "$$ $", "$a$ $A$", "$a$a", "/*", "/*/", "/* /* */", "'\\'", "'a\\''b'", "n'\\'", "1a", "1.5e",
            "1_", "1__0", "0x_g", "$1a", "1é", "\0", "'\0'", "--\0",
        ] {
            assert!(tokens(text).1, "{text:?}");
        }
    }

    #[test]
    fn a_byte_is_found_eight_at_a_time_where_it_is_found_one_by_one() {
        // Each place in and behind the first eights, among bytes that differ from it in one bit, or have the highest.
        for other in ["a", "!", "#", "\u{a2}", "\u{ff}", "\0"] {
            for length in 0..40 {
                let mut text: String = other.repeat(length) + "\"";
                for _ in 0..3 {
                    let lexer = Lexer::new(&text);
                    for from in 0..text.len() + 10 {
                        let expected = lexer.find(from, |byte| byte == b'"');
                        assert_eq!(lexer.find_byte(from, b'"'), expected, "{text} {from}");
                    }
                    text += if text.len().is_multiple_of(2) { "\"" } else { other };
                }
            }
        }
    }

    /// Texts that make a lexer which looks ahead or back without bounds slow.
    #[test]
    fn each_byte_is_looked_at_a_bounded_number_of_times() {
        let examined = |text: &str| {
            EXAMINED.set(0);
            let mut lexer = Lexer::new(text);
            while lexer.next().is_some() {}
            EXAMINED.get()
        };
        for piece in [
            "a", "a ", "1", "'", "''", "\"", "\"\"", "$", "$$", "$a", "$a$", "$a ", "$1", "/*", "*/", "/",
            "*", "-", "--", "\\", "'\\", "\\'", "e'\\", "e'", "u&", "u&'", "u&\"", ".", ".1", "1.", "1e",
            "1_", "0x", "_", "é", "\0", ";", "(", ":", "::",
        ] {
            for start in ["", "'", "\"", "$a$", "$aa", "/*", "e'", "--", "1", "$a$ $a"] {
                let text = format!("{start}{}", piece.repeat(5000));
                assert!(
                    examined(&text) <= 8 * text.len() + 16,
                    "{start}{piece}: {} of {}",
                    examined(&text),
                    text.len()
                );
            }
        }
        // A tag as long as what follows, which is nearly the tag again and again.
        let tag = "a".repeat(2000);
        let text = format!("${tag}${}", format!("${tag}b").repeat(50));
        assert!(examined(&text) <= 8 * text.len());
    }
}
