//! Words as numbers: letter case folded, compared at once.

/// An unquoted word of at most eight bytes; 0 for a longer one.
///
/// Setting one bit folds ASCII letters to lower case and keeps all other bytes of words apart from letters.
pub(super) const fn key(word: &[u8]) -> u64 {
    if word.len() > 8 {
        return 0;
    }
    let (mut key, mut at) = (0, 0);
    while at < word.len() {
        key = key << 8 | (word[at] | 0x20) as u64;
        at += 1;
    }
    key
}

macro_rules! keywords {
    ($($name:ident = $word:literal,)*) => { $(pub(super) const $name: u64 = key($word.as_bytes());)* };
}

keywords! {
    ABORT = "abort",
    ANALYSE = "analyse",
    ANALYZE = "analyze",
    AS = "as",
    BEGIN = "begin",
    CLOSE = "close",
    COMMIT = "commit",
    COPY = "copy",
    CREATE = "create",
    DECLARE = "declare",
    DELETE = "delete",
    DISCARD = "discard",
    END = "end",
    EXECUTE = "execute",
    EXPLAIN = "explain",
    FALSE = "false",
    FETCH = "fetch",
    FOR = "for",
    FROM = "from",
    GLOBAL = "global",
    IN = "in",
    INSERT = "insert",
    INTO = "into",
    KEY = "key",
    LISTEN = "listen",
    LOAD = "load",
    LOCAL = "local",
    MERGE = "merge",
    MOVE = "move",
    OFF = "off",
    OR = "or",
    PREPARE = "prepare",
    PREPARED = "prepared",
    RELEASE = "release",
    REPLACE = "replace",
    RESET = "reset",
    ROLLBACK = "rollback",
    SELECT = "select",
    SET = "set",
    SHARE = "share",
    SHOW = "show",
    START = "start",
    STDOUT = "stdout",
    TABLE = "table",
    TEMP = "temp",
    TO = "to",
    UNLISTEN = "unlisten",
    UPDATE = "update",
    VALUES = "values",
    VERBOSE = "verbose",
    WITH = "with",
}

/// Commands whose names have more than eight letters and that keep state in their session.
pub(super) fn is_long_session_command(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"savepoint") || word.eq_ignore_ascii_case(b"deallocate")
}

pub(super) fn is_temporary(word: &[u8]) -> bool {
    key(word) == TEMP || word.eq_ignore_ascii_case(b"temporary")
}

/// By first letter: the lengths of the words that decide inside a statement, as bits.
const LENGTHS: [u16; 32] = {
    let words = [
        "as",
        "delete",
        "for",
        "from",
        "global",
        "insert",
        "into",
        "key",
        "local",
        "merge",
        "no",
        "recursive",
        "select",
        "share",
        "table",
        "temp",
        "temporary",
        "update",
        "with",
    ];
    let mut lengths = [0; 32];
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_bytes();
        lengths[(word[0] & 0x1f) as usize] |= 1 << word.len();
        at += 1;
    }
    lengths
};

/// Whether a word inside a statement can be one of those that decide, from its first letter and its length.
pub(super) fn may_decide(word: &[u8]) -> bool {
    match word {
        [first, ..] if word.len() < 16 => LENGTHS[usize::from(first & 0x1f)] >> word.len() & 1 == 1,
        _ => false,
    }
}
