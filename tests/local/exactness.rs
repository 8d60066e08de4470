//! The contract, on tollgate by handle, by name and with open stripes, and on the reference limiter: never a token
//! early, never one too many, and none withheld.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{
    ByHandle, ByName, DAY, Dice, Gate, Log, MutexBucket, SECOND, Striped, Terms, cases, turns,
};
use tollgate::{Limit, ManualClock, MemoryLimiter, Recovery};

/// Each case as a test of each limiter.
macro_rules! on_each {
    ($($(#[$doc:meta])* $name:ident)*) => {
        mod handle { $(#[test] fn $name() { super::$name(super::ByHandle::new); })* }
        mod striped { $(#[test] fn $name() { super::$name(super::Striped::new); })* }
        mod name { $(#[test] fn $name() { super::$name(super::ByName::new); })* }
        mod reference { $(#[test] fn $name() { super::$name(super::MutexBucket::new); })* }
    };
}

on_each! {
    seven_a_second_each_on_its_nanosecond
    odd_rates_each_on_its_nanosecond
    one_a_second_polled_every_1999_ns
    unrelenting_demand_gets_the_rate
    one_a_day_and_a_frozen_clock
    a_hundred_idle_years
    a_burst_in_the_middle_of_a_unit
    a_burst_a_hair_before_a_token
    a_second_is_a_token
    rerating_still_earns
    rerating_carries_remainders
    rerating_fast_rates_carries_remainders
    what_accrued_counts_at_the_old_rate
    a_clock_that_steps_back_only_denies
    a_burst_that_flaps
    threads_in_every_window
    threads_get_what_was_earned
    threads_beside_rerating
    threads_beside_a_flapping_burst
    refunds_fill_up_to_the_burst
    pauses
    cuts_are_exact
    reports_of_what_is_left
    threads_report_what_is_left
}

/// Empty the bucket, then find each token denied a nanosecond before it is due, and there when it
/// is.
fn each_on_its_nanosecond<G: Gate>(gate: &G, terms: Terms, tokens: u64) {
    let mut log = Log::new(terms);
    assert!(gate.take(terms.burst));
    log.admit(0, terms.burst);
    for k in 1..=tokens {
        let due = terms.due(k);
        gate.clock().set(due - 1);
        assert!(!gate.take(1), "token {k} of {terms:?} a nanosecond early");
        gate.clock().set(due);
        assert!(gate.take(1), "token {k} of {terms:?} late");
        log.admit(due, 1);
    }
}

fn seven_a_second_each_on_its_nanosecond<G: Gate>(new: impl Fn(Terms) -> G) {
    let seven = Terms::per_second(7);
    each_on_its_nanosecond(&new(seven), seven, 1_000_000);
}

fn odd_rates_each_on_its_nanosecond<G: Gate>(new: impl Fn(Terms) -> G) {
    for terms in [
        Terms::per_second(600_000_000),
        Terms::per_second(999_999_937),
        Terms::per_second(3),
        Terms::new(3, 7 * DAY, 3),
        Terms::new(30_000_000, 60 * SECOND, 1_000),
        Terms::new(1, DAY, 213_504),
        Terms::new(7, 999_983, 5),
        Terms::new(1, 1, 1),
        Terms::new(1_000_003, 3_600 * SECOND, 2),
    ] {
        // As long as the clock lasts.
        let tokens = u128::from(turns(100_000, 20_000))
            .min(u128::from(u64::MAX / 2) * u128::from(terms.tokens) / u128::from(terms.window));
        each_on_its_nanosecond(&new(terms), terms, u64::try_from(tokens).unwrap());
    }
}

fn one_a_second_polled_every_1999_ns<G: Gate>(new: impl Fn(Terms) -> G) {
    let seconds = turns(20, 2);
    // With room for a token while one is late, nothing is lost; without, the lateness is.
    for (burst, expected) in [(2, 2 + seconds), (1, seconds)] {
        let terms = Terms::per_second(1).burst(burst);
        let gate = new(terms);
        let mut log = Log::new(terms);
        let mut first = gate.drain(9);
        assert_eq!(first, burst);
        while first > 0 {
            log.admit(0, 1);
            first -= 1;
        }
        while gate.now() < seconds * SECOND {
            gate.advance(1_999);
            if gate.take(1) {
                log.admit(gate.now(), 1);
            }
        }
        assert_eq!(log.admitted(), expected);
    }
}

/// In steps of some nanoseconds, all that there is: then nothing but a fraction of a token remains.
fn unrelenting_demand_gets_the_rate<G: Gate>(new: impl Fn(Terms) -> G) {
    for (terms, longest) in [
        (Terms::per_second(600_000_000).burst(1_000), 1),
        (Terms::per_second(600_000_000).burst(1_000), 1_600),
        (Terms::per_second(999_999_937).burst(1_000), 990),
        (Terms::new(30_000_000, 60 * SECOND, 1_000), 1_900_000),
        (Terms::new(100, 60 * SECOND, 10), 5 * SECOND),
        (Terms::new(3, 7 * DAY, 3), 4 * DAY),
    ] {
        let gate = new(terms);
        let mut log = Log::new(terms);
        let mut dice = Dice(7);
        assert!(gate.take(terms.burst));
        log.admit(0, terms.burst);
        for _ in 0..cases(turns(20_000, 4_000)) {
            gate.advance(1 + dice.roll(longest));
            let there = gate.available();
            assert!(!gate.take(there + 1));
            assert!(gate.take(there));
            log.admit(gate.now(), there);
            assert!(!gate.take(1));
        }
        let earned = u128::from(gate.now()) * u128::from(terms.tokens) / u128::from(terms.window);
        assert_eq!(u128::from(log.admitted() - terms.burst), earned, "{terms:?}");
    }
}

fn one_a_day_and_a_frozen_clock<G: Gate>(new: impl Fn(Terms) -> G) {
    let gate = new(Terms::new(1, DAY, 213_504));
    assert_eq!(gate.drain(300_000), 213_504);
    gate.advance(DAY - 1);
    assert_eq!(gate.drain(2), 0);
    gate.advance(1);
    assert_eq!(gate.drain(2), 1);
}

fn a_hundred_idle_years<G: Gate>(new: impl Fn(Terms) -> G) {
    for terms in [
        Terms::per_second(1),
        Terms::per_second(7),
        Terms::per_second(999_999_937).burst(12_345),
        Terms::new(1, DAY, 36_500),
        Terms::new(30_000_000, 60 * SECOND, 1),
        Terms::new(3, 7 * DAY, 3),
    ] {
        for spent in [0, terms.burst / 2, terms.burst] {
            let gate = new(terms);
            assert!(gate.take(spent));
            for _ in 0..3 {
                gate.advance(100 * 365 * DAY);
                assert!(!gate.take(terms.burst + 1));
                assert!(gate.take(terms.burst), "{terms:?}");
                assert!(!gate.take(1), "{terms:?}");
            }
        }
    }
}

fn a_burst_in_the_middle_of_a_unit<G: Gate>(new: impl Fn(Terms) -> G) {
    let terms = Terms::per_second(600_000_000).burst(1_000);
    for at in 1..2_000 {
        let gate = new(terms);
        let mut log = Log::new(terms);
        gate.advance(at);
        assert!(gate.take(1_000));
        log.admit(at, 1_000);
        assert!(!gate.take(1), "at {at}");
        // 0.6 a nanosecond: the tokens are due after 1.67, 3.33 and 5 ns.
        for (after, in_all) in [(1, 0), (2, 1), (3, 1), (4, 2), (6, 3)] {
            gate.clock().set(at + after);
            let more = gate.drain(9);
            for _ in 0..more {
                log.admit(at + after, 1);
            }
            assert_eq!(log.admitted(), 1_000 + in_all, "{after} ns after {at}");
        }
    }
}

/// A nanosecond is 6e-8 short of a token: what a full bucket could not hold must not make up for it.
fn a_burst_a_hair_before_a_token<G: Gate>(new: impl Fn(Terms) -> G) {
    let terms = Terms::per_second(999_999_937).burst(1_000);
    let gate = new(terms);
    for at in 1..2_000 {
        gate.clock().set(at * 3_001);
        assert!(gate.take(1_000));
        gate.advance(1);
        assert!(!gate.take(1), "after {at}");
        gate.advance(1);
        assert_eq!(gate.drain(9), 1, "after {at}");
    }
}

fn a_second_is_a_token<G: Gate>(new: impl Fn(Terms) -> G) {
    let full = new(Terms::per_second(1));
    let empty = new(Terms::per_second(1).burst(3));
    assert_eq!(empty.drain(9), 3);
    for turn in 0..cases(turns(1_000_000, 300_000)) {
        assert!(full.take(1), "from full, turn {turn}");
        assert!(!full.take(1), "from full, turn {turn}");
        full.advance(SECOND);
        empty.advance(SECOND);
        assert!(empty.take(1), "from empty, turn {turn}");
        assert!(!empty.take(1), "from empty, turn {turn}");
    }
}

/// 1/s and 1e9/s in turn: the time spent at each counts at its own rate.
fn rerating_still_earns<G: Gate>(new: impl Fn(Terms) -> G) {
    let (slow, fast) =
        (Terms::per_second(1).burst(1_000), Terms::per_second(1_000_000_000).burst(1_000));
    let gate = new(slow);
    let mut dice = Dice(11);
    assert!(gate.take(1_000));
    let (mut admitted, mut nanotokens) = (0_u64, 0_u64);
    for _ in 0..cases(turns(50_000, 10_000)) {
        let (at_slow, at_fast) = (dice.roll(100_000), dice.roll(900));
        gate.advance(at_slow);
        gate.reconfigure(fast);
        gate.advance(at_fast);
        gate.reconfigure(slow);
        nanotokens += at_slow + at_fast * 1_000_000_000;
        let there = gate.available();
        assert!(gate.take(there));
        admitted += there;
        assert!(admitted <= nanotokens / 1_000_000_000, "too many");
    }
    let earned = nanotokens / 1_000_000_000;
    assert!(admitted + 1 >= earned, "{admitted} of {earned}");
}

/// In phases that are much shorter than a token, so that only remainders are ever earned.
fn rerating_carries_remainders<G: Gate>(new: impl Fn(Terms) -> G) {
    let (one, seven) = (Terms::per_second(1).burst(3), Terms::per_second(7).burst(3));
    let gate = new(one);
    let mut dice = Dice(13);
    assert!(gate.take(3));
    let (mut admitted, mut nanotokens) = (0_u64, 0_u64);
    for turn in 0..cases(turns(40_000, 8_000)) {
        let phase = dice.roll(2_000_000);
        nanotokens += phase * if turn % 2 == 0 { 1 } else { 7 };
        gate.advance(phase);
        gate.reconfigure(if turn % 2 == 0 { seven } else { one });
        admitted += gate.drain(3);
        // Late by a hair, never early.
        assert!(admitted <= nanotokens / SECOND, "early in turn {turn}");
        assert!(admitted >= nanotokens.saturating_sub(turn + 1) / SECOND, "late in turn {turn}");
    }
    assert!(admitted > 20);
}

/// Where a unit is coarse and a phase is a nanosecond or two, a remainder lost in each turn would
/// soon be a token.
fn rerating_fast_rates_carries_remainders<G: Gate>(new: impl Fn(Terms) -> G) {
    let even = Terms::per_second(999_999_937).burst(1_000);
    let odd = Terms::per_second(888_888_883).burst(1_000);
    let gate = new(even);
    assert!(gate.take(1_000));
    let (mut admitted, mut nanotokens) = (0_u64, 0_u64);
    for turn in 0..cases(turns(200_000, 50_000)) {
        let (now, then) = if turn % 2 == 0 { (even, odd) } else { (odd, even) };
        nanotokens += now.tokens * (1 + turn % 3);
        gate.advance(1 + turn % 3);
        gate.reconfigure(then);
        admitted += gate.drain(9);
        assert!(admitted <= nanotokens / SECOND, "early in turn {turn}");
        assert!(admitted + 1 >= nanotokens / SECOND, "lost in turn {turn}");
    }
}

fn what_accrued_counts_at_the_old_rate<G: Gate>(new: impl Fn(Terms) -> G) {
    let gate = new(Terms::per_second(1).burst(100));
    assert!(gate.take(100));
    gate.advance(10 * SECOND);
    gate.reconfigure(Terms::per_second(1_000).burst(100));
    assert_eq!(gate.available(), 10);
    assert_eq!(gate.drain(10_000), 10);
    gate.advance(1_000_000);
    assert_eq!(gate.drain(10), 1);
    // And the other way round.
    gate.advance(50_000_000);
    gate.reconfigure(Terms::per_second(1).burst(100));
    assert_eq!(gate.drain(10_000), 50);
    // What is held is clipped to a smaller burst, and not invented for a larger.
    gate.advance(90 * SECOND);
    gate.reconfigure(Terms::per_second(1).burst(20));
    gate.reconfigure(Terms::per_second(1).burst(100));
    assert_eq!(gate.drain(1_000), 20);
}

fn a_clock_that_steps_back_only_denies<G: Gate>(new: impl Fn(Terms) -> G) {
    for terms in [Terms::per_second(10), Terms::per_second(7).burst(50), Terms::new(1, 10, 3)] {
        let gate = new(terms);
        let mut log = Log::new(terms);
        let mut dice = Dice(17);
        let (mut latest, mut total) = (0, 0);
        for turn in 0..cases(turns(100_000, 20_000)) {
            // On the whole it goes on, a little in each turn.
            let reach = terms.due(terms.burst) * 2;
            let line = turn * terms.due(1) / 50;
            let now = (line + dice.roll(reach)).saturating_sub(dice.roll(reach));
            gate.clock().set(now);
            latest = latest.max(now);
            let n = 1 + dice.roll(3);
            if gate.take(n) {
                log.admit(now, n);
                total += n;
            }
            let most = u128::from(terms.tokens) * u128::from(latest) / u128::from(terms.window);
            assert!(u128::from(total - total.min(terms.burst)) <= most, "counted twice");
        }
        assert!(total > terms.burst);
    }
}

/// The rate stays, so the bound of the larger burst holds throughout.
fn a_burst_that_flaps<G: Gate>(new: impl Fn(Terms) -> G) {
    let wide = Terms::per_second(1_000).burst(100);
    let gate = new(wide);
    let mut log = Log::new(wide);
    let mut dice = Dice(19);
    for _ in 0..cases(turns(50_000, 10_000)) {
        gate.advance(dice.roll(5_000_000));
        gate.reconfigure(wide.burst(1 + dice.roll(100)));
        let n = 1 + dice.roll(20);
        if gate.take(n) {
            log.admit(gate.now(), n);
        }
    }
    assert!(log.admitted() > 10_000);
}

/// In phases, each at one reading of the clock, three threads together ask for more than there can
/// be: they get all that is there, and no run of phases gets more than the bound.
fn threads_in_every_window<G: Gate>(new: impl Fn(Terms) -> G) {
    let terms = Terms::per_second(1_000_003).burst(7);
    let gate = new(terms);
    let mut dice = Dice(23);
    let phases = turns(20_000, 5_000);
    let (phase, taken) = (Barrier::new(4), AtomicU64::new(0));
    let seen: Vec<_> = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..phases {
                    phase.wait();
                    taken.fetch_add(gate.drain(4), Ordering::Relaxed);
                    phase.wait();
                }
            });
        }
        let run = |_| {
            gate.advance(dice.roll(4_000));
            let there = gate.available();
            phase.wait();
            phase.wait();
            (gate.now(), taken.swap(0, Ordering::Relaxed), there)
        };
        (0..phases).map(run).collect()
    });
    let mut log = Log::new(terms);
    for (at, taken, there) in seen {
        log.admit(at, taken);
        // Of a full bucket the last may be late by a hair: the fraction of a unit is not lent.
        assert!(taken <= there && taken + 1 >= there, "{taken} of {there} at {at}");
    }
}

/// Threads take while this one does `also` and moves the clock, and one more does `beside` all the
/// time; says how many were admitted.
fn hammer<G: Gate>(
    gate: &G,
    (step, steps): (u64, u64),
    also: impl Fn(u64),
    beside: impl Fn(u64) + Sync,
) -> u64 {
    let start = gate.now();
    let end = start + step * steps;
    let ready = Barrier::new(4);
    std::thread::scope(|scope| {
        let (ready, beside) = (&ready, &beside);
        let takers: Vec<_> = (0..2)
            .map(|taker| {
                scope.spawn(move || {
                    let mut admitted = 0;
                    let mut dice = Dice(taker + 1);
                    ready.wait();
                    while gate.now() < end {
                        let n = 1 + dice.roll(3);
                        admitted += if gate.take(n) { n } else { 0 };
                    }
                    admitted
                })
            })
            .collect();
        scope.spawn(move || {
            ready.wait();
            let mut turn = 0;
            while gate.now() < end {
                beside(turn);
                turn += 1;
            }
        });
        ready.wait();
        for turn in 0..steps {
            also(turn);
            gate.advance(step);
            if turn % (steps / 32) == 0 {
                std::thread::yield_now();
            }
        }
        takers.into_iter().map(|taker| taker.join().expect("no panic")).sum()
    })
}

fn threads_get_what_was_earned<G: Gate>(new: impl Fn(Terms) -> G) {
    // The bucket is never full again: nothing may get lost.
    let terms = Terms::per_second(999_937).burst(1 << 40);
    let gate = new(terms);
    assert!(gate.take(1 << 40));
    let mut admitted = hammer(&gate, (977, 30_000), |_| (), |_| std::thread::yield_now());
    let earned =
        u64::try_from(u128::from(gate.now()) * u128::from(terms.tokens) / u128::from(SECOND))
            .unwrap();
    assert!(admitted <= earned);
    admitted += gate.drain(u64::MAX);
    assert_eq!(admitted, earned);
}

fn threads_beside_rerating<G: Gate>(new: impl Fn(Terms) -> G) {
    // Half the steps of 2 us at each rate, to the nanosecond. Never full again: nothing may get lost.
    let wide = 1 << 30;
    let (slow, fast) =
        (Terms::per_second(1_000).burst(wide), Terms::per_second(1_000_000).burst(wide));
    let gate = new(slow);
    assert!(gate.take(wide));
    let third = AtomicU64::new(0);
    let take = |_| _ = third.fetch_add(gate.drain(1), Ordering::Relaxed);
    let mut admitted = hammer(&gate, (2_000, 20_000), rerate_of(&gate, fast, slow), take);
    admitted += third.into_inner() + gate.drain(u64::MAX);
    assert_eq!(admitted, (10_000 * 2 * 1_000 + 10_000 * 2) / 1_000);

    let slow = Terms::per_second(1_000).burst(50);
    let fast = Terms::per_second(1_000_000).burst(50);
    let gate = new(slow);
    let rerate = rerate_of(&gate, fast, slow);
    let mut admitted = hammer(&gate, (2_000, 5_000), rerate, |_| std::thread::yield_now());
    admitted += gate.drain(u64::MAX);
    let exact = 50 + (2_500 * 2 * 1_000 + 2_500 * 2) / 1_000;
    assert!(admitted <= exact, "{admitted} > {exact}");
    assert!(admitted >= 50, "{admitted}");

    // At no particular time: at most the faster rate throughout.
    let gate = new(slow);
    let mut admitted = hammer(&gate, (20, 100_000), |_| (), rerate_of(&gate, fast, slow));
    admitted += gate.drain(u64::MAX);
    assert!((50..=50 + 2_000).contains(&admitted), "{admitted}");
}

fn rerate_of<G: Gate>(gate: &G, even: Terms, odd: Terms) -> impl Fn(u64) + Sync {
    move |turn| gate.reconfigure(if turn % 2 == 0 { even } else { odd })
}

fn threads_beside_a_flapping_burst<G: Gate>(new: impl Fn(Terms) -> G) {
    let terms = Terms::per_second(1_000_000).burst(1_000);
    let gate = new(terms);
    let steps = 50_000;
    let flap = |turn| gate.reconfigure(terms.burst(1_000 - turn % 7 * 100));
    let mut admitted = hammer(&gate, (200, steps), |_| (), flap);
    admitted += gate.drain(u64::MAX);
    assert!(admitted <= 1_000 + steps / 5, "{admitted}");
    // At the least what was held at first or is at last.
    assert!(admitted >= 400, "{admitted}");
}

fn refunds_fill_up_to_the_burst<G: Gate>(new: impl Fn(Terms) -> G) {
    let gate = new(Terms::per_second(10));
    assert!(gate.hold(4) && gate.hold(6));
    assert!(!gate.take(1));
    gate.refund();
    assert_eq!(gate.available(), 6);
    gate.advance(SECOND / 2);
    // 11 would be more than the bucket holds.
    assert_eq!(gate.available(), 10);
    gate.refund();
    gate.refund();
    assert_eq!(gate.drain(99), 10);
}

fn pauses<G: Gate>(new: impl Fn(Terms) -> G) {
    let gate = new(Terms::per_second(10));
    assert!(gate.take(7));
    gate.pause(5 * SECOND);
    assert_eq!(gate.available(), 0);
    gate.advance(5 * SECOND - 1);
    assert!(!gate.take(1) && !gate.peek(1));
    // What was held is kept, and nothing accrued.
    gate.advance(1);
    assert_eq!(gate.available(), 3);
    gate.advance(SECOND / 10);
    assert_eq!(gate.drain(99), 4);
    // The later end counts, whichever came first; another limit does not end a pause.
    for (first, second) in [(3, 9), (9, 3)] {
        gate.advance(2 * SECOND);
        gate.pause(first * SECOND);
        gate.pause(second * SECOND);
        gate.reconfigure(Terms::per_second(20));
        gate.cut();
        gate.reconfigure(Terms::per_second(10));
        gate.advance(9 * SECOND - 1);
        assert!(!gate.take(1));
        gate.advance(1);
        assert!(gate.take(5));
        assert_eq!(gate.drain(99), if first == 3 { 2 } else { 0 });
    }
}

/// 100/s goes to 75, 56.25, ... a second: exactly, and the k-th token is due when that says.
fn cuts_are_exact<G: Gate>(new: impl Fn(Terms) -> G) {
    let gate = new(Terms::per_second(100));
    let mut parts = 1_u64 << 20;
    for _ in 0..10 {
        gate.cut();
        parts = parts * 3 / 4;
        // Shown rounded down.
        assert_eq!(gate.available(), (100 * parts) >> 20);
        assert_eq!(gate.drain(101), (100 * parts) >> 20);
        // The fraction that a full bucket had beyond whole tokens comes on top.
        let held = u128::from(100 * parts) % (1 << 20);
        let start = gate.now();
        for k in 1..=((100 * parts) >> 20).min(60) {
            let short = (u128::from(k) << 20) - held;
            let due = (short * u128::from(SECOND)).div_ceil(u128::from(100 * parts));
            let due = start + u64::try_from(due).unwrap();
            gate.clock().set(due - 1);
            assert!(!gate.take(1), "token {k} early");
            // A unit that a full bucket rounded against the caller is less than a nanosecond.
            gate.clock().set(due + 1);
            assert!(gate.take(1), "token {k} late");
        }
        gate.advance(10 * SECOND);
    }
    // Never below one a window.
    for _ in 0..20 {
        gate.cut();
    }
    assert_eq!(gate.drain(9), 1);
    gate.advance(SECOND + 1);
    assert_eq!(gate.drain(9), 1);
}

/// At most what was reported is left, in any order, to the nanosecond of the next token, also in the middle of
/// a unit, after a cut, and in a pause.
fn reports_of_what_is_left<G: Gate>(new: impl Fn(Terms) -> G) {
    for terms in [Terms::per_second(100), Terms::new(70, 3 * SECOND, 90), Terms::per_second(2_000)]
    {
        for cut in [false, true] {
            let gate = new(terms);
            gate.advance(12_345_678);
            if cut {
                gate.cut();
            }
            let burst = gate.available();
            gate.observe(burst);
            gate.observe(u64::MAX);
            assert_eq!(gate.available(), burst, "raised, or lowered for nothing");
            for (left, kept) in [(60, 60), (60, 60), (40, 40), (60, 40), (u64::MAX, 40)] {
                gate.observe(left);
                assert_eq!(gate.available(), kept, "{left} of {terms:?}");
            }
            gate.pause(SECOND);
            gate.observe(7);
            gate.advance(SECOND);
            assert_eq!((gate.available(), gate.drain(9)), (7, 7));
            gate.observe(3);
            assert_eq!(gate.available(), 0, "raised");
            let (tokens, start) =
                (if cut { terms.tokens * 3 } else { terms.tokens * 4 }, gate.now());
            let due = start + (4 * terms.window).div_ceil(tokens);
            gate.clock().set(due - 1);
            assert!(!gate.take(1), "early");
            gate.clock().set(due);
            assert!(gate.take(1), "late");
            gate.observe(0);
            assert!(!gate.take(1));
        }
    }
}

/// Eight threads hear that 60 are left, and take what they can.
fn threads_report_what_is_left<G: Gate>(new: impl Fn(Terms) -> G) {
    for burst in [100, 2_048] {
        for turn in 0..turns(200, 20) {
            let gate = new(Terms::new(burst, DAY, burst));
            let (start, taken) = (Barrier::new(8), AtomicU64::new(0));
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let (gate, start, taken) = (&gate, &start, &taken);
                    scope.spawn(move || {
                        start.wait();
                        gate.observe(if thread == turn % 8 { 60 } else { 80 });
                        if turn % 2 == 0 {
                            taken.fetch_add(gate.drain(90), Ordering::Relaxed);
                        }
                    });
                }
            });
            let taken = taken.into_inner();
            if turn % 2 == 0 {
                // Nobody takes before a report of its own.
                assert!((60..=80).contains(&taken), "{taken} taken");
            } else {
                assert_eq!(gate.available(), 60);
                assert_eq!(gate.drain(99), 60);
            }
        }
    }
}

// ---- what only tollgate does ------------------------------------------------------------------

fn limiter() -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    (time.clone(), MemoryLimiter::with_clock(time))
}

/// Ten percent every 30 s, from one cut: 7.5, 8.25, 9.075, 9.9825, 10.
#[test]
fn recovers_from_a_cut_on_schedule() {
    for asked_for in [true, false] {
        let (time, limiter) = limiter();
        let limit = Limit::per_second(10).recovery(Recovery::default());
        let api = limiter.configure("api", limit).unwrap();
        api.announce_reduced("429");
        assert_eq!(api.capacity().burst, 7);
        assert_eq!(api.capacity().configured_burst, 10);
        for (at, total) in [(29, 7), (30, 8), (60, 9), (90, 9), (119, 9), (120, 10), (999, 10)] {
            if asked_for || at == 999 {
                time.set(at * SECOND);
                assert_eq!(api.capacity().burst, total, "at {at} s");
            }
        }
        // The rate, too.
        assert!(api.check_n(10).is_ok());
        time.advance(Duration::from_millis(99));
        assert!(api.check().is_err());
        time.advance(Duration::from_millis(1));
        assert!(api.check().is_ok());
    }
}

/// From a tenth it takes 25 steps, although at first no whole token is gained.
#[test]
fn recovers_from_one_and_from_ten() {
    for (capacity, cuts, steps) in [(10, 20, 25), (100, 8, 25), (1, 5, 0), (2, 5, 8)] {
        let (time, limiter) = limiter();
        let limit =
            Limit::per_second(capacity).recovery(Recovery::default()).cooldown(Duration::ZERO);
        let api = limiter.configure("api", limit).unwrap();
        for _ in 0..cuts {
            api.announce_reduced("429");
        }
        let least = api.capacity().burst;
        assert_eq!(least, if capacity == 100 { 10 } else { 1 });
        if steps > 0 {
            time.set(steps * 30 * SECOND - 1);
            assert!(api.capacity().burst < capacity, "{capacity} before {steps}");
        }
        time.set(steps * 30 * SECOND);
        assert_eq!(api.capacity().burst, capacity, "{capacity} after {steps}");
    }
}

/// A step takes effect when it was due, whoever looks and when: twins, of whom one is asked each
/// second and the other only at the end, have earned the same.
#[test]
fn a_recovery_nobody_watched_earned_the_same() {
    let (time, limiter) = limiter();
    let recovery = Recovery { interval: Duration::from_secs(7), factor: 1.1, cap: true };
    let limit =
        Limit::per_second(1_000).burst(1_000_000).recovery(recovery).cooldown(Duration::ZERO);
    let watched = limiter.configure("watched", limit).unwrap();
    let alone = limiter.configure("alone", limit).unwrap();
    for api in [&watched, &alone] {
        for _ in 0..6 {
            api.announce_reduced("429");
        }
        api.check_n(api.capacity().burst).unwrap();
    }
    let mut exact = 0.0;
    let mut factor = 0.75_f64.powi(6);
    for second in 0..300 {
        time.advance(Duration::from_secs(1));
        let _ = watched.peek(1);
        exact += 1_000.0 * factor;
        if second % 7 == 6 {
            factor = (factor * 1.1).min(1.0);
        }
    }
    #[allow(clippy::cast_precision_loss)]
    let earned = watched.capacity().available as f64;
    // The fraction that was left of the cut burst comes on top.
    assert!((earned - exact).abs() < 2.0, "{earned} of {exact}");
    assert_eq!(watched.capacity().available, alone.capacity().available);
}

#[test]
fn another_limit_keeps_the_factor_of_a_cut() {
    let (time, limiter) = limiter();
    let limit = Limit::per_second(100).recovery(Recovery::default());
    let api = limiter.configure("api", limit).unwrap();
    api.announce_reduced("429");
    limiter.configure("api", Limit::per_second(1_000).recovery(Recovery::default())).unwrap();
    assert_eq!(api.capacity().burst, 750);
    time.advance(Duration::from_mins(2));
    assert_eq!(api.capacity().burst, 1_000);
}

/// After the end nothing is admitted, and every thread hears of it.
#[test]
fn removed_or_closed_while_threads_hammer() {
    use std::sync::atomic::AtomicBool;
    for (close, by_name) in [(true, true), (true, false), (false, true), (false, false)] {
        let (time, limiter) = limiter();
        let limit = Limit::per_second(1_000).burst(1_000_000).max_in_flight(100);
        let api = limiter.configure("api", limit).unwrap();
        let (over, admitted) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let was_over = over.load(Ordering::SeqCst);
                        let taken = if by_name {
                            limiter.try_acquire("api")
                        } else {
                            api.try_acquire().map(tollgate::Permit::into_owned)
                        };
                        match taken {
                            Ok(_) => {
                                assert!(!was_over, "admitted after the end");
                                admitted.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(tollgate::TryAcquireError::UnknownResource) if !close => break,
                            Err(tollgate::TryAcquireError::Closed) if close => break,
                            Err(error) => assert!(!was_over, "{error}"),
                        }
                    }
                });
            }
            while admitted.load(Ordering::SeqCst) < 1_000 {
                time.advance(Duration::from_nanos(100));
            }
            if close {
                limiter.close();
            } else {
                assert!(limiter.remove("api"));
            }
            over.store(true, Ordering::SeqCst);
        });
        assert_eq!(api.capacity().in_flight, 0);
        assert_eq!(api.capacity().available, 0);
    }
}

#[test]
fn permits_of_many_threads_are_counted_out() {
    let (_, limiter) = limiter();
    limiter.set_capacity("api", 10, Duration::from_secs(1)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let limiter = limiter.clone();
            scope.spawn(move || {
                for turn in 0..20_000 {
                    let Ok(permit) = limiter.try_acquire_n("api", 1 + turn % 4) else { continue };
                    match (thread + turn) % 3 {
                        0 => drop(permit),
                        1 => permit.refund(),
                        _ => {
                            let n = permit.tokens();
                            permit.forget();
                            limiter.release_n("api", n);
                        }
                    }
                }
            });
        }
    });
    let capacity = limiter.capacity("api").unwrap();
    assert_eq!((capacity.in_flight, capacity.available), (0, 10));
}
