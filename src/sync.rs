//! The primitives that loom replaces. Under `cfg(loom)` every atomic and lock of the bucket and of
//! the wait queue is loom's, so that the models explore the shipped code.

mod barrier;
mod thread_index;

pub(crate) use barrier::{has_barrier, heavy_barrier, light_barrier};
pub(crate) use thread_index::thread_index;

#[cfg(loom)]
pub(crate) use self::loom_side::*;
#[cfg(not(loom))]
pub(crate) use self::std_side::*;

#[cfg(not(loom))]
mod std_side {
    pub(crate) use parking_lot::{Mutex, MutexGuard};
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(crate) use std::thread::yield_now;
}

#[cfg(loom)]
mod loom_side {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Arc, MutexGuard};
    pub(crate) use loom::thread::yield_now;

    /// loom's mutex with the signatures of `parking_lot`'s: a model stops at its first panic, so no
    /// lock is ever poisoned.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model stops at its first panic")
        }
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

/// Whether `TOLLGATE_SEED` names this fault, to show that a model catches it. Under loom only:
/// elsewhere it is a constant, and the fault is not compiled.
#[cfg(not(loom))]
#[inline]
pub(crate) const fn seeded(_fault: &str) -> bool {
    false
}
#[cfg(loom)]
pub(crate) fn seeded(fault: &str) -> bool {
    static ASKED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ASKED.get_or_init(|| std::env::var("TOLLGATE_SEED").ok()).as_deref() == Some(fault)
}
