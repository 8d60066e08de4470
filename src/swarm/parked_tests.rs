//! What is kept of names that do not exist.

use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::limiter::{CutTarget, Origin, RemoteCut, RemotePause};

fn cut(id: u64, age: u64) -> Told {
    let origin = Origin {
        agent_id: "a".into(),
        reason: "429".repeat(300),
        timestamp: SystemTime::UNIX_EPOCH,
        is_ours: false,
        is_measured: false,
    };
    Told::Cut(RemoteCut { id, size: CutTarget::Factor(0.5), age, origin: Arc::new(origin) })
}

fn pause(id: u64, length: u64, age: u64) -> Told {
    let origin = Arc::clone(cut(id, age).origin());
    Told::Pause(RemotePause { id, length, age, origin })
}

fn id(told: &Told) -> u64 {
    match told {
        Told::Cut(cut) => cut.id,
        Told::Pause(pause) => pause.id,
    }
}

/// A pause may have the id of a cut: they are not the same.
#[test]
fn pauses_are_kept_beside_cuts() {
    let parked = Parked::default();
    parked.add("api", &[pause(1, 50, 5), cut(1, 7)], 100);
    parked.add("api", &[pause(1, 50, 9)], 104);
    let taken = parked.take("api", 110);
    assert_eq!(taken.iter().map(Told::age).collect::<Vec<_>>(), [17, 15]);
    assert!(matches!(&taken[1], Told::Pause(pause) if pause.length == 50));
}

#[test]
fn cuts_age_while_they_are_kept_and_are_taken_once() {
    let parked = Parked::default();
    parked.add("api", &[cut(1, 5), cut(2, 7)], 100);
    parked.add("api", &[cut(2, 11)], 104);
    assert!(parked.has("api") && !parked.has("other"));
    let ages: Vec<_> = parked.take("api", 110).iter().map(|told| (id(told), told.age())).collect();
    assert_eq!(ages, [(2, 17), (1, 15)], "as they were made");
    assert!(!parked.has("api") && parked.take("api", 110).is_empty());
    assert_eq!(parked.0.lock().bytes, 0);
}

#[test]
fn what_is_no_longer_told_is_dropped() {
    let parked = Parked::default();
    parked.add("old", &[cut(1, 0)], 0);
    parked.add("api", &[cut(1, 0)], 0);
    parked.add("api", &[cut(2, 0)], KEPT / 2);
    parked.add("new", &[cut(1, 0)], KEPT);
    assert!(!parked.has("old") && parked.has("new"));
    assert_eq!(parked.take("api", KEPT).iter().map(id).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_is_kept_is_bounded() {
    let parked = Parked::default();
    for i in 0..100_000_u64 {
        parked.add(&format!("name-{}", i % 20_000), &[cut(i, 0)], i);
        if i % 1_000 != 0 {
            continue;
        }
        let names = parked.0.lock();
        assert!(names.bytes <= MOST_BYTES && names.told.values().all(|c| c.len() <= MOST_CUTS));
    }
    assert!(parked.0.lock().told.len() > 300);
    let after = KEPT * 2;
    parked.add("api", &[cut(1, 0)], after);
    assert_eq!(parked.0.lock().told.len(), 1);
    parked.take("api", after);
    assert_eq!(parked.0.lock().bytes, 0);
}
