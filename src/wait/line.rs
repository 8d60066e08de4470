//! The line of those who wait, as a plain structure: who is in it, who was called, who is next.

use std::collections::{BTreeMap, BTreeSet};

use event_listener::Event;
use smallvec::SmallVec;

use crate::clock::Alarm;
use crate::sync::Arc;

/// A place in line; lower is earlier.
pub(crate) type Ticket = u64;

/// What a waiter listens to: its own event, so that a call cannot sweep_window another.
pub(crate) type Call = Arc<Event>;

/// Those to notify, once the lock is no longer held.
pub(super) type Calls = SmallVec<[Call; 4]>;

/// How long, in nanoseconds, a call is good for. A task that does not come by then steps aside for
/// those behind it; when it comes after all it has its old place again. Long enough for a busy
/// scheduler, short enough that a future which is held and not polled costs little.
pub(super) const TURN: u64 = 10_000_000;

/// How long, in nanoseconds, a head that has its tokens here and waits for others elsewhere is left
/// alone. Then it is called, if anybody is behind it, to see whether it still comes.
const PATIENCE: u64 = 50_000_000;

/// The most that a timer is delayed so that it serves several at once, in nanoseconds. Not where threads
/// wait: each is woken by itself, so that little is saved, and would be late by it; a task's runtime has
/// timers of a millisecond.
pub(super) const SLACK: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) n: u64,
    /// A thread always comes when it is called, however late: its turn does not lapse.
    pub(super) is_thread: bool,
    deadline: Option<u64>,
    /// Since when it has been called and has not come.
    pub(super) called: Option<u64>,
    /// Since when it has its tokens here, and only another gate keeps it.
    ready: Option<u64>,
    event: Call,
}

impl Waiter {
    pub(super) fn new(n: u64, is_thread: bool, deadline: Option<u64>, event: Call) -> Self {
        Self { n, is_thread, deadline, called: None, ready: None, event }
    }

    /// Until when it is not called, for it was and has nothing to come for.
    pub(super) fn is_left_until(&self) -> Option<u64> {
        self.ready.map(|ready| ready.saturating_add(PATIENCE))
    }
}

/// A timer that rings for what is due at `at`, and no later than `latest` by itself.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) at: u64,
    pub(super) latest: u64,
    #[allow(dead_code)] // held for what its drop does
    pub(super) alarm: Alarm,
}

/// `present` is served strictly in its order. Everybody before `frontier` was called once; the sum
/// of their tokens is `covered`, so that each is called when there is enough for it *and* for all
/// before it.
#[derive(Debug, Default)]
pub(super) struct Line {
    present: BTreeMap<Ticket, Waiter>,
    /// Called, and did not come in time: they hold nobody up.
    away: BTreeMap<Ticket, Waiter>,
    deadlines: BTreeSet<(u64, Ticket)>,
    /// How many of them are threads.
    threads: u64,
    next: Ticket,
    frontier: Ticket,
    covered: u64,
    covered_count: u64,
    /// The tokens of all who are present: wide enough for any number of them.
    wanted: u128,
    /// The one timer of this line.
    pub(super) alarm: Option<Armed>,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.present.len() + self.away.len()
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

    pub(super) fn others_present(&self) -> bool {
        self.present.len() > 1
    }

    pub(super) fn join(&mut self, waiter: Waiter) -> Ticket {
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
        let waiter = self.take_present(ticket).or_else(|| self.away.remove(&ticket));
        let Some(waiter) = waiter else { return };
        self.threads -= u64::from(waiter.is_thread);
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
    }

    /// The waiter has come: it is in its place again, and answers for itself. `false` where it is not
    /// in line.
    pub(super) fn come(&mut self, ticket: Ticket) -> bool {
        if let Some(waiter) = self.away.remove(&ticket) {
            if ticket < self.frontier {
                self.covered = self.covered.saturating_add(waiter.n);
                self.covered_count += 1;
            }
            self.put_present(ticket, waiter);
        }
        let Some(waiter) = self.present.get_mut(&ticket) else { return false };
        waiter.called = None;
        // It was called for its deadline, and then the clock stepped back.
        self.deadlines.extend(waiter.deadline.map(|deadline| (deadline, ticket)));
        true
    }

