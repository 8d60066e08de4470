//! A recorder that keeps what it is told, by names as Prometheus writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tollgate::metrics::Exporter;

/// Of all metrics, whatever their kind.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    count: AtomicU64,
    gauge: AtomicU64,
    samples: Mutex<Vec<f64>>,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    cells: Mutex<BTreeMap<String, Arc<Cell>>>,
    units: Mutex<BTreeMap<String, Option<Unit>>>,
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.count.fetch_add(value, Ordering::Relaxed);
    }
    fn absolute(&self, _: u64) {
        panic!("a counter is told increments: see `Exporter`");
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _: f64) {
        panic!("a gauge is set");
    }
    fn decrement(&self, _: f64) {
        panic!("a gauge is set");
    }
    fn set(&self, value: f64) {
        self.gauge.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.samples.lock().unwrap().push(value);
    }
}

impl Kept {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let mut labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
        labels.sort_unstable();
        let mut name = key.name().to_string();
        for (index, (key, value)) in labels.iter().enumerate() {
            let sign = if index == 0 { '{' } else { ',' };
            write!(name, "{sign}{key}={value}").unwrap();
        }
        if !labels.is_empty() {
            name.push('}');
        }
        Arc::clone(self.cells.lock().unwrap().entry(name).or_default())
    }

    fn known(&self, name: &str) -> Arc<Cell> {
        let cells = self.cells.lock().unwrap();
        Arc::clone(
            cells.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", cells.keys())),
        )
    }

    /// Has the exporter tell it how things are.
    pub(crate) fn scrape(&self, exporter: &Exporter) -> bool {
        metrics::with_local_recorder(self, || exporter.update())
    }

    /// A counter's value, as `name{label=value,...}` with the labels in order.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.known(name).count.load(Ordering::Relaxed)
    }

    pub(crate) fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.known(name).gauge.load(Ordering::Relaxed))
    }

    pub(crate) fn samples(&self, name: &str) -> Vec<f64> {
        self.known(name).samples.lock().unwrap().clone()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.cells.lock().unwrap().keys().cloned().collect()
    }

    pub(crate) fn units(&self) -> BTreeMap<String, Option<Unit>> {
        self.units.lock().unwrap().clone()
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        assert!(!text.is_empty());
        self.units.lock().unwrap().insert(name.as_str().to_string(), unit);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        assert!(name.as_str().ends_with("_total"), "{name:?}");
        self.describe(&name, unit, &text);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        assert!(!name.as_str().ends_with("_total"), "{name:?}");
        self.describe(&name, unit, &text);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}
