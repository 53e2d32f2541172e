//! How long the classifier takes: `cargo run --release -p routing-core --example classify_speed`.
//!
//! The figures are the least mean of many short rounds: the one that other work on the machine disturbed least.

use std::hint::black_box;
use std::time::Duration;

use routing_core::sql::{Classifier, UnknownFunctions, classify, keeps_session_state, shape};
use tokio::time::Instant;

/// As SeaORM writes it: a join, quoted names, seven parameters, 368 bytes.
const SELECT: &str = concat!(
    r#"SELECT "stock"."id" AS "A_id", "stock"."symbol" AS "A_symbol", "stock"."name" AS "A_name", "#,
    r#""close"."day" AS "B_day" FROM "stock" LEFT JOIN "close" ON "stock"."id" = "close"."stock_id" "#,
    r#"WHERE "stock"."country" = $1 AND "stock"."index" IN ($2, $3) AND ("stock"."name" LIKE $4 OR "#,
    r#""close"."day" >= $5) ORDER BY "stock"."symbol" ASC NULLS LAST, "day" DESC LIMIT $6 OFFSET $7"#,
);

fn main() {
    assert_eq!(SELECT.len(), 368);
    let careful = Classifier::new(UnknownFunctions::Refuse);
    let insert = r#"INSERT INTO "stock" ("symbol", "name") VALUES ($1, $2) RETURNING "id", "symbol", "name""#;
    let calls = "SELECT country, count(*), avg(employees), max(lower(name)) FROM stock GROUP BY country";
    let long = format!("SELECT * FROM stock WHERE name IN ('{}')", "x', 'y".repeat(150_000));

    report("classify, SELECT of 368 bytes", SELECT, |sql| classify(sql) as u64);
    report("classify, unknown functions refused", SELECT, |sql| careful.classify(sql) as u64);
    report("classify, INSERT", insert, |sql| classify(sql) as u64);
    report("classify, calls", calls, |sql| classify(sql) as u64);
    report("classify, calls, unknown refused", calls, |sql| careful.classify(sql) as u64);
    report("classify, 1 MB", &long, |sql| classify(sql) as u64);
    report("keeps_session_state, 368 bytes", SELECT, |sql| u64::from(keeps_session_state(sql)));
    report("shape, SELECT of 368 bytes", SELECT, |sql| shape(sql).get());
    report("shape, 1 MB", &long, |sql| shape(sql).get());
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn report(what: &str, sql: &str, f: impl Fn(&str) -> u64) {
    // A round takes less than a millisecond, all rounds about a second.
    let repeats = u32::try_from(200_000 / sql.len()).unwrap_or(u32::MAX).max(1);
    let mut best = Duration::MAX;
    for _ in 0..1000 {
        let start = Instant::now();
        for _ in 0..repeats {
            black_box(f(black_box(sql)));
        }
        best = best.min(start.elapsed() / repeats);
    }
    println!(
        "{what:40} {:>10} ns  {:.2} ns/byte",
        best.as_nanos(),
        best.as_nanos() as f64 / sql.len() as f64
    );
}
