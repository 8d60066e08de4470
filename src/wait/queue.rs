//! The line of those who wait, as a plain structure: who is in it, who was notified, who is next.

use std::collections::{BTreeMap, BTreeSet};

use event_listener::Event;
use smallvec::SmallVec;

use crate::clock::Alarm;
use crate::sync::Arc;

/// A claim in line; lower is earlier.
pub(crate) type Ticket = u64;

/// What a waiter listens to: its own event, so that a call cannot sweep_window another.
pub(crate) type Wake = Arc<Event>;

/// Those to notify, once the lock is no longer held.
pub(super) type Wakes = SmallVec<[Wake; 4]>;

/// How long, in nanoseconds, a call is good for. A task that does not arrived by then steps aside for
/// those behind it; when it comes after all it has its old claim again. Long enough for a busy
/// scheduler, short enough that a future which is held and not polled costs little.
pub(super) const CALL_GRACE: u64 = 10_000_000;

/// How long, in nanoseconds, a head that has its tokens here and waits for others elsewhere is left
/// alone. Then it is notified, if anybody is behind it, to see whether it still comes.
const READY_GRACE: u64 = 50_000_000;

/// The most that a timer is delayed so that it serves several at once, in nanoseconds. Not where threads
/// wait: each is woken by itself, so that little is saved, and would be late by it; a task's runtime has
/// timers of a millisecond.
pub(super) const TIMER_SLACK: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) n: u64,
    /// A thread always comes when it is notified, however late: its turn does not expire_head.
    pub(super) is_thread: bool,
    deadline: Option<u64>,
    /// Since when it has been notified and has not arrived.
    pub(super) notified: Option<u64>,
    /// Since when it has its tokens here, and only another gate keeps it.
    ready: Option<u64>,
    event: Wake,
}

impl Waiter {
    pub(super) fn new(n: u64, is_thread: bool, deadline: Option<u64>, event: Wake) -> Self {
        Self { n, is_thread, deadline, notified: None, ready: None, event }
    }

    /// Until when it is not notified, for it was and has nothing to arrived for.
    pub(super) fn ready_until(&self) -> Option<u64> {
        self.ready.map(|ready| ready.saturating_add(READY_GRACE))
    }
}

/// A timer that rings for what is due at `at`, and no later than `latest` by itself.
#[derive(Debug)]
pub(super) struct ArmedTimer {
    pub(super) at: u64,
    pub(super) latest: u64,
    #[allow(dead_code)] // held for what its drop does
    pub(super) timer: Alarm,
}

/// `present` is served strictly in its order. Everybody before `frontier` was notified once; the sum
/// of their tokens is `notified_sum`, so that each is notified when there is enough for it *and* for all
/// before it.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    present: BTreeMap<Ticket, Waiter>,
    /// Called, and did not arrived in time: they hold nobody up.
    skipped: BTreeMap<Ticket, Waiter>,
    deadlines: BTreeSet<(u64, Ticket)>,
    /// How many of them are threads.
    threads: u64,
    next: Ticket,
    frontier: Ticket,
    notified_sum: u64,
    notified_count: u64,
    /// The tokens of all who are present: wide enough for any number of them.
    wanted: u128,
    /// The one timer of this line.
    pub(super) timer: Option<ArmedTimer>,
}

impl WaitQueue {
    pub(super) fn len(&self) -> usize {
        self.present.len() + self.skipped.len()
    }

    /// The tokens that those in line wait for.
    pub(super) fn sum(&self) -> u64 {
        u64::try_from(self.wanted).unwrap_or(u64::MAX)
    }

