//! The queue of waiters as a plain structure: present, notified and skipped waiters, and the next one.

use std::collections::{BTreeMap, BTreeSet};

use super::waiter::{ArmedTimer, Reserve, Ticket, Turn, Waiter, Wakes};
use crate::sync::Arc;

/// Nanoseconds for which a notification holds. A task that does not arrive by then is skipped; when it
/// does arrive it has its old place again. Long enough for a busy scheduler, short enough that a future
/// which is held and not polled costs little. See [`WaitQueue::absences`].
const CALL_GRACE: u64 = 10_000_000;

/// Nanoseconds for which a head that has its tokens here, and waits for another resource, is left alone.
/// Then it is notified, if another waiter follows, to see whether it still arrives.
const READY_GRACE: u64 = 50_000_000;

/// Absences beyond this change nothing.
const MAX_ABSENCES: u32 = 16;
/// A grace is halved at most this often.
const MAX_HALVINGS: u32 = 6;

/// The most that a timer is delayed to serve several tasks at once, in nanoseconds: a runtime's timers
/// have a resolution of a millisecond. Not while threads wait: each is woken by itself, so that little
/// would be saved, and it would be late.
pub(super) const TIMER_SLACK: u64 = 1_000_000;

/// A ticket is a place for good: of two waits that meet in several queues the same one has the lower ticket
/// in each. The waiter with the lowest is the head, and it is always its turn.
///
/// Waiters in `present` lack nothing but this resource, and are served strictly in order: of their tickets,
/// or for those that came to lack nothing else later, of the numbers that they got then. Each before
/// `frontier` was notified once. `notified_sum` is the sum of their tokens, so that the next is notified
/// when there are tokens for it *and* for all ahead of it; `notified_permits` is the number of permits
/// they take.
///
/// Waiters in `blocked` lack something of another resource, or want more than a cut bucket holds. While the
/// head is blocked the first present waiter passes it, if it still finds what it wants: see [`Turn`].
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    present: BTreeMap<Ticket, Waiter>,
    blocked: BTreeMap<Ticket, Waiter>,
    /// Those of `blocked` that lack this resource too.
    lacking: BTreeSet<Ticket>,
    /// The numbers of present waiters that are not their tickets.
    numbers: BTreeMap<Ticket, Ticket>,
    /// Notified, and did not arrive in time: they delay nobody.
    skipped: BTreeMap<Ticket, Waiter>,
    deadlines: BTreeSet<(u64, Ticket)>,
    threads: u64,
    next: Ticket,
    frontier: Ticket,
    notified_sum: u64,
    notified_permits: u64,
    /// Heads that did not arrive, less those that did. Futures that are held and not polled, for example
    /// by a `buffer_unordered` whose consumer waits itself, would each cost a grace. So each absence halves
    /// the grace, and doubles the number of waiters that are skipped with the next absent head. A waiter
    /// that arrives after all undoes one. If the scheduler is only busy, this costs the order of a moment.
    absences: u32,
    /// The sum of tokens in `present` and `blocked`, which may exceed 64 bits.
    wanted: u128,
    /// The tokens of all that ever left them.
    gone: u128,
    pub(super) timer: Option<ArmedTimer>,
}

impl WaitQueue {
    pub(super) fn len(&self) -> usize {
        self.present.len() + self.blocked.len() + self.skipped.len()
    }

    /// The tokens that waiters want which are not skipped; saturates.
    pub(super) fn sum(&self) -> u64 {
        u64::try_from(self.wanted).unwrap_or(u64::MAX)
    }

