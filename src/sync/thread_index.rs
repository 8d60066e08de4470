//! Small numbers for threads.

/// The number of this thread, the least that no other running thread has.
#[cfg(not(loom))]
#[inline]
pub(crate) fn thread_index() -> usize {
    match assigned::INDEX.get() {
        assigned::UNKNOWN => assigned::ask(),
        number => number,
    }
}

#[cfg(not(loom))]
mod assigned {
    use std::cell::Cell;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use parking_lot::Mutex;

    pub(super) const UNKNOWN: usize = usize::MAX;
    /// Of a thread that is about to end: its own is another's already.
    const ENDED: usize = usize::MAX - 1;

    thread_local! {
        // Two, for one that is dropped at the thread's end costs more to read.
        pub(super) static INDEX: Cell<usize> = const { Cell::new(UNKNOWN) };
        static LEASE: Lease = Lease::new();
    }

    /// Numbers that were given back, and the least that was never given.
    static FREE: Mutex<(BinaryHeap<Reverse<usize>>, usize)> = Mutex::new((BinaryHeap::new(), 0));

    #[cold]
    pub(super) fn ask() -> usize {
        let number = LEASE.try_with(|lease| lease.0).unwrap_or(ENDED);
        INDEX.set(number);
        number
    }

    struct Lease(usize);

    impl Lease {
        fn new() -> Self {
            let (free, next) = &mut *FREE.lock();
            let number = free.pop().map_or(*next, |Reverse(number)| number);
            *next = (*next).max(number + 1);
            Self(number)
        }
    }

    impl Drop for Lease {
        fn drop(&mut self) {
            INDEX.set(ENDED);
            // The lock hands on what this thread has written to those who take the number over.
            FREE.lock().0.push(Reverse(self.0));
        }
    }
}

/// In a model: as they were spawned, the first being 0.
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
    let mut number = Last(0);
    loom::thread::current().id().hash(&mut number);
    number.finish() as usize
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::thread_index;

    #[test]
    fn a_number_is_one_threads_and_then_anothers() {
        let own = thread_index();
        let spawned = || std::thread::spawn(thread_index).join().unwrap();
        let others: Vec<usize> = (0..100).map(|_| spawned()).collect();
        assert!(others.iter().all(|other| *other != own));
        // Other tests run beside this one, and take numbers too.
        assert!(others.iter().collect::<std::collections::BTreeSet<_>>().len() < 90, "{others:?}");
    }

    #[test]
    fn a_thread_that_ends_has_none() {
        struct Last(std::sync::mpsc::Sender<usize>);
        impl Drop for Last {
            fn drop(&mut self) {
                let _ = self.0.send(thread_index());
            }
        }
        thread_local!(static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) });
        let (said, heard) = std::sync::mpsc::channel();
        // Whichever is dropped first, a number that may be another's already is not used.
        let thread = std::thread::spawn(move || {
            LAST.with(|last| *last.borrow_mut() = Some(Last(said)));
            thread_index()
        });
        let number = thread.join().unwrap();
        let last = heard.recv().unwrap();
        assert!(last == number || last > 1 << 32, "{last}");
    }
}
