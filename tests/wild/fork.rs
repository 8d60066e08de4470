//! A forked child has copies of the buckets, and a timer of its own.
#![allow(unsafe_code)] // fork(2), in a test

use std::time::Duration;

use tollgate::{AcquireError, Limit, MemoryLimiter, Resource};

use crate::child;

const LIMIT: Limit = Limit::per_second(100).burst(1);

fn waits(resource: &Resource) {
    let _ = resource.check();
    resource.blocking_until_ready().unwrap();
    drop(pollster::block_on(resource.acquire()).unwrap());
    let slow = resource.blocking_acquire_n(1, Some(Duration::from_micros(1)));
    assert!(matches!(slow, Err(AcquireError::TimedOut { .. })));
}

/// Runs `body` in a forked process, which must succeed.
fn in_fork(body: impl FnOnce() + std::panic::UnwindSafe) {
    // SAFETY: the child only runs `body` and ends by `_exit`. No lock of the test is held by another
    // thread at the fork, but for those inside the crate, which is what is tested.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let code = i32::from(std::panic::catch_unwind(body).is_err());
            // SAFETY: ends the process without destructors, which belong to the parent.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child that was just made; `status` is a valid place for its status.
            let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert!(ended == child && libc::WIFEXITED(status), "{status:#x}");
            assert_eq!(libc::WEXITSTATUS(status), 0);
        }
    }
}

#[test]
fn waits_after_a_fork() {
    let scenarios = ["before any wait", "after a wait", "beside waiters", "twice"];
    child::each("fork::waits_after_a_fork", &scenarios, |scenario| {
        let limiter = MemoryLimiter::new();
        let api = limiter.configure("api", LIMIT).unwrap();
        if scenario != "before any wait" {
            waits(&api);
        }
        let slow = limiter.configure("slow", Limit::per_second(2).burst(1)).unwrap();
        let mut waiter = None;
        if scenario == "beside waiters" {
            slow.check().unwrap();
            let slow = slow.clone();
            waiter = Some(std::thread::spawn(move || slow.blocking_until_ready()));
        }
        while waiter.is_some() && slow.capacity().waiting == 0 {
            std::thread::yield_now();
        }
        let inherited = (api.clone(), slow.clone());
        in_fork(std::panic::AssertUnwindSafe(move || {
            let (api, slow) = inherited;
            let new = MemoryLimiter::new().configure("new", LIMIT).unwrap();
            waits(&new);
            waits(&api);
            // The parent's thread that waits here does not exist in the child, and is skipped.
            slow.blocking_until_ready().unwrap();
            if scenario == "twice" {
                in_fork(std::panic::AssertUnwindSafe(move || waits(&api)));
            }
        }));
        waits(&api);
        if let Some(waiter) = waiter {
            waiter.join().unwrap().unwrap();
        }
    });
}

/// The child's takes from a hot bucket are its own.
#[test]
fn hot_buckets_after_a_fork() {
    child::each("fork::hot_buckets_after_a_fork", &["once"], |_| {
        let limiter = MemoryLimiter::new();
        let hot = limiter.configure("hot", Limit::per_hour(10_000_000)).unwrap();
        for _ in 0..2_000_000 {
            hot.check().unwrap();
        }
        let takes = hot.clone();
        in_fork(std::panic::AssertUnwindSafe(move || {
            let admitted =
                std::iter::repeat_with(|| takes.check()).take_while(Result::is_ok).count();
            // What accrues meanwhile, and what was taken from batches before a rest.
            assert!((7_990_000..8_100_000).contains(&admitted), "{admitted}");
        }));
        assert!(hot.check().is_ok());
    });
}

/// What the parent may spend of a quota is not spent twice.
#[cfg(feature = "swarm")]
#[test]
fn a_share_after_a_fork() {
    use std::sync::Arc;

    use tollgate::{DistributedConfig, DistributedLimiter, MemoryBus, MemoryLedger};

    child::each("fork::a_share_after_a_fork", &["once"], |_| {
        // In this thread alone, so that it holds no lock at the fork.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_limiter, api) = runtime.block_on(async {
            let mut config = DistributedConfig::new(Arc::new(MemoryBus::new()), "parent");
            config.ledger = Some(Arc::new(MemoryLedger::new()));
            let limiter = DistributedLimiter::new(config).await.unwrap();
            let api = limiter.share("api", Limit::per_second(1_000).burst(10)).unwrap();
            while api.capacity().available < 10 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (limiter, api)
        });
        let inherited = api.clone();
        in_fork(std::panic::AssertUnwindSafe(move || {
            assert!(inherited.check().is_err());
            assert_eq!(inherited.capacity().share.map(|share| share.burst), Some(0.0));
        }));
        assert!(api.check().is_ok());
    });
}
