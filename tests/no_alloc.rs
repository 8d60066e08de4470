//! The hot path allocates nothing once it is warm: admissions, denials and permits, by handle and
//! by name, waiting futures that need not wait included. A large bucket that comes into great demand
//! allocates once, for its stripes.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use tollgate::{Clock, Limit, ManualClock, MemoryLimiter, OnRelease, RateLimiter, Resource};

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// Once to warm up, then a thousand times, on this thread's account. On the machine's time each of at
/// most three buckets may come into great demand at any moment, once: then a thousand times more.
fn allocates_nothing(what: &str, act: impl Fn()) {
    act();
    let mut of_stripes = 0;
    loop {
        let counts = measure(|| (0..1_000).for_each(|_| act()));
        if counts.count_total == 0 {
            return;
        }
        of_stripes += counts.count_total;
        assert!(of_stripes <= 3, "{what} allocates: {counts:?}");
    }
}

fn limits() -> [(&'static str, Limit); 3] {
    let plenty = Limit::per_second(1_000_000_000).burst(1 << 40);
    [
        ("spend", plenty),
        ("refund", plenty.on_release(OnRelease::Refund)),
        ("bounded", plenty.max_in_flight(1 << 20)),
    ]
}

fn clocks() -> [(&'static str, Clock); 3] {
    let coarse = Clock::coarse(Duration::from_millis(1));
    [("manual", ManualClock::new().into()), ("system", Clock::system()), ("coarse", coarse)]
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn a_hot_bucket_allocates_once_and_then_never() {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let api = limiter.configure("api", Limit::per_hour(1 << 20)).unwrap();
    // Time that stands still makes no bucket hot.
    let take = || {
        for _ in 0..40 {
            api.check().unwrap();
            time.advance(Duration::from_nanos(1 << 10));
        }
    };
    assert_eq!(measure(take).count_total, 1);
    // Stripes are emptied, filled, closed, and opened again.
    let again = || {
        (0..100).for_each(|_| take());
        assert!(api.check_n(1 << 20).is_err());
        assert!(api.peek(1 << 20).is_err());
        time.advance(Duration::from_secs(1));
    };
    assert_eq!(measure(|| (0..20).for_each(|_| again())).count_total, 0);
    // A small one never does.
    let few = limiter.configure("few", Limit::per_second(1_000)).unwrap();
    assert_eq!(measure(|| (0..1_000).for_each(|_| few.check().unwrap())).count_total, 0);
}

#[test]
fn admissions_allocate_nothing() {
    for (clock_name, clock) in clocks() {
        let limiter = MemoryLimiter::with_clock(clock);
        for (kind, limit) in limits() {
            let api = limiter.configure(kind, limit).unwrap();
            let name = |verb| format!("{verb}, {kind}, {clock_name}");
            allocates_nothing(&name("check"), || api.check().unwrap());
            allocates_nothing(&name("check_n"), || api.check_n(3).unwrap());
            allocates_nothing(&name("decide"), || {
                api.decide(3).outcome.unwrap();
                limiter.decide(kind, 1).outcome.unwrap();
                drop(api.admit(1).unwrap());
                drop(limiter.admit(kind, 2).unwrap());
            });
            allocates_nothing(&name("peek"), || api.peek(3).unwrap());
            allocates_nothing(&name("try_acquire"), || drop(api.try_acquire().unwrap()));
            allocates_nothing(&name("refund"), || api.try_acquire_n(2).unwrap().refund());
            allocates_nothing(&name("into_owned"), || {
                drop(api.try_acquire().unwrap().into_owned());
            });
            allocates_nothing(&name("forget"), || {
                api.try_acquire().unwrap().forget();
                api.release();
            });
            allocates_nothing(&name("acquire"), || drop(now(api.acquire()).unwrap()));
            allocates_nothing(&name("blocking"), || drop(api.blocking_acquire().unwrap()));
            allocates_nothing(&name("clone"), || drop(api.clone()));

            allocates_nothing(&name("check by name"), || limiter.check(kind).unwrap());
            allocates_nothing(&name("check_n by name"), || limiter.check_n(kind, 2).unwrap());
            allocates_nothing(&name("try_acquire by name"), || {
                drop(limiter.try_acquire(kind).unwrap());
            });
            allocates_nothing(&name("acquire by name"), || {
                drop(now(limiter.acquire(kind)).unwrap());
            });
            allocates_nothing(&name("forget by name"), || {
                limiter.try_acquire(kind).unwrap().forget();
                limiter.release(kind);
            });
            let dynamic: &dyn RateLimiter = &limiter;
            allocates_nothing(&name("check as dyn"), || dynamic.check(kind).unwrap());
            allocates_nothing(&name("acquire as dyn"), || {
                drop(now(dynamic.acquire(kind)).unwrap());
            });
        }
    }
}

#[test]
fn denials_allocate_nothing() {
    for (clock_name, clock) in clocks() {
        let limiter = MemoryLimiter::with_clock(clock);
        let api = limiter.configure("api", Limit::per_day(1).max_in_flight(1)).unwrap();
        let held = api.try_acquire().unwrap();
        let other = limiter.configure("other", Limit::per_day(3).max_in_flight(1)).unwrap();
        let other_held = other.try_acquire().unwrap();
        let name = |verb| format!("{verb}, {clock_name}");
        let exhausted = || {
            assert!(api.check().unwrap_err().retry_after() > Some(Duration::ZERO));
            assert!(api.try_acquire().is_err());
            assert!(api.peek(1).is_err());
            assert!(limiter.check("api").is_err());
            assert!(limiter.try_acquire("api").is_err());
            assert!(api.decide(1).outcome.is_err() && limiter.admit("api", 1).is_err());
        };
        allocates_nothing(&name("exhausted"), exhausted);
        allocates_nothing(&name("too many in flight"), || {
            assert!(other.try_acquire().is_err() && limiter.try_acquire("other").is_err());
        });
        allocates_nothing(&name("more than the burst"), || {
            assert!(api.check_n(2).is_err() && limiter.check_n("api", 2).is_err());
            assert!(now(api.acquire_n(2)).is_err());
        });
        allocates_nothing(&name("unknown"), || {
            assert!(limiter.check("nobody").is_err() && now(limiter.acquire("nobody")).is_err());
        });
        api.pause_for(Duration::from_hours(1));
        allocates_nothing(&name("paused"), exhausted);
        drop((held, other_held));
        limiter.close();
        allocates_nothing(&name("closed"), || {
            assert!(api.check().is_err() && limiter.try_acquire("api").is_err());
        });
    }
}

/// Three resources of a limit each, and one of three windows: each with tokens for all.
fn three(limiter: &MemoryLimiter) -> [Resource; 3] {
    let plenty = Limit::per_second(1_000_000_000).burst(1 << 40);
    let hourly = Limit::per_hour(1 << 40);
    let daily = Limit::at_most(1 << 40, Duration::from_secs(24 * 60 * 60)).burst(1 << 39);
    [("one", plenty), ("two", plenty.max_in_flight(9)), ("more", plenty.and(hourly).and(daily))]
        .map(|(name, limit)| limiter.configure(name, limit).unwrap())
}

#[test]
fn several_at_once_allocate_nothing() {
    for (clock_name, clock) in clocks() {
        let limiter = MemoryLimiter::with_clock(clock);
        let all = three(&limiter);
        let by_name = [("two", 2), ("more", 1), ("one", 3)];
        let by_handle = [(&all[2], 1), (&all[0], 3), (&all[1], 2)];
        let name = |verb| format!("{verb}, {clock_name}");
        allocates_nothing(&name("three windows"), || {
            all[2].check_n(2).unwrap();
            limiter.check("more").unwrap();
            drop(all[2].try_acquire().unwrap());
            all[2].peek(1).unwrap();
            all[2].decide(1).outcome.unwrap();
            drop(limiter.admit("more", 1).unwrap());
        });
        allocates_nothing(&name("settle"), || {
            for one in &all {
                one.try_acquire_n(3).unwrap().settle(1);
                one.try_acquire_n(1).unwrap().settle(2);
            }
        });
        allocates_nothing(&name("all by name"), || {
            drop(limiter.try_acquire_all(&by_name).unwrap());
        });
        allocates_nothing(&name("all by handle"), || {
            drop(limiter.try_acquire_all_of(&by_handle).unwrap());
        });
        allocates_nothing(&name("settle all"), || {
            limiter.try_acquire_all(&by_name).unwrap().settle(&[("one", 1), ("more", 5)]).unwrap();
        });
        allocates_nothing(&name("acquire all"), || {
            drop(now(limiter.acquire_all(&by_name)).unwrap());
            drop(now(limiter.acquire_all_of(&by_handle)).unwrap());
            drop(limiter.blocking_acquire_all(&by_name, None).unwrap());
        });
    }
}

#[test]
fn denials_of_several_allocate_nothing() {
    for (clock_name, clock) in clocks() {
        let limiter = MemoryLimiter::with_clock(clock);
        let all = three(&limiter);
        let daily = Limit::per_day(1);
        limiter.configure("few", daily).unwrap().check().unwrap();
        let few = daily.and(Limit::per_second(5)).and(Limit::per_minute(50));
        let few = limiter.configure("few windows", few).unwrap();
        few.check().unwrap();
        let name = |verb| format!("{verb}, {clock_name}");
        allocates_nothing(&name("three windows"), || {
            assert!(few.check().unwrap_err().retry_after() > Some(Duration::ZERO));
            assert!(few.peek(1).is_err() && limiter.try_acquire("few windows").is_err());
            assert!(few.check_n(2).is_err());
            assert!(few.decide(1).until_next > Duration::ZERO);
        });
        allocates_nothing(&name("all"), || {
            for lacking in ["few", "few windows"] {
                assert!(limiter.try_acquire_all(&[("one", 1), (lacking, 1), ("two", 1)]).is_err());
            }
            assert!(limiter.try_acquire_all_of(&[(&all[0], 1), (&few, 1)]).is_err());
            assert!(limiter.try_acquire_all(&[("more", u64::MAX), ("one", 1)]).is_err());
        });
        let held: Vec<_> = (0..9).map(|_| all[1].try_acquire().unwrap()).collect();
        allocates_nothing(&name("too many in flight"), || {
            assert!(limiter.try_acquire_all(&[("one", 1), ("two", 1)]).is_err());
        });
        drop(held);
    }
}

/// Once a key is there.
#[test]
fn keys_allocate_nothing() {
    for (clock_name, clock) in clocks() {
        let limiter = MemoryLimiter::with_clock(clock);
        let plenty = Limit::per_second(1_000_000_000).burst(1 << 40);
        limiter.per_key("user:", plenty).unwrap();
        limiter.per_key("few:", Limit::per_day(1)).unwrap();
        limiter.per_key("more:", plenty.and(Limit::per_hour(1 << 40))).unwrap();
        let (few, more) = ("few:ann", "more:ann");
        limiter.check(few).unwrap();
        let name = |verb| format!("{verb}, {clock_name}");
        // So much is taken that it does not go meanwhile.
        limiter.check_n("user:bob", 1 << 39).unwrap();
        allocates_nothing(&name("a light key"), || {
            limiter.check("user:bob").unwrap();
            limiter.check_n("user:bob", 2).unwrap();
            limiter.decide("user:bob", 2).outcome.unwrap();
            limiter.decide("user:bob", 0).outcome.unwrap();
            limiter.peek("user:bob", 3).unwrap();
            limiter.release("user:bob");
        });
        allocates_nothing(&name("a light key's refusal"), || {
            assert!(limiter.check(few).unwrap_err().retry_after() > Some(Duration::ZERO));
            assert!(limiter.check_n(few, 2).is_err() && limiter.peek(few, 1).is_err());
            assert!(limiter.decide(few, 1).outcome.is_err());
        });
        let held = limiter.try_acquire(more).unwrap();
        allocates_nothing(&name("a whole key"), || {
            limiter.check(more).unwrap();
            limiter.decide(more, 1).outcome.unwrap();
            drop(limiter.try_acquire(more).unwrap());
            drop(limiter.try_acquire_all(&[(more, 1), (more, 2)]).unwrap());
        });
        drop(held);
    }
}

#[test]
fn a_light_key_is_small() {
    const KEYS: i64 = 10_000;
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    limiter.per_key("user:", Limit::per_second(10)).unwrap();
    let counts = measure(|| {
        for key in 0..KEYS {
            let name = format!("user:{key:011}");
            if key % 2 == 0 {
                limiter.check(&name).unwrap();
            }
            limiter.decide(&name, 1).outcome.unwrap();
        }
    });
    let each = counts.bytes_current / KEYS;
    assert!(each <= 200, "{each} bytes a key");
}
