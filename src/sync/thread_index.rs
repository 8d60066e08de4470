//! Small indices for threads: each live thread has the smallest that no other live thread uses.
//!
//! A thread keeps its index in a plain thread-local cell, for it is read on every take from a
//! thread's cache. When the thread ends the index is freed, and a later thread gets it.
//!
//! A thread whose locals are destroyed already gets `ENDED`, an index that owns nothing: it is
//! beyond every array of per-thread slots. The destructor that frees an index stores `ENDED` first,
//! so no thread reads an index after it was given back. Callers must not keep one beyond the call.
//!
//! # Orderings
//!
//! An index is handed over by the mutex that guards the free list. The old owner's unlock is a
//! Release, the new owner's lock an Acquire: all writes of the old owner happen before the new
//! owner's first access. So the owner of an index may read its own slot with Relaxed.

/// This thread's index.
#[cfg(not(loom))]
#[inline]
pub(crate) fn thread_index() -> usize {
    match lease::INDEX.get() {
        lease::UNKNOWN => lease::assign(),
        index => index,
    }
}

#[cfg(not(loom))]
mod lease {
    use std::cell::Cell;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use parking_lot::Mutex;

    pub(super) const UNKNOWN: usize = usize::MAX;
    /// The thread is ending: its index may be another thread's by now.
    const ENDED: usize = usize::MAX - 1;

    thread_local! {
        // Apart from the lease, because a local with a destructor costs more to read.
        pub(super) static INDEX: Cell<usize> = const { Cell::new(UNKNOWN) };
        static LEASE: Lease = Lease::new();
    }

    /// Freed indices, and the smallest index never assigned.
    static FREE: Mutex<(BinaryHeap<Reverse<usize>>, usize)> = Mutex::new((BinaryHeap::new(), 0));

    #[cold]
    pub(super) fn assign() -> usize {
        let index = LEASE.try_with(|lease| lease.0).unwrap_or(ENDED);
        INDEX.set(index);
        index
    }

    /// Frees the index when the thread ends.
    struct Lease(usize);

    impl Lease {
        fn new() -> Self {
            let (free, next) = &mut *FREE.lock();
            let index = free.pop().map_or(*next, |Reverse(index)| index);
            *next = (*next).max(index + 1);
            Self(index)
        }
    }

    impl Drop for Lease {
        fn drop(&mut self) {
            INDEX.set(ENDED); // before another thread can get it
            FREE.lock().0.push(Reverse(self.0));
        }
    }
}

/// In a model: threads in the order in which they were spawned, from 0.
#[cfg(loom)]
pub(crate) fn thread_index() -> usize {
    use std::hash::{Hash, Hasher};

    struct Last(u64);
    impl Hasher for Last {
        fn write(&mut self, bytes: &[u8]) {
            self.0 = bytes.first().copied().unwrap_or(0).into();
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut index = Last(0);
    loom::thread::current().id().hash(&mut index);
    index.finish() as usize
}

#[cfg(all(test, not(loom)))]
#[path = "thread_index_tests.rs"]
mod tests;
