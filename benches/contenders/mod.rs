//! The limiters compared: each as a loop of calls, in groups with the same task for each.
//!
//! Every call's whole result passes through `black_box`, and every loop counts admissions, so a
//! bench of the wrong path shows. All read quanta's counter, except leaky-bucket and throttle-net
//! (std's `Instant`) and tokio's Semaphore (no clock). Limiters are leaked: permits borrow them.

mod named;
mod own;
mod shared;

use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota};
use throttle_net::{MultiLimiter, Throttle};
use tokio::sync::Semaphore;
use tollgate::{Clock, Limit, MemoryLimiter, OnRelease, Permit, Resource};

pub(crate) use named::Named;
use own::{Floor, NamedOracle, Oracle, Time};

/// Limiters under one load. All are measured against the first, the lower bound for such a call,
/// mostly the floor, and against the second: governor or the nearest equivalent.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Whether every call is admitted; otherwise none is.
    pub(crate) admitted: bool,
    pub(crate) contenders: Vec<Contender>,
}

type Calls = Box<dyn Fn(Range<u64>) -> u64 + Send + Sync>;

/// One limiter, shared by all threads.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    calls: Calls,
}

impl Contender {
    fn new<T: Outcome>(
        name: &'static str,
        call: impl Fn(u64) -> T + Send + Sync + 'static,
    ) -> Self {
        let calls = move |range: Range<u64>| {
            let call = |i| {
                let outcome = call(i);
                u64::from(black_box(&outcome).is_admitted())
            };
            range.map(call).sum()
        };
        Self { name, calls: Box::new(calls) }
    }

    /// Makes these calls and returns how many were admitted. The numbers may select names.
    pub(crate) fn run(&self, calls: Range<u64>) -> u64 {
        (self.calls)(calls)
    }
}

trait Outcome {
    fn is_admitted(&self) -> bool;
}

impl Outcome for bool {
    fn is_admitted(&self) -> bool {
        *self
    }
}

impl Outcome for () {
    fn is_admitted(&self) -> bool {
        true
    }
}

impl<T, E> Outcome for Result<T, E> {
    fn is_admitted(&self) -> bool {
        self.is_ok()
    }
}

impl<T: Outcome> Outcome for Poll<T> {
    fn is_admitted(&self) -> bool {
        matches!(self, Poll::Ready(outcome) if outcome.is_admitted())
    }
}

/// A rate of whole nanoseconds per token, as the floor and governor need it.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    token: Duration,
    burst: u32,
    /// Empty the bucket first.
    drained: bool,
}

/// A token every nanosecond: always full, as calls take longer than that.
pub(crate) const OPEN: Load =
    Load { token: Duration::from_nanos(1), burst: 1_000_000_000, drained: false };
const OPEN_SMALL: Load = Load { burst: 100, ..OPEN };
/// Never full, and not empty for the first 4e9 calls.
const STOCK: Load = Load { token: Duration::from_micros(1), burst: 4_000_000_000, drained: false };
const SHUT: Load = Load { token: Duration::from_hours(1), burst: 1, drained: true };
const SHUT_SMALL: Load = Load { burst: 100, ..SHUT };
const SHUT_LARGE: Load = Load { burst: 1_000_000, ..SHUT };

impl Load {
    fn limit(self) -> Limit {
        Limit::new(1, self.token).burst(self.burst.into())
    }

    fn quota(self) -> Quota {
        let burst = NonZeroU32::new(self.burst).expect("a burst");
        Quota::with_period(self.token).expect("a period").allow_burst(burst)
    }

    fn nanos(self) -> u64 {
        self.token.as_nanos().try_into().expect("centuries")
    }

    fn ready<L, T: Outcome>(self, limiter: L, call: impl Fn(&'static L) -> T) -> &'static L {
        let limiter: &'static L = Box::leak(Box::new(limiter));
        for _ in 0..if self.drained { self.burst } else { 0 } {
            assert!(call(limiter).is_admitted(), "a token to drain");
        }
        limiter
    }

    fn resource(self, policy: OnRelease) -> &'static Resource {
        self.resource_by(Clock::system(), policy)
    }

    fn resource_by(self, clock: Clock, policy: OnRelease) -> &'static Resource {
        let limit = self.limit().on_release(policy);
        let limiter = MemoryLimiter::with_clock(clock);
        self.ready(limiter.configure("api", limit).expect("a limit"), Resource::check)
    }

