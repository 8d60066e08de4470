//! Limits in configuration files: as text, by serde.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tollgate::{Limit, MemoryLimiter};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    limits: BTreeMap<String, Limit>,
    fallback: Option<Limit>,
}

const TEXT: &str =
    r#"{"limits":{"api":"10/s burst 20 and 10000/day","jobs":"at most 100/min"},"fallback":null}"#;

fn config() -> Config {
    let api = Limit::per_second(10).burst(20).and(Limit::per_day(10_000));
    let jobs = Limit::at_most(100, std::time::Duration::from_secs(60));
    Config { limits: [("api".into(), api), ("jobs".into(), jobs)].into(), fallback: None }
}

#[test]
fn there_and_back() {
    assert_eq!(serde_json::to_string(&config()).unwrap(), TEXT);
    let value = serde_json::to_value(config()).unwrap();
    // From a text that is borrowed, from one that is read, and from one that is owned.
    assert_eq!(serde_json::from_str::<Config>(TEXT).unwrap(), config());
    assert_eq!(serde_json::from_reader::<_, Config>(TEXT.as_bytes()).unwrap(), config());
    assert_eq!(serde_json::from_value::<Config>(value).unwrap(), config());
    let escaped = serde_json::from_str::<Limit>(r#""10\u002fs""#).unwrap();
    assert_eq!(escaped, Limit::per_second(10));
}

#[test]
fn errors_tell() {
    let error = serde_json::from_str::<Limit>(r#""10/s bust 20""#).unwrap_err().to_string();
    let told = "10/s bust 20".parse::<Limit>().unwrap_err().to_string();
    assert!(error.starts_with(&told), "{error}");
    for other in ["10", "null", "true", "[]", "{}"] {
        let error = serde_json::from_str::<Limit>(other).unwrap_err().to_string();
        assert!(error.contains(r#"expected a limit, like "100/min""#), "{error}");
    }
}

/// What `configure` would refuse fails where it is read, with the same words.
#[test]
fn only_valid_limits_are_read() {
    for text in ["0/s", "10/0s", "10/s burst 0", "1/s, in flight 0"] {
        let told = text.parse::<Limit>().unwrap().validate().unwrap_err().to_string();
        let error = serde_json::from_value::<Limit>(text.into()).unwrap_err().to_string();
        assert_eq!(error, told, "{text}");
    }
}

/// What is written can be read and configured.
#[test]
fn only_valid_limits_are_written() {
    let windows = (1..=5).map(Limit::per_second).reduce(Limit::and).unwrap();
    for limit in [Limit::per_second(0), Limit::per_second(1).burst(0), windows] {
        let told = MemoryLimiter::new().configure("api", limit).unwrap_err().to_string();
        assert_eq!(serde_json::to_string(&limit).unwrap_err().to_string(), told);
    }
}
