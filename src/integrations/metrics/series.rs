//! The metrics of one resource, one template, or a swarm, as the recorder knows them, and what it was told.

use std::sync::Arc;

use ::metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use super::table::{COUNTED, Counted, GAUGED, KEYS, OF_KEYS, WAIT_SECONDS, WAITING};
use crate::counts::{Tally, WaitTime};
use crate::limiter::{Reading, State};

/// A counter that was told a sum of its own. The recorder is told increments: so a limiter that begins again, and
/// two limiters of one process that have a resource of the same name, add to what it has.
pub(super) struct Sum {
    counter: Counter,
    told: u64,
}

impl Sum {
    pub(super) fn new(counter: Counter) -> Self {
        Self { counter, told: 0 }
    }

    /// A sum that is lower than before changes nothing.
    pub(super) fn update(&mut self, sum: u64) {
        if sum > self.told {
            self.counter.increment(sum - self.told);
            self.told = sum;
        }
    }
}

/// The metrics of a resource or a template.
pub(super) struct Series {
    /// Whose they are: another one of this name begins from 0.
    tally: Arc<Tally>,
    counted: Vec<(&'static Counted, Sum)>,
    gauges: Gauges,
    waiting: Gauge,
    wait_seconds: Histogram,
    wait_times: Vec<WaitTime>,
}

enum Gauges {
    Resource([Gauge; GAUGED.len()]),
    Template { keys: Gauge },
}

impl Series {
    /// Registers them with the recorder in force.
    pub(super) fn new(reading: &Reading) -> Self {
        let key = match reading.state {
            State::Resource(_) => "resource",
            State::Template { .. } => "template",
        };
        let labels = vec![Label::new(key, Arc::clone(&reading.name))];
        let sum = |counted: &'static Counted| {
            let mut labels = labels.clone();
            labels.extend(counted.label.map(|(key, value)| Label::from_static_parts(key, value)));
            (counted, Sum::new(counter!(counted.name, labels)))
        };
        let mut counted: Vec<_> = COUNTED.iter().map(sum).collect();
        let gauges = match reading.state {
            State::Resource(_) => {
                Gauges::Resource(GAUGED.map(|(name, _)| gauge!(name, labels.clone())))
            }
            State::Template { .. } => {
                counted.extend(OF_KEYS.iter().map(sum));
                Gauges::Template { keys: gauge!(KEYS, labels.clone()) }
            }
        };
        Self {
            tally: Arc::clone(reading.tally()),
            counted,
            gauges,
            waiting: gauge!(WAITING, labels.clone()),
            wait_seconds: histogram!(WAIT_SECONDS, labels),
            wait_times: Vec::new(),
        }
    }

    #[allow(clippy::cast_precision_loss)] // the facade's gauges are floats
    pub(super) fn update(&mut self, reading: &Reading) {
        if !reading.is_same(&self.tally) {
            self.tally = Arc::clone(reading.tally());
            self.counted.iter_mut().for_each(|(_, sum)| sum.told = 0);
            self.wait_times.clear();
        }
        for (counted, sum) in &mut self.counted {
            sum.update((counted.read)(reading));
        }
        match (&self.gauges, &reading.state) {
            (Gauges::Resource(gauges), State::Resource(now)) => {
                for (gauge, (_, read)) in gauges.iter().zip(GAUGED) {
                    gauge.set(read(now));
                }
            }
            (Gauges::Template { keys }, State::Template { keys: now }) => keys.set(*now as f64),
            (Gauges::Resource(_), State::Template { .. })
            | (Gauges::Template { .. }, State::Resource(_)) => {}
        }
        self.waiting.set(reading.totals.waiting() as f64);
        self.update_wait_times(reading);
    }

    /// Each wait counts with the mean of those that took about as long.
    #[allow(clippy::cast_precision_loss)] // a mean
    fn update_wait_times(&mut self, reading: &Reading) {
        for (index, now) in reading.wait_times().enumerate() {
            if index == self.wait_times.len() {
                self.wait_times.push(WaitTime::default());
            }
            let told = &mut self.wait_times[index];
            let count = now.count.saturating_sub(told.count);
            if count == 0 {
                continue;
            }
            let nanos = now.nanos.wrapping_sub(told.nanos);
            let mean = nanos as f64 / 1e9 / count as f64;
            self.wait_seconds.record_many(mean, usize::try_from(count).unwrap_or(usize::MAX));
            *told = now;
        }
    }

    /// There is no such resource any more. What it has counted stays.
    pub(super) fn end(&self) {
        match &self.gauges {
            Gauges::Resource(gauges) => gauges.iter().for_each(|gauge| gauge.set(0.0)),
            Gauges::Template { keys } => keys.set(0.0),
        }
        self.waiting.set(0.0);
    }
}
