//! Counters, gauges and a histogram of wait times, for the crate [`metrics`](::metrics). Feature `metrics`.
//!
//! An [`Exporter`] exports what a limiter counts to the recorder of the process (Prometheus, OpenTelemetry,
//! `StatsD`). Call [`update`](Exporter::update) before each scrape, or every few seconds:
//!
//! ```
//! use tollgate::{Limit, MemoryLimiter, metrics::Exporter};
//!
//! // Install the recorder first: PrometheusBuilder::new().install_recorder()?;
//! let limiter = MemoryLimiter::new();
//! limiter.configure("api", Limit::per_second(10))?;
//! limiter.per_key("user:", Limit::per_second(1))?;
//! let exporter = Exporter::new(&limiter);
//!
//! limiter.check("api")?;
//! exporter.update(); // tollgate_admitted_tokens_total{resource="api"} is 1
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The guide has the [table of all metrics](https://docs.rs/tollgate/latest/tollgate/guide/metrics/index.html).
//!
//! # What it costs
//!
//! Counting adds a few instructions to a call, on a cache line of its thread. A call that takes from a thread's cache
//! counts nothing: its tokens are derived at the scrape. Each resource and each template uses 1.3 KB of memory, and
//! 2.4 KB more after its first wait. Keys use none.
//!
//! A scrape takes no lock that a take uses. It reads every resource and every template, and no keys.

mod series;
#[cfg(feature = "swarm")]
mod swarm;
mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::limiter::{MemoryLimiter, State, WeakLimiter};
#[cfg(feature = "swarm")]
use crate::swarm::{DistributedLimiter, SwarmStats};
use crate::sync::Mutex;
use series::Series;
#[cfg(feature = "swarm")]
use swarm::Swarm;
pub use table::NAMES;

/// Exports what a limiter counts to a recorder of the crate [`metrics`](::metrics).
///
/// The label is `resource`, or `template` for the sum over the keys of a template. A key is never a label.
///
/// # The recorder
///
/// Metrics go to the recorder that is current when [`update`](Self::update) first sees their resource: the global
/// one, or that of [`with_local_recorder`](::metrics::with_local_recorder). So install the recorder first, and use
/// an exporter for one recorder only. Each exporter begins with all that the limiter has counted so far.
///
/// # Counters
///
/// Counters never decrease. At rest they are exact: the admitted tokens are those that calls were granted, whatever
/// was refunded, settled, cut, paused, reconfigured or observed since. While calls run, counters may lack what
/// these calls take. There is one exception: a call for several resources may take a token from a thread's cache,
/// and then be denied. An update during that call counts the token, and leaves out the next one that is admitted.
///
/// A resource that is removed and configured again continues its counters. Resources with the same name in two
/// limiters are added.
pub struct Exporter {
    limiter: WeakLimiter,
    told: Mutex<Told>,
    #[cfg(feature = "swarm")]
    stats: Option<Box<dyn Fn() -> Option<SwarmStats> + Send + Sync>>,
}

#[derive(Default)]
struct Told {
    is_described: bool,
    resources: HashMap<Arc<str>, Series>,
    templates: HashMap<Arc<str>, Series>,
    #[cfg(feature = "swarm")]
    swarm: Option<Swarm>,
}

impl Exporter {
    /// An exporter of a limiter, which it does not keep alive. Tells the recorder nothing yet.
    #[must_use]
    pub fn new(limiter: &MemoryLimiter) -> Self {
        Self {
            limiter: limiter.downgrade(),
            told: Mutex::default(),
            #[cfg(feature = "swarm")]
            stats: None,
        }
    }

    /// The same of a limiter in a swarm, with the messages of the swarm.
    #[cfg(feature = "swarm")]
    #[must_use]
    pub fn of_swarm(limiter: &DistributedLimiter) -> Self {
        Self { stats: Some(Box::new(limiter.weak_stats())), ..Self::new(limiter) }
    }

    /// Tells the recorder how things are now. Returns `false` once the limiter is gone: then all gauges are 0, and
    /// counters stay.
    ///
    /// Takes some microseconds for each resource and each template. Any thread may call it, also several at once: one
    /// waits for the other.
    pub fn update(&self) -> bool {
        let mut told = self.told.lock();
        let told = &mut *told;
        if !told.is_described {
            table::describe();
            told.is_described = true;
        }
        let limiter = self.limiter.upgrade();
        let readings = limiter.as_ref().map(MemoryLimiter::readings).unwrap_or_default();
        let (mut resources, mut templates) = (HashMap::new(), HashMap::new());
        for reading in &readings {
            let (before, now) = match reading.state {
                State::Resource(_) => (&mut told.resources, &mut resources),
                State::Template { .. } => (&mut told.templates, &mut templates),
            };
            let known = before.remove(&reading.name);
            let mut series = known.unwrap_or_else(|| Series::new(reading));
            series.update(reading);
            now.insert(Arc::clone(&reading.name), series);
        }
        // Those that are left have gone.
        told.resources.values().chain(told.templates.values()).for_each(Series::end);
        (told.resources, told.templates) = (resources, templates);
        #[cfg(feature = "swarm")]
        if let Some(stats) = &self.stats {
            told.swarm.get_or_insert_with(Swarm::new).update(stats().as_ref());
        }
        limiter.is_some()
    }
}

/// Fields of an upstream's answer that could not be read. Told at once, to the recorder that is in force: an answer
/// is read without a limiter.
#[cfg(feature = "http")]
pub(crate) fn count_ignored_fields(profile: &'static str, n: u64) {
    ::metrics::counter!(table::FIELDS_IGNORED, "profile" => profile).increment(n);
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}
