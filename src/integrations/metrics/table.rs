//! The metrics: names, units, and what they say.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use crate::counts::Count;
use crate::limiter::{Gauges, Reading};

pub(super) const ADMITTED: &str = "tollgate_admitted_tokens_total";
pub(super) const REFUNDED: &str = "tollgate_refunded_tokens_total";
pub(super) const DENIED: &str = "tollgate_denied_total";
pub(super) const WAITS: &str = "tollgate_waits_total";
pub(super) const WAIT_SECONDS: &str = "tollgate_wait_seconds";
pub(super) const WAITING: &str = "tollgate_waiting";
pub(super) const CUTS: &str = "tollgate_cuts_total";
pub(super) const PAUSES: &str = "tollgate_pauses_total";
pub(super) const KEYS: &str = "tollgate_keys";
pub(super) const SWARM_MESSAGES: &str = "tollgate_swarm_messages_total";
pub(super) const SWARM_CONNECTED: &str = "tollgate_swarm_connected";
pub(super) const FIELDS_IGNORED: &str = "tollgate_feedback_fields_ignored_total";

/// A counter: its name, a further label, and where its value comes from.
pub(super) struct Counted {
    pub(super) name: &'static str,
    pub(super) label: Option<(&'static str, &'static str)>,
    pub(super) read: fn(&Reading) -> u64,
}

const fn plain(name: &'static str, read: fn(&Reading) -> u64) -> Counted {
    Counted { name, label: None, read }
}

const fn by(
    name: &'static str,
    label: &'static str,
    value: &'static str,
    read: fn(&Reading) -> u64,
) -> Counted {
    Counted { name, label: Some((label, value)), read }
}

/// Those of each resource and each template.
pub(super) const COUNTED: [Counted; 17] = [
    plain(ADMITTED, Reading::admitted),
    plain(REFUNDED, |of| of.totals.refunded()),
    plain("tollgate_overdrawn_tokens_total", |of| of.totals.get(Count::Overdrawn)),
    by(DENIED, "reason", "exhausted", |of| of.totals.get(Count::Exhausted)),
    by(DENIED, "reason", "paused", |of| of.totals.get(Count::Paused)),
    by(DENIED, "reason", "in_flight", |of| of.totals.get(Count::InFlight)),
    by(DENIED, "reason", "exceeds_capacity", |of| of.totals.get(Count::ExceedsCapacity)),
    by(DENIED, "reason", "queue_full", |of| of.totals.get(Count::QueueFull)),
    by(WAITS, "result", "granted", |of| of.totals.get(Count::Granted)),
    by(WAITS, "result", "timed_out", |of| of.totals.get(Count::TimedOut)),
    by(WAITS, "result", "cancelled", |of| of.totals.get(Count::Cancelled)),
    by(WAITS, "result", "closed", |of| of.totals.get(Count::Closed)),
    by(CUTS, "origin", "local", |of| of.totals.get(Count::Cuts)),
    by(CUTS, "origin", "swarm", |of| of.totals.get(Count::SwarmCuts)),
    plain("tollgate_recoveries_total", |of| of.totals.get(Count::Recoveries)),
    by(PAUSES, "origin", "local", |of| of.totals.get(Count::Pauses)),
    by(PAUSES, "origin", "swarm", |of| of.totals.get(Count::SwarmPauses)),
];

/// Those of a template alone.
pub(super) const OF_KEYS: [Counted; 3] = [
    by(DENIED, "reason", "keys", |of| of.totals.get(Count::Refused)),
    plain("tollgate_keys_evicted_total", |of| of.totals.get(Count::Evicted)),
    plain("tollgate_keys_refused_total", |of| of.totals.get(Count::Refused)),
];

