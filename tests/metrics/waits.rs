//! Waits by result, and how long they took.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tollgate::metrics::Exporter;
use tollgate::{Limit, ManualClock, MemoryLimiter};

use crate::recorder::Kept;

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

struct Run {
    limiter: MemoryLimiter,
    time: ManualClock,
    exporter: Exporter,
    kept: Kept,
}

impl Run {
    fn new(limit: Limit) -> Self {
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        limiter.configure("api", limit).unwrap();
        let exporter = Exporter::new(&limiter);
        Self { limiter, time, exporter, kept: Kept::default() }
    }

    /// Granted, timed out, cancelled, closed, and those in progress.
    fn waits(&self) -> [u64; 5] {
        self.kept.scrape(&self.exporter);
        let [granted, timed_out, cancelled, closed] =
            ["granted", "timed_out", "cancelled", "closed"].map(|result| {
                self.kept.count(&format!("tollgate_waits_total{{resource=api,result={result}}}"))
            });
        let waiting = self.kept.gauge("tollgate_waiting{resource=api}");
        [granted, timed_out, cancelled, closed, waiting as u64]
    }
}

#[test]
fn waits_count_by_how_they_end() {
    let run = Run::new(Limit::per_second(1).max_waiting(2));
    let wait = || run.limiter.acquire("api");
    // Granted at once: no wait. Nor is the attempt that a wait begins with a denial.
    drop(poll(pin!(wait())));
    assert_eq!(run.waits(), [0, 0, 0, 0, 0]);
    let mut granted = Box::pin(wait());
    let mut cancelled = Box::pin(run.limiter.until_ready("api"));
    assert!(poll(granted.as_mut()).is_pending() && poll(cancelled.as_mut()).is_pending());
    assert_eq!(run.waits(), [0, 0, 0, 0, 2]);
    assert!(matches!(poll(pin!(wait())), Poll::Ready(Err(_)))); // the queue is full
    run.time.advance(Duration::from_secs(1));
    assert!(poll(granted.as_mut()).is_ready());
    drop(cancelled);
    assert_eq!(run.waits(), [1, 0, 1, 0, 0]);
    // At once, as the rate rules it out, and later, as another was faster.
    let timeout = Duration::from_millis(10);
    assert!(poll(pin!(wait().timeout(timeout))).is_ready());
    assert_eq!(run.waits(), [1, 1, 1, 0, 0]);
    let mut first = Box::pin(wait());
    assert!(poll(first.as_mut()).is_pending());
    let mut late = Box::pin(wait().timeout(Duration::from_millis(1_500)));
    assert!(poll(late.as_mut()).is_pending());
    run.time.advance(Duration::from_millis(1_600));
    assert!(poll(late.as_mut()).is_ready());
    assert_eq!(run.waits(), [1, 2, 1, 0, 1]);
    run.limiter.close();
    assert!(poll(first.as_mut()).is_ready());
    assert_eq!(run.waits(), [1, 2, 1, 1, 0]);
    let denied = |reason: &str| {
        run.kept.count(&format!("tollgate_denied_total{{reason={reason},resource=api}}"))
    };
    assert_eq!((denied("queue_full"), denied("exhausted")), (1, 0));
    assert_eq!(run.kept.count("tollgate_admitted_tokens_total{resource=api}"), 2);
}

/// Each wait is one sample. All together are as long as they were, and each is off by an eighth at most.
#[test]
fn wait_times_are_recorded_once() {
    let run = Run::new(Limit::per_second(1));
    let waits = [0, 500, 3_000, 70_000, 71_000, 5_000_000, 3_000_000_000, 1 << 48];
    for nanos in waits {
        run.limiter.check("api").unwrap();
        let mut wait = Box::pin(run.limiter.acquire_n("api", 1));
        assert!(poll(wait.as_mut()).is_pending());
        run.time.advance(Duration::from_nanos(nanos));
        drop(wait);
        run.waits();
        run.waits();
        run.time.advance(Duration::from_secs(10));
    }
    let mut samples = run.kept.samples("tollgate_wait_seconds{resource=api}");
    samples.sort_by(f64::total_cmp);
    assert_eq!(samples.len(), waits.len());
    for (sample, nanos) in samples.iter().zip(waits) {
        let wait = nanos as f64 / 1e9;
        assert!((sample - wait).abs() <= wait / 8.0 + 1e-12, "{sample} for {wait}");
    }
}