    /// Whether the waiter, who has just come, lacks nothing here.
    pub(super) fn note_ready(&mut self, ticket: Ticket, is_ready: bool, now: u64) {
        if let Some(waiter) = self.present.get_mut(&ticket) {
            waiter.ready = is_ready.then_some(now);
        }
    }

    pub(super) fn is_head(&self, ticket: Ticket) -> bool {
        self.present.first_key_value().is_some_and(|(first, _)| *first == ticket)
    }

    /// Whether that waiter, who has looked and goes on waiting, changed nothing for whom the line is
    /// served next: neither the head nor the first who was never called. The timer that is armed for
    /// those stands, unless it is overdue.
    pub(super) fn is_settled(&self, ticket: Ticket, now: u64) -> bool {
        let uncovered = self.present.range(self.frontier..).next();
        let is_next = uncovered.is_none_or(|(first, _)| *first == ticket) || self.is_head(ticket);
        let is_armed = self.alarm.as_ref().is_some_and(|Armed { at, latest, .. }| {
            let is_exact = latest == at || !self.has_threads();
            let is_first = self.first_deadline().is_none_or(|first| *at <= first);
            now < at.saturating_add(SLACK) && is_exact && is_first
        });
        !is_next && is_armed
    }

    pub(super) fn head(&self) -> Option<&Waiter> {
        self.present.first_key_value().map(|(_, waiter)| waiter)
    }

    /// Whether the head was called in an earlier round and came, in vain or before its turn.
    pub(super) fn head_is_covered(&self) -> bool {
        self.present.first_key_value().is_some_and(|(first, _)| *first < self.frontier)
    }

    pub(super) fn call_head(&mut self, now: u64, calls: &mut Calls) {
        if let Some(mut head) = self.present.first_entry() {
            call(head.get_mut(), now, calls);
        }
    }

    /// The head that was left alone long enough must show that it still comes.
    pub(super) fn call_left_head(&mut self, now: u64, calls: &mut Calls) {
        if self.head().and_then(Waiter::is_left_until).is_some_and(|until| now >= until) {
            self.call_head(now, calls);
        }
    }

    /// The first who was never called, and what it takes to serve it and all before it.
    pub(super) fn first_uncovered(&self) -> Option<(u64, u64)> {
        let (_, waiter) = self.present.range(self.frontier..).next()?;
        Some((self.covered.saturating_add(waiter.n), self.covered_count + 1))
    }

    pub(super) fn call_first_uncovered(&mut self, now: u64, calls: &mut Calls) {
        if let Some((ticket, waiter)) = self.present.range_mut(self.frontier..).next() {
            call(waiter, now, calls);
            self.frontier = *ticket + 1;
            self.covered = self.covered.saturating_add(waiter.n);
            self.covered_count += 1;
        }
    }

    /// Heads that were called a turn ago and have not come step aside.
    pub(super) fn lapse(&mut self, now: u64) {
        while let Some(mut head) = self.present.first_entry() {
            // A clock that has stepped back starts the turn anew.
            let called = head.get().called.map(|called| called.min(now));
            head.get_mut().called = called;
            let late = called.is_some_and(|called| now >= called.saturating_add(TURN));
            if !late || head.get().is_thread {
                break;
            }
            let ticket = *head.key();
            if let Some(waiter) = self.take_present(ticket) {
                self.away.insert(ticket, waiter);
            }
        }
    }

    /// Those whose time is up may come and say so.
    pub(super) fn call_expired(&mut self, now: u64, calls: &mut Calls) {
        while let Some((deadline, ticket)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let waiter = self.present.get(&ticket).or_else(|| self.away.get(&ticket));
            calls.extend(waiter.map(|waiter| Arc::clone(&waiter.event)));
        }
    }

    pub(super) fn first_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Call everybody who asks for more than `capacity`: 0 is everybody.
    pub(super) fn call_above(&mut self, capacity: u64, now: u64, calls: &mut Calls) {
        for waiter in self.present.values_mut().chain(self.away.values_mut()) {
            if waiter.n > capacity {
                call(waiter, now, calls);
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
            self.covered = self.covered.saturating_sub(waiter.n);
            self.covered_count -= 1;
        }
        Some(waiter)
    }
}

fn call(waiter: &mut Waiter, now: u64, calls: &mut Calls) {
    (waiter.called, waiter.ready) = (Some(now), None);
    calls.push(Arc::clone(&waiter.event));
}
