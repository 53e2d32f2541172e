//! Whoever sends a text twice as long makes twice the work, not four times: counted in looks at bytes.

use fastrand::Rng;

use super::lexer::EXAMINED;
use super::{
    Classifier, UnknownFunctions, controls_transaction, keeps_session_state, may_begin_transaction, shape,
};

/// The most looks at each byte, by the six passes over a text together: the lexer promises eight for each.
const MOST_LOOKS: usize = 6 * 8;

/// What a text is made of, where it matters to somebody who reads it.
const PIECES: &[&str] = &[
    " ",
    "\n",
    "a",
    "a.",
    "A1_",
    "é",
    "1",
    "1.",
    "1e",
    "0x",
    "$1",
    "$",
    "$$",
    "$a$",
    "$a",
    "'",
    "''",
    "e'",
    "E'\\",
    "u&'",
    "u&\"",
    "\"",
    "\"\"",
    "/*",
    "*/",
    "/*/",
    "--",
    "--\n",
    "(",
    ")",
    "((",
    "))",
    "()",
    ",",
    ";",
    ";;",
    "::",
    ":",
    ".",
    "+",
    "*",
    "[",
    "select ",
    "SELECT a FROM b ",
    "with ",
    "with a as (",
    "as (select ",
    "as ",
    "for ",
    "for key ",
    "for update ",
    "into ",
    "update ",
    "delete ",
    "insert into ",
    "merge ",
    "explain ",
    "explain (",
    "analyze ",
    "copy ",
    "copy (",
    "to ",
    "stdout ",
    "create ",
    "temp ",
    "set ",
    "begin;",
    "prepare a as ",
    "declare ",
    "values ",
    "values (1)",
    "table a",
    "nextval(",
    "pg_catalog.",
    "setval('a',",
    "generate_series(",
    "f(",
    "all ",
    "distinct ",
    "union ",
    "in (",
    "case when ",
    "end ",
    "interval '1' ",
    "default ",
    "do ",
    "call ",
    "execute ",
    "show a",
    "lock ",
    "listen a",
];

/// Looks at bytes by everything that is told of a text.
fn work(text: &str) -> usize {
    EXAMINED.set(0);
    let strict = Classifier::new(UnknownFunctions::Refuse);
    let _ = (Classifier::default().classify(text), strict.classify(text), shape(text));
    let _ = (keeps_session_state(text), may_begin_transaction(text), controls_transaction(text));
    EXAMINED.get()
}

/// A text that begins with `start` and repeats `unit` up to this length.
fn text(start: &str, unit: &str, length: usize) -> String {
    let mut text = start.to_owned();
    while text.len() < length {
        text.push_str(unit);
    }
    text
}

/// How much more work a text of twice the length is.
fn growth(text: impl Fn(usize) -> String) -> f64 {
    const LENGTH: usize = 2_000;
    work(&text(2 * LENGTH)) as f64 / work(&text(LENGTH)) as f64
}

#[test]
fn twice_the_length_is_twice_the_work() {
    let starts = [
        "",
        "select ",
        "select '",
        "explain (",
        "copy (",
        "with a as (",
        "/*",
        "$a$",
        "select \"",
        "set a = ",
        "values (",
    ];
    for start in starts {
        for unit in PIECES {
            let grown = growth(|length| text(start, unit, length));
            assert!(grown < 2.2, "{start}{unit}…: {grown:.2} times the work");
        }
    }
    let deep = |length: usize| format!("select {}1{}", "(".repeat(length / 2), ")".repeat(length / 2));
    let nested = |length: usize| format!("{}{}select 1", "/*".repeat(length / 4), "*/".repeat(length / 4));
    let half_closed = |length: usize| format!("{}{}", "/*".repeat(length / 3), "*/".repeat(length / 6));
    let tag = |length: usize| {
        let tag = "a".repeat(length / 8);
        format!("select ${tag}${}${tag}$", format!("${tag}b").repeat(6))
    };
    let many_tags = |length: usize| (0..length / 12).map(|n| format!("$t{n:06}$ ")).collect::<String>();
    let unions = |length: usize| text("select 1", " union all select f(a) from b", length);
    let list = |length: usize| text("select a from b where c in (1", ",1", length) + ")";
    let shapes: [(&str, &dyn Fn(usize) -> String); 7] = [
        ("parentheses", &deep),
        ("nested comments", &nested),
        ("comments half closed", &half_closed),
        ("a long tag that nearly ends", &tag),
        ("tags that never end", &many_tags),
        ("unions", &unions),
        ("a list", &list),
    ];
    for (name, shape) in shapes {
        let grown = growth(shape);
        assert!(grown < 2.2, "{name}: {grown:.2} times the work");
    }
}

/// A short climb: a text of a few pieces is changed at random, and what makes more work for its length is kept.
#[test]
fn no_text_that_a_search_finds_has_a_byte_looked_at_without_bound() {
    const LENGTH: usize = 1_000;
    let seed = std::env::var("ROUTING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut rng = Rng::with_seed(seed);
    let drawn = |rng: &mut Rng| PIECES[rng.usize(..PIECES.len())];
    let looks = |start: &str, unit: &str| {
        let text = text(start, unit, LENGTH);
        work(&text).div_ceil(text.len())
    };
    let mut worst = (0, String::new(), String::new());
    for _ in 0..12 {
        let mut start = drawn(&mut rng).to_owned();
        let mut unit = vec![drawn(&mut rng)];
        let mut best = looks(&start, &unit.concat());
        for _ in 0..150 {
            let (mut next_start, mut next) = (start.clone(), unit.clone());
            match rng.u32(..4) {
                0 => next_start = drawn(&mut rng).to_owned() + drawn(&mut rng),
                1 if next.len() < 5 => next.insert(rng.usize(..=next.len()), drawn(&mut rng)),
                2 if next.len() > 1 => drop(next.remove(rng.usize(..next.len()))),
                _ => {
                    let place = rng.usize(..next.len());
                    next[place] = drawn(&mut rng);
                }
            }
            let found = looks(&next_start, &next.concat());
            if found >= best {
                (best, start, unit) = (found, next_start, next);
            }
        }
        if best > worst.0 {
            worst = (best, start, unit.concat());
        }
    }
    let (most, start, unit) = worst;
    let grown = growth(|length| text(&start, &unit, length));
    println!(
        "seed {seed}: {most} looks at each byte of {start:?}{unit:?}…, {grown:.2} times for twice the length"
    );
    assert!(
        most <= MOST_LOOKS && grown < 2.2,
        "seed {seed}: {start:?}{unit:?}…: {most} looks, {grown:.2} times"
    );
}
