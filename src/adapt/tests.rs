//! Cuts, incidents and recovery.

use std::sync::Arc;
use std::time::SystemTime;

use super::*;

const SECOND: u64 = 1_000_000_000;
const TENTH: f64 = 0.1;

fn policy() -> Policy {
    let recovery = Some(Recovery::default());
    Policy { reduce: 0.5, recovery, cooldown: Duration::from_secs(5), floor: 0.0 }
}

fn cut(id: u64, factor: f64, now: u64, age: u64) -> Cut {
    let origin = Origin {
        agent_id: "a".into(),
        reason: "429".into(),
        timestamp: SystemTime::UNIX_EPOCH,
        is_ours: true,
        is_measured: false,
    };
    Cut::new(id, factor, now, age, Arc::new(origin))
}

fn refused(adapt: &mut CutState, seen: Option<u64>, now: u64) -> bool {
    adapt.refused(seen, TENTH, now, |factor| cut(now, factor, now, 0)) == Reaction::Cut
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

/// What others are told of a neighbour's cut is the cut, not what the floor leaves of it here.
#[test]
fn a_floor_bounds_the_cuts_of_others_here() {
    let mut adapt = CutState::new(Policy { floor: 0.5, ..policy() });
    assert!(adapt.merge(cut(1, TENTH, 0, 0), 0));
    assert!(is(&adapt, 0.5));
    assert_eq!(adapt.cuts(0).map(|cut| cut.factor).collect::<Vec<_>>(), [TENTH]);
    // A higher floor counts at once, and none as well.
    adapt.react_by(Policy { floor: 0.75, ..policy() }, 0);
    assert!(is(&adapt, 0.75));
    adapt.react_by(policy(), 0);
    assert!(is(&adapt, TENTH));
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

/// `tokens` of 100, as an agent announces them that knows neither factors nor incidents.
fn announced(adapt: &mut CutState, id: u64, tokens: u32, now: u64) -> bool {
    adapt.merge_plain(cut(id, f64::from(tokens) / 100.0, now, 0), tokens.into(), now)
}

/// The same, as a neighbour passes it on.
fn passed_on(tokens: u32, floor: f64, now: u64, age: u64) -> Cut {
    let plain = Plain { tokens: tokens.into(), floor };
    cut(u64::from(tokens), f64::from(tokens) / 100.0, now, age).announced_as(plain)
}

#[test]
fn a_later_larger_cut_raises_nothing() {
    let mut adapt = CutState::new(policy());
    assert!(announced(&mut adapt, 1, 60, 0));
    announced(&mut adapt, 2, 80, 6 * SECOND);
    adapt.merge(cut(3, 0.8, 7 * SECOND, 0), 7 * SECOND);
    announced(&mut adapt, 4, 100, 8 * SECOND);
    announced(&mut adapt, 5, 900, 9 * SECOND);
    assert!(is(&adapt, 0.6));
    // A cut by a factor is kept only if it could count later: this one could not.
    assert!(!adapt.merge(cut(6, 0.9, 9 * SECOND, 0), 9 * SECOND));
}

#[test]
fn a_plain_announcement_is_one_refusal() {
    let mut adapt = CutState::new(policy());
    announced(&mut adapt, 1, 1, 0);
    assert!(is(&adapt, 0.5), "of an incident that nobody knew, too");
    // Ten refusals of one incident.
    for i in 2..10 {
        announced(&mut adapt, i, 1, i);
        assert!(!refused(&mut adapt, None, i));
    }
    assert!(is(&adapt, 0.5));
    // One more after the cooldown. Then our own are of its incident.
    announced(&mut adapt, 10, 1, 6 * SECOND);
    assert!(is(&adapt, 0.25));
    assert!(!refused(&mut adapt, None, 7 * SECOND));
    announced(&mut adapt, 11, 20, 12 * SECOND);
    assert!(is(&adapt, 0.2), "and no further than it says");
    // The same message again is no further refusal.
    announced(&mut adapt, 10, 1, 20 * SECOND);
    assert!(is(&adapt, 0.2));
}

/// A neighbour has heard an announcement at another level, or an agent joins late.
#[test]
fn what_is_passed_on_goes_as_far_as_it_did_elsewhere() {
    let mut adapt = CutState::new(policy());
    announced(&mut adapt, 50, 50, 0);
    announced(&mut adapt, 20, 20, 6 * SECOND);
    assert!(is(&adapt, 0.25));
    let told: Vec<Cut> = adapt.cuts(6 * SECOND).cloned().collect();
    assert_eq!(told.len(), 1, "the later covers the earlier");

    let mut late = CutState::new(policy());
    assert!(late.merge(told[0].clone(), 6 * SECOND) && is(&late, 0.25));
    // One that missed the first.
    let mut apart = CutState::new(policy());
    announced(&mut apart, 20, 20, 6 * SECOND);
    assert!(is(&apart, 0.5));
    let theirs: Vec<Cut> = apart.cuts(6 * SECOND).cloned().collect();
    assert!(adapt.is_ahead_of(&theirs, 6 * SECOND) && !apart.is_ahead_of(&told, 6 * SECOND));
    assert!(apart.merge(told[0].clone(), 7 * SECOND) && is(&apart, 0.25));
    assert!(!adapt.merge(theirs[0].clone(), 7 * SECOND) && is(&adapt, 0.25));
    // Whoever hears both agrees with them, whatever its limit is: of 1,000 they are not seen.
    let mut large = CutState::new(policy());
    let of_1_000 = |floor| Cut { factor: 0.02_f64.max(floor), ..passed_on(20, floor, 0, 0) };
    assert!(large.merge(of_1_000(0.5), 0) && large.merge(of_1_000(0.25), 0));
    assert!(is(&large, 0.25));
    // And of 10, where both are nothing, they leave a state that is in no need of either.
    let mut small = CutState::new(policy());
    let of_10 = |floor| Cut { factor: 0.9, ..passed_on(9, floor, 0, 0) };
    assert!(small.merge(of_10(0.5), 0) && small.is_ahead_of(&[], 0));
    assert!(!small.is_ahead_of(&[of_10(0.25)], 0) && small.merge(of_10(0.25), 0));
    assert!(!small.is_ahead_of(&[of_10(0.25)], 0) && small.is_ahead_of(&[of_10(0.5)], 0));
    // What has been passed on is no incident's first hearing.
    let mut again = CutState::new(policy());
    again.merge(passed_on(20, 0.25, SECOND, 0), SECOND);
    announced(&mut again, 20, 20, 20 * SECOND);
    assert!(is(&again, 0.25));
}

#[test]
fn what_a_json_parser_rounds_is_no_news() {
    let mut adapt = CutState::new(policy());
    for factor in [0.3, 0.3 * (1.0 + f64::EPSILON), 0.3 * (1.0 - f64::EPSILON)] {
        let is_first = adapt.cuts.is_empty();
        assert_eq!(adapt.merge(cut(1, factor, 0, 0), 0), is_first);
        assert!(!adapt.is_ahead_of(&[cut(1, factor, 0, 0)], 0));
    }
    adapt.merge(passed_on(50, 0.3, 0, 0), 0);
    assert!(!adapt.is_ahead_of(&[cut(1, 0.3, 0, 0), passed_on(50, 0.3 + 1e-16, 0, 0)], 0));
}

/// An agent that announces 1 stays there, whatever we recover to, unless it hears a higher number.
#[test]
fn the_fewest_tokens_that_were_announced_are_known_while_the_cut_stands() {
    let mut adapt = CutState::new(policy());
    assert_eq!(adapt.fewest_announced(0), None);
    for (i, tokens) in [50, 25, 12, 1, 30].into_iter().enumerate() {
        announced(&mut adapt, i as u64, tokens, i as u64);
    }
    assert!(is(&adapt, 0.5));
    assert_eq!(adapt.fewest_announced(5), Some(1));
    // Covered by our own.
    assert!(refused(&mut adapt, None, 6 * SECOND) && is(&adapt, 0.25));
    assert_eq!(adapt.fewest_announced(6 * SECOND), Some(1));
    adapt.advance(239 * SECOND);
    assert_eq!(adapt.fewest_announced(239 * SECOND), Some(1));
    adapt.advance(250 * SECOND);
    assert_eq!(adapt.fewest_announced(250 * SECOND), None, "recovered, ours is not");
    assert!(adapt.factor() < 1.0);
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

/// What is refused between the cuts of others counts on, as it does between our own.
#[test]
fn who_hears_of_cuts_pauses_too_where_nothing_gets_through() {
    let mut adapt = CutState::new(policy());
    for i in 1..=3 {
        let now = i * 60 * SECOND;
        assert!(adapt.merge(cut(i, 0.5_f64.powi(i32::try_from(i).unwrap()), now, 0), now));
        let seen = adapt.full_incidents();
        assert!(!refused(&mut adapt, Some(seen), now + SECOND), "of the same incident");
    }
    let seen = Some(adapt.full_incidents());
    let reaction = adapt.refused(seen, 0.0, 187 * SECOND, |factor| cut(9, factor, 187 * SECOND, 0));
    assert_eq!(reaction, Reaction::Pause(5 * SECOND));
}