type Gauged = (&'static str, fn(&Gauges) -> f64);

/// Gauges of a resource.
#[allow(clippy::cast_precision_loss)] // the facade's gauges are floats
pub(super) const GAUGED: [Gauged; 7] = [
    ("tollgate_in_flight", |now| now.in_flight as f64),
    ("tollgate_available_tokens", |now| now.available as f64),
    ("tollgate_debt_tokens", |now| now.debt as f64),
    ("tollgate_limit_tokens", |now| now.limit as f64),
    ("tollgate_rate_tokens_per_second", |now| now.rate),
    ("tollgate_cut_ratio", |now| now.cut_ratio),
    ("tollgate_paused", |now| f64::from(u8::from(now.is_paused))),
];

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Each metric, its kind, its unit and what it says.
const DESCRIBED: [(&str, Kind, Option<Unit>, &str); 23] = [
    (ADMITTED, Counter, Some(Unit::Count), "Tokens of calls that were admitted"),
    (REFUNDED, Counter, Some(Unit::Count), "Tokens that ended permits gave back"),
    (
        "tollgate_overdrawn_tokens_total",
        Counter,
        Some(Unit::Count),
        "Tokens by which settlements exceeded their permits",
    ),
    (DENIED, Counter, Some(Unit::Count), "Calls that were denied, by reason"),
    (WAITS, Counter, Some(Unit::Count), "Waits that ended, by result"),
    (WAIT_SECONDS, Histogram, Some(Unit::Seconds), "How long waits took, whatever their result"),
    (WAITING, Gauge, Some(Unit::Count), "Waits in progress"),
    (CUTS, Counter, Some(Unit::Count), "Cuts of a limit, by who began them"),
    ("tollgate_recoveries_total", Counter, Some(Unit::Count), "Steps by which limits have grown"),
    (PAUSES, Counter, Some(Unit::Count), "Pauses that began, by who asked for them"),
    ("tollgate_in_flight", Gauge, Some(Unit::Count), "Permits that have not ended"),
    ("tollgate_available_tokens", Gauge, Some(Unit::Count), "Whole tokens in the bucket"),
    (
        "tollgate_debt_tokens",
        Gauge,
        Some(Unit::Count),
        "Tokens that must accrue before there are any",
    ),
    ("tollgate_limit_tokens", Gauge, Some(Unit::Count), "Tokens in a full bucket at present"),
    (
        "tollgate_rate_tokens_per_second",
        Gauge,
        Some(Unit::CountPerSecond),
        "Tokens that accrue in a second at present",
    ),
    ("tollgate_cut_ratio", Gauge, None, "The part of the configured limit that is in force"),
    ("tollgate_paused", Gauge, None, "1 in a pause, 0 otherwise"),
    (KEYS, Gauge, Some(Unit::Count), "Keys of a template at present"),
    ("tollgate_keys_evicted_total", Counter, Some(Unit::Count), "Idle keys that were evicted"),
    (
        "tollgate_keys_refused_total",
        Counter,
        Some(Unit::Count),
        "Calls that found no room for another key",
    ),
    (SWARM_MESSAGES, Counter, Some(Unit::Count), "Messages of the swarm, by what became of them"),
    (SWARM_CONNECTED, Gauge, None, "1 while the limiter's task in the swarm runs, 0 otherwise"),
    (
        FIELDS_IGNORED,
        Counter,
        Some(Unit::Count),
        "Fields of answers that could not be read, by profile",
    ),
];

/// The names of all metrics.
pub const NAMES: [&str; DESCRIBED.len()] = {
    let mut names = [""; DESCRIBED.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = DESCRIBED[index].0;
        index += 1;
    }
    names
};

/// To the recorder in force.
pub(super) fn describe() {
    for (name, kind, unit, text) in DESCRIBED {
        match (kind, unit) {
            (Counter, Some(unit)) => describe_counter!(name, unit, text),
            (Counter, None) => describe_counter!(name, text),
            (Gauge, Some(unit)) => describe_gauge!(name, unit, text),
            (Gauge, None) => describe_gauge!(name, text),
            (Histogram, Some(unit)) => describe_histogram!(name, unit, text),
            (Histogram, None) => describe_histogram!(name, text),
        }
    }
}