    fn governor(self) -> &'static DefaultDirectRateLimiter {
        self.ready(governor::RateLimiter::direct(self.quota()), DefaultDirectRateLimiter::check)
    }
}

fn floor(load: Load) -> Contender {
    let limiter = load.ready(Floor::new(load.nanos(), load.burst.into()), Floor::check);
    Contender::new("floor", |_| limiter.check())
}

pub(crate) fn governor_direct(load: Load) -> Contender {
    let limiter = load.governor();
    Contender::new("governor", |_| limiter.check())
}

pub(crate) fn handle(load: Load) -> Contender {
    let resource = load.resource(OnRelease::Spend);
    Contender::new("tollgate, handle", |_| resource.check())
}

fn coarse(load: Load) -> Contender {
    let clock = Clock::coarse(Duration::from_millis(1));
    let resource = load.resource_by(clock, OnRelease::Spend);
    Contender::new("tollgate, coarse clock", |_| resource.check())
}

pub(crate) fn permit(load: Load, name: &'static str, policy: OnRelease) -> Contender {
    let resource = load.resource(policy);
    Contender::new(name, |_| resource.try_acquire())
}

fn oracle(load: Load) -> Contender {
    let limiter = load.ready(Oracle::new(1, load.nanos(), load.burst.into()), Oracle::check);
    Contender::new("mutex oracle", |_| limiter.check())
}

impl ratelimit::Clock for Time {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now())
    }
}

pub(crate) fn ratelimit(admitted: bool) -> Contender {
    let builder =
        ratelimit::Builder::with_clock(if admitted { 1_000_000_000 } else { 1 }, Time::new());
    let builder = if admitted {
        builder.max_tokens(1_000_000_000).initial_available(1_000_000_000)
    } else {
        builder.period(Duration::from_hours(1)).max_tokens(1)
    };
    let limiter = builder.build().expect("a limit");
    Contender::new("ratelimit", move |_| limiter.try_wait())
}

fn leaky(admitted: bool) -> leaky_bucket::RateLimiter {
    let mut builder = leaky_bucket::RateLimiter::builder();
    if admitted {
        builder.max(1 << 62).initial(1 << 62);
        builder.refill(1_000_000_000).interval(Duration::from_millis(1));
    } else {
        builder.max(1).initial(0).refill(1).interval(Duration::from_hours(1));
    }
    builder.build()
}

fn leaky_bucket(admitted: bool) -> Contender {
    let limiter = leaky(admitted);
    Contender::new("leaky-bucket", move |_| limiter.try_acquire(1))
}

fn semaphore(admitted: bool) -> &'static Semaphore {
    Box::leak(Box::new(Semaphore::new(if admitted { Semaphore::MAX_PERMITS } else { 0 })))
}

pub(crate) fn semaphore_try(admitted: bool) -> Contender {
    let semaphore = semaphore(admitted);
    Contender::new("tokio Semaphore", |_| semaphore.try_acquire())
}

