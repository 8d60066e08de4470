use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::adapt::Segment;
use crate::bucket::BURST_PARTS;
use crate::clock::ManualClock;
use crate::limiter::entry::Entry;
use crate::limiter::{AcquireError, ConfigError, Limit, OnRelease, Resource, TryAcquireError};

const SECOND: u64 = 1_000_000_000;
const TOKEN: u128 = 1_000_000_000_000_000_000;
const PATIENCE: u64 = SECOND / 2;

/// A shared resource, without a share yet.
fn shared(time: &ManualClock, limit: Limit) -> Resource {
    let entry = Entry::new(
        "api".into(),
        0,
        &limit,
        0,
        time.clone().into(),
        Arc::default(),
        crate::counts::Counts::default(),
    );
    let entry = entry.expect("a limit");
    entry.share_new(&limit, PATIENCE);
    Resource(entry)
}

fn segment(rate: u64, burst: u32, until: u64) -> Segment {
    Segment { rate: rate * SECOND, burst: burst * BURST_PARTS, until }
}

/// A resource with a limit of its own.
fn unshared(time: &ManualClock, limit: Limit) -> Resource {
    let limiter = crate::MemoryLimiter::with_clock(time.clone());
    limiter.configure("api", limit).expect("a limit")
}

#[test]
fn tokens_from_before_the_resource_was_shared_do_not_come_back() {
    let time = ManualClock::new();
    let limit = Limit::per_second(100).burst(20);
    let api = unshared(&time, limit);
    let mut taken: Vec<_> =
        (0..20).map(|_| api.try_acquire().expect("a token").into_owned()).collect();
    api.0.share(&limit, PATIENCE).expect("it is there").expect("it can be shared");
    // Neither without a share
    taken.pop().expect("one").refund();
    taken.pop().expect("one").settle(0);
    assert!(api.check().is_err());
    // nor with one.
    api.0.allot(&[segment(10, 5, 100 * SECOND)]);
    taken.into_iter().for_each(crate::Permit::refund);
    assert!(api.check().is_err());
    time.advance(Duration::from_millis(100));
    assert!(api.check().is_ok());
    assert!(api.check().is_err());
}

#[test]
fn there_is_nothing_without_a_share_and_nothing_at_first() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    assert!(matches!(api.check(), Err(TryAcquireError::Exhausted { .. })));
    assert_eq!(api.capacity().share.map(|share| (share.rate, share.burst)), Some((0.0, 0.0)));
    assert_eq!((api.capacity().burst, api.capacity().available), (0, 0));
    time.advance(Duration::from_secs(3_600));
    assert!(api.check().is_err());
    api.0.allot(&[segment(10, 5, 3_700 * SECOND)]);
    assert!(api.check().is_err());
    time.advance(Duration::from_millis(99));
    assert!(api.check().is_err());
    time.advance(Duration::from_millis(1));
    assert!(api.check().is_ok());
    time.advance(Duration::from_secs(10));
    assert_eq!(api.capacity().available, 5);
    assert_eq!((api.capacity().burst, api.capacity().per_window), (5, 10));
    assert_eq!(api.capacity().configured_burst, 20);
}

#[test]
fn a_share_ends_at_its_end_and_takes_its_tokens_along() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    api.0.allot(&[segment(10, 5, SECOND), segment(20, 10, 2 * SECOND)]);
    time.advance(Duration::from_nanos(SECOND - 1));
    assert_eq!(api.capacity().available, 5);
    time.advance(Duration::from_nanos(1));
    assert_eq!(api.capacity().available, 5);
    assert_eq!(api.capacity().share.map(|share| share.rate), Some(20.0));
    time.advance(Duration::from_millis(250));
    assert_eq!(api.capacity().available, 10);
    time.advance(Duration::from_millis(749));
    assert!(api.check().is_ok());
    time.advance(Duration::from_millis(1));
    assert!(api.check().is_err());
    // Back again, from nothing.
    api.0.allot(&[segment(20, 10, 9 * SECOND)]);
    assert_eq!(api.capacity().available, 0);
    time.advance(Duration::from_millis(100));
    assert_eq!(api.capacity().available, 2);
}

#[test]
fn permits_tell_how_long_the_share_stands() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    api.0.allot(&[segment(100, 5, SECOND), segment(20, 10, 2 * SECOND)]);
    time.advance(Duration::from_millis(500));
    let permit = api.try_acquire().expect("a token");
    assert_eq!(permit.valid_until(), Some(Duration::from_millis(1_500)));
    time.advance(Duration::from_secs(5));
    assert_eq!(permit.valid_until(), Some(Duration::ZERO));
    drop(permit);
    let limiter = crate::MemoryLimiter::with_clock(time);
    let own = limiter.configure("own", Limit::per_second(1)).expect("a limit");
    assert_eq!(own.try_acquire().expect("a token").valid_until(), None);
}

