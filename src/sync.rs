//! The primitives that loom replaces. Under `cfg(loom)` every atomic and lock of the bucket and of
//! the wait queue is loom's, so that the models explore the shipped code.

mod barrier;
mod name_map;
mod thread_index;

pub(crate) use barrier::{has_barrier, heavy_barrier, light_barrier};
pub(crate) use name_map::{Name, NameMap, NameRef, borrow, new_map};
pub(crate) use thread_index::thread_index;

/// Whether models run: they need smaller batches, and open stripes themselves.
pub(crate) const IS_MODEL: bool = cfg!(loom);

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

    pub(crate) type InPlace<T> = T;

    #[inline]
    pub(crate) fn in_place<T>(value: T) -> T {
        value
    }
}

#[cfg(loom)]
mod loom_side {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub(crate) use loom::sync::{Arc, MutexGuard};
    pub(crate) use loom::thread::yield_now;

    /// In models behind a pointer: loom's threads have stacks of 32 KiB, on which a large value that is built by parts
    /// may be copied several times.
    pub(crate) type InPlace<T> = Box<T>;

    #[allow(clippy::unnecessary_box_returns)] // an `InPlace`
    pub(crate) fn in_place<T>(value: T) -> Box<T> {
        Box::new(value)
    }

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
