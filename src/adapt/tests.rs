//! Cuts, incidents and recovery.

use std::sync::Arc;
use std::time::SystemTime;

use super::*;

const SECOND: u64 = 1_000_000_000;
const TENTH: f64 = 0.1;

fn policy() -> Policy {
    let recovery = Some(Recovery::default());
    Policy { reduce: 0.5, recovery, cooldown: Duration::from_secs(5) }
}

fn cut(id: u64, factor: f64, now: u64, age: u64) -> Cut {
    let origin = Origin {
        agent_id: "a".into(),
        reason: "429".into(),
        timestamp: SystemTime::UNIX_EPOCH,
        is_ours: true,
    };
    Cut::new(id, factor, now, age, Arc::new(origin))
}

fn refused(adapt: &mut CutState, seen: Option<u64>, now: u64) -> bool {
    adapt.refused(seen, TENTH, now, |factor| cut(now, factor, now, 0))
}

fn is(adapt: &CutState, factor: f64) -> bool {
    (adapt.factor() - factor).abs() < 1e-12
}

fn steps_to_recover(adapt: &mut CutState) -> u32 {
    let mut steps = 0;
    while let Some(due) = adapt.due() {
        adapt.advance(due);
        steps += 1;
    }
    assert!(is(adapt, 1.0) && adapt.cuts.is_empty());
    steps
}

#[test]
fn recovery_completes_from_the_least_limit() {
    let mut adapt = CutState::new(policy());
    for i in 0..10 {
        assert!(refused(&mut adapt, None, i * 5 * SECOND));
    }
    assert!(is(&adapt, TENTH));
    // 0.1 * 1.1^25 > 1
    assert_eq!(steps_to_recover(&mut adapt), 25);
}

#[test]
fn recovery_completes_with_the_smallest_steps() {
    let interval = Duration::from_millis(1);
    let recovery = Some(Recovery { interval, factor: 1.0 + 1e-10, cap: true });
    let mut adapt = CutState::new(Policy { recovery, ..policy() });
    refused(&mut adapt, None, 0);
    // ln 2 / 1e-10 steps, which is more than an i32 counts.
    adapt.advance(6_900_000 * SECOND);
    assert!(adapt.factor() < 1.0);
    adapt.advance(6_950_000 * SECOND);
    assert!(is(&adapt, 1.0) && adapt.cuts.is_empty());
}

#[test]
fn without_a_cap_it_passes_the_original_and_ends() {
    let recovery = Some(Recovery { cap: false, ..Recovery::default() });
    let mut adapt = CutState::new(Policy { recovery, ..policy() });
    refused(&mut adapt, None, 0);
    while let Some(due) = adapt.due() {
        adapt.advance(due);
    }
    assert!(is(&adapt, CEILING));
    adapt.halve();
    adapt.advance(u64::MAX);
    assert!(is(&adapt, CEILING / 2.0));
}

#[test]
fn without_recovery_a_cut_stays() {
    let mut adapt = CutState::new(Policy { recovery: None, ..policy() });
    refused(&mut adapt, None, 7);
    assert_eq!(adapt.due(), None);
    adapt.advance(u64::MAX);
    assert!(is(&adapt, 0.5));
}

#[test]
fn another_recovery_keeps_the_factor() {
    let mut adapt = CutState::new(Policy { recovery: None, ..policy() });
    refused(&mut adapt, None, 0);
    adapt.react_by(policy(), 100 * SECOND);
    assert!(is(&adapt, 0.5));
    assert_eq!(adapt.due(), Some(130 * SECOND));
    adapt.advance(131 * SECOND);
    adapt.react_by(Policy { recovery: None, ..policy() }, 140 * SECOND);
    assert!(is(&adapt, 0.55));
    assert_eq!(adapt.due(), None);
}

