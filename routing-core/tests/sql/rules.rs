//! Rules of the user's own.

use routing_core::sql::StatementKind::{Read, Session, Write};
use routing_core::sql::{Classifier, UnknownFunctions, classify};

#[test]
fn unknown_functions_are_allowed_unless_refused() {
    let careful = Classifier::new(UnknownFunctions::Refuse);
    for sql in [
        "SELECT rank_stock(7)",
        "SELECT public.lower('x')",
        "SELECT \"LOWER\"('x')",
        "SELECT \"coalesce\"(1)",
        "SELECT public . \"lower\" ('x')",
        "SELECT * FROM screen($1) AS s(a, b)",
        "SELECT coalesce(rank_stock(7), 0)",
        "SELECT x + rank_stock(7)::int FROM t",
        "SELECT DISTINCT ON (a) rank_stock(7) FROM t",
        "EXPLAIN SELECT rank_stock(7)",
        "COPY (SELECT rank_stock(7)) TO STDOUT",
    ] {
        assert_eq!(classify(sql), Read, "{sql}");
        assert_eq!(careful.classify(sql), Write, "{sql}");
    }
}

#[test]
fn what_the_catalogue_and_the_grammar_know_is_not_refused() {
    let careful = Classifier::new(UnknownFunctions::Refuse);
    for sql in [
        "SELECT count(*), max(lower(name)), avg(employees) FILTER (WHERE id IN (1, 2)) FROM t",
        "SELECT pg_catalog.lower('x'), \"pg_catalog\".\"lower\"('x'), PG_CATALOG . LOWER ('x'), \"lower\"('x')",
        "SELECT coalesce(a, 1), greatest(b, 2), nullif(c, 3), CASE WHEN (a) THEN (b) ELSE (c) END FROM t",
        "SELECT CAST(a AS numeric(10, 2)), b::character varying(3), c::public.money_of(3), d::varchar(2) FROM t",
        "SELECT row_number() OVER (PARTITION BY (a) ORDER BY (b)) FROM t WINDOW w AS (ORDER BY c)",
        "WITH x(a, b) AS (VALUES (1, 2)) SELECT * FROM x JOIN (SELECT 1) y USING (a)",
        "WITH RECURSIVE t(n) AS (VALUES (1)) SELECT * FROM (WITH u(m) AS (TABLE t) TABLE u) q",
        "SELECT * FROM generate_series(1, 2) AS g(n), LATERAL (SELECT 1) AS l(m)",
        "SELECT extract(year FROM now()), substring(a FROM (1) FOR (2)), trim(both FROM a), overlay(a PLACING b FROM 1)",
        "SELECT * FROM t TABLESAMPLE bernoulli (10) WHERE a = ANY (ARRAY(SELECT 1)) AND EXISTS (SELECT 1)",
        "SELECT a BETWEEN (1) AND (2), b NOT LIKE ('x'), c ILIKE ('y'), d IN (1), (e, f) = ROW (1, 2) FROM t",
        "SELECT current_timestamp(3), timestamp(3) '2024-01-01', interval(0) '1 s', numeric(3, 1) '1.5'",
        "COPY stocks (symbol, name) TO STDOUT WITH (FORMAT csv)",
        "EXPLAIN (COSTS OFF) SELECT lower('x')",
        "SELECT * FROM a UNION (SELECT 1) EXCEPT (SELECT 2) LIMIT (3) OFFSET (4)",
        "SELECT random(), gen_random_uuid(), clock_timestamp(), pg_sleep(0)",
        r#"SELECT "stock"."id" FROM "stock" WHERE "stock"."id" IN ($1, $2) AND ("a" = $3 OR NOT ("b" = $4))"#,
    ] {
        assert_eq!(careful.classify(sql), Read, "{sql}");
    }
}

#[test]
fn what_cannot_be_told_from_a_call_is_refused() {
    let careful = Classifier::new(UnknownFunctions::Refuse);
    for sql in
        ["WITH a AS (SELECT 1), b(x) AS (SELECT 2) TABLE b", "SELECT * FROM generate_series(1, 2) g(n)"]
    {
        assert_eq!(careful.classify(sql), Write, "{sql}");
    }
}

#[test]
fn functions_that_the_user_names_count_in_every_schema_and_letter_case() {
    let rules = Classifier::default()
        .writing(["enqueue", "jobs.Cancel"])
        .keeping_state([String::from("\"remember\"")]);
    for sql in [
        "SELECT enqueue('mail')",
        "SELECT Jobs.\"Enqueue\" ('mail')",
        "SELECT cancel(1)",
        "SELECT other.cancel(1)",
        "SELECT job.enqueue FROM job",
        "SELECT (job).cancel FROM job",
        "EXPLAIN SELECT enqueue('mail')",
        "SELECT nextval('s')",
    ] {
        assert_eq!(rules.classify(sql), Write, "{sql}");
    }
    for sql in ["SELECT remember(1)", "SELECT t.remember FROM t", "SELECT pg_advisory_lock(1)"] {
        assert_eq!(rules.classify(sql), Session, "{sql}");
    }
    for sql in ["SELECT enqueue, cancel FROM t", "SELECT enqueues(1), 'enqueue(1)'"] {
        assert_eq!(rules.classify(sql), Read, "{sql}");
    }
}

#[test]
fn the_user_has_the_last_word_on_a_function() {
    let rules = Classifier::new(UnknownFunctions::Refuse).reading(["lo_get", "screen"]).writing(["lower"]);
    assert_eq!(rules.classify("SELECT lo_get(1), public.screen(2)"), Read);
    assert_eq!(rules.classify("SELECT lower('x')"), Write);
    assert_eq!(rules.classify("SELECT lo_put(1, 0, 'x')"), Write);
    let changed = rules.reading(["lower"]).writing(["screen"]).keeping_state(["screen"]);
    assert_eq!(changed.classify("SELECT lower('x')"), Read);
    assert_eq!(changed.classify("SELECT screen(2)"), Session);
}

#[test]
fn a_long_name_is_cut_as_the_server_cuts_it() {
    let name = "f".repeat(80);
    let rules = Classifier::default().writing([name.as_str()]);
    assert_eq!(rules.classify(&format!("SELECT {}(1)", "F".repeat(63))), Write);
    assert_eq!(rules.classify(&format!("SELECT {}(1)", "f".repeat(70))), Write);
    assert_eq!(rules.classify(&format!("SELECT {}(1)", "f".repeat(62))), Read);
}