    /// Whether no waiter delays a newcomer. Skipped ones may be left.
    /// The most tokens that one of them wants.
    #[cfg(feature = "swarm")]
    pub(super) fn largest(&self) -> u64 {
        self.present.values().chain(self.blocked.values()).map(|waiter| waiter.n).max().unwrap_or(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.present.is_empty() && self.blocked.is_empty()
    }

    pub(super) fn has_threads(&self) -> bool {
        self.threads > 0
    }

    pub(super) fn has_followers(&self) -> bool {
        self.present.len() + self.blocked.len() > 1
    }

    fn next_ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn push(&mut self, mut waiter: Waiter) -> Ticket {
        let ticket = self.next_ticket();
        (waiter.ticket, waiter.ahead) = (ticket, self.wanted + self.gone);
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, ticket));
        }
        self.threads += u64::from(waiter.is_thread());
        self.put_present(ticket, waiter);
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        let waiter = self.take_out(ticket).or_else(|| self.skipped.remove(&ticket));
        let Some(waiter) = waiter else { return };
        self.threads -= u64::from(waiter.is_thread());
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        self.settle_head();
    }

    /// The waiter has arrived, and has its place again. Returns `false` if it is not in the queue.
    pub(super) fn arrived(&mut self, ticket: Ticket) -> bool {
        if let Some(mut waiter) = self.skipped.remove(&ticket) {
            waiter.is_beyond = false;
            // One for several resources, or beyond the bucket, is placed after it has looked.
            if waiter.is_group {
                self.put_blocked(waiter);
            } else {
                self.put_present(ticket, waiter);
            }
        }
        let Some(waiter) = self.get_mut(ticket) else { return false };
        let (was_notified, deadline) = (waiter.notified.take().is_some(), waiter.deadline);
        if was_notified {
            self.absences = self.absences.saturating_sub(1);
        }
        // Its deadline is gone from the set if it was notified for it, and then the clock stepped back.
        self.deadlines.extend(deadline.map(|deadline| (deadline, ticket)));
        true
    }

    /// Says whether a waiter for several resources lacks something of another one, and then when it can
    /// have that; and whether it lacks this resource. A group that comes to lack nothing else is behind those
    /// that have lacked nothing else for longer, unless it is the head. The same of a waiter that
    /// `is_beyond` a cut bucket, which keeps its place, and lacks the step of the recovery, not tokens.
    pub(super) fn place(
        &mut self,
        ticket: Ticket,
        elsewhere: Option<u64>,
        lacks_this: bool,
        is_beyond: bool,
    ) {
        let was_blocked = self.is_blocked(ticket);
        let number = self.number(ticket);
        let Some(mut waiter) = self.take_out(ticket) else { return };
        self.gone -= u128::from(waiter.n);
        waiter.is_beyond = is_beyond;
        match elsewhere {
            None if was_blocked && waiter.is_group => {
                let number = self.next_ticket();
                self.put_present(number, waiter);
            }
            None => self.put_present(number, waiter),
            Some(at) => {
                waiter.elsewhere = at;
                self.put_blocked(waiter);
                if lacks_this && !is_beyond {
                    self.lacking.insert(ticket);
                }
            }
        }
        self.settle_head();
    }

    /// A present head is the first of the present.
    fn settle_head(&mut self) {
        if let Some(head) = self.head_ticket()
            && self.numbers.contains_key(&head)
            && let Some(waiter) = self.take_out(head)
        {
            self.gone -= u128::from(waiter.n);
            self.put_present(head, waiter);
        }
    }

    /// Whether the waiter may take; [`Ticket::MAX`] for a newcomer.
    pub(super) fn turn(&self, ticket: Ticket) -> Turn {
        let first = self.present.first_key_value();
        match self.reserve() {
            _ if self.is_empty() || self.is_head(ticket) => Turn::Now,
            // Nobody passes a head that lacks nothing else.
            None => Turn::Behind,
            // A group that is blocked here may have all that it wants by now. It was here before those that
            // came to lack nothing else: otherwise groups could take turns at being behind each other.
            Some(_)
                if first
                    .is_some_and(|(number, first)| first.ticket != ticket && *number < ticket) =>
            {
                Turn::Behind
            }
            Some(reserve) => Turn::Past(reserve),
        }
    }

    /// At most the tokens that those ahead of a waiter want.
    pub(super) fn ahead(&self, ticket: Ticket) -> u64 {
        let ahead = self.get(ticket).map_or(0, |waiter| waiter.ahead.saturating_sub(self.gone));
        if self.is_head(ticket) { 0 } else { u64::try_from(ahead).unwrap_or(u64::MAX) }
    }

    pub(super) fn is_blocked(&self, ticket: Ticket) -> bool {
        self.blocked.contains_key(&ticket)
    }

    /// Notes whether a waiter that has just arrived lacks nothing here.
    pub(super) fn note_ready(&mut self, ticket: Ticket, is_ready: bool, now: u64) {
        if let Some(waiter) = self.get_mut(ticket) {
            waiter.ready = is_ready.then_some(now);
        }
    }

    pub(super) fn is_head(&self, ticket: Ticket) -> bool {
        self.head_ticket() == Some(ticket)
    }

    fn head_ticket(&self) -> Option<Ticket> {
        let present = self.present.first_key_value().map(|(_, waiter)| waiter.ticket);
        let numbered = self.numbers.first_key_value().map(|(ticket, _)| *ticket);
        let blocked = self.blocked.first_key_value().map(|(ticket, _)| *ticket);
        [present, numbered, blocked].into_iter().flatten().min()
    }

    fn number(&self, ticket: Ticket) -> Ticket {
        *self.numbers.get(&ticket).unwrap_or(&ticket)
    }

    fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.present.get(&self.number(ticket)).or_else(|| self.blocked.get(&ticket))
    }

    fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Waiter> {
        let number = self.number(ticket);
        self.present.get_mut(&number).or_else(|| self.blocked.get_mut(&ticket))
    }

    /// Whether a waiter that has arrived and continues to wait is neither the head nor the first pending
    /// one, and the timer for those is armed and not overdue: then there is nothing to serve.
    pub(super) fn needs_no_serving(&self, ticket: Ticket, now: u64) -> bool {
        if !self.blocked.is_empty() {
            return false;
        }
        let pending = self.present.range(self.frontier..).next();
        let is_next =
            pending.is_none_or(|(_, first)| first.ticket == ticket) || self.is_head(ticket);
        let is_armed = self.timer.as_ref().is_some_and(|ArmedTimer { at, latest, alarm }| {
            let is_exact = latest == at || !self.has_threads();
            let is_first = self.first_deadline().is_none_or(|first| *at <= first);
            now < at.saturating_add(TIMER_SLACK) && is_exact && is_first && alarm.is_live()
        });
        !is_next && is_armed
    }

    fn halved(&self, grace: u64) -> u64 {
        grace >> self.absences.min(MAX_HALVINGS)
    }

    /// How long a notification holds.
    pub(super) fn call_grace(&self) -> u64 {
        self.halved(CALL_GRACE)
    }

    /// Until when the head is left alone, if it lacks nothing here.
    pub(super) fn head_ready_until(&self) -> Option<u64> {
        let ready = self.head()?.ready?;
        Some(ready.saturating_add(self.halved(READY_GRACE)))
    }

    pub(super) fn head(&self) -> Option<&Waiter> {
        self.get(self.head_ticket()?)
    }

    /// A blocked head.
    pub(super) fn blocked_head(&self) -> Option<&Waiter> {
        let (ticket, head) = self.blocked.first_key_value()?;
        self.is_head(*ticket).then_some(head)
    }

    /// The first present waiter, if it was notified before and arrived, in vain or early.
    pub(super) fn first_present(&self) -> Option<&Waiter> {
        let (number, waiter) = self.present.first_key_value()?;
        (*number < self.frontier).then_some(waiter)
    }

    /// While none is present, the first blocked waiter behind the head that lacks this resource too: with it,
    /// it may lack nothing more.
    pub(super) fn first_lacking(&self) -> Option<&Waiter> {
        let behind = |ticket: &&Ticket| self.present.is_empty() && !self.is_head(**ticket);
        self.blocked.get(self.lacking.iter().take(2).find(behind)?)
    }

    /// What must be left for a blocked head. A place in flight is not, while that waits for a recovery.
    pub(super) fn reserve(&self) -> Option<Reserve> {
        let head = self.blocked_head()?;
        let permit = head.with_permit && !head.is_beyond;
        Some(Reserve { n: head.n, at: head.elsewhere, permit })
    }

    pub(super) fn notify_head(&mut self, now: u64, wakes: &mut Wakes) {
        if let Some(ticket) = self.head_ticket() {
            self.notify_ticket(ticket, now, wakes);
        }
    }

    pub(super) fn notify_ticket(&mut self, ticket: Ticket, now: u64, wakes: &mut Wakes) {
        if let Some(waiter) = self.get_mut(ticket) {
            waiter.notify(now, wakes);
        }
    }

    /// Notifies a head whose [`READY_GRACE`] is over: it must show that it still arrives.
    pub(super) fn notify_stale_head(&mut self, now: u64, wakes: &mut Wakes) {
        if self.head_ready_until().is_some_and(|until| now >= until) {
            self.notify_head(now, wakes);
        }
    }

    /// The tokens and permits that it takes to serve the first waiter that was never notified, and all
    /// ahead of it. No permits if it takes none itself: those ahead of it have their places, or wait.
    pub(super) fn first_pending(&self) -> Option<(u64, u64)> {
        let (_, waiter) = self.present.range(self.frontier..).next()?;
        let permits = if waiter.with_permit { self.notified_permits + 1 } else { 0 };
        Some((self.notified_sum.saturating_add(waiter.n), permits))
    }

    pub(super) fn notify_first_pending(&mut self, now: u64, wakes: &mut Wakes) {
        if let Some((ticket, waiter)) = self.present.range_mut(self.frontier..).next() {
            waiter.notify(now, wakes);
            self.frontier = *ticket + 1;
            self.notified_sum = self.notified_sum.saturating_add(waiter.n);
            self.notified_permits += u64::from(waiter.with_permit);
        }
    }

    /// Skips heads that were notified a grace ago and have not arrived, and others with them, which are
    /// notified to show whether they arrive.
    pub(super) fn skip_absent_heads(&mut self, now: u64, wakes: &mut Wakes) {
        loop {
            let grace = self.call_grace();
            let first_lacking = self.first_lacking().map(|waiter| waiter.ticket);
            let mut is_absent = |waiter: &mut Waiter| {
                // A clock that has stepped back starts the grace again.
                waiter.notified = waiter.notified.map(|notified| notified.min(now));
                let late = |notified: u64| now >= notified.saturating_add(grace);
                let is_late = waiter.notified.is_some_and(late) && !waiter.always_arrives();
                is_late.then_some(waiter.ticket)
            };
            let blocked = self.blocked.values_mut().next().and_then(&mut is_absent);
            let lacking = first_lacking.and_then(|ticket| self.blocked.get_mut(&ticket));
            let blocked = blocked.or(lacking.and_then(&mut is_absent));
            let present = self.present.values_mut().next().and_then(&mut is_absent);
            let Some(absent) = blocked.or(present) else { break };
            self.skip(absent);
            for _ in 1..1_u32 << self.absences {
                let map = if blocked.is_some() { &mut self.blocked } else { &mut self.present };
                let Some(waiter) = map.values_mut().next().filter(|waiter| !waiter.is_thread())
                else {
                    break;
                };
                let next = waiter.ticket;
                waiter.notify(now, wakes);
                self.skip(next);
            }
            self.absences = (self.absences + 1).min(MAX_ABSENCES);
        }
        self.settle_head();
    }

    fn skip(&mut self, ticket: Ticket) {
        if let Some(waiter) = self.take_out(ticket) {
            self.skipped.insert(ticket, waiter);
        }
    }

    /// Notifies the waiters whose deadline has passed, so that they fail.
    pub(super) fn notify_expired(&mut self, now: u64, wakes: &mut Wakes) {
        while let Some((deadline, ticket)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let waiter = self.get(ticket).or_else(|| self.skipped.get(&ticket));
            wakes.extend(waiter.map(|waiter| Arc::clone(&waiter.signal)));
        }
    }

    pub(super) fn first_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Notifies all waiters that want more than `capacity`, or that wanted more than there was before.
    pub(super) fn notify_above(&mut self, capacity: u64, now: u64, wakes: &mut Wakes) {
        let maps = [&mut self.present, &mut self.blocked, &mut self.skipped];
        for waiter in maps.into_iter().flat_map(BTreeMap::values_mut) {
            if waiter.n > capacity || waiter.is_beyond {
                waiter.notify(now, wakes);
            }
        }
    }

    fn put_blocked(&mut self, waiter: Waiter) {
        self.wanted += u128::from(waiter.n);
        self.blocked.insert(waiter.ticket, waiter);
    }

    fn put_present(&mut self, number: Ticket, waiter: Waiter) {
        self.wanted += u128::from(waiter.n);
        if number < self.frontier {
            self.notified_sum = self.notified_sum.saturating_add(waiter.n);
            self.notified_permits += u64::from(waiter.with_permit);
        }
        if number != waiter.ticket {
            self.numbers.insert(waiter.ticket, number);
        }
        self.present.insert(number, waiter);
    }

    fn take_out(&mut self, ticket: Ticket) -> Option<Waiter> {
        let number = self.numbers.remove(&ticket).unwrap_or(ticket);
        let present = self.present.remove(&number);
        if let Some(waiter) = present.as_ref().filter(|_| number < self.frontier) {
            self.notified_sum = self.notified_sum.saturating_sub(waiter.n);
            self.notified_permits -= u64::from(waiter.with_permit);
        }
        self.lacking.remove(&ticket);
        let waiter = present.or_else(|| self.blocked.remove(&ticket))?;
        self.wanted -= u128::from(waiter.n);
        self.gone += u128::from(waiter.n);
        Some(waiter)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