#[test]
fn refusals_of_one_incident_cut_once() {
    let mut adapt = CutState::new(policy());
    let sent = adapt.full_incidents();
    assert!(refused(&mut adapt, Some(sent), 0));
    assert!(!refused(&mut adapt, Some(sent), 1), "one that was sent before the cut");
    assert!(!refused(&mut adapt, Some(sent), 1_000 * SECOND), "and is refused long after it");
    assert!(!refused(&mut adapt, None, 5 * SECOND - 1), "within the cooldown");
    assert!(!refused(&mut adapt, Some(sent + 1), 5 * SECOND - 1), "sent after it, too");
    assert!(is(&adapt, 0.5));
    assert!(refused(&mut adapt, None, 5 * SECOND), "after it");
    assert!(is(&adapt, 0.25));
}

#[test]
fn without_a_cooldown_each_announcement_cuts() {
    let mut adapt = CutState::new(Policy { cooldown: Duration::ZERO, ..policy() });
    assert!(refused(&mut adapt, None, 0) && refused(&mut adapt, None, 0));
    assert!(is(&adapt, 0.25));
}

#[test]
fn a_neighbours_cut_is_the_incident_of_our_refusals() {
    let mut adapt = CutState::new(policy());
    assert!(adapt.merge(cut(1, 0.5, 10, 0), 10));
    assert!(!refused(&mut adapt, Some(0), 11) && !refused(&mut adapt, None, 11));
    assert!(is(&adapt, 0.5));
    // A cut of a neighbour that did not know ours: nothing is cut twice, recovery starts later.
    assert!(adapt.merge(cut(2, 0.5, 12, 0), 12));
    assert!(is(&adapt, 0.5) && adapt.cuts.len() == 1);
    assert_eq!(adapt.due(), Some(30 * SECOND + 12));
    // A neighbour's second incident is a new one, and our refusals join it.
    assert!(adapt.merge(cut(3, 0.25, 13, 0), 13));
    assert!(!refused(&mut adapt, Some(1), 14) && !refused(&mut adapt, None, 14));
    assert!(is(&adapt, 0.25));
}

#[test]
fn a_neighbours_shallow_cut_does_not_keep_us_from_ours() {
    let mut adapt = CutState::new(policy());
    for i in 0..100_u32 {
        let (id, factor) = (i.into(), 0.99 - 0.001 * f64::from(i));
        assert!(adapt.merge(cut(id, factor, id, 0), id));
    }
    assert!(refused(&mut adapt, Some(0), 200), "cuts as far as without them");
    assert!(is(&adapt, 0.5));
    assert!(!refused(&mut adapt, None, 201));
}

#[test]
fn a_later_larger_cut_raises_nothing() {
    let mut adapt = CutState::new(policy());
    adapt.merge_untracked(cut(1, 0.25, 0, 0), 0);
    assert!(!adapt.merge_untracked(cut(2, 0.5, 6 * SECOND, 0), 6 * SECOND));
    assert!(is(&adapt, 0.25));
    // A cut with an incident is kept only if it could count later: this one could not.
    assert!(!adapt.merge(cut(3, 0.5, 7 * SECOND, 0), 7 * SECOND));
}

#[test]
fn a_storm_of_neighbours_that_know_no_incidents_cuts_once() {
    let mut adapt = CutState::new(policy());
    for (i, factor) in [0.5, 0.25, 0.12, 0.06, 0.03].into_iter().enumerate() {
        adapt.merge_untracked(cut(i as u64, factor, i as u64, 0), i as u64);
    }
    assert!(is(&adapt, 0.5));
    adapt.merge_untracked(cut(9, 0.25, 6 * SECOND, 0), 6 * SECOND);
    assert!(is(&adapt, 0.25));
}

