//! Decisions with what is left: `decide`, `admit`, `admit_all`, and the keys of a template.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use crate::common::{Dice, heat, manual, turns};
use tollgate::{Decision, Limit, ManualClock, MemoryLimiter, RateLimiter, TryAcquireError};

const SECOND: Duration = Duration::from_secs(1);

/// The figures of `decision` are those of a twin that is asked one by one.
fn agree(decision: &Decision, twin: &MemoryLimiter, name: &str) {
    let capacity = twin.capacity(name).unwrap();
    // That of the tightest window, the first if several are as tight.
    let wait =
        |n| twin.peek(name, n).err().map_or(Duration::ZERO, |error| error.retry_after().unwrap());
    assert_eq!(decision.remaining, capacity.available);
    let of = capacity.windows.iter().filter(|window| window.available == decision.remaining);
    assert!(of.map(|window| window.burst).any(|burst| burst == decision.burst));
    let is_full = decision.remaining == decision.burst;
    let next = if is_full { Duration::ZERO } else { wait(decision.remaining + 1) };
    assert_eq!(decision.until_next, next);
    if capacity.windows.len() == 1 && is_whole(&capacity) {
        assert_eq!(decision.until_full, wait(decision.burst));
    }
}

/// Whether a full bucket has no fraction of a token.
fn is_whole(capacity: &tollgate::Capacity) -> bool {
    capacity.burst == capacity.configured_burst
}

#[test]
fn a_decision_is_a_check_with_its_standing() {
    let limits = [
        Limit::per_second(10),
        Limit::new(7, 3 * SECOND).burst(5),
        Limit::per_minute(60).burst(9).and(Limit::per_hour(100).burst(20)),
        Limit::per_second(5_000),
    ];
    for (index, limit) in limits.into_iter().enumerate() {
        let time = ManualClock::new();
        let both = [0, 1].map(|_| MemoryLimiter::with_clock(time.clone()));
        for limiter in &both {
            limiter.configure("api", limit.cooldown(Duration::ZERO)).unwrap();
            limiter.per_key("key:", limit.cooldown(Duration::ZERO)).unwrap();
        }
        let [limiter, twin] = &both;
        let burst = limiter.capacity("api").unwrap().burst;
        let mut dice = Dice(2_026 + index as u64);
        for _ in 0..turns(4_000, 800) {
            let name = ["api", "key:1", "key:2"][usize::try_from(dice.roll(3)).unwrap()];
            match dice.roll(12) {
                0..4 => {
                    let most = 1 << dice.roll(34);
                    time.advance(Duration::from_nanos(dice.roll(most)));
                }
                4..11 => {
                    let n = [0, 1, 1, 2, burst, burst + 1, dice.roll(burst + 2)];
                    let n = n[usize::try_from(dice.roll(7)).unwrap()];
                    let decision = match (dice.roll(3), limiter.resource("api")) {
                        (0, Some(api)) if name == "api" => api.decide(n),
                        (1, _) => {
                            let admitted = RateLimiter::admit(limiter, name, n);
                            admitted.map_or_else(
                                |denied| denied,
                                |(permit, decision)| {
                                    permit.spend();
                                    decision
                                },
                            )
                        }
                        _ => limiter.decide(name, n),
                    };
                    let taken = twin.check_n(name, n);
                    assert_eq!(
                        decision.outcome.map_err(|e| (e.to_string(), e.retry_after())),
                        taken.map_err(|e| (e.to_string(), e.retry_after())),
                        "{n} of {name}"
                    );
                    agree(&decision, twin, name);
                }
                _ if dice.roll(3) > 0 => {}
                _ => {
                    for limiter in &both {
                        match dice.0 % 3 {
                            0 => limiter.pause_for(name, SECOND),
                            1 => limiter.announce_reduced(name, "429"),
                            _ => limiter.observe_remaining(name, burst / 2),
                        }
                    }
                }
            }
        }
    }
}

