//! Every metric once, with a value that is known.

use std::collections::BTreeSet;
use std::time::Duration;

use tollgate::metrics::{Exporter, NAMES};
use tollgate::{Limit, ManualClock, MemoryLimiter};

use crate::recorder::Kept;

#[test]
fn gauges_say_how_a_resource_is() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_second(100).burst(10)).unwrap();
    let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
    let gauge = |name: &str| {
        kept.scrape(&exporter);
        kept.gauge(&format!("tollgate_{name}{{resource=api}}"))
    };
    let permit = api.try_acquire_n(4).unwrap();
    assert_eq!(
        (gauge("available_tokens"), gauge("limit_tokens"), gauge("in_flight")),
        (6.0, 10.0, 1.0)
    );
    assert!((gauge("rate_tokens_per_second") - 100.0).abs() < 1e-6);
    assert_eq!((gauge("cut_ratio"), gauge("paused"), gauge("debt_tokens")), (1.0, 0.0, 0.0));
    permit.settle(24);
    assert_eq!(
        (gauge("available_tokens"), gauge("debt_tokens"), gauge("in_flight")),
        (0.0, 14.0, 0.0)
    );
    api.pause_for(Duration::from_secs(2));
    assert_eq!(gauge("paused"), 1.0);
    // Nobody has used it since: a scrape counts what is due.
    time.advance(Duration::from_secs(3));
    assert_eq!(
        (gauge("paused"), gauge("available_tokens"), gauge("debt_tokens")),
        (0.0, 10.0, 0.0)
    );
    api.announce_reduced("429");
    assert_eq!((gauge("cut_ratio"), gauge("limit_tokens")), (0.75, 7.0));
    assert!((gauge("rate_tokens_per_second") - 75.0).abs() < 1e-3);
    time.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!((gauge("cut_ratio"), gauge("limit_tokens")), (1.0, 10.0));
    assert_eq!(kept.count("tollgate_recoveries_total{resource=api}"), 0); // none is taken by a look
    api.check().unwrap();
    gauge("paused");
    assert!(kept.count("tollgate_recoveries_total{resource=api}") > 0);
}

#[test]
fn changes_count_by_who_made_them() {
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    let api = limiter.configure("api", Limit::per_second(100)).unwrap();
    api.announce_reduced("429");
    api.announce_reduced("429"); // of the same incident
    api.pause_for(Duration::from_secs(1));
    api.pause_for(Duration::from_secs(9)); // is still the same pause
    let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
    kept.scrape(&exporter);
    for (name, origin, count) in
        [("cuts", "local", 1), ("cuts", "swarm", 0), ("pauses", "local", 1), ("pauses", "swarm", 0)]
    {
        let name = format!("tollgate_{name}_total{{origin={origin},resource=api}}");
        assert_eq!(kept.count(&name), count, "{name}");
    }
}

#[test]
fn denials_count_by_reason() {
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    let api = limiter.configure("api", Limit::per_hour(5).max_in_flight(1)).unwrap();
    let permit = api.try_acquire().unwrap();
    assert!(api.try_acquire().is_err());
    assert!(limiter.admit("api", 1).is_err());
    drop(permit);
    assert!(api.check_n(6).is_err());
    assert!(api.check_n(5).is_err());
    assert!(api.decide(5).outcome.is_err());
    assert!(api.peek(5).is_err()); // looks only
    api.pause_for(Duration::from_secs(1));
    assert!(api.check().is_err());
    assert!(api.decide(1).outcome.is_err());
    assert!(limiter.check_all(&[("api", 1)]).is_err());
    api.resume();
    limiter.close();
    assert!(api.check().is_err());
    let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
    kept.scrape(&exporter);
    for (reason, count) in [
        ("exhausted", 2),
        ("paused", 3),
        ("in_flight", 2),
        ("exceeds_capacity", 1),
        ("queue_full", 0),
    ] {
        let name = format!("tollgate_denied_total{{reason={reason},resource=api}}");
        assert_eq!(kept.count(&name), count, "{name}");
    }
}

/// A resource that goes leaves its counts, and its gauges are 0. One of the same name adds to them; and so does that of
/// another limiter.
#[test]
fn resources_of_one_name_add_up() {
    let kept = Kept::default();
    let scrape = |exporter: &Exporter| kept.scrape(exporter);
    let admitted = || kept.count("tollgate_admitted_tokens_total{resource=api}");
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    let exporter = Exporter::new(&limiter);
    limiter.configure("api", Limit::per_hour(100)).unwrap().check_n(10).unwrap();
    assert!(scrape(&exporter));
    limiter.remove("api");
    limiter.configure("api", Limit::per_hour(100)).unwrap().check_n(7).unwrap();
    assert!(scrape(&exporter));
    assert_eq!(admitted(), 17);
    limiter.remove("api");
    assert!(scrape(&exporter));
    assert_eq!((admitted(), kept.gauge("tollgate_limit_tokens{resource=api}")), (17, 0.0));
    let other = MemoryLimiter::with_clock(ManualClock::new());
    other.configure("api", Limit::per_hour(100)).unwrap().check_n(2).unwrap();
    let of_other = Exporter::new(&other);
    scrape(&of_other);
    scrape(&of_other);
    assert_eq!(admitted(), 19);
    drop(other);
    assert!(!scrape(&of_other));
    assert_eq!(kept.gauge("tollgate_limit_tokens{resource=api}"), 0.0);
}

/// Each name that is told is described, with a unit where it has one, and is in the list.
#[test]
fn every_metric_is_described() {
    let limiter = MemoryLimiter::new();
    limiter.configure("api", Limit::per_second(1)).unwrap();
    limiter.per_key("user:", Limit::per_second(1)).unwrap();
    let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
    kept.scrape(&exporter);
    let listed: BTreeSet<&str> = NAMES.into_iter().collect();
    let units = kept.units();
    assert!(units.keys().map(String::as_str).eq(listed.iter().copied()));
    for name in kept.names() {
        let name = name.split('{').next().unwrap();
        assert!(listed.contains(name), "{name}");
        let is_flag = ["tollgate_paused", "tollgate_cut_ratio"].contains(&name);
        assert_eq!(units[name].is_none(), is_flag, "{name}");
    }
}
