//! Limits as text: what is read, what is shown, and what is said of bad text.

use std::time::Duration;

use crate::common::{cases, turns};
use proptest::prelude::*;
use tollgate::{ConfigError, Limit, MemoryLimiter, OnRelease, ParseLimitError, Recovery};

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

fn configure(limit: Limit) -> Result<(), ConfigError> {
    MemoryLimiter::new().configure("api", limit).map(|_| ())
}

fn error(text: &str) -> ParseLimitError {
    text.parse::<Limit>().expect_err(text)
}

/// Shown as this, and read back as the same.
#[test]
fn canonical() {
    let recovery = |factor, cap| Recovery { interval: 30 * SECOND, factor, cap };
    for (limit, text) in [
        (Limit::per_minute(100), "100/min"),
        (Limit::per_second(10).burst(20), "10/s burst 20"),
        (Limit::per_second(10).and(Limit::per_day(10_000)), "10/s and 10000/day"),
        (Limit::at_most(100, 60 * SECOND).burst(10), "at most 100/min burst 10"),
        (Limit::new(5, 90 * SECOND), "5/90s"),
        (Limit::new(5, Duration::from_millis(1_500)), "5/1500ms"),
        (Limit::new(3, 7 * 86_400 * SECOND), "3/week"),
        (Limit::new(3, 14 * 86_400 * SECOND), "3/2weeks"),
        (Limit::new(3, 8 * 86_400 * SECOND), "3/8days"),
        (Limit::new(3, 2 * 86_400 * SECOND), "3/2days"),
        (Limit::new(3, 7_200 * SECOND), "3/2h"),
        (Limit::new(3, Duration::from_micros(7)), "3/7us"),
        (Limit::new(1, Duration::from_nanos(u64::MAX)), "1/18446744073709551615ns"),
        (Limit::per_hour(2).on_release(OnRelease::Refund), "2/h, refund"),
        (Limit::per_hour(2).on_release(OnRelease::Spend), "2/h, spend"),
        (Limit::per_second(9).max_in_flight(5).max_waiting(0), "9/s, in flight 5, waiting 0"),
        (Limit::per_second(9).cooldown(SECOND), "9/s, cooldown 1s"),
        (Limit::per_second(9).cooldown(Duration::ZERO), "9/s, cooldown 0s"),
        (Limit::per_second(9).recovery(recovery(1.1, true)), "9/s, recovery x1.1 every 30s"),
        (
            Limit::per_second(9).recovery(recovery(2.0, false)),
            "9/s, recovery x2 every 30s uncapped",
        ),
        (Limit::per_second(9).no_recovery(), "9/s, no recovery"),
        (Limit::per_second(9).recovery(recovery(1.1, true)).no_recovery(), "9/s, no recovery"),
        (
            Limit::per_minute(9).no_recovery().recovery(recovery(1.1, true)).min_rate(5),
            "9/min, recovery x1.1 every 30s, min 5",
        ),
        (
            Limit::per_minute(9).cooldown(60 * SECOND).no_recovery().min_rate(10),
            "9/min, cooldown 1min, no recovery, min 10",
        ),
        (Limit::per_second(9).adaptive(1, 20_000), "9/s, adaptive 1 to 20000"),
        (
            Limit::per_second(9).adaptive(1, 90).back_in(60 * SECOND),
            "9/s, adaptive 1 to 90 back in 1min",
        ),
        (
            Limit::at_most(1, SECOND)
                .burst(1)
                .and(Limit::new(2, 2 * SECOND).burst(3))
                .and(Limit::at_most(3, NANO))
                .and(Limit::per_day(4))
                .max_in_flight(u64::MAX)
                .cooldown(Duration::MAX),
            "at most 1/s burst 1 and 2/2s burst 3 and at most 3/ns and 4/day, \
             in flight 18446744073709551615, cooldown 18446744073709551615999999999ns",
        ),
    ] {
        assert_eq!(limit.to_string(), text);
        assert_eq!(text.parse(), Ok(limit), "{text}");
    }
}

