//! One waiter of a queue, and whether it may take.

use smallvec::SmallVec;

use super::signal::Signal;
use crate::clock::Alarm;
use crate::sync::Arc;

/// A place in the queue; lower is earlier.
pub(crate) type Ticket = u64;

/// What notifies a waiter: one of its own, so that a notification reaches no other waiter.
pub(crate) type Wake = Arc<Signal>;

/// Waiters to notify, once the lock is no longer held.
pub(super) type Wakes = SmallVec<[Wake; 4]>;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) n: u64,
    /// Whether it needs a place in flight beside its tokens.
    pub(super) with_permit: bool,
    /// Of a thread, and 0 of a task. In a forked child the threads of the parent do not arrive.
    process: u32,
    pub(super) deadline: Option<u64>,
    /// When it was notified, if it has not arrived since.
    pub(super) notified: Option<u64>,
    /// When it was found to lack nothing here, but something of another resource.
    pub(super) ready: Option<u64>,
    pub(super) ticket: Ticket,
    /// Whether it is for several resources.
    pub(super) is_group: bool,
    /// Whether it wants more than a cut bucket holds, as far as it has looked.
    pub(super) is_beyond: bool,
    /// The earliest reading at which it can have what it wants of other resources, and at which this one can
    /// hold what it wants, while it is blocked.
    pub(super) elsewhere: u64,
    /// The tokens that those ahead of it want, and all that ever left the queue: at the time of its push.
    pub(super) ahead: u128,
    pub(super) signal: Wake,
}

impl Waiter {
    pub(super) fn new(
        n: u64,
        with_permit: bool,
        is_thread: bool,
        deadline: Option<u64>,
        signal: Wake,
    ) -> Self {
        let process = if is_thread { std::process::id() } else { 0 };
        let (notified, ready, ticket, elsewhere, ahead) = (None, None, 0, 0, 0);
        Self {
            n,
            with_permit,
            process,
            deadline,
            notified,
            ready,
            ticket,
            is_group: false,
            is_beyond: false,
            elsewhere,
            ahead,
            signal,
        }
    }

    pub(super) fn is_thread(&self) -> bool {
        self.process != 0
    }

    /// A thread arrives when it is notified, however late: it is never skipped.
    pub(super) fn always_arrives(&self) -> bool {
        self.is_thread() && self.process == std::process::id()
    }

    pub(super) fn notify(&mut self, now: u64, wakes: &mut Wakes) {
        (self.notified, self.ready) = (Some(now), None);
        wakes.push(Arc::clone(&self.signal));
    }
}

/// Whether a waiter, or a newcomer, may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is the head.
    Now,
    /// Only behind another that lacks nothing but this resource.
    Behind,
    /// If it leaves the head what that wants.
    Past(Reserve),
}

/// What a blocked head is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reserve {
    pub(super) n: u64,
    /// At this reading.
    pub(super) at: u64,
    /// A place in flight, too.
    pub(super) permit: bool,
}

impl Reserve {
    /// The places that it takes up.
    pub(super) fn places(reserve: Option<Self>) -> u64 {
        u64::from(reserve.is_some_and(|reserve| reserve.permit))
    }
}

/// A timer for what is due at `at`; it fires by `latest`.
#[derive(Debug)]
pub(super) struct ArmedTimer {
    pub(super) at: u64,
    pub(super) latest: u64,
    pub(super) alarm: Alarm,
}