#[test]
fn a_permit_is_not_valid_while_there_is_no_share() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    api.0.allot(&[segment(100, 5, 9 * SECOND)]);
    time.advance(Duration::from_secs(1));
    let permit = api.try_acquire().expect("a token");
    // A share has ended, and the next one begins later.
    api.0.allot(&[segment(0, 0, 2 * SECOND), segment(100, 5, 3 * SECOND)]);
    assert_eq!(permit.valid_until(), Some(Duration::ZERO));
}

#[test]
fn a_share_of_what_was_an_adaptive_limit_recovers_by_time() {
    let time = ManualClock::new();
    let api = unshared(&time, Limit::per_second(100).adaptive(1, 200));
    api.try_acquire().expect("a token").throttled("received 429");
    assert!(api.capacity().per_window < 100);
    let limit = Limit::per_second(100).burst(20);
    api.0.share(&limit, PATIENCE).expect("it is there").expect("it can be shared");
    api.0.allot(&[segment(100, 20, 10_000 * SECOND)]);
    // It recovers by time, though nobody uses it.
    time.advance(Duration::from_secs(3_600));
    assert_eq!((api.capacity().burst, api.capacity().per_window), (20, 100));
}

#[test]
fn tokens_come_back_to_the_share_that_they_were_taken_from() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    api.0.allot(&[segment(10, 5, 100 * SECOND)]);
    time.advance(Duration::from_secs(1));
    let taken: Vec<_> = (0..5).map(|_| api.try_acquire().expect("a token").into_owned()).collect();
    assert!(api.check().is_err());
    let mut taken = taken.into_iter();
    taken.next().expect("one").refund();
    assert!(api.check().is_ok());
    // The same share, prolonged.
    api.0.allot(&[segment(10, 5, 200 * SECOND)]);
    taken.next().expect("one").settle(0);
    assert!(api.check().is_ok());
    // Another one.
    api.0.allot(&[segment(11, 5, 200 * SECOND)]);
    taken.next().expect("one").refund();
    taken.next().expect("one").settle(0);
    assert!(api.check().is_err());
    // More than was estimated is charged all the same.
    taken.next().expect("one").settle(3);
    time.advance(Duration::from_millis(272));
    assert!(api.check().is_err());
    time.advance(Duration::from_millis(1));
    assert!(api.check().is_ok());
}

#[test]
fn a_refund_after_a_share_came_back_is_void() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    api.0.allot(&[segment(10, 5, SECOND)]);
    time.advance(Duration::from_millis(500));
    let permit = api.try_acquire().expect("a token");
    time.advance(Duration::from_secs(1));
    api.0.allot(&[segment(10, 5, 9 * SECOND)]);
    permit.refund();
    assert_eq!(api.capacity().available, 0);
}

#[test]
fn a_call_for_more_than_the_share_waits_and_for_more_than_the_quota_fails() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    let refused = |n| api.check_n(n).expect_err("no tokens");
    assert!(matches!(refused(20), TryAcquireError::Exhausted { .. }));
    assert!(matches!(refused(21), TryAcquireError::ExceedsCapacity { capacity: 20 }));
    api.0.allot(&[segment(100, 5, 10 * SECOND)]);
    assert!(matches!(refused(20), TryAcquireError::Exhausted { .. }));
    // `capacity` is what can ever be asked for.
    assert!(matches!(refused(21), TryAcquireError::ExceedsCapacity { .. }));
    let late = pollster::block_on(api.acquire_n(20).timeout(Duration::ZERO)).map(drop);
    assert!(matches!(late, Err(AcquireError::TimedOut { .. })), "{late:?}");
}

#[test]
fn waiters_are_served_in_order_as_soon_as_there_is_a_share() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    let mut first = Box::pin(api.acquire());
    let mut large = Box::pin(api.acquire_n(15));
    let mut second = Box::pin(api.acquire());
    let poll = |future: &mut std::pin::Pin<Box<crate::Acquire>>| {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::future::Future::poll(future.as_mut(), &mut context).is_ready()
    };
    assert!(!poll(&mut first) && !poll(&mut large) && !poll(&mut second));
    time.advance(Duration::from_secs(60));
    assert!(!poll(&mut first) && !poll(&mut large) && !poll(&mut second));
    api.0.allot(&[segment(10, 5, 70 * SECOND)]);
    time.advance(Duration::from_millis(100));
    assert!(!poll(&mut second));
    assert!(poll(&mut first));
    // It cannot have 15 of 5: others pass it until its turn.
    time.advance(Duration::from_millis(100));
    assert!(!poll(&mut large));
    assert!(poll(&mut second));
    api.0.allot(&[segment(100, 16, 90 * SECOND)]);
    time.advance(Duration::from_secs(1));
    assert!(poll(&mut large));
}