#[test]
fn a_storm_passed_on_by_others_cuts_no_further_either() {
    let mut adapt = CutState::new(policy());
    adapt.merge_untracked(cut(1, 0.5, 0, 0), 0);
    // A neighbour missed the first and took the second in full.
    let second = |now| cut(2, 0.2, now, now - SECOND);
    for now in [SECOND, 7 * SECOND, 29 * SECOND] {
        adapt.merge_untracked(second(now), now);
        assert!(is(&adapt, 0.5));
    }
    // Nor if it is received late, or once more after another incident.
    let mut late = CutState::new(policy());
    late.merge_untracked(cut(1, 0.5, 0, 0), 0);
    late.merge_untracked(second(7 * SECOND), 7 * SECOND);
    assert!(is(&late, 0.5));
    assert!(refused(&mut late, None, 8 * SECOND));
    late.merge_untracked(second(9 * SECOND), 9 * SECOND);
    assert!(is(&late, 0.25));
    // But a cut of another time counts in full.
    late.merge_untracked(cut(3, 0.2, 60 * SECOND, SECOND), 60 * SECOND);
    assert!(is(&late, 0.2));
}

#[test]
fn an_incident_that_is_received_late_is_over() {
    let mut adapt = CutState::new(policy());
    let now = 30 * SECOND;
    assert!(adapt.merge(cut(1, 0.5, now, 25 * SECOND), now));
    assert!(!refused(&mut adapt, Some(0), now), "except a request sent before it took effect");
    assert!(refused(&mut adapt, None, now) && is(&adapt, 0.25));
    // An older one does not end ours.
    assert!(adapt.merge(cut(2, 0.1, now + 1, 20 * SECOND), now + 1));
    assert!(!refused(&mut adapt, None, now + 2));
    assert!(is(&adapt, 0.1));
}

#[test]
fn agents_with_the_same_cuts_agree_in_any_order() {
    let told = [(1, 0.5, 0), (2, 0.3, 3), (3, 0.5, 40), (4, 0.77, 41), (5, 0.33, 20), (6, 0.5, 39)];
    some_orders(told.len(), |order| {
        let mut adapt = CutState::new(policy());
        for (i, index) in order.iter().chain(order).enumerate() {
            let (id, factor, start) = told[*index];
            let now = (50 + i as u64) * SECOND;
            adapt.merge(cut(id, factor, now, now - start * SECOND), now);
        }
        for at in 62..900 {
            adapt.advance(at * SECOND);
            let curve = RecoveryCurve::new(policy().recovery);
            let lowest = told
                .iter()
                .map(|(id, factor, start)| {
                    cut(*id, *factor, at * SECOND, (at - start) * SECOND)
                        .factor_at(at * SECOND, &curve)
                })
                .fold(1.0, f64::min);
            assert!(is(&adapt, lowest), "{order:?} at {at}: {} for {lowest}", adapt.factor());
        }
    });
}

/// 500 orders of `0..n`, by transpositions.
fn some_orders(n: usize, mut see: impl FnMut(&[usize])) {
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..500_usize {
        order.swap(i % n, (i * 7 + i / n) % n);
        see(&order);
    }
}

#[test]
fn a_cut_received_again_may_be_lower_or_much_younger_but_not_older() {
    let mut adapt = CutState::new(policy());
    let mut merge = |factor, at: u64, age: u64| {
        adapt.merge(cut(1, factor, at * SECOND, age * SECOND), at * SECOND);
        (adapt.factor(), adapt.due().unwrap() / SECOND)
    };
    assert_eq!(merge(0.5, 100, 0), (0.5, 130));
    assert_eq!(merge(0.5, 101, 3), (0.5, 130), "within a message's delay");
    assert_eq!(merge(0.5, 102, 90), (0.5, 130));
    assert_eq!(merge(0.999, 103, 3), (0.5, 130));
    assert_eq!(merge(0.5, 105, 0), (0.5, 130), "within a message's delay");
    assert_eq!(merge(0.4, 111, 0), (0.4, 141));
    assert_eq!(merge(0.3, 112, 90), (0.3, 141));
}

#[test]
fn a_covered_cut_that_is_received_lower_counts() {
    let mut adapt = CutState::new(policy());
    assert!(adapt.merge(cut(5, 0.999, 0, 0), 0));
    assert!(adapt.merge(cut(6, 0.998, 1, 0), 1));
    assert!(!adapt.merge(cut(5, 0.999, 2, 0), 2) && adapt.cuts.len() == 1);
    assert!(adapt.merge(cut(5, 0.5, 3, 0), 3) && is(&adapt, 0.5));
}

