//! What a new call would get beside those that wait: one answer, whoever is asked.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tollgate::{Limit, ManualClock, MemoryLimiter, Resource};

use crate::common::{Dice, cases};

const MS: Duration = Duration::from_millis(1);

/// `peek`, `check` and `available` agree; nothing is taken.
fn agree(api: &Resource, what: &str) {
    let available = api.capacity().available;
    for n in [1, 2, available, available + 1, 20] {
        let peek = api.peek(n);
        assert_eq!(peek.is_ok(), n <= available, "{what}: {n} of {available}");
        if let Err(peek) = peek {
            let check = api.check_n(n).unwrap_err();
            assert_eq!(check.retry_after(), peek.retry_after(), "{what}: {n}");
        }
    }
}

#[test]
fn peek_check_and_capacity_agree() {
    for seed in 0..cases(60) {
        let mut dice = Dice(seed + 1);
        let time = ManualClock::new();
        let limiter = MemoryLimiter::with_clock(time.clone());
        let mut limit = Limit::per_second(20);
        if dice.roll(2) == 0 {
            limit = limit.and(Limit::per_minute(60));
        }
        let api = limiter.configure("api", limit).unwrap();
        let slow = limiter.configure("slow", Limit::per_second(1).max_in_flight(2)).unwrap();
        let mut places = Vec::new();
        let mut waits: Vec<Pin<Box<dyn Future<Output = bool>>>> = Vec::new();
        for step in 0..40 {
            let n = 1 + dice.roll(9);
            match dice.roll(5) {
                0 => drop(api.check_n(n)),
                1 => waits.push(Box::pin({
                    let wait = api.until_ready_n(n);
                    async { wait.await.is_ok() }
                })),
                2 => waits.push(Box::pin({
                    let wait = limiter.acquire_all(&[("api", n), ("slow", 1)]);
                    async { wait.await.map(drop).is_ok() }
                })),
                3 => places.extend(slow.try_acquire().ok()),
                _ if !waits.is_empty() => {
                    drop(waits.swap_remove(dice.roll(waits.len() as u64) as usize));
                }
                _ => {}
            }
            let mut cx = Context::from_waker(Waker::noop());
            waits.retain_mut(|wait| wait.as_mut().poll(&mut cx).is_pending());
            agree(&api, &format!("seed {seed}, step {step}"));
            // Less than a grace, after which those who do not come are skipped.
            time.advance(MS * u32::try_from(dice.roll(5)).unwrap());
            waits.retain_mut(|wait| wait.as_mut().poll(&mut cx).is_pending());
            agree(&api, &format!("seed {seed}, later in step {step}"));
        }
    }
}
