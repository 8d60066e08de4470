//! The runs that `scripts/upstream.py` draws for `docs/upstream.md`.

use std::fmt::Write as _;

use tollgate::Limit;

use crate::clients::Demand;
use crate::local::Setting;
use crate::upstreams::Upstream;

const SEED: u64 = 1;

#[test]
#[ignore = "writes the file that TOLLGATE_UPSTREAM_JSON names"]
fn write_the_runs_of_the_pictures() {
    let file = std::env::var("TOLLGATE_UPSTREAM_JSON").expect("TOLLGATE_UPSTREAM_JSON=FILE");
    let cut = Setting::new(Limit::per_second(1_000), Demand::Poisson(200.0), 480);
    let outage = Setting::new(Limit::per_second(100), Demand::Poisson(50.0), 480);
    let upstream = Upstream::bucket(100.0, 20.0).changed(120, 50.0).changed(240, 100.0);
    let adaptive = Limit::per_second(10).adaptive(1, 20_000);
    let adaptive = Setting::new(adaptive, Demand::Poisson(1_000.0), 360).run(upstream, SEED);
    let upstream = Upstream::bucket(100.0, 20.0).changed(270, 1_000.0);
    let runs = [
        ("cut", cut.run(upstream, SEED)),
        ("adaptive", adaptive),
        ("outage", outage.run(Upstream::bucket(1_000.0, 100.0).outage(60..360), SEED)),
    ];
    let mut json = String::new();
    for (name, run) in &runs {
        let start = if json.is_empty() { '{' } else { ',' };
        let _ = write!(json, "{start}\"{name}\":{}", run.report.json());
    }
    std::fs::write(file, json + "}\n").expect("a file that can be written");
}
