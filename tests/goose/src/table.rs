//! What Goose measured, as lines of a table.

use goose::metrics::GooseMetrics;

/// The head of the table.
pub const HEAD: &str = "| phase | request | reads served by | count | failed | 1/s | mean | p50 | p95 | p99 | max |\n|---|---|---|---|---|---|---|---|---|---|---|";

/// One kind of request on one side; dashes when there was none.
pub fn row(phase: &str, kind: &str, side: &str, seconds: u64, metrics: &GooseMetrics) -> String {
    // Goose keys its requests by method and name.
    let found = metrics.requests.values().find(|request| request.path == kind);
    let Some(request) = found else {
        return format!("| {phase} | {kind} | {side} | – | – | – | – | – | – | – | – |");
    };
    let (count, times) = (request.success_count + request.fail_count, &request.raw_data);
    let millis = |micros: u64| format!("{:.1} ms", micros as f64 / 1e3);
    let mean = times.total_time_us / times.counter.max(1) as u64;
    format!(
        "| {phase} | {kind} | {side} | {count} | {} | {:.0} | {} | {} | {} | {} | {} |",
        request.fail_count,
        count as f64 / seconds.max(1) as f64,
        millis(mean),
        millis(times.percentile_us(0.5)),
        millis(times.percentile_us(0.95)),
        millis(times.percentile_us(0.99)),
        millis(times.maximum_time_us),
    )
}
