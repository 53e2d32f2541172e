//! What the router counts, as an exporter would see it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// The counters of everything that runs on this thread.
#[derive(Default)]
pub(crate) struct Counters(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counters {
    /// How often it was counted, whatever its labels.
    pub(crate) fn all(&self, name: &str) -> u64 {
        let counters = self.0.lock().unwrap();
        let of_name = counters.iter().filter(|(key, _)| key.split(' ').next() == Some(name));
        of_name.map(|(_, count)| count.load(Relaxed)).sum()
    }

    /// How often with this label alone.
    pub(crate) fn of(&self, name: &str, label: &str) -> u64 {
        let counters = self.0.lock().unwrap();
        counters.get(&format!("{name} {label}")).map_or(0, |count| count.load(Relaxed))
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        let name = format!("{} {}", key.name(), labels.join(","));
        Counter::from_arc(self.0.lock().unwrap().entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
