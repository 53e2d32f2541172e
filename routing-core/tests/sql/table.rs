//! Every case of the table, as it stands and laid out otherwise.

use std::collections::HashSet;

use routing_core::sql::{Classifier, StatementKind, UnknownFunctions, classify};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::cases::GROUPS;
use crate::oracle;

fn cases() -> impl Iterator<Item = (&'static str, StatementKind, &'static str)> {
    GROUPS.iter().flat_map(|group| group.texts.iter().map(|text| (group.why, group.kind, *text)))
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_text_is_of_the_kind_that_its_group_says() {
    let wrong = cases().filter(|(_, kind, text)| classify(text) != *kind);
    let wrong =
        wrong.map(|(why, kind, text)| format!("{why}: {text:?} is {:?}, not {kind:?}", classify(text)));
    assert_none(&wrong.collect::<Vec<_>>());
}

#[test]
fn no_text_stands_twice() {
    let mut seen = HashSet::new();
    assert_none(
        &cases().filter(|case| !seen.insert(case.2)).map(|case| case.2.to_owned()).collect::<Vec<_>>(),
    );
    println!("{} texts in {} groups", seen.len(), GROUPS.len());
}

#[test]
fn every_text_passes_the_checks_of_the_fuzz_target() {
    for (_, _, text) in cases() {
        oracle::check(text);
    }
}

/// Words in another case, white space of another kind, as another lexer finds them. `None` where that lexer fails.
fn laid_out(text: &str, upper: bool, space: &str) -> Option<String> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).with_unescape(false).tokenize().ok()?;
    let joined: String = tokens.iter().map(ToString::to_string).collect();
    if joined != text {
        return None;
    }
    let pieces = tokens.iter().map(|token| match token {
        Token::Whitespace(_) => space.to_owned(),
        Token::Word(word) if word.quote_style.is_none() && upper => word.value.to_ascii_uppercase(),
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
        other => other.to_string(),
    });
    Some(pieces.collect())
}

#[test]
fn letter_case_white_space_and_comments_decide_nothing() {
    let mut tried = 0;
    let mut wrong = Vec::new();
    for (_, kind, text) in cases() {
        for upper in [true, false] {
            for space in
                [" ", "\n", "\t\r\n\u{c}", "/**/", " /* ' /* ; */ */ ", " -- for update ' \" $$ /*\n", "--\r"]
            {
                let Some(other) = laid_out(text, upper, space) else { continue };
                tried += 1;
                if classify(&other) != kind {
                    wrong.push(format!("{other:?} is {:?}, not {kind:?}", classify(&other)));
                }
            }
        }
    }
    assert_none(&wrong);
    assert!(tried > 4000, "the other lexer understood too little: {tried}");
}

#[test]
fn refusing_unknown_functions_makes_no_text_of_a_lower_kind() {
    let careful = Classifier::new(UnknownFunctions::Refuse);
    for (why, kind, text) in cases() {
        assert!(careful.classify(text) >= kind, "{why}: {text:?}");
    }
}

#[test]
fn a_write_in_a_part_of_a_query_is_a_write_of_the_whole() {
    let mut wrong = Vec::new();
    let parts = cases().filter(|(_, kind, text)| {
        let word = text.split_ascii_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let can_be_part = ["SELECT", "VALUES", "TABLE", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE"];
        // In parentheses of another statement these are balanced.
        let balances = text.contains(")(");
        *kind != StatementKind::Read && can_be_part.contains(&word.as_str()) && !balances
    });
    for (why, _, text) in parts {
        for whole in [
            format!("WITH x AS ({text}\n) SELECT 1"),
            format!("WITH a AS (SELECT 1), x AS NOT MATERIALIZED ({text}\n) TABLE a"),
            format!("SELECT * FROM (WITH x AS ({text}\n) SELECT 1) q WHERE EXISTS (SELECT 1)"),
            format!("EXPLAIN (ANALYZE) WITH x AS ({text}\n) SELECT 1"),
            format!("COPY (WITH x AS ({text}\n) SELECT 1) TO STDOUT"),
        ] {
            if classify(&whole) == StatementKind::Read {
                wrong.push(format!("{why}: {whole:?}"));
            }
        }
    }
    assert_none(&wrong);
}