/// Calls by one of `count` names, in an order that prefetchers do not follow.
pub(crate) fn by_name(load: Load, count: usize) -> [Contender; 3] {
    // Multiples of the golden ratio, scaled to `count`.
    let at = move |i: u64| (u64::from((i as u32).wrapping_mul(0x9E37_79B9)) * count as u64) >> 32;
    Named::new(load, count).contenders(move |i| at(i) as usize)
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn acquires() -> Vec<Contender> {
    let (governor, resource) = (OPEN.governor(), OPEN.resource(OnRelease::Spend));
    let (leaky, semaphore) = (leaky(true), semaphore(true));
    vec![
        floor(OPEN),
        Contender::new("governor until_ready", |_| poll_once(governor.until_ready())),
        Contender::new("tollgate, acquire", |_| poll_once(resource.acquire())),
        Contender::new("tollgate, until_ready", |_| poll_once(resource.until_ready())),
        Contender::new("leaky-bucket acquire", move |_| poll_once(leaky.acquire_one())),
        Contender::new("tokio Semaphore acquire", |_| poll_once(semaphore.acquire())),
    ]
}

/// `acquire` beside `try_acquire`, whose owned permit lives as long as that of `acquire`.
fn acquire_by_handle() -> Vec<Contender> {
    let resource = OPEN.resource(OnRelease::Spend);
    vec![
        Contender::new("try_acquire, borrowed", |_| resource.try_acquire()),
        Contender::new("try_acquire, into_owned", |_| {
            resource.try_acquire().map(Permit::into_owned)
        }),
        Contender::new("acquire", |_| poll_once(resource.acquire())),
    ]
}

fn acquire_by_name() -> Vec<Contender> {
    let limiter: &'static MemoryLimiter = Box::leak(Box::default());
    limiter.configure("api", OPEN.limit()).expect("a limit");
    vec![
        Contender::new("check", |_| limiter.check(black_box("api"))),
        Contender::new("try_acquire", |_| limiter.try_acquire(black_box("api"))),
        Contender::new("acquire", |_| poll_once(limiter.acquire(black_box("api")))),
    ]
}

/// What a caller of `set_capacity` does: takes a token by name, and gives it back.
fn taken_and_given_back() -> Vec<Contender> {
    let limiter: &'static MemoryLimiter = Box::leak(Box::default());
    limiter.set_capacity("api", 100, Duration::from_secs(1)).expect("a limit");
    let oracle: &'static NamedOracle =
        Box::leak(Box::new(NamedOracle::new(&["api"], 100, 1_000_000_000)));
    let handle = limiter.resource("api").expect("it was configured");
    let handle: &'static Resource = Box::leak(Box::new(handle));
    let by_oracle = |_| {
        let taken = oracle.try_acquire(black_box("api"));
        if taken {
            oracle.release(black_box("api"));
        }
        taken
    };
    vec![
        Contender::new("mutex and map", by_oracle),
        Contender::new("the same", by_oracle),
        Contender::new("tollgate, name", |_| limiter.try_acquire(black_box("api")).map(drop)),
        Contender::new("tollgate, handle", |_| handle.try_acquire().map(drop)),
    ]
}

fn named(load: Load, count: usize) -> Vec<Contender> {
    [floor(load)].into_iter().chain(by_name(load, count)).collect()
}

/// Three limits for one call: the last has load `last`, the others always have room.
fn three(last: Load) -> Vec<Contender> {
    const NAMES: [&str; 3] = ["gpt-4o/requests", "gpt-4o/tokens", "gpt-4o/images"];
    let loads = [OPEN, OPEN, last];
    let limiter: &'static MemoryLimiter = Box::leak(Box::default());
    let [one, two, three]: [&'static Resource; 3] = std::array::from_fn(|i| {
        let resource = limiter.configure(NAMES[i], loads[i].limit()).expect("a limit");
        loads[i].ready(resource, Resource::check)
    });
    let windows = OPEN.limit().and(OPEN.limit()).and(last.limit());
    let windows = limiter.configure("windows", windows).expect("a limit");
    let windows = last.ready(windows, Resource::check);
    let all = NAMES.map(|name| (name, 1));
    vec![
        Contender::new("three checks, not atomic", |_| {
            one.check().and_then(|()| two.check()).and_then(|()| three.check())
        }),
        throttle_net(NAMES, last),
        Contender::new("tollgate, check 3 names", move |_| limiter.check_all(black_box(&all))),
        Contender::new("tollgate, check 3 handles", |_| {
            limiter.check_all_of(black_box(&[(one, 1), (two, 1), (three, 1)]))
        }),
        Contender::new("tollgate, permits, 3 names", move |_| {
            limiter.try_acquire_all(black_box(&all))
        }),
        Contender::new("tollgate, permits, 3 handles", |_| {
            limiter.try_acquire_all_of(black_box(&[(one, 1), (two, 1), (three, 1)]))
        }),
        Contender::new("tollgate, 3 windows, handle", |_| windows.check()),
        Contender::new("tollgate, 3 windows, name", |_| limiter.check(black_box("windows"))),
    ]
}