#[test]
fn cuts_and_pauses_act_on_top() {
    let time = ManualClock::new();
    let api = shared(&time, Limit::per_second(100).burst(20));
    api.0.allot(&[segment(20, 8, 100 * SECOND)]);
    time.advance(Duration::from_secs(1));
    assert_eq!(api.capacity().available, 8);
    api.announce_reduced("429");
    assert_eq!((api.capacity().burst, api.capacity().per_window), (6, 15));
    api.0.allot(&[segment(40, 8, 100 * SECOND)]);
    assert_eq!((api.capacity().burst, api.capacity().per_window), (6, 30));
    api.pause_for(Duration::from_secs(2));
    assert!(api.check().is_err());
    api.0.allot(&[segment(40, 8, 200 * SECOND)]);
    time.advance(Duration::from_nanos(2 * SECOND - 1));
    assert!(api.check().is_err());
    time.advance(Duration::from_nanos(1));
    assert!(api.check().is_ok());
}

#[test]
fn a_shared_limit_is_not_configured() {
    let time = ManualClock::new();
    let limiter = crate::MemoryLimiter::with_clock(time);
    let api = limiter.configure("api", Limit::per_second(100)).expect("a limit");
    assert_eq!(api.0.share(&Limit::per_second(100), PATIENCE), Some(Ok(())));
    let refused = limiter.configure("api", Limit::per_second(50).on_release(OnRelease::Spend));
    assert_eq!(refused.map(drop), Err(ConfigError::Shared));
    // What it held is void.
    assert!(api.check().is_err());
    assert!(limiter.remove("api"));
    assert!(limiter.configure("api", Limit::per_second(50)).is_ok());
}

/// A bucket on a share as the rules say it, in 10^-18 of a token.
struct Oracle {
    level: u128,
    at: u64,
    segments: Vec<Segment>,
}

impl Oracle {
    fn advance(&mut self, now: u64) {
        while let Some(first) = self.segments.first().copied() {
            let end = first.until.min(now);
            let most = most(&first);
            let gained = u128::from(end.saturating_sub(self.at)) * u128::from(first.rate);
            self.level = (self.level + gained).min(most);
            self.at = self.at.max(end);
            if first.until > now {
                return;
            }
            self.segments.remove(0);
            self.clip();
        }
        self.at = now;
        self.level = 0;
    }

    fn clip(&mut self) {
        self.level = self.level.min(self.segments.first().map_or(0, most));
    }
}

/// What the bucket may hold in a segment.
fn most(segment: &Segment) -> u128 {
    let is_usable = segment.rate > 0 && segment.burst >= BURST_PARTS;
    let burst = if is_usable { segment.burst } else { 0 };
    u128::from(burst) * (TOKEN / u128::from(BURST_PARTS))
}

#[derive(Clone, Debug)]
enum Act {
    Pass(u64),
    Take(u64),
    /// Rates, bursts, and how long each takes.
    Allot(Vec<(u64, u32, u64)>),
}

fn act() -> impl Strategy<Value = Act> {
    let rate = prop_oneof![1 => Just(0), 9 => 1_u64..500_000_000_000];
    let segment = (rate, 0..30 * BURST_PARTS, 1_u64..SECOND);
    prop_oneof![
        4 => (0_u64..SECOND / 3).prop_map(Act::Pass),
        8 => (1_u64..6).prop_map(Act::Take),
        1 => proptest::collection::vec(segment, 0..4).prop_map(Act::Allot),
    ]
}

proptest! {
    /// The level is never above the oracle's, and less than a millionth of a token below.
    #[test]
    fn it_admits_what_the_rules_say(acts in proptest::collection::vec(act(), 1..120)) {
        let time = ManualClock::new();
        let api = shared(&time, Limit::per_second(500).burst(30));
        let mut oracle = Oracle { level: 0, at: 0, segments: Vec::new() };
        let mut now = 0;
        for act in acts {
            match act {
                Act::Pass(nanos) => {
                    now += nanos;
                    time.advance(Duration::from_nanos(nanos));
                }
                Act::Take(n) => {
                    oracle.advance(now);
                    let taken = api.check_n(n).is_ok();
                    let wanted = u128::from(n) * TOKEN;
                    if taken {
                        prop_assert!(oracle.level >= wanted, "{n} of {} at {now}", oracle.level);
                        oracle.level -= wanted;
                    } else {
                        prop_assert!(oracle.level < wanted + TOKEN / 1_000_000);
                        // Where rounding decided, go on from the same level.
                        oracle.level = oracle.level.min(wanted - 1);
                    }
                }
                Act::Allot(list) => {
                    oracle.advance(now);
                    let mut until = now;
                    let segments: Vec<_> = list
                        .iter()
                        .map(|(rate, burst, nanos)| {
                            until += nanos;
                            Segment { rate: *rate, burst: *burst, until }
                        })
                        .collect();
                    api.0.allot(&segments);
                    oracle.segments = segments;
                    oracle.clip();
                }
            }
        }
    }
}
