//! Tokens admitted, after whatever may happen to a bucket: one thread, and a count beside it.

use std::time::Duration;

use proptest::prelude::*;
use tollgate::metrics::Exporter;
use tollgate::{Limit, ManualClock, MemoryLimiter, OnRelease, Permit, Permits, Resource};

use crate::common::cases;
use crate::recorder::Kept;

const HOUR: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Copy, Debug)]
enum Act {
    Check(u64),
    Decide(u64),
    Hold(u64),
    Admit(u64),
    /// Both resources at once, with permits or without.
    HoldAll(u64),
    CheckAll(u64),
    Drop,
    Refund,
    Spend,
    /// Settle at so many hundredths of what the permit has.
    Settle(u64),
    Forget,
    Release,
    Wait(Duration),
    Heat,
    Cut,
    Throttled,
    Pause(u64),
    Resume,
    Observe(u64),
    ObserveUntil(u64, u64),
    Configure(usize),
    BoundInFlight,
    /// A wait that is polled, and cancelled if it is not granted.
    Acquire(u64),
    Scrape,
}

fn limits() -> [Limit; 6] {
    let base = Limit::per_second(2_000);
    [
        base.burst(4_096),
        base.burst(4_096).on_release(OnRelease::Refund),
        Limit::new(7, Duration::from_secs(3)),
        base.burst(4_096).and(Limit::new(10_000, HOUR)),
        Limit::at_most(3_000, Duration::from_secs(1)),
        Limit::new(999_937, HOUR).burst(100_000).max_in_flight(40),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let n = || prop_oneof![4 => Just(1_u64), 2 => 1..40_u64, 1 => 1..5_000_u64];
    let act = prop_oneof![
        6 => n().prop_map(Act::Check),
        2 => n().prop_map(Act::Decide),
        6 => n().prop_map(Act::Hold),
        1 => n().prop_map(Act::Admit),
        2 => n().prop_map(Act::HoldAll),
        2 => n().prop_map(Act::CheckAll),
        2 => Just(Act::Drop),
        2 => Just(Act::Refund),
        1 => Just(Act::Spend),
        2 => (0..300_u64).prop_map(Act::Settle),
        1 => Just(Act::Forget),
        1 => Just(Act::Release),
        2 => prop_oneof![Just(1), Just(1_000), Just(2_000_000), 0..5_000_000_000_u64]
            .prop_map(|nanos| Act::Wait(Duration::from_nanos(nanos))),
        1 => Just(Act::Wait(Duration::from_secs(400 * 24 * 60 * 60))),
        2 => Just(Act::Heat),
        1 => Just(Act::Cut),
        1 => Just(Act::Throttled),
        1 => (0..3_000_u64).prop_map(Act::Pause),
        1 => Just(Act::Resume),
        1 => (0..5_000_u64).prop_map(Act::Observe),
        1 => (0..50_u64, 0..3_000_u64).prop_map(|(left, millis)| Act::ObserveUntil(left, millis)),
        2 => (0..limits().len()).prop_map(Act::Configure),
        1 => Just(Act::BoundInFlight),
        2 => n().prop_map(Act::Acquire),
        1 => Just(Act::Scrape),
    ];
    proptest::collection::vec(act, 1..60)
}

/// What is counted of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    admitted: u64,
    refunded: u64,
    overdrawn: u64,
    denied: u64,
}

struct Run {
    limiter: MemoryLimiter,
    time: ManualClock,
    api: Resource,
    limit: Limit,
    held: Vec<Permit<'static>>,
    /// The tokens of permits that were forgotten.
    forgotten: Vec<u64>,
    counted: Counted,
    exporter: Exporter,
    kept: Kept,
}

impl Run {
    fn new() -> Self {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let limit = limits()[0];
        let api = limiter.configure("api", limit).unwrap();
        limiter.configure("other", Limit::per_second(5_000)).unwrap();
        let exporter = Exporter::new(&limiter);
        let (held, counted, kept) = (Vec::new(), Counted::default(), Kept::default());
        let forgotten = Vec::new();
        Self { limiter, time, api, limit, held, forgotten, counted, exporter, kept }
    }

    fn scraped(&self) -> Counted {
        assert!(self.kept.scrape(&self.exporter));
        let count = |name: &str| self.kept.count(&format!("tollgate_{name}{{resource=api}}"));
        let reasons = ["exhausted", "paused", "in_flight", "exceeds_capacity"];
        let denied = |reason: &&str| {
            self.kept.count(&format!("tollgate_denied_total{{reason={reason},resource=api}}"))
        };
        Counted {
            admitted: count("admitted_tokens_total"),
            refunded: count("refunded_tokens_total"),
            overdrawn: count("overdrawn_tokens_total"),
            denied: reasons.iter().map(denied).sum(),
        }
    }

    fn note(&mut self, is_admitted: bool, n: u64) {
        if is_admitted {
            self.counted.admitted += n;
        } else {
            self.counted.denied += 1;
        }
    }

