//! Pauses that are told: which count, and until when.

use std::time::SystemTime;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn pause(id: u64, length: u64, age: u64, now: u64) -> Pause {
    let origin = Origin {
        agent_id: "a".into(),
        reason: "paused".into(),
        timestamp: SystemTime::UNIX_EPOCH,
        is_measured: false,
        is_ours: false,
    };
    Pause::new(id, length, age, now, Arc::new(origin))
}

fn until(pauses: &mut Pauses, pause: Pause, now: u64, part: f64) -> Option<u64> {
    let until = pauses.join(pause, now, part).map(|joined| joined.until)?;
    pauses.extend(until, true);
    Some(until)
}

#[test]
fn a_known_id_never_moves_its_end() {
    let mut pauses = Pauses::default();
    assert_eq!(until(&mut pauses, pause(1, 2 * SECOND, 0, 0), 0, 0.0), Some(2 * SECOND));
    for (length, age, now) in
        [(2 * SECOND, 0, SECOND), (9 * SECOND, 0, 0), (u64::MAX, 0, 9 * SECOND)]
    {
        assert_eq!(until(&mut pauses, pause(1, length, age, now), now, 0.0), None);
    }
    // Not of an agent that has ended it either, nor of one that it told too late.
    pauses.resume(SECOND);
    assert_eq!(until(&mut pauses, pause(1, 2 * SECOND, 0, SECOND), SECOND, 0.0), None);
    assert_eq!(until(&mut pauses, pause(2, SECOND, SECOND, SECOND), SECOND, 0.0), None);
    assert_eq!(until(&mut pauses, pause(2, 9 * SECOND, 0, SECOND), SECOND, 0.0), None);
    assert!(pauses.standing(SECOND).is_none() && !pauses.ends_empty());
}

#[test]
fn the_later_end_counts_and_the_part_of_the_spread_is_drawn_once() {
    let mut pauses = Pauses::default();
    assert_eq!(until(&mut pauses, pause(1, 2 * SECOND, 0, 0), 0, 0.5), Some(2_100_000_000));
    assert_eq!(until(&mut pauses, pause(2, SECOND, 0, SECOND), SECOND, 0.9), None, "as late");
    let joined = until(&mut pauses, pause(3, 4 * SECOND, 0, SECOND), SECOND, 0.9);
    assert_eq!(joined, Some(5_200_000_000));
    assert_eq!(pauses.standing(SECOND).unwrap().id, 3);
    assert!(!pauses.has_ended(5_199_999_999) && pauses.ends_empty());
    assert!(pauses.has_ended(5_200_000_000) && !pauses.has_ended(5_200_000_000));
    assert!(!pauses.ends_empty());
    let next = until(&mut pauses, pause(4, 100 * SECOND, 0, 6 * SECOND), 6 * SECOND, 1.0);
    assert_eq!(next, Some(107 * SECOND), "a second at most");
}

/// A thousand refusals of one overload are not a thousand messages.
#[test]
fn ends_that_are_close_are_not_urgent() {
    let mut pauses = Pauses::default();
    let mut is_urgent = |id, at| {
        let joined = pauses.join(pause(id, 2 * SECOND, 0, at), at, 0.0);
        joined.map(|joined| joined.is_urgent)
    };
    assert_eq!(is_urgent(1, 0), Some(true));
    assert_eq!(is_urgent(2, NOTICEABLE), Some(false));
    assert_eq!(is_urgent(3, 3 * NOTICEABLE), Some(true));
    assert_eq!(is_urgent(4, 2 * NOTICEABLE), None);
    assert!(!pauses.is_ahead_of(&[pause(2, 2 * SECOND, 0, 2 * NOTICEABLE)], 3 * NOTICEABLE));
    assert!(pauses.is_ahead_of(&[pause(2, 2 * SECOND, 0, NOTICEABLE)], 3 * NOTICEABLE));
    assert!(pauses.is_ahead_of(&[], 3 * NOTICEABLE));
    assert!(!pauses.is_ahead_of(&[], 3 * SECOND), "it has ended");
}

#[test]
fn what_is_remembered_is_bounded_and_the_latest_end_is_kept() {
    let mut pauses = Pauses::default();
    until(&mut pauses, pause(0, u64::MAX, 0, 0), 0, 1.0);
    for id in 1..10_000 {
        assert_eq!(until(&mut pauses, pause(id, SECOND, 0, id), id, 1.0), None);
        assert!(pauses.known.len() <= MOST_KNOWN);
    }
    assert_eq!(pauses.standing(9).unwrap().id, 0);
    assert_eq!(pauses.until(), Some(u64::MAX));
    assert_eq!(pauses.standing(9).unwrap().age(9), 9);
}
