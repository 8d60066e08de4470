//! One limiter, and its upstream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter, UpdateKind};

use crate::clients::{Demand, World};
use crate::common::{DAY, SECOND, number, turns};
use crate::report::{Line, Report, Table};
use crate::upstreams::Upstream;

/// Odd ones draw the time of each request's way, the others one for all.
pub(crate) fn seeds() -> Vec<u64> {
    match number("TOLLGATE_UPSTREAM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TOLLGATE_UPSTREAM_SEEDS").unwrap_or(turns(8, 2))).collect(),
    }
}

/// Both laws of a demand.
pub(crate) fn laws(rate: f64) -> [(&'static str, Demand); 2] {
    [("regular", Demand::Regular(rate)), ("Poisson", Demand::Poisson(rate))]
}

/// What became of a limiter, and when it was cut, in seconds.
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) cuts: Vec<f64>,
}

/// One limiter for this many seconds.
pub(crate) struct Setting {
    pub(crate) limit: Limit,
    pub(crate) demand: Demand,
    pub(crate) patience: Duration,
    pub(crate) seconds: u64,
}

impl Setting {
    pub(crate) fn new(limit: Limit, demand: Demand, seconds: u64) -> Self {
        Self { limit, demand, patience: Duration::ZERO, seconds }
    }

    pub(crate) fn run(&self, upstream: Upstream, seed: u64) -> Run {
        self.run_with(upstream, seed, |_| {})
    }

    pub(crate) fn run_with(
        &self,
        upstream: Upstream,
        seed: u64,
        change: impl FnOnce(&mut World),
    ) -> Run {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let api = limiter.configure("api", self.limit).expect("a limit");
        let cuts = Arc::new(Mutex::new(Vec::new()));
        let (noted, clock) = (Arc::clone(&cuts), time.clone());
        limiter.on_capacity_change(move |update| {
            if update.kind == UpdateKind::Cut {
                noted.lock().unwrap().push(clock.now() as f64 / SECOND as f64);
            }
        });
        let mut world = World::new(upstream, seed);
        world.add(api, self.demand, self.patience);
        change(&mut world);
        for second in 0..self.seconds {
            let end = (second + 1) * SECOND;
            while let Some(at) = world.next().filter(|at| *at < end) {
                time.set(at);
                world.run_due(at);
            }
            time.set(end - 1);
            world.sample(second);
        }
        let report = world.reports.remove(0);
        report.trace();
        Run { report, cuts: std::mem::take(&mut cuts.lock().unwrap()) }
    }
}

#[test]
fn a_limit_far_above_the_upstream_s_meets_few_refusals() {
    let mut table = Table::default();
    for seed in seeds() {
        for (law, demand) in laws(200.0) {
            for patience in [0, 1] {
                let patience = Duration::from_secs(patience);
                let setting =
                    Setting { patience, ..Setting::new(Limit::per_second(1_000), demand, 300) };
                let Run { report, .. } = setting.run(Upstream::bucket(100.0, 20.0), seed);
                let what = format!("200/s over 100/s, {law}, patience {patience:?}");
                let refused = report.refused(15..300);
                table.add(
                    seed,
                    &format!("{what}: % refused after 15 s"),
                    refused,
                    Line::Below(1.0),
                );
            }
        }
        for (law, demand) in laws(5.0) {
            for burst in [2.0, 20.0] {
                let setting = Setting::new(Limit::per_second(1_000), demand, 900);
                let Run { report, .. } = setting.run(Upstream::bucket(2.0, burst), seed);
                let what = format!("5/s over 2/s burst {burst}, {law}: % refused after 15 s");
                table.add(seed, &what, report.refused(15..900), Line::Below(2.0));
            }
        }
    }
    table.judge("a limit far above the upstream's");
}

#[test]
fn the_demand_is_served_again_when_the_upstream_allows_it() {
    let mut table = Table::default();
    for seed in seeds() {
        for (law, demand) in laws(200.0) {
            // Somewhere between two steps of the recovery.
            let raised = 120 + 7 * (seed % 5);
            let setting = Setting::new(Limit::per_second(1_000), demand, raised + 400);
            let upstream = Upstream::bucket(100.0, 20.0).changed(raised, 1_000.0);
            let Run { report, .. } = setting.run(upstream, seed);
            let back = report.back_after(raised, 0.9, 200.0);
            table.add(seed, &format!("{law}: s until 90 % are served"), back, Line::AtMost(240.0));
        }
    }
    table.judge("an upstream of 100/s that allows 1,000/s again");
}

#[test]
fn fixed_windows_of_a_minute_are_used() {
    const WINDOWS: u64 = 15;
    let mut table = Table::default();
    for seed in seeds() {
        for most in [60, 600, 6_000] {
            let limit = most as f64 / 60.0;
            for (law, demand) in laws(2.0 * limit) {
                let setting = Setting::new(Limit::per_second(1_000), demand, 60 * WINDOWS);
                let Run { report, .. } = setting.run(Upstream::windows(most, 60), seed);
                let what = |of: &str| format!("{most} a window, {law}: {of}");
                let all = 0..60 * WINDOWS;
                let used = report.served(all.clone(), limit);
                table.add(seed, &what("% used"), used, Line::AtLeast(80.0));
                table.add(seed, &what("% refused"), report.refused(all), Line::Below(6.0));
            }
        }
    }
    table.judge("fixed windows of a minute, without Retry-After");
}

#[test]
fn an_outage_costs_few_cuts_and_no_slow_way_back() {
    let mut table = Table::default();
    for seed in seeds() {
        for rate in [0.5, 1.0, 10.0, 100.0] {
            for (law, demand) in laws(rate) {
                let start = 60 + seed;
                let setting = Setting::new(Limit::per_minute(10_000), demand, start + 300 + 600);
                let upstream = Upstream::bucket(1_000.0, 100.0).outage(start..start + 300);
                let Run { report, cuts } = setting.run(upstream, seed);
                let back = report.back_after(start + 300, 0.9, rate);
                let what = |of: &str| format!("{rate}/s, {law}: {of}");
                table.add(seed, &what("cuts"), cuts.len() as f64, Line::AtMost(4.0));
                table.add(seed, &what("s until 90 % are served"), back, Line::AtMost(60.0));
            }
        }
    }
    table.judge("an outage of five minutes");
}

#[test]
fn a_refusal_a_day_costs_nothing_in_the_long_run() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_second(100)).expect("a limit");
    for day in 0..20 {
        time.set(day * DAY);
        assert_eq!(api.capacity().burst, 100, "on day {day}");
        assert_eq!(api.capacity().per_window, 100, "on day {day}");
        api.try_acquire().expect("a full bucket").throttled("429");
        assert!(api.capacity().burst < 100);
    }
}