#[test]
fn too_many_cuts_raise_nothing() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let mut adapt = CutState::new(policy());
        refused(&mut adapt, None, 0);
        // Just below the present factor and just before the next step, so that none covers another.
        let mut told = Vec::new();
        for id in 0..30 {
            let now = 29 * SECOND + id;
            let level = 0.5 * (1.0 - 0.09 * random.f64());
            told.push(cut(id + 9, level, now, random.u64(..29 * SECOND)));
            adapt.merge(told[told.len() - 1].clone(), now);
            assert!(adapt.cuts.len() <= MOST_CUTS);
        }
        for at in (30..600).map(|at| at * SECOND) {
            adapt.advance(at);
            let lowest = told.iter().map(|cut| cut.factor_at(at, &adapt.curve)).fold(1.0, f64::min);
            let (most, least) = (lowest + 1e-12, lowest / 1.1 - 1e-12);
            assert!((least..most).contains(&adapt.factor()), "{} for {lowest}", adapt.factor());
        }
        assert!(is(&adapt, 1.0));
    }
}

#[test]
fn an_agent_that_lacks_a_cut_is_behind() {
    let mut adapt = CutState::new(policy());
    let now = 40 * SECOND;
    adapt.merge(cut(1, 0.5, now, 10 * SECOND), now);
    let is_behind = |told: &[Cut]| adapt.is_ahead_of(told, now);
    assert!(is_behind(&[]));
    assert!(!is_behind(&[cut(1, 0.5, now, 10 * SECOND)]));
    assert!(is_behind(&[cut(1, 0.9999, now, 0)]), "the same id, higher");
    assert!(is_behind(&[cut(1, 0.5, now, 239 * SECOND)]), "the same id, older");
    assert!(is_behind(&[cut(2, 0.4, now, 130 * SECOND)]), "lower for now");
    assert!(is_behind(&[cut(2, 0.5, now, 14 * SECOND)]), "above for a part of each interval");
    assert!(!is_behind(&[cut(2, 0.5, now, 11 * SECOND)]), "not noticeably above, ever");
    assert!(!is_behind(&[cut(2, 0.25, now, 14 * SECOND)]));
}

#[test]
fn a_cut_that_has_recovered_elsewhere_does_not_count() {
    let mut adapt = CutState::new(policy());
    assert!(!adapt.merge(cut(1, 0.5, 0, 240 * SECOND), 0));
    assert!(adapt.merge(cut(2, 0.5, 0, 239 * SECOND), 0));
    assert!(is(&adapt, 0.5 * 1.1_f64.powi(7)));
    assert_eq!(adapt.due(), Some(SECOND));
    assert_eq!(steps_to_recover(&mut adapt), 1);
}

#[test]
fn a_cut_that_has_recovered_here_does_not_come_back_late() {
    let mut adapt = CutState::new(policy());
    adapt.merge(cut(1, 0.5, 0, 0), 0);
    let now = 240 * SECOND;
    adapt.advance(now);
    assert!(!adapt.merge(cut(1, 0.5, now, now - 2 * SECOND), now) && is(&adapt, 1.0));
    assert!(adapt.merge(cut(2, 0.5, now, now - 2 * SECOND), now));
}

#[test]
fn a_flood_of_cuts_is_bounded() {
    let mut adapt = CutState::new(policy());
    for i in 0..10_000_u32 {
        // Each a little lower and a little older, so that none covers another.
        let (id, factor) = (i.into(), 0.9 - 0.000_01 * f64::from(i));
        adapt.merge(cut(id, factor, 20 * SECOND, id * 1_000_000), 20 * SECOND);
        assert!(adapt.cuts.len() <= MOST_CUTS && adapt.spent.len() <= MOST_SPENT);
    }
    assert!(is(&adapt, 0.9 - 0.000_01 * 9_999.0));
}
