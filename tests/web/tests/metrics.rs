//! Metrics as Prometheus scrapes them, and the dashboard that shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde_json::Value;
use tollgate::http::{Feedback, Profile};
use tollgate::metrics::{Exporter, NAMES};
use tollgate::{DistributedConfig, DistributedLimiter, Limit, MemoryBus};

const DASHBOARD: &str = include_str!("../../../docs/grafana/tollgate.json");

/// The values of a scrape by name and labels, from a limiter with which everything has happened once.
async fn scraped() -> BTreeMap<String, f64> {
    let builder = PrometheusBuilder::new();
    let wait_seconds = Matcher::Full("tollgate_wait_seconds".to_string());
    let builder = builder.set_buckets_for_metric(wait_seconds, &[0.001, 0.1, 10.0]).unwrap();
    let recorder = builder.build_recorder();
    let config = DistributedConfig::new(Arc::new(MemoryBus::new()), "agent");
    let limiter = DistributedLimiter::new(config).await.unwrap();
    let exporter = Exporter::of_swarm(&limiter);
    limiter.configure("api", Limit::per_hour(100)).unwrap();
    limiter.per_key("user:", Limit::per_hour(10)).unwrap();

    limiter.check_n("api", 40).unwrap();
    limiter.try_acquire_n("api", 10).unwrap().refund();
    limiter.try_acquire_n("api", 20).unwrap().settle(25);
    assert!(limiter.check_n("api", 90).is_err());
    let timeout = limiter.acquire_n("api", 90).timeout(Duration::from_millis(5));
    assert!(timeout.await.is_err());
    limiter.check_n("user:ann", 3).unwrap();
    limiter.check_n("user:bob", 4).unwrap();
    limiter.announce_reduced("api", "429");
    let malformed = HeaderMap::from_iter([(http::header::RETRY_AFTER, "soon".parse().unwrap())]);
    metrics::with_local_recorder(&recorder, || {
        let _ = Feedback::new(Profile::Auto, StatusCode::OK, &malformed);
        exporter.update();
    });
    let handle = recorder.handle();
    handle.run_upkeep();
    let text = handle.render();
    for name in NAMES {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no text");
    }
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_string(), value.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(value).collect()
}

/// The part of a name that a histogram adds is not its metric's.
fn metric(name: &str) -> &str {
    let name = name.split('{').next().unwrap_or(name);
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

#[tokio::test]
async fn every_metric_is_scraped() {
    let scraped = scraped().await;
    let known: BTreeSet<&str> = scraped.keys().map(|name| metric(name)).collect();
    assert_eq!(known, BTreeSet::from(NAMES));
    for (name, value) in [
        (r#"tollgate_admitted_tokens_total{resource="api"}"#, 70.0),
        (r#"tollgate_refunded_tokens_total{resource="api"}"#, 10.0),
        (r#"tollgate_overdrawn_tokens_total{resource="api"}"#, 5.0),
        (r#"tollgate_denied_total{resource="api",reason="exhausted"}"#, 1.0),
        (r#"tollgate_waits_total{resource="api",result="timed_out"}"#, 1.0),
        (r#"tollgate_wait_seconds_count{resource="api"}"#, 1.0),
        (r#"tollgate_wait_seconds_bucket{resource="api",le="0.001"}"#, 1.0), // at once
        (r#"tollgate_waiting{resource="api"}"#, 0.0),
        (r#"tollgate_in_flight{resource="api"}"#, 0.0),
        (r#"tollgate_available_tokens{resource="api"}"#, 35.0),
        (r#"tollgate_debt_tokens{resource="api"}"#, 0.0),
        (r#"tollgate_limit_tokens{resource="api"}"#, 50.0),
        (r#"tollgate_cut_ratio{resource="api"}"#, 0.5),
        (r#"tollgate_paused{resource="api"}"#, 0.0),
        (r#"tollgate_cuts_total{resource="api",origin="local"}"#, 1.0),
        (r#"tollgate_pauses_total{resource="api",origin="local"}"#, 0.0),
        (r#"tollgate_recoveries_total{resource="api"}"#, 0.0),
        (r#"tollgate_admitted_tokens_total{template="user:"}"#, 7.0),
        (r#"tollgate_keys{template="user:"}"#, 2.0),
        (r#"tollgate_keys_evicted_total{template="user:"}"#, 0.0),
        (r#"tollgate_keys_refused_total{template="user:"}"#, 0.0),
        (r#"tollgate_feedback_fields_ignored_total{profile="auto"}"#, 1.0),
        ("tollgate_swarm_connected", 1.0),
        (r#"tollgate_swarm_messages_total{result="dropped"}"#, 0.0),
    ] {
        assert_eq!(scraped.get(name), Some(&value), "{name} of {scraped:#?}");
    }
    let rate = scraped[r#"tollgate_rate_tokens_per_second{resource="api"}"#];
    assert!((rate * 3600.0 - 50.0).abs() < 0.01, "{rate}");
    assert!(
        scraped.keys().all(|name| !name.contains("ann") && !name.contains("bob")),
        "a key is a label"
    );
}

/// The metrics that an expression names.
fn named(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tollgate_"))
}

#[tokio::test]
async fn the_dashboard_shows_each_metric() {
    let scraped = scraped().await;
    let known = |name: &str| scraped.keys().any(|known| known.split('{').next() == Some(name));
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            assert!(named(expression).count() > 0, "{expression} names no metric");
            for name in named(expression) {
                assert!(known(name), "{expression} names {name}, which no scrape has");
                shown.insert(metric(name).to_string());
            }
        }
    }
    let all: BTreeSet<String> = NAMES.into_iter().map(str::to_string).collect();
    assert_eq!(shown, all);
}
