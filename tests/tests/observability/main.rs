//! What people see of a running screener: the page in a real browser, the metrics in a real Prometheus.
//!
//! `./test --observability` installs Chromium and Prometheus and runs it; plain `./test` leaves it out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod alert_rules;
mod browser;
mod dashboard_page;
mod grafana_panels;
mod no_secrets;
mod prometheus;
mod screener;