/// Each of the threads' decisions has another figure, as no other call comes between a take and its look.
#[test]
fn decisions_of_threads_differ() {
    for name in ["api", "key:1"] {
        let (limiter, _, _) = manual(Limit::per_day(4_000));
        limiter.per_key("key:", Limit::per_day(4_000)).unwrap();
        let seen = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let decisions = (0..500).map(|_| limiter.decide(name, 1));
                    let left: Vec<_> =
                        decisions.map(|one| one.outcome.map(|()| one.remaining).unwrap()).collect();
                    seen.lock().unwrap().extend(left);
                });
            }
        });
        assert!(seen.into_inner().unwrap().into_iter().eq(0..4_000));
        let denied = limiter.decide(name, 1);
        assert_eq!((denied.remaining, denied.burst), (0, 4_000));
        assert_eq!(Some(denied.until_next), denied.outcome.unwrap_err().retry_after());
        assert_eq!(denied.until_full, Duration::from_secs(86_400));
    }
}

#[test]
fn a_hot_bucket_counts_its_batches() {
    let (limiter, api, time) = manual(Limit::per_second(10_000));
    heat(&api);
    let decision = api.decide(100);
    assert_eq!((decision.remaining, decision.burst), (9_900, 10_000));
    assert_eq!((decision.until_next, decision.until_full), (SECOND / 10_000, SECOND / 100));
    assert_eq!(limiter.decide("api", 0).remaining, api.capacity().available);
    let denied = api.decide(9_901);
    assert_eq!(
        (denied.outcome.unwrap_err().retry_after(), denied.remaining),
        (Some(SECOND / 10_000), 9_900)
    );
    time.advance(SECOND / 100);
    let full = api.decide(0);
    assert_eq!(
        (full.remaining, full.until_next, full.until_full),
        (10_000, Duration::ZERO, Duration::ZERO)
    );
}

/// What has accrued since saturates, and is not wrapped around.
#[test]
fn a_hot_bucket_after_a_year() {
    let (_, api, time) = manual(Limit::per_second(2_000).burst(4_096));
    heat(&api);
    time.advance(Duration::from_secs(400 * 86_400));
    let decision = api.decide(1); // from a prepaid batch, with which the figures of the word are old
    assert_eq!((decision.outcome, decision.burst), (Ok(()), 4_096));
}

#[test]
fn decisions_without_a_bucket() {
    let (limiter, api, _) = manual(Limit::per_second(5));
    let nobody = limiter.decide("nobody", 1);
    assert_eq!((nobody.outcome, nobody.burst), (Err(TryAcquireError::UnknownResource), 0));
    limiter.per_key_at_most("key:", Limit::per_day(5), 1).unwrap();
    // No key is created by a look or a refusal.
    let (look, large) = (limiter.decide("key:1", 0), limiter.decide("key:1", 6));
    assert_eq!((look.outcome, look.remaining), (Ok(()), 5));
    assert_eq!(
        (large.outcome, large.remaining),
        (Err(TryAcquireError::ExceedsCapacity { capacity: 5 }), 5)
    );
    assert_eq!(limiter.key_count("key:"), 0);
    assert_eq!(limiter.decide("key:1", 2).remaining, 3);
    assert_eq!(limiter.decide("key:2", 1).outcome, Err(TryAcquireError::TooManyKeys { most: 1 }));
    limiter.close();
    for closed in [
        api.decide(1),
        api.admit(1).unwrap_err(),
        limiter.decide("key:1", 1),
        limiter.decide("key:3", 1),
    ] {
        assert_eq!((closed.outcome, closed.remaining), (Err(TryAcquireError::Closed), 0));
    }
}

#[test]
fn permits_with_their_standing() {
    let (limiter, api, _) = manual(Limit::per_day(9).max_in_flight(2));
    let (one, decision) = api.admit(3).unwrap();
    assert_eq!((one.tokens(), decision.remaining, api.capacity().in_flight), (3, 6, 1));
    assert_eq!(api.admit(0).unwrap().1.remaining, 6);
    let (two, decision) = limiter.admit("api", 1).unwrap();
    assert_eq!((two.resource(), decision.remaining), ("api", 5));
    let denied = limiter.admit("api", 1).unwrap_err();
    assert_eq!((denied.outcome, denied.remaining), (Err(TryAcquireError::TooManyInFlight), 5));
    drop(two);
    let denied = api.admit(6).unwrap_err();
    assert!(denied.outcome.unwrap_err().retry_after().is_some() && api.capacity().in_flight == 1);
    assert_eq!(
        limiter.admit("nobody", 1).unwrap_err().outcome,
        Err(TryAcquireError::UnknownResource)
    );
}

