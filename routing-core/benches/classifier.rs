//! What a look at a statement costs: `cargo bench -p routing-core --bench classifier`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use routing_core::sql::{classify, shape};

/// As an ORM writes it.
const TYPICAL: &str = r#"SELECT "stock"."id", "stock"."symbol", "stock"."name", "stock"."country", "stock"."employees", "watched"."user" FROM "stock" INNER JOIN "watched" ON "stock"."id" = "watched"."stock_id" WHERE "stock"."country" = $1 AND "stock"."employees" >= $2 AND ("stock"."name" ILIKE $3 OR "stock"."symbol" = $4) AND "watched"."user" = $5 ORDER BY "stock"."symbol" ASC LIMIT $6 OFFSET $7"#;

fn statements(criterion: &mut Criterion) {
    let insert = r#"INSERT INTO "watched" ("user", "stock_id") VALUES ($1, $2) RETURNING "id""#;
    let by_key = r#"SELECT "stock"."id", "stock"."name" FROM "stock" WHERE "stock"."id" = $1 LIMIT $2"#;
    let mut group = criterion.benchmark_group("classify");
    for (name, text) in [("typical", TYPICAL), ("by_key", by_key), ("insert", insert)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(classify(black_box(text)))));
    }
    group.finish();
    criterion
        .bench_function("shape/typical", |bencher| bencher.iter(|| black_box(shape(black_box(TYPICAL)))));
}

/// The time for each byte stays the same.
fn lengths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify/length");
    for times in [1_usize, 10, 100, 1000] {
        let text = TYPICAL.to_owned()
            + &" UNION ALL SELECT 1 FROM \"stock\" WHERE \"id\" IN (1, 2, 3)".repeat(times);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(text.len()), &text, |bencher, text| {
            bencher.iter(|| black_box(classify(black_box(text))));
        });
    }
    group.finish();
}

criterion_group!(benches, statements, lengths);
criterion_main!(benches);