/// As people write it.
#[test]
fn generous() {
    for (text, canonical) in [
        ("  100 / min ", "100/min"),
        ("100 per minute", "100/min"),
        ("100\u{a0}Per\n1\tMINUTES", "100/min"),
        ("10_000/d", "10000/day"),
        ("1_/s", "1/s"),
        ("007/s", "7/s"),
        ("10/sec", "10/s"),
        ("10/second burst20", "10/s burst 20"),
        ("10/1000seconds", "10/1000s"),
        ("10/60s", "10/min"),
        ("10/24h", "10/day"),
        ("10/24 hours", "10/day"),
        ("10/hour", "10/h"),
        ("10/2 \u{b5}s and 10/2\u{3bc}s", "10/2us and 10/2us"),
        ("3/7 Days", "3/week"),
        ("3 per w", "3/week"),
        ("3/2 weeks, In-Flight 5", "3/2weeks, in flight 5"),
        ("at-most 3/s in - flight 5", "at most 3/s, in flight 5"),
        ("AT  MOST 1/s AND 2/s", "at most 1/s and 2/s"),
        ("1/s waiting 3 in\tflight 2,refund", "1/s, refund, in flight 2, waiting 3"),
        ("1/s recovery x 2.0 every minute", "1/s, recovery x2 every 1min"),
        ("1/s Recovery X1_0.2_5Every5s Uncapped", "1/s, recovery x10.25 every 5s uncapped"),
    ] {
        let limit: Limit = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(limit.to_string(), canonical, "{text:?}");
    }
}

