//! What was decided of the functions of the system catalogue.

use std::collections::HashSet;

use routing_core::sql::{Classifier, StatementKind, UnknownFunctions, classify};

const REVIEWED: &str = include_str!("reviewed.txt");

fn verdicts() -> impl Iterator<Item = (StatementKind, &'static str)> {
    REVIEWED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        let (kind, name) = line.split_once(' ').expect("a verdict and a name");
        let kind = match kind {
            "read" => StatementKind::Read,
            "write" => StatementKind::Write,
            "session" => StatementKind::Session,
            other => panic!("{other} is no kind"),
        };
        (kind, name)
    })
}

#[test]
fn every_function_is_as_its_verdict_says_whoever_asks() {
    let careful = Classifier::new(UnknownFunctions::Refuse);
    for (kind, name) in verdicts() {
        for sql in [format!("SELECT {name}(1)"), format!("SELECT pg_catalog.\"{name}\" ()")] {
            assert_eq!(classify(&sql), kind, "{sql}");
            assert_eq!(careful.classify(&sql), kind, "{sql}");
        }
    }
}

#[test]
fn every_function_has_one_verdict() {
    let mut names = HashSet::new();
    for (_, name) in verdicts() {
        assert!(names.insert(name), "{name} stands twice");
    }
    assert!(names.len() > 200);
}
