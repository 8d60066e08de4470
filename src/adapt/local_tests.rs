//! What an agent keeps for itself: ceilings, what gets through, the rate lately admitted.

use super::blocked::SinceCut;
use super::ceiling::Ceiling;
use super::cut::RecoveryCurve;
use super::*;

const SECOND: u64 = 1_000_000_000;

fn curve(recovery: Option<Recovery>) -> RecoveryCurve {
    RecoveryCurve::new(recovery)
}

#[test]
fn a_ceiling_grows_back_and_then_faster() {
    let curve = curve(Some(Recovery::default()));
    let ceiling = Ceiling::new(0.15, 0.2, 7, &curve).unwrap();
    let levels: Vec<f64> =
        (0..9).map(|i| ceiling.level_at(7 + i * 30 * SECOND, 1.0, &curve)).collect();
    let expected = [0.15, 0.165, 0.1815, 0.19965, 0.2, 0.22, 0.264, 0.3696, 0.66528];
    for (level, expected) in levels.iter().zip(expected) {
        assert!((level - expected).abs() < 1e-9, "{levels:?}");
    }
    assert!(ceiling.level_at(7 + 9 * 30 * SECOND, 1.0, &curve).is_infinite());
    assert_eq!(ceiling.next_step(7 + 31 * SECOND, &curve), Some(7 + 60 * SECOND));
}

#[test]
fn a_limit_that_does_not_recover_has_no_ceiling() {
    assert_eq!(Ceiling::new(0.5, 1.0, 0, &curve(None)), None);
}

#[test]
fn the_smallest_steps_take_no_time() {
    let interval = Duration::from_millis(1);
    let curve = curve(Some(Recovery { interval, factor: 1.0 + 1e-10, cap: true }));
    let ceiling = Ceiling::new(1e-6, 1.0 - 1e-6, 0, &curve).unwrap();
    assert!(ceiling.level_at(3_600_000 * SECOND, 1.0, &curve) < 2e-6);
    assert!(ceiling.level_at(u64::MAX, 1.0, &curve).is_infinite());
}

#[test]
fn pauses_double_while_nothing_gets_through() {
    let mut since = SinceCut::default();
    for _ in 0..3 {
        assert_eq!(since.next_pause(), None);
        since.refused();
    }
    let pauses: Vec<_> = (0..5).map(|_| since.next_pause().map(|pause| pause / SECOND)).collect();
    assert_eq!(pauses, [5, 10, 20, 30, 30].map(Some));
    since.got_through();
    assert_eq!(since.next_pause(), None);
}

#[test]
fn refusals_count_over_cuts_while_nothing_gets_through() {
    let mut since = SinceCut::new();
    since.refused();
    for i in 0..3 {
        assert_eq!(since.next_pause(), None, "what was refused at first does not count");
        since.restart(i * 60 * SECOND);
        since.refused();
    }
    assert!(since.next_pause().is_some());
    let mut another = since;
    another.restart(3_600 * SECOND);
    assert_eq!(another.next_pause(), None, "a refusal an hour later");
    since.got_through();
    since.restart(240 * SECOND);
    assert_eq!(since.next_pause(), None);
}

/// The rate after `count` grants of `tokens`, `every` this many nanoseconds.
fn measured(count: u64, tokens: u64, every: u64) -> Option<f64> {
    let (mut meter, mut due, before) = (Meter::default(), 0, u64::MAX - 10);
    let total = |i: u64| before.wrapping_add(i * tokens); // wraps on the way
    for i in 1..=count {
        let now = i * every;
        if now >= due {
            due = now + SPACING;
            meter.note(now, total(i));
        }
    }
    meter.rate(count * every, total(count))
}

#[test]
fn the_rate_is_that_of_a_second_or_of_eight_admissions() {
    let is = |rate: Option<f64>, expected: f64| (rate.unwrap() / expected - 1.0).abs() < 0.02;
    assert!(is(measured(2_000, 1, SECOND / 200), 200.0));
    assert!(is(measured(20, 1, SECOND / 5), 5.0));
    assert!(is(measured(20, 7, SECOND / 5), 35.0));
    assert!(is(measured(9, 1, 7 * SECOND), 1.0 / 7.0));
    assert_eq!(measured(7, 1, SECOND), None, "too few");
    assert_eq!(measured(20, 1, 9 * SECOND), None, "too long ago");
}

#[test]
fn an_adaptive_limit_comes_back_from_nothing() {
    let range = Range { min: 0.1, max: 10.0, back_in: 20 * SECOND };
    let mut adaptive = Adaptive::new(range, 1.0, 0);
    adaptive.cut(0.0, 0);
    assert!((adaptive.level - 0.1).abs() < 1e-9);
    for second in 1..=150 {
        let usage = Usage { lately: adaptive.level, longer: adaptive.level };
        adaptive.advance(second * SECOND, usage);
    }
    assert!(adaptive.level > 5.0, "{adaptive:?}");
}

/// At 50 a second; a pause of 10 seconds, of which a second more would be told, is no time of it.
#[test]
fn the_time_of_pauses_does_not_count() {
    let rate = |early: u64| {
        let mut meter = Meter::default();
        let every = SECOND / 50;
        (1..=100).step_by(7).for_each(|i| meter.note(i * every, i));
        let now = 2 * SECOND;
        meter.pause(now, now + 9 * SECOND);
        meter.pause(now + SECOND, now + 10 * SECOND);
        meter.pause(now + SECOND, now + 3 * SECOND);
        let end = now + 10 * SECOND - early;
        if early > 0 {
            meter.resume(end);
        }
        meter.note(end + 5 * every, 105);
        meter.rate(end + 10 * every, 110).unwrap()
    };
    for early in [0, 4 * SECOND] {
        assert!((rate(early) - 50.0).abs() < 1.0, "{}", rate(early));
    }
}