#[test]
fn permits_of_several_with_their_standing() {
    let (limiter, _, _) = manual(Limit::per_day(9));
    limiter.configure("tokens", Limit::per_day(100)).unwrap();
    let (permits, all) = limiter.admit_all(&[("tokens", 30), ("api", 1), ("tokens", 20)]).unwrap();
    let left = |all: &[Decision]| all.iter().map(|one| one.remaining).collect::<Vec<_>>();
    assert_eq!((permits.iter().count(), left(&all)), (2, vec![50, 8, 50]));
    assert!(all.iter().all(|one| one.outcome.is_ok()));
    let (error, all) = limiter.admit_all(&[("api", 8), ("tokens", 51)]).unwrap_err();
    assert_eq!((&*error.resource, left(&all)), ("tokens", vec![8, 50]));
    assert_eq!((all[0].outcome, all[1].outcome), (Ok(()), Err(error.cause)));
    let (error, all) = limiter.admit_all(&[("api", 1), ("nobody", 1)]).unwrap_err();
    assert_eq!(
        (&*error.resource, all[1].outcome),
        ("nobody", Err(TryAcquireError::UnknownResource))
    );
    assert_eq!(limiter.decide("api", 0).remaining, 8);
}

#[test]
fn a_queue_leaves_nothing() {
    let (limiter, api, time) = manual(Limit::per_second(1).burst(4));
    api.check_n(4).unwrap();
    let waiter = {
        let api = api.clone();
        std::thread::spawn(move || api.blocking_acquire_n(3, None).map(tollgate::Permit::spend))
    };
    while api.capacity().waiting == 0 {
        std::thread::yield_now();
    }
    time.advance(2 * SECOND);
    let denied = limiter.decide("api", 1);
    // Three for the waiter, and one.
    assert_eq!((denied.remaining, denied.until_next), (0, 2 * SECOND));
    assert_eq!(denied.outcome.unwrap_err().retry_after(), Some(2 * SECOND));
    assert_eq!(api.decide(0).outcome, Ok(()));
    time.advance(2 * SECOND);
    waiter.join().unwrap().unwrap();
    assert_eq!(api.decide(1).remaining, 0);
}

#[test]
fn the_keys_of_a_template() {
    let (limiter, _, time) = manual(Limit::per_second(5));
    limiter.per_key("user:", Limit::per_second(5)).unwrap();
    limiter.per_key("user:vip:", Limit::per_second(50)).unwrap();
    let names = |prefix| {
        limiter
            .keys(prefix)
            .into_iter()
            .map(|key| (key.resource, key.available))
            .collect::<Vec<_>>()
    };
    assert_eq!((names("user:"), limiter.key_count("user:")), (vec![], 0));
    limiter.check("user:b").unwrap();
    let held = limiter.try_acquire_n("user:a", 2).unwrap();
    limiter.check_n("user:vip:c", 20).unwrap();
    limiter.configure("user:own", Limit::per_second(1)).unwrap();
    let expected = vec![("user:a".to_string(), 3), ("user:b".to_string(), 4)];
    assert_eq!((names("user:"), limiter.key_count("user:")), (expected, 2));
    assert_eq!(
        (names("user:vip:"), limiter.key_count("user:vip:")),
        (vec![("user:vip:c".to_string(), 30)], 1)
    );
    assert_eq!((names("us"), limiter.key_count("us")), (vec![], 0));
    let dynamic: &dyn RateLimiter = &limiter;
    assert_eq!((dynamic.keys("user:").len(), dynamic.key_count("user:")), (2, 2));
    // Idle ones go.
    drop(held);
    time.advance(60 * SECOND);
    for _ in 0..8 {
        let _ = limiter.check("user:vip:c");
        time.advance(SECOND);
    }
    assert_eq!(limiter.key_count("user:"), 0);
}