    /// Nobody who must be waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    pub(super) fn has_threads(&self) -> bool {
        self.threads > 0
    }

    pub(super) fn has_followers(&self) -> bool {
        self.present.len() > 1
    }

    pub(super) fn push(&mut self, waiter: Waiter) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, ticket));
        }
        self.threads += u64::from(waiter.is_thread);
        self.put_present(ticket, waiter);
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        let waiter = self.take_present(ticket).or_else(|| self.skipped.remove(&ticket));
        let Some(waiter) = waiter else { return };
        self.threads -= u64::from(waiter.is_thread);
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
    }

    /// The waiter has arrived: it is in its claim again, and answers for itself. `false` where it is not
    /// in line.
    pub(super) fn arrived(&mut self, ticket: Ticket) -> bool {
        if let Some(waiter) = self.skipped.remove(&ticket) {
            if ticket < self.frontier {
                self.notified_sum = self.notified_sum.saturating_add(waiter.n);
                self.notified_count += 1;
            }
            self.put_present(ticket, waiter);
        }
        let Some(waiter) = self.present.get_mut(&ticket) else { return false };
        waiter.notified = None;
        // It was notified for its deadline, and then the clock stepped back.
        self.deadlines.extend(waiter.deadline.map(|deadline| (deadline, ticket)));
        true
    }

    /// Whether the waiter, who has just arrived, lacks nothing here.
    pub(super) fn note_ready(&mut self, ticket: Ticket, is_ready: bool, now: u64) {
        if let Some(waiter) = self.present.get_mut(&ticket) {
            waiter.ready = is_ready.then_some(now);
        }
    }

    pub(super) fn is_head(&self, ticket: Ticket) -> bool {
        self.present.first_key_value().is_some_and(|(first, _)| *first == ticket)
    }

    /// Whether that waiter, who has looked and goes on waiting, changed nothing for whom the line is
    /// served next: neither the head nor the first who was never notified. The timer that is armed for
    /// those stands, unless it is overdue.
    pub(super) fn needs_no_serving(&self, ticket: Ticket, now: u64) -> bool {
        let uncovered = self.present.range(self.frontier..).next();
        let is_next = uncovered.is_none_or(|(first, _)| *first == ticket) || self.is_head(ticket);
        let is_armed = self.timer.as_ref().is_some_and(|ArmedTimer { at, latest, .. }| {
            let is_exact = latest == at || !self.has_threads();
            let is_first = self.first_deadline().is_none_or(|first| *at <= first);
            now < at.saturating_add(TIMER_SLACK) && is_exact && is_first
        });
        !is_next && is_armed
    }

    pub(super) fn head(&self) -> Option<&Waiter> {
        self.present.first_key_value().map(|(_, waiter)| waiter)
    }

    /// Whether the head was notified in an earlier round and came, in vain or before its turn.
    pub(super) fn head_was_notified(&self) -> bool {
        self.present.first_key_value().is_some_and(|(first, _)| *first < self.frontier)
    }

    pub(super) fn notify_head(&mut self, now: u64, wakes: &mut Wakes) {
        if let Some(mut head) = self.present.first_entry() {
            notify(head.get_mut(), now, wakes);
        }
    }

    /// The head that was left alone long enough must show that it still comes.
    pub(super) fn notify_stale_head(&mut self, now: u64, wakes: &mut Wakes) {
        if self.head().and_then(Waiter::ready_until).is_some_and(|until| now >= until) {
            self.notify_head(now, wakes);
        }
    }

    /// The first who was never notified, and what it takes to serve it and all before it.
    pub(super) fn first_pending(&self) -> Option<(u64, u64)> {
        let (_, waiter) = self.present.range(self.frontier..).next()?;
        Some((self.notified_sum.saturating_add(waiter.n), self.notified_count + 1))
    }

    pub(super) fn notify_first_pending(&mut self, now: u64, wakes: &mut Wakes) {
        if let Some((ticket, waiter)) = self.present.range_mut(self.frontier..).next() {
            notify(waiter, now, wakes);
            self.frontier = *ticket + 1;
            self.notified_sum = self.notified_sum.saturating_add(waiter.n);
            self.notified_count += 1;
        }
    }

    /// Heads that were notified a turn ago and have not arrived step aside.
    pub(super) fn expire_head(&mut self, now: u64) {
        while let Some(mut head) = self.present.first_entry() {
            // A clock that has stepped back starts the turn anew.
            let notified = head.get().notified.map(|notified| notified.min(now));
            head.get_mut().notified = notified;
            let late = notified.is_some_and(|notified| now >= notified.saturating_add(CALL_GRACE));
            if !late || head.get().is_thread {
                break;
            }
            let ticket = *head.key();
            if let Some(waiter) = self.take_present(ticket) {
                self.skipped.insert(ticket, waiter);
            }
        }
    }

    /// Those whose time is up may arrived and say so.
    pub(super) fn notify_expired(&mut self, now: u64, wakes: &mut Wakes) {
        while let Some((deadline, ticket)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let waiter = self.present.get(&ticket).or_else(|| self.skipped.get(&ticket));
            wakes.extend(waiter.map(|waiter| Arc::clone(&waiter.event)));
        }
    }

    pub(super) fn first_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Wake everybody who requests for more than `capacity`: 0 is everybody.
    pub(super) fn notify_above(&mut self, capacity: u64, now: u64, wakes: &mut Wakes) {
        for waiter in self.present.values_mut().chain(self.skipped.values_mut()) {
            if waiter.n > capacity {
                notify(waiter, now, wakes);
            }
        }
    }

    fn put_present(&mut self, ticket: Ticket, waiter: Waiter) {
        self.wanted += u128::from(waiter.n);
        self.present.insert(ticket, waiter);
    }

    fn take_present(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.present.remove(&ticket)?;
        self.wanted -= u128::from(waiter.n);
        if ticket < self.frontier {
            self.notified_sum = self.notified_sum.saturating_sub(waiter.n);
            self.notified_count -= 1;
        }
        Some(waiter)
    }
}

fn notify(waiter: &mut Waiter, now: u64, wakes: &mut Wakes) {
    (waiter.notified, waiter.ready) = (Some(now), None);
    wakes.push(Arc::clone(&waiter.event));
}
