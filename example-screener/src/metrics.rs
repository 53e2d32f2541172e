//! The process's metrics recorder.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// From 0.1 ms to 10 s, three to each power of ten: a query takes milliseconds, a deadline seconds.
const BUCKETS: [f64; 16] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// A decision takes well under a microsecond to some; one that meets a busy machine, more.
const DECISION_BUCKETS: [f64; 10] = [2e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 5e-5, 1e-4, 1e-3, 1e-2];

/// How often the recorder tidies up; it keeps every single measurement until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder could not be installed")]
pub struct RecorderError(#[from] BuildError);

/// Installs the process's recorder and returns what renders it. It must happen before the first router starts: metrics
/// that were made earlier are lost.
///
/// # Errors
/// When the process has a recorder already.
///
/// # Panics
/// Outside a tokio runtime.
pub fn install_recorder() -> Result<impl Fn() -> String + Clone + Send + Sync + 'static, RecorderError> {
    let decision = Matcher::Full("db_routing_decision_seconds".to_owned());
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .set_buckets_for_metric(decision, &DECISION_BUCKETS)?;
    let handle: PrometheusHandle = builder.install_recorder()?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(move || handle.render())
}
