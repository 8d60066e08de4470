//! Many threads at once, and somebody who scrapes meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tollgate::metrics::Exporter;
use tollgate::{Limit, MemoryLimiter, OnRelease};

use crate::common::watchdog::Watchdog;
use crate::common::{Dice, heat, turns};
use crate::recorder::Kept;

const ADMITTED: &str = "tollgate_admitted_tokens_total{resource=api}";

/// More threads than stripes take, refund, settle, cut, reconfigure and drain. Scrapes between never go down and are
/// never ahead; at rest the total is exact.
#[test]
fn totals_are_exact_at_rest() {
    let _watchdog = Watchdog::new();
    for limit in [
        Limit::per_second(1 << 30).burst(1 << 30),
        Limit::per_second(1 << 30).burst(1 << 30).on_release(OnRelease::Refund),
        Limit::per_second(200_000).burst(4_096),
        Limit::per_second(1 << 30).and(Limit::per_hour(1 << 50)),
    ] {
        let limiter = MemoryLimiter::new();
        let api = limiter.configure("api", limit).unwrap();
        heat(&api);
        let (exporter, kept) = (Exporter::new(&limiter), Kept::default());
        kept.scrape(&exporter);
        let before = kept.count(ADMITTED);
        let (admitted, refunded) = (AtomicU64::new(0), AtomicU64::new(0));
        let refunded_before = kept.count("tollgate_refunded_tokens_total{resource=api}");
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let takers: Vec<_> = (0..12_u64)
                .map(|seed| {
                    let (limiter, api) = (&limiter, &api);
                    let (admitted, refunded) = (&admitted, &refunded);
                    scope.spawn(move || {
                        let mut dice = Dice(seed);
                        for turn in 0..turns(20_000, 4_000) {
                            let n = if dice.roll(8) == 0 { dice.roll(300) + 1 } else { 1 };
                            // Before the call: who reads the total later finds no more than that.
                            admitted.fetch_add(n, Ordering::SeqCst);
                            let is_admitted = match dice.roll(8) {
                                0..5 => api.check_n(n).is_ok(),
                                5 => limiter.decide("api", n).outcome.is_ok(),
                                _ => match limiter.try_acquire_n("api", n) {
                                    Ok(permit) if dice.roll(2) == 0 => {
                                        refunded.fetch_add(n, Ordering::SeqCst);
                                        permit.refund();
                                        true
                                    }
                                    Ok(permit) => {
                                        refunded.fetch_add(n - n / 2, Ordering::SeqCst);
                                        permit.settle(n / 2);
                                        true
                                    }
                                    Err(_) => false,
                                },
                            };
                            if !is_admitted {
                                admitted.fetch_sub(n, Ordering::SeqCst);
                            }
                            if seed == 0 && turn % 256 == 0 {
                                api.observe_remaining(1 << (turn % 30));
                                api.announce_reduced("429");
                                limiter.configure("api", limit).unwrap();
                                api.pause_for(Duration::from_micros(50));
                            }
                        }
                    })
                })
                .collect();
            let scraper = scope.spawn(|| {
                let mut last = 0;
                while !is_done.load(Ordering::Relaxed) {
                    kept.scrape(&exporter);
                    let now = kept.count(ADMITTED);
                    let most = admitted.load(Ordering::SeqCst) + before;
                    assert!(now >= last && now <= most, "{now} after {last}, of at most {most}");
                    last = now;
                }
            });
            for taker in takers {
                taker.join().unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
            scraper.join().unwrap();
        });
        kept.scrape(&exporter);
        assert_eq!(kept.count(ADMITTED) - before, admitted.into_inner(), "{limit:?}");
        let given = kept.count("tollgate_refunded_tokens_total{resource=api}") - refunded_before;
        assert_eq!(given, refunded.into_inner(), "{limit:?}");
    }
}
