//! Limits that find themselves, and their upstream.

use tollgate::Limit;

use crate::clients::Demand;
use crate::local::{Run, Setting, laws, seeds};
use crate::report::{Line, Table};
use crate::upstreams::Upstream;

/// When it has to be found.
const FOUND: u64 = 20;
/// Steady time after that.
const STEADY: u64 = 180;

fn limit(start: u64) -> Limit {
    Limit::per_second(start).adaptive(1, 20_000)
}

/// More than any limit in this file.
fn saturating() -> [(&'static str, Demand); 3] {
    let [regular, poisson] = laws(12_000.0);
    [("64 tasks", Demand::Tasks(64)), regular, poisson]
}

#[test]
fn an_unknown_limit_is_found_and_used() {
    let mut table = Table::default();
    for seed in seeds() {
        for start in [10, 10_000] {
            for (who, demand) in saturating() {
                let setting = Setting::new(limit(start), demand, FOUND + STEADY);
                let Run { report, .. } = setting.run(Upstream::bucket(100.0, 20.0), seed);
                let what = |of: &str| format!("from {start}, {who}: {of}");
                let steady = FOUND..FOUND + STEADY;
                let used = report.served(steady.clone(), 100.0);
                table.add(seed, &what("% used"), used, Line::AtLeast(88.0));
                table.add(seed, &what("% refused"), report.refused(steady), Line::Below(0.5));
            }
        }
    }
    table.judge("an unknown limit of 100/s");
}

#[test]
fn a_halved_limit_is_followed_at_once() {
    let mut table = Table::default();
    for seed in seeds() {
        for (who, demand) in saturating() {
            let halved = 100 + 3 * seed % 20;
            let end = halved + STEADY;
            let setting = Setting::new(limit(100), demand, end);
            let upstream = Upstream::bucket(100.0, 20.0).changed(halved, 50.0);
            let Run { report, cuts } = setting.run(upstream, seed);
            // The descent: cuts with no more than three seconds of growth between them.
            let descent = cuts
                .iter()
                .filter(|at| **at >= halved as f64)
                .copied()
                .fold(halved as f64, |last, at| if at - last <= 5.0 { at } else { last });
            let what = |of: &str| format!("{who}: {of}");
            let took = descent - halved as f64;
            table.add(seed, &what("s to the descent's last cut"), took, Line::AtMost(10.0));
            let used = report.served(halved + FOUND..end, 50.0);
            table.add(seed, &what("% used after"), used, Line::AtLeast(88.0));
            let refused = report.refused(halved + FOUND..end);
            table.add(seed, &what("% refused after"), refused, Line::Below(0.5));
        }
    }
    table.judge("an unknown limit that is halved");
}

/// The demand is small from the start, or after a minute of more than the upstream allows.
#[test]
fn a_limit_that_holds_nothing_back_does_not_grow() {
    const SMALL: u64 = 60;
    let mut table = Table::default();
    for seed in seeds() {
        for (law, demand) in laws(50.0) {
            let line = Line::AtMost(if law == "regular" { 2.2 } else { 2.6 });
            for start in [10, 100] {
                let upstream = Upstream::bucket(100.0, 20.0);
                let alone = Setting::new(limit(start), demand, 120).run(upstream, seed);
                let upstream = Upstream::bucket(100.0, 20.0);
                let setting = Setting::new(limit(start), Demand::Tasks(64), SMALL + 120);
                let after =
                    setting.run_with(upstream, seed, |world| world.change_demand(SMALL, demand));
                let mut add = |when, run: &Run, seconds| {
                    let what = format!("from {start}, {law}, {when}: times the demand");
                    table.add(seed, &what, run.report.most_capacity(seconds) / 50.0, line);
                };
                add("alone", &alone, 0..120);
                // When it was larger, the limit was too, for at most 5 s.
                add("later", &after, SMALL + 5..SMALL + 120);
            }
        }
    }
    table.judge("a demand of half the upstream's limit");
}

#[test]
fn the_demand_is_served_again_within_a_minute() {
    let mut table = Table::default();
    for seed in seeds() {
        for (law, demand) in laws(200.0) {
            let raised = 120 + 7 * (seed % 5);
            let limit = Limit::per_second(1_000).adaptive(1, 20_000);
            let setting = Setting::new(limit, demand, raised + 120);
            let upstream = Upstream::bucket(100.0, 20.0).changed(raised, 1_000.0);
            let Run { report, .. } = setting.run(upstream, seed);
            let back = report.back_after(raised, 0.9, 200.0);
            table.add(seed, &format!("{law}: s until 90 % are served"), back, Line::AtMost(60.0));
        }
    }
    table.judge("an upstream of 100/s that allows 1,000/s again, adaptive");
}