    /// A permit that is let go by the limit's policy.
    fn note_end(&mut self, n: u64) {
        if self.limit.get_on_release() == OnRelease::Refund {
            self.counted.refunded += n;
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Check(n) => {
                let is_admitted = self.api.check_n(n).is_ok();
                self.note(is_admitted, n);
            }
            Act::Decide(n) => {
                let is_admitted = self.limiter.decide("api", n).outcome.is_ok();
                self.note(is_admitted, n);
            }
            Act::Hold(n) => {
                let permit = self.limiter.try_acquire_n("api", n);
                self.note(permit.is_ok(), n);
                self.held.extend(permit);
            }
            Act::Admit(n) => {
                let admitted = self.limiter.admit("api", n);
                self.note(admitted.is_ok(), n);
                self.held.extend(admitted.map(|(permit, _)| permit));
            }
            Act::HoldAll(n) => match self.limiter.try_acquire_all(&[("api", 1), ("other", n)]) {
                Ok(permits) => {
                    self.note(true, 1);
                    let own = |permit: &Permit<'static>| permit.resource() == "api";
                    self.held.extend(Permits::into_parts(permits).filter(own));
                }
                Err(error) if &*error.resource == "api" => self.note(false, 1),
                Err(_) => {}
            },
            Act::CheckAll(n) => match self.limiter.check_all(&[("other", 1), ("api", n)]) {
                Ok(()) => self.note(true, n),
                Err(error) if &*error.resource == "api" => self.note(false, n),
                Err(_) => {}
            },
            Act::Heat => self.heat(),
            Act::Wait(time) => self.time.advance(time),
            Act::Cut => self.api.announce_reduced("429"),
            Act::Pause(millis) => self.api.pause_for(Duration::from_millis(millis)),
            Act::Resume => self.api.resume(),
            Act::Observe(left) => self.api.observe_remaining(left),
            Act::ObserveUntil(left, millis) => {
                self.api.observe_remaining_until(left, Duration::from_millis(millis));
            }
            Act::Configure(index) => {
                self.limit = limits()[index];
                self.limiter.configure("api", self.limit).unwrap();
            }
            Act::BoundInFlight => {
                self.limit = self.limit.max_in_flight(10);
                self.limiter.configure("api", self.limit).unwrap();
            }
            Act::Acquire(n) => {
                let mut wait = std::pin::pin!(self.limiter.acquire_n("api", n));
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                match std::future::Future::poll(wait.as_mut(), &mut cx) {
                    std::task::Poll::Ready(Ok(permit)) => {
                        self.counted.admitted += n;
                        self.held.push(permit);
                    }
                    std::task::Poll::Ready(Err(_)) => self.counted.denied += 1, // more than it holds
                    std::task::Poll::Pending => {}
                }
            }
            Act::Release => {
                if let Some(n) = self.forgotten.pop() {
                    self.note_end(n);
                    self.api.release_n(n);
                }
            }
            Act::Scrape => self.compare(),
            Act::Drop
            | Act::Refund
            | Act::Spend
            | Act::Settle(_)
            | Act::Forget
            | Act::Throttled => {
                if let Some(permit) = self.held.pop() {
                    self.end(permit, act);
                }
            }
        }
    }

    /// Takes at readings that count as samples: opens the stripes of a bucket that is large and half full.
    fn heat(&mut self) {
        for _ in 0..40 {
            self.time.set(self.time.now().next_multiple_of(1 << 10) + (1 << 10));
            self.act(Act::Check(1));
        }
    }

    fn end(&mut self, permit: Permit<'static>, act: Act) {
        let n = permit.tokens();
        match act {
            Act::Refund => {
                self.counted.refunded += n;
                permit.refund();
            }
            Act::Spend => permit.spend(),
            Act::Settle(part) => {
                let actual = n * part / 100;
                self.counted.refunded += n.saturating_sub(actual);
                self.counted.overdrawn += actual.saturating_sub(n);
                permit.settle(actual);
            }
            Act::Forget => {
                self.forgotten.push(n);
                permit.forget();
            }
            Act::Throttled => {
                permit.throttled("429");
                self.held.push(permit);
            }
            _ => {
                self.note_end(n);
                drop(permit);
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.scraped(), self.counted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: u32::try_from(cases(400)).unwrap(), ..ProptestConfig::default() })]

    /// Whatever is done to a bucket, metrics say what calls were told, each time somebody asks.
    #[test]
    fn totals_are_what_calls_were_told(acts in acts()) {
        let mut run = Run::new();
        for act in acts {
            run.act(act);
        }
        run.compare();
        run.held.clear();
    }
}

/// Tokens that stripes and a thread's cache hold are not admitted yet.
#[test]
fn prepaid_tokens_count_as_they_are_taken() {
    let mut run = Run::new();
    run.heat();
    for _ in 0..1_000 {
        run.act(Act::Check(1));
        run.compare();
    }
    // Drained, opened again, and closed for good.
    run.act(Act::Observe(1_500));
    run.compare();
    run.act(Act::Wait(HOUR));
    run.heat();
    run.act(Act::Check(7));
    run.compare();
    run.limiter.close();
    run.compare();
}

/// A permit that gives its token back to the cache it came from, a thousand times.
#[test]
fn tokens_that_come_back_are_admitted_again() {
    let mut run = Run::new();
    run.act(Act::Configure(1));
    run.heat();
    for _ in 0..1_000 {
        run.act(Act::Hold(1));
        run.act(Act::Drop);
    }
    run.compare();
    assert!(run.counted.refunded >= 1_000);
}

/// A call for two resources takes from a cache, finds the other resource empty, and puts it back.
#[test]
fn undone_takes_are_not_admitted() {
    let mut run = Run::new();
    run.heat();
    run.limiter.check_n("other", 5_000).unwrap();
    for _ in 0..100 {
        run.act(Act::HoldAll(1));
        run.act(Act::CheckAll(1));
    }
    run.compare();
    assert!(run.counted.denied == 0, "{:?}", run.counted);
}
