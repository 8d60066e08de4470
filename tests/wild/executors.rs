//! Executors that end while their tasks wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate::{Limit, MemoryLimiter, OnRelease};

use crate::child;

/// A loop of waits that need not wait lets the timeout around it end.
#[cfg(feature = "tokio")]
#[test]
fn a_loop_of_waits_yields() {
    child::each("executors::a_loop_of_waits_yields", &["once"], |_| {
        let limiter = MemoryLimiter::new();
        let api = limiter.configure("api", Limit::per_second(1 << 40)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endless = async {
            loop {
                drop(api.acquire().await.unwrap());
                api.until_ready().await.unwrap();
            }
        };
        let ended: Result<(), _> = runtime
            .block_on(async { tokio::time::timeout(Duration::from_millis(20), endless).await });
        assert!(ended.is_err());
    });
}

/// The executor is dropped while its task waits. The task owns the last permit, which ends then, and so
/// serves the task's own wait.
#[test]
fn an_executor_is_dropped_while_its_task_waits() {
    let kinds = ["tokio current_thread", "tokio multi_thread", "smol"];
    let test = "executors::an_executor_is_dropped_while_its_task_waits";
    child::each(test, &kinds, |kind| {
        let limiter = MemoryLimiter::new();
        let limit = Limit::per_hour(1).on_release(OnRelease::Refund);
        let api = limiter.configure("api", limit).unwrap();
        let permit = api.try_acquire().unwrap().into_owned();
        let has_started = Arc::new(AtomicBool::new(false));
        let (waits, started) = (api.clone(), Arc::clone(&has_started));
        let task = async move {
            let _held = permit;
            started.store(true, Ordering::Release);
            let _ = waits.acquire().await;
        };
        if kind == "smol" {
            let executor = smol::Executor::new();
            executor.spawn(task).detach();
            while !has_started.load(Ordering::Acquire) || api.capacity().waiting == 0 {
                assert!(executor.try_tick());
            }
            drop(executor);
        } else {
            let mut builder = match kind {
                "tokio current_thread" => tokio::runtime::Builder::new_current_thread(),
                _ => tokio::runtime::Builder::new_multi_thread(),
            };
            let runtime = builder.enable_all().build().unwrap();
            runtime.spawn(task);
            runtime.block_on(async {
                while api.capacity().waiting == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            drop(runtime);
        }
        assert_eq!((api.capacity().waiting, api.capacity().in_flight), (0, 0));
        drop(api.blocking_acquire().unwrap());
    });
}
