//! The timer thread cannot be started, for a while.
#![allow(unsafe_code)] // setrlimit(2), in a test

use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::time::Duration;

use tollgate::{Limit, MemoryLimiter, Resource};

use crate::child;

/// The address space, in bytes, from the first number of `/proc/self/statm`, in pages of 4 KiB or more.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// A stack of a thread does not fit any more.
fn limit_address_space(most: Option<u64>) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    limit.rlim_cur = most.unwrap_or(limit.rlim_max);
    // SAFETY: reads `limit`, which is initialised.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

fn has_timer_thread() -> bool {
    std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
        let name = std::fs::read_to_string(task.unwrap().path().join("comm"));
        name.is_ok_and(|name| name.trim() == "tollgate-timer")
    })
}

/// A neighbour of the wait, which runs a thousand times. Then threads can be started again.
async fn neighbour() {
    for _ in 0..1_000 {
        let mut has_yielded = false;
        futures_util::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut has_yielded, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    assert!(!has_timer_thread());
    limit_address_space(None);
}

async fn wait_and_neighbour(api: Resource) {
    let (granted, ()) = futures_util::future::join(api.acquire(), neighbour()).await;
    drop(granted.unwrap());
    // And by a timer, again.
    api.until_ready().await.unwrap();
    assert!(has_timer_thread());
}

#[test]
fn a_thread_that_cannot_be_started() {
    let kinds = ["tokio current_thread", "tokio multi_thread", "smol", "pollster", "thread"];
    let test = "timer_thread::a_thread_that_cannot_be_started";
    child::each(test, &kinds, |kind| {
        let limiter = MemoryLimiter::new();
        let api = limiter.configure("api", Limit::per_second(10).burst(1)).unwrap();
        api.check().unwrap();
        let work = wait_and_neighbour(api.clone());
        let scarce = || limit_address_space(Some(address_space() + (1 << 20)));
        match kind {
            "tokio current_thread" => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.unwrap();
                scarce();
                runtime.block_on(work);
            }
            "tokio multi_thread" => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                let runtime = builder.worker_threads(2).enable_all().build().unwrap();
                // Its threads must have what they need before.
                let both_run = Arc::new(Barrier::new(3));
                for _ in 0..2 {
                    let both_run = Arc::clone(&both_run);
                    runtime.spawn(async move {
                        drop(vec![0_u8; 1 << 10]);
                        both_run.wait();
                    });
                }
                both_run.wait();
                scarce();
                runtime.block_on(async { tokio::spawn(work).await.unwrap() });
            }
            "smol" => {
                // Without the thread of `smol::block_on`, which could not be started either.
                let executor = smol::Executor::new();
                scarce();
                smol::future::block_on(executor.run(work));
            }
            "pollster" => {
                scarce();
                pollster::block_on(work);
            }
            _ => {
                scarce();
                let before = std::time::Instant::now();
                api.blocking_until_ready().unwrap();
                assert!(before.elapsed() >= Duration::from_millis(50));
                assert!(!has_timer_thread());
                limit_address_space(None);
                api.blocking_until_ready().unwrap();
                assert!(has_timer_thread());
            }
        }
    });
}