#[test]
fn bad_text_is_told_where_and_what() {
    let unit = r#"a unit of time ("ns", "us", "ms", "s", "min", "h", "day", "week")"#;
    let (last, recovery) = (r#""cooldown""#, r#""recovery", "no recovery", "adaptive", "min""#);
    let settings = format!(r#""refund", "spend", "in flight", "waiting", {last}, {recovery}"#);
    let settings = settings.as_str();
    let after = format!(r#""burst", "and", ",", {settings}, the end"#);
    let number = r#""at most", a number"#;
    for (text, position, found, expected) in [
        ("", 0, "", number),
        (" \n", 2, "", number),
        ("fast", 0, "fast", number),
        ("-1/s", 0, "-", number),
        ("_1/s", 0, "_", number),
        ("at 5/s", 0, "at", number),
        ("at most five/s", 8, "five", "a number"),
        ("100", 3, "", r#""/", "per""#),
        ("10,000/s", 2, ",", r#""/", "per""#),
        ("1.5/s", 1, ".", r#""/", "per""#),
        ("100/", 4, "", &format!("a number, {unit}")),
        ("100/m", 4, "m", &format!("a number, {unit}")),
        ("100/5 fortnights", 6, "fortnights", unit),
        ("5/1.5s", 3, ".", unit),
        ("10/s bust 20", 5, "bust", &after),
        ("10/s\u{2003}\u{1f980}", 7, "\u{1f980}", &after),
        ("10/s burst", 10, "", "a number"),
        ("10/s burst 5 burst 5", 13, "burst", &format!(r#""and", ",", {settings}, the end"#)),
        ("10/s and", 8, "", number),
        ("10/s,", 5, "", settings),
        ("10/s, 5/min", 6, "5", settings),
        (
            "10/s refund, in flight 5, refund",
            26,
            "refund",
            &format!(r#""waiting", {last}, {recovery}"#),
        ),
        ("1/s no recovery, recovery x2 every 1s", 17, "recovery", &{
            let first = r#""refund", "spend", "in flight", "waiting", "cooldown""#;
            format!(r#"{first}, "adaptive", "min""#)
        }),
        ("1/s no", 4, "no", &after),
        ("1/min min", 9, "", "a number"),
        (
            "1/min min 5s",
            11,
            "s",
            &format!(r#"",", {}"#, settings.replace(r#", "min""#, "") + ", the end"),
        ),
        ("1/s recovery 1.1", 13, "1", r#""x""#),
        ("1/s recovery x.5 every 1s", 14, ".", "a factor"),
        ("1/s recovery x-2 every 1s", 14, "-", "a factor"),
        ("1/s recovery xnan every 1s", 13, "xnan", r#""x""#),
        ("1/s recovery x1.5", 17, "", r#""every""#),
        ("1/s recovery x1. every 1s", 15, ".", r#""every""#),
        ("18446744073709551616/s", 0, "18446744073709551616", "a number below 2^64"),
        (
            "1/s burst 99_999_999_999_999_999_999",
            10,
            "99_999_999_999_999_999_999",
            "a number below 2^64",
        ),
        // 2^128 + 4
        (
            "340282366920938463463374607431768211460/s",
            0,
            "340282366920938463463374607431768211460",
            "a number below 2^64",
        ),
        ("1/18446744073709551616 s and 1/s", 2, "18446744073709551616 s", "a shorter time"),
        ("1/s cooldown 300000000000000days", 13, "300000000000000days", "a shorter time"),
    ] {
        let error = error(text);
        let told = (error.position(), error.found(), error.expected());
        assert_eq!(told, (position, found, expected), "{text:?}");
    }
    assert_eq!(
        error("10/s bust 20").to_string(),
        format!(r#"at byte 5 of "10/s bust 20": expected {after}, found "bust""#)
    );
    assert_eq!(error("1").to_string(), r#"at byte 1 of "1": expected "/", "per", found the end"#);
    let (nines, letters) = ("9".repeat(1 << 16), "x".repeat(1 << 16));
    for text in [
        format!("{nines}/s"),
        format!("1/{nines}day"),
        format!("1/{nines}ns"),
        format!("1/s, recovery x{nines} every 1s"),
        format!("1/s, recovery x1.5 every {nines}s"),
        format!("1/{letters}"),
        letters,
    ] {
        let told = error(&text).to_string();
        assert!(told.len() < 1_000, "{told}");
    }
}

/// What can be said but makes no sense is read, and told by `configure`.
#[test]
fn sense_is_told_by_configure() {
    for (text, error) in [
        ("0/s", ConfigError::InvalidCapacity),
        ("18446744073709551615/s", ConfigError::InvalidCapacity),
        ("1/0s", ConfigError::InvalidWindow),
        ("1/1000000days", ConfigError::InvalidWindow),
        ("1/s burst 0", ConfigError::InvalidBurst),
        ("1/s and 1/s burst 0", ConfigError::InvalidBurst),
        ("at most 1/s burst 2", ConfigError::InvalidBurst),
        ("1/s in flight 0", ConfigError::InvalidInFlight),
        ("1/s recovery x1 every 1s", ConfigError::InvalidRecovery),
        ("1/s recovery x1.1 every 0s", ConfigError::InvalidRecovery),
        ("4503599627370496/ns burst 1", ConfigError::RateTooHigh),
        ("1/s and 2/s and 3/s and 4/s and 5/s", ConfigError::TooManyWindows),
    ] {
        let limit: Limit = text.parse().unwrap();
        assert_eq!(configure(limit), Err(error), "{text}");
    }
}

/// What text cannot say is not passed over.
#[test]
fn a_limit_that_cannot_be_built_shows_it() {
    let misplaced = Limit::per_second(1).and(Limit::per_second(2).max_in_flight(1));
    let burst = Limit::per_second(1).burst(0);
    let windows = (1..=5).map(Limit::per_second).reduce(Limit::and).unwrap();
    let not_a_number = Recovery { interval: SECOND, factor: f64::NAN, cap: true };
    for limit in [misplaced, burst, windows, Limit::per_second(1).recovery(not_a_number)] {
        assert!(limit.to_string().parse::<Limit>().is_err(), "{limit}");
    }
    let text =
        "1/s (the burst must be 1 to 2^52 tokens, and of a strict limit no more than it allows)";
    assert_eq!(burst.to_string(), text);
}

/// Numbers of all lengths, with those that people write.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (0..64_u32, any::<u64>()).prop_map(|(shift, number)| number >> shift),
        1 => (0..20_u32).prop_map(|power| 10_u64.pow(power)),
        1 => 0..100_u64,
        1 => Just(u64::MAX),
    ]
}

fn time() -> impl Strategy<Value = Duration> {
    let unit = prop_oneof![
        Just(NANO),
        Just(1_000 * NANO),
        Just(1_000_000 * NANO),
        Just(SECOND),
        Just(60 * SECOND),
        Just(3_600 * SECOND),
        Just(86_400 * SECOND),
    ];
    prop_oneof![
        4 => (unit, prop_oneof![Just(1), 0..10_000_u32]).prop_map(|(unit, count)| count * unit),
        2 => number().prop_map(Duration::from_nanos),
        1 => (number(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        1 => Just(Duration::MAX),
    ]
}

fn window() -> impl Strategy<Value = Limit> {
    let burst = proptest::option::of(number().prop_map(|burst| burst.max(1)));
    (any::<bool>(), number(), time(), burst).prop_map(|(strict, capacity, length, burst)| {
        let new = if strict { Limit::at_most } else { Limit::new };
        let limit = new(capacity, length);
        burst.map_or(limit, |burst| limit.burst(burst))
    })
}

fn recovery() -> impl Strategy<Value = Recovery> {
    let factor = prop_oneof![
        (0..1_000_u32).prop_map(|percent| 1.0 + f64::from(percent) / 100.0),
        proptest::num::f64::POSITIVE | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO,
        Just(1.0 + f64::EPSILON),
        Just(f64::MAX),
    ]
    .prop_map(f64::abs);
    (time(), factor, any::<bool>()).prop_map(|(interval, factor, cap)| Recovery {
        interval,
        factor,
        cap,
    })
}

/// All settings, valid or not, but for what no text can say.
fn limit() -> impl Strategy<Value = Limit> {
    use proptest::option::of;
    let on_release = prop_oneof![Just(OnRelease::Spend), Just(OnRelease::Refund)];
    let after_cuts = of(of(recovery()));
    let counts = (of(number()), of(number()), of(number()));
    let adaptive = of((number(), number(), of(time())));
    let settings = (of(on_release), counts, of(time()), after_cuts, adaptive);
    (proptest::collection::vec(window(), 1..=4), settings).prop_map(|(windows, settings)| {
        let (on_release, (max_in_flight, max_waiting, min_rate), cooldown, recovery, adaptive) =
            settings;
        let limit = windows.into_iter().reduce(Limit::and).expect("at least one");
        let limit = on_release.map_or(limit, |policy| limit.on_release(policy));
        let limit = max_in_flight.map_or(limit, |n| limit.max_in_flight(n));
        let limit = max_waiting.map_or(limit, |n| limit.max_waiting(n));
        let limit = cooldown.map_or(limit, |time| limit.cooldown(time));
        let limit = min_rate.map_or(limit, |n| limit.min_rate(n.max(1)));
        let limit = adaptive.map_or(limit, |(min, max, back_in)| {
            let limit = limit.adaptive(min, max);
            back_in.map_or(limit, |time| limit.back_in(time))
        });
        recovery.map_or(limit, |recovery| match recovery {
            Some(recovery) => limit.recovery(recovery),
            None => limit.no_recovery(),
        })
    })
}

/// Something of a valid text: a word, a sign, or what is like it.
fn piece() -> impl Strategy<Value = &'static str> {
    const PIECES: [&str; 41] = [
        "at",
        "most",
        "at most",
        "and",
        "per",
        "/",
        "burst",
        ",",
        "refund",
        "spend",
        "in flight",
        "in",
        "waiting",
        "cooldown",
        "recovery",
        "no",
        "x",
        "every",
        "uncapped",
        "ns",
        "us",
        "ms",
        "s",
        "min",
        "h",
        "day",
        "days",
        "0",
        "1",
        "20",
        "1.1",
        "1_000",
        "99999999999999999999",
        ".",
        "_",
        " ",
        "\u{b5}s",
        "\u{2003}",
        "\u{1f980}",
        "\0",
        "-",
    ];
    proptest::sample::select(&PIECES[..])
}

/// Whatever the text: an error points into it, and a limit is shown as something that is read as the
/// same, if it can be built.
fn read(text: &str) -> Result<(), TestCaseError> {
    match text.parse::<Limit>() {
        Err(error) => {
            prop_assert!(text[error.position()..].starts_with(error.found()));
            prop_assert!(!error.expected().is_empty() && !error.to_string().is_empty());
        }
        Ok(limit) => {
            let is_valid = configure(limit).is_ok();
            let again = limit.to_string().parse::<Limit>();
            prop_assert!(again == Ok(limit) || (again.is_err() && !is_valid), "{text:?}: {limit}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(turns(10_000, 2_000)) as u32,
        failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_shown_reads_back(limit in limit()) {
        let text = limit.to_string();
        prop_assert_eq!(text.parse::<Limit>(), Ok(limit), "{}", text);
        prop_assert_eq!(text.to_uppercase().parse::<Limit>(), Ok(limit), "{}", text);
        let sparse = text.replace(' ', "\n \t").replace('/', " / ").replace(',', "");
        prop_assert_eq!(sparse.parse::<Limit>(), Ok(limit), "{}", sparse);
    }

    #[test]
    fn any_text_is_read(text in ".*") {
        read(&text)?;
    }

    #[test]
    fn any_words_are_read(pieces in proptest::collection::vec(piece(), 0..12), spaced: bool) {
        read(&pieces.join(if spaced { " " } else { "" }))?;
    }

    /// A part of a valid text replaced by a piece of another.
    #[test]
    fn what_is_nearly_right_is_read(
        limit in limit(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_usize, piece()), 1..4),
    ) {
        let mut text: Vec<char> = limit.to_string().chars().collect();
        for (at, length, piece) in changes {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + length);
            text.splice(at..end, piece.chars());
        }
        read(&text.iter().collect::<String>())?;
    }
}

/// A comma after the last setting that there is: nothing could follow it, so the error is at the comma.
#[test]
fn a_comma_that_nothing_can_follow_is_the_mistake() {
    let all =
        "1/s, refund, in flight 8, waiting 100, cooldown 5s, no recovery, min 1, adaptive 1 to 2";
    assert!(all.parse::<Limit>().is_ok());
    for more in [",", ", refund"] {
        let error = format!("{all}{more}").parse::<Limit>().unwrap_err();
        assert_eq!((error.position(), error.found()), (all.len(), ","));
        assert!(error.expected().contains("the end"), "{error}");
    }
}
