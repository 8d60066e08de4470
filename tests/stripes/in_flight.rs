//! Permits in flight beside real threads, which end and hand their index over: loom's do not.

use std::sync::mpsc::channel;
use std::thread;

use crate::common::watchdog::Watchdog;
use crate::common::{Dice, heat, turns};
use tollgate::{Limit, MemoryLimiter, Permit, Resource};

fn hot(limit: Limit) -> (MemoryLimiter, Resource) {
    let limiter = MemoryLimiter::new();
    let api = limiter.configure("api", limit).unwrap();
    heat(&api);
    (limiter, api)
}

/// More threads than stripes take permits, pass them on, end others' permits, forget and release. Some
/// threads end in between, and hand their index over with permits of theirs still in flight.
#[test]
fn permits_that_travel_are_counted_once() {
    let _watchdog = Watchdog::new();
    let (limiter, api) = hot(Limit::per_second(1 << 40));
    let (all, rounds) = (12, turns(4_000, 1_000));
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..all).map(|_| channel::<Permit<'static>>()).unzip();
    thread::scope(|scope| {
        for (me, inbox) in receivers.into_iter().enumerate() {
            let (api, senders) = (&api, senders.clone());
            scope.spawn(move || {
                let mut dice = Dice(me as u64);
                for _ in 0..rounds {
                    let permit = api.try_acquire().unwrap().into_owned();
                    match dice.roll(8) {
                        0..3 => drop(permit),
                        3..5 => {
                            let _ = senders[dice.roll(all) as usize].send(permit);
                        }
                        5 => {
                            permit.forget();
                            api.release();
                        }
                        6 => permit.refund(),
                        _ => thread::scope(|short| {
                            // It takes one of its own with an index that another thread may have had.
                            short.spawn(|| drop((api.try_acquire().unwrap(), permit)));
                        }),
                    }
                    inbox.try_iter().for_each(drop);
                }
                drop(senders);
                inbox.iter().for_each(drop);
            });
        }
        drop(senders);
    });
    assert_eq!(api.capacity().in_flight, 0, "miscounted");
    api.release();
    assert_eq!(api.capacity().in_flight, 0, "a release of nothing changes nothing");
    // Nothing is left that a bound could trip over.
    let bounded = Limit::per_second(1 << 40).max_in_flight(1);
    let api = limiter.configure("api", bounded).unwrap();
    assert!(api.try_acquire().is_ok());
}