fn throttle_net(names: [&'static str; 3], last: Load) -> Contender {
    let open = || Throttle::per_second(u32::MAX);
    let last_throttle = if last.drained { Throttle::per_duration(1, last.token) } else { open() };
    let builder = MultiLimiter::builder().dimension(names[0], open()).dimension(names[1], open());
    let limiter = builder.dimension(names[2], last_throttle).build();
    let all = names.map(|name| (name, 1));
    let limiter = last.ready(limiter, |limiter| limiter.try_acquire_costs(&all));
    Contender::new("throttle-net", move |_| limiter.try_acquire_costs(black_box(&all)))
}

/// Builds a group when it runs, so that thousands of names do not exist while others are measured.
pub(crate) type MakeGroup = fn() -> Group;

pub(crate) const GROUPS: [MakeGroup; 18] = [
    || {
        let mut contenders = vec![floor(OPEN), governor_direct(OPEN), handle(OPEN), oracle(OPEN)];
        contenders.extend([ratelimit(true), leaky_bucket(true)]);
        Group { name: "admitted, full bucket of 1e9", admitted: true, contenders }
    },
    || {
        let contenders = vec![floor(OPEN_SMALL), governor_direct(OPEN_SMALL), handle(OPEN_SMALL)];
        Group { name: "admitted, full bucket of 100", admitted: true, contenders }
    },
    || {
        let contenders = vec![floor(STOCK), governor_direct(STOCK), handle(STOCK)];
        Group { name: "admitted, from a stock", admitted: true, contenders }
    },
    || {
        let mut contenders = vec![floor(SHUT), governor_direct(SHUT), handle(SHUT), coarse(SHUT)];
        contenders.extend([
            oracle(SHUT),
            ratelimit(false),
            leaky_bucket(false),
            semaphore_try(false),
        ]);
        Group { name: "denied, bucket of 1", admitted: false, contenders }
    },
    || {
        let mut contenders = vec![floor(SHUT_SMALL), governor_direct(SHUT_SMALL)];
        contenders.extend([handle(SHUT_SMALL), coarse(SHUT_SMALL)]);
        Group { name: "denied, bucket of 100", admitted: false, contenders }
    },
    || {
        let contenders = vec![floor(SHUT_LARGE), governor_direct(SHUT_LARGE), handle(SHUT_LARGE)];
        Group { name: "denied, bucket of 1e6", admitted: false, contenders }
    },
    || Group { name: "by name, admitted, 1 name", admitted: true, contenders: named(OPEN, 1) },
    || Group { name: "by name, denied, 1 name", admitted: false, contenders: named(SHUT, 1) },
    || Group { name: "by name, admitted, 10,000", admitted: true, contenders: named(OPEN, 10_000) },
    || {
        let mut contenders = vec![floor(OPEN), semaphore_try(true), governor_direct(OPEN)];
        contenders.push(permit(OPEN, "tollgate, Spend", OnRelease::Spend));
        contenders.push(permit(OPEN, "tollgate, Refund", OnRelease::Refund));
        Group { name: "permit, taken and dropped", admitted: true, contenders }
    },
    || {
        let contenders = taken_and_given_back();
        Group { name: "set_capacity(100), taken and dropped", admitted: true, contenders }
    },
    || Group { name: "acquire, without waiting", admitted: true, contenders: acquires() },
    || {
        let contenders = acquire_by_handle();
        Group { name: "tollgate, acquire by handle", admitted: true, contenders }
    },
    || {
        let contenders = acquire_by_name();
        Group { name: "tollgate, acquire by name", admitted: true, contenders }
    },
    || Group { name: "three limits, admitted", admitted: true, contenders: three(OPEN) },
    || Group { name: "three limits, denied", admitted: false, contenders: three(SHUT) },
    || Group { name: "a quota, admitted", admitted: true, contenders: shared::shared(OPEN_SMALL) },
    || Group { name: "a quota, denied", admitted: false, contenders: shared::shared(SHUT) },
];
