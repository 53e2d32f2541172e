//! The fuzz target on random and mutated texts, from a printed seed.
//!
//! `SQL_FUZZ_SEED` repeats a run, `SQL_FUZZ_TEXTS` sets how many texts it tries.

use std::env;
use std::panic;

use fastrand::Rng;

use crate::cases::GROUPS;
use crate::oracle;

/// What mutations insert: whatever opens, closes, parts or decides.
const PIECES: &[&str] = &[
    " ",
    "\n",
    "\r",
    "\t",
    "'",
    "''",
    "\"",
    "\"\"",
    "$$",
    "$a$",
    "$1",
    "E'",
    "U&'",
    "U&\"",
    "N'",
    "\\",
    "\\'",
    "--",
    "/*",
    "*/",
    "(",
    ")",
    ";",
    ",",
    ".",
    "::",
    "*",
    "+",
    "1",
    "1.5",
    "0x",
    "_",
    "é",
    "\u{a0}",
    "\0",
    "a",
    "t",
    "SELECT ",
    " FROM ",
    " WHERE ",
    " AS ",
    " WITH ",
    " RECURSIVE ",
    " INTO ",
    " TEMP ",
    " FOR ",
    " UPDATE ",
    " SHARE ",
    " NO ",
    " KEY ",
    " INSERT INTO t VALUES (1) ",
    " DELETE FROM t ",
    " UPDATE t SET a = 1 ",
    " RETURNING * ",
    " MERGE ",
    " UNION ",
    " EXPLAIN ",
    " ANALYZE ",
    "(ANALYZE)",
    " COPY ",
    " TO STDOUT",
    " VALUES (1) ",
    " TABLE t ",
    " nextval('s') ",
    " set_config('a', 'b', true) ",
    "nextval",
    "pg_catalog.",
    " SHOW a ",
    " LIMIT 1 ",
    " CREATE ",
    " COMMIT ",
    " PREPARED ",
];

fn mutated(rng: &mut Rng, corpus: &[&str]) -> String {
    let mut bytes = corpus[rng.usize(..corpus.len())].as_bytes().to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(0..8)).min(bytes.len());
        match rng.u8(..7) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            2 => bytes.splice(at..at, [rng.u8(..)]).for_each(drop),
            3 => {
                let other = corpus[rng.usize(..corpus.len())].as_bytes();
                let from = rng.usize(..=other.len());
                bytes.splice(at.., other[from..].iter().copied()).for_each(drop);
            }
            4 => {
                let other = corpus[rng.usize(..corpus.len())];
                bytes.splice(at..at, format!("({other})").bytes()).for_each(drop);
            }
            _ => bytes.splice(at..end, PIECES[rng.usize(..PIECES.len())].bytes()).for_each(drop),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn random(rng: &mut Rng) -> String {
    (0..rng.usize(0..25)).map(|_| PIECES[rng.usize(..PIECES.len())]).collect()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

#[test]
fn no_text_breaks_a_law() {
    let seed = number("SQL_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let texts = number("SQL_FUZZ_TEXTS").unwrap_or(20_000);
    println!("SQL_FUZZ_SEED={seed} SQL_FUZZ_TEXTS={texts}");
    let mut rng = Rng::with_seed(seed);
    let corpus: Vec<&str> = GROUPS.iter().flat_map(|group| group.texts).copied().collect();
    for _ in 0..texts {
        let text = if rng.u8(..5) == 0 { random(&mut rng) } else { mutated(&mut rng, &corpus) };
        if let Err(payload) = panic::catch_unwind(|| oracle::check(&text)) {
            eprintln!("SQL_FUZZ_SEED={seed}: {text:?}");
            panic::resume_unwind(payload);
        }
    }
}
