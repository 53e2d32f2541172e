//! The fuzz target on random and mutated texts.
//!
//! The texts are the same in every run, so that a run fails for what was changed and not for what was drawn. To look for
//! more, `SQL_FUZZ_SEED` names another seed and `SQL_FUZZ_TEXTS` how many texts of each are tried; what breaks a law is
//! printed with its seed.

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

/// The seeds of every run.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

#[test]
fn no_text_breaks_a_law() {
    let seeds = number("SQL_FUZZ_SEED").map_or(SEEDS.to_vec(), |seed| vec![seed]);
    let texts = number("SQL_FUZZ_TEXTS").unwrap_or(10_000);
    let corpus: Vec<&str> = GROUPS.iter().flat_map(|group| group.texts).copied().collect();
    for seed in seeds {
        let mut rng = Rng::with_seed(seed);
        for _ in 0..texts {
            let text = if rng.u8(..5) == 0 { random(&mut rng) } else { mutated(&mut rng, &corpus) };
            if let Err(payload) = panic::catch_unwind(|| oracle::check(&text)) {
                eprintln!("SQL_FUZZ_SEED={seed} SQL_FUZZ_TEXTS={texts}: {text:?}");
                panic::resume_unwind(payload);
            }
        }
    }
}
