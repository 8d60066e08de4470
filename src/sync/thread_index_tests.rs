//! Thread indices: reused, and never used by two live threads.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::thread_index;

#[test]
fn an_index_is_reused_after_its_thread_ends() {
    let own = thread_index();
    let spawned = || thread::spawn(thread_index).join().unwrap();
    let others: Vec<usize> = (0..100).map(|_| spawned()).collect();
    assert!(others.iter().all(|other| *other != own));
    // Other tests run beside this one and use indices too.
    assert!(others.iter().collect::<BTreeSet<_>>().len() < 90, "{others:?}");
}

#[test]
fn an_ending_thread_uses_no_freed_index() {
    struct Last(Sender<usize>);
    impl Drop for Last {
        fn drop(&mut self) {
            let _ = self.0.send(thread_index());
        }
    }
    thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });
    let (sender, receiver) = channel();
    // `LAST` may be destroyed before the lease, with the index still its own, or after it.
    let thread = thread::spawn(move || {
        LAST.with(|last| *last.borrow_mut() = Some(Last(sender)));
        thread_index()
    });
    let index = thread.join().unwrap();
    let last = receiver.recv().unwrap();
    assert!(last == index || last > 1 << 32, "{last}");
}
