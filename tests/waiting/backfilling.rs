//! Who passes a group, and that everybody is served: tasks that are polled only when they are woken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tollgate::{AcquireAllError, Limit, ManualClock, MemoryLimiter, Permits};

use crate::common::{Dice, cases, turns};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);

#[derive(Default)]
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A task of an executor: it is polled at the start, and then only if it was woken.
struct Task<T> {
    future: Option<Pin<Box<dyn Future<Output = T>>>>,
    wakes: Arc<Wakes>,
    seen: u64,
    output: Option<T>,
}

impl<T> Task<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        let future: Pin<Box<dyn Future<Output = T>>> = Box::pin(future);
        let mut task = Self { future: Some(future), wakes: Arc::default(), seen: 0, output: None };
        task.poll();
        task
    }

    fn poll(&mut self) {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut cx = Context::from_waker(&waker);
        let Some(future) = &mut self.future else { return };
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            (self.output, self.future) = (Some(output), None);
        }
    }

    fn run(&mut self) {
        let wakes = self.wakes.0.load(Ordering::Acquire);
        if wakes > self.seen {
            self.seen = wakes;
            self.poll();
        }
    }

    fn is_done(&self) -> bool {
        self.future.is_none()
    }
}

/// Resources without tokens.
fn empty(limits: &[(&str, Limit)]) -> (ManualClock, MemoryLimiter) {
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    for (name, limit) in limits {
        let resource = limiter.configure(name, *limit).unwrap();
        resource.check_n(resource.capacity().available).unwrap();
    }
    (time, limiter)
}

/// The older of two groups goes first in each of their queues, whatever order they arrive in.
#[test]
fn two_groups_do_not_wait_for_each_other() {
    let limit = Limit::per_second(1);
    let (time, limiter) = empty(&[("a", limit), ("b", limit)]);
    let both = [("a", 1), ("b", 1)];
    let mut single = Task::new(limiter.acquire("a"));
    let (mut older, mut younger) =
        (Task::new(limiter.acquire_all(&both)), Task::new(limiter.acquire_all(&both)));
    time.advance(SECOND);
    // The older one comes to lack `a` alone, while the single is before it there.
    for task in [&mut older, &mut younger] {
        task.run();
        time.advance(NS);
    }
    single.run();
    assert!(single.is_done());
    for _ in 0..2_100 {
        time.advance(MS);
        younger.run();
        time.advance(NS);
        older.run();
        assert!(older.is_done() || !younger.is_done());
    }
    assert!(older.is_done() && younger.is_done());
}

/// A group that lacks all its resources, and is the head of none, is woken when it can pass.
#[test]
fn a_group_that_lacks_everything_passes() {
    let limit = Limit::per_second(10);
    let (time, limiter) = empty(&[("a", limit), ("b", limit)]);
    let c = limiter.configure("c", Limit::per_second(10).max_in_flight(1)).unwrap();
    let place = c.try_acquire().unwrap();
    let mut head = Task::new(limiter.acquire_all(&[("a", 1), ("b", 1), ("c", 1)]));
    let mut group = Task::new(limiter.acquire_all(&[("a", 1), ("b", 1)]));
    for _ in 0..300 {
        time.advance(MS);
        head.run();
        group.run();
    }
    assert!(group.is_done() && !head.is_done());
    drop(place);
    head.run();
    assert!(head.is_done());
}

/// The head keeps its place in flight as it keeps its tokens.
#[test]
fn a_place_in_flight_is_kept_for_the_head() {
    let (time, limiter) = empty(&[("b", Limit::per_second(1))]);
    let a = limiter.configure("a", Limit::per_second(10).max_in_flight(1)).unwrap();
    let wanted = [("a", 1), ("b", 1)];
    let mut head = Task::new(limiter.acquire_all(&wanted));
    assert!(a.try_acquire().is_err() && limiter.try_acquire_all(&[("a", 1)]).is_err());
    // Tokens alone are there for others.
    a.check().unwrap();
    let mut single = Task::new(limiter.acquire("a"));
    let mut ready = Task::new(limiter.until_ready("a"));
    time.advance(SECOND);
    single.run();
    assert!(!single.is_done());
    head.run();
    assert!(head.is_done());
    drop(head);
    single.run();
    assert!(single.is_done());
    ready.run();
    assert!(ready.is_done());
}

/// Singles that take and hold one place after another do not keep a group from both.
#[test]
fn places_in_flight_do_not_starve_a_group() {
    let limit = Limit::per_second(1_000).max_in_flight(1);
    let time = ManualClock::new();
    let limiter = MemoryLimiter::with_clock(time.clone());
    let resources = ["a", "b"].map(|name| limiter.configure(name, limit).unwrap());
    let mut places = resources.each_ref().map(|resource| resource.try_acquire().ok());
    let mut group = Task::new(limiter.acquire_all(&[("a", 1), ("b", 1)]));
    for _ in 0..3 {
        for (resource, place) in resources.iter().zip(&mut places) {
            let mut single = Task::new(resource.acquire());
            drop(place.take());
            group.run();
            time.advance(MS);
            single.run();
            *place = single.output.take().map(|granted| granted.unwrap());
            group.run();
        }
    }
    assert!(group.is_done());
}

/// Six waits for one to three resources, by tasks that arrive in any order: all are served.
fn all_are_served(seed: u64, is_bounded: bool, max_burst: u64) {
    let mut dice = Dice(seed + 1);
    let (time, names) = (ManualClock::new(), ["a", "b", "c"]);
    let limiter = MemoryLimiter::with_clock(time.clone());
    let bursts = names.map(|name| {
        let burst = 1 + dice.roll(max_burst);
        let mut limit = Limit::per_second(1 + dice.roll(4)).burst(burst);
        if is_bounded {
            limit = limit.max_in_flight(1 + dice.roll(2));
        }
        limiter.configure(name, limit).unwrap().check_n(burst).unwrap();
        burst
    });
    let mut tasks: Vec<Task<Result<Permits, AcquireAllError>>> = Vec::new();
    let mut held: Vec<(u64, Permits)> = Vec::new();
    for step in 0..40_000 {
        if tasks.len() < 6 && dice.roll(3) == 0 {
            let mut wanted = vec![("a", 1 + dice.roll(bursts[0]))];
            for (name, burst) in names.iter().zip(bursts).skip(1) {
                if dice.roll(2) == 0 {
                    wanted.push((name, 1 + dice.roll(burst)));
                }
            }
            if wanted.len() > 1 && dice.roll(2) == 0 {
                wanted.remove(0);
            }
            tasks.push(Task::new(limiter.acquire_all(&wanted)));
        }
        let start = dice.roll(tasks.len() as u64) as usize;
        for index in 0..tasks.len() {
            let index = (start + index) % tasks.len();
            tasks[index].run();
            time.advance(NS);
            if let Some(granted) = tasks[index].output.take() {
                held.push((step + dice.roll(50), granted.unwrap()));
            }
        }
        held.retain(|(until, _)| *until > step);
        if tasks.len() == 6 && tasks.iter().all(Task::is_done) {
            return;
        }
        time.advance(if dice.roll(4) == 0 { 50 * MS } else { 5 * MS });
    }
    let left = tasks.iter().filter(|task| !task.is_done()).count();
    panic!("seed {seed}, bounded {is_bounded}, bursts {bursts:?}: {left} are never served");
}

#[test]
fn everybody_is_served() {
    for (is_bounded, max_burst) in [(false, 1), (false, 2), (false, 6), (true, 2), (true, 10)] {
        for seed in 0..cases(turns(300, 60)) {
            all_are_served(seed, is_bounded, max_burst);
        }
    }
}
