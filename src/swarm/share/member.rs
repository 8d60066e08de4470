//! What an agent may spend: the rules on which the [bound](super#the-bound) rests.
//!
//! # Rules
//!
//! `V` is the term, and `d` the drift of clocks. Times are the agent's own.
//!
//! 1. **My row** is that of a report which I sent. Its nonce is random, so that a copy of me, or another agent with my
//!    label, finds no row.
//! 2. **Bad is zero.** A table that cannot be read, or whose rows exceed its limit, counts as one with no rows. While
//!    the newest table's limit is above mine, I spend nothing. Were a bad table skipped, those that counted it
//!    would be right, and the others would spend more.
//! 3. **Lease.** I spend only while `now < sent + V (1 - d)`. `sent` is when I sent the newest of my reports
//!    that is echoed in a table which I read.
//! 4. **Window.** My share is the least of my rows in the newest table, and in every table that I read less than
//!    `V (1 + d)` ago.
//! 5. **An empty table** counts as read when the first entry arrives after I began to follow the log, and after
//!    anything that makes it doubtful that I read each entry: a slower agent may spend by a table that I missed.
//! 6. **The level** of my bucket is the bucket's part: it starts at 0, accrues at my share of the rate, is at most my share
//!    of the burst, and is 0 without a lease.

use std::collections::VecDeque;

use super::is_dropped;
use super::quota::Quota;
use super::table::{Position, Table};

/// Reports that an agent remembers: as many as it sends in five terms.
const REMEMBERED: usize = 32;

/// A rule, or a part of one, that a test can drop to show what breaks without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    OwnRow,
    /// What cannot be read counts as a table with no rows.
    UnreadableIsZero,
    /// So does a table whose rows exceed its limit.
    ExcessIsZero,
    /// Nothing is spent while the newest table's limit is above the agent's.
    LimitIsKnown,
    Lease,
    /// The lease is shorter than the term, by the drift.
    LeaseDrift,
    Window,
    /// The window is longer than the term, by the drift.
    WindowDrift,
    /// An empty table at the first entry.
    EmptyAtStart,
    /// And after [`Member::interrupted`].
    EmptyAfterInterruption,
    /// And if the sequence goes back.
    EmptyWhenBehind,
    /// And if the writer had read an entry that is newer than all that were read here.
    EmptyWhenAhead,
    /// And if the writer had read another entry at the sequence that was read last here.
    EmptyWhenElsewhere,
}

/// The term and the drift of a log, which never change in its life: agents that differ in them would break the
/// bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    /// In nanoseconds.
    pub(crate) term: u64,
    /// How much faster or slower a clock may run than real time, in parts of a million.
    pub(crate) drift: u32,
}

impl Terms {
    fn slack(self) -> u64 {
        let slack = (u128::from(self.term) * u128::from(self.drift)).div_ceil(1_000_000);
        u64::try_from(slack).unwrap_or(u64::MAX)
    }

    /// How often agents report, and how often one of them writes: a sixth of the term.
    pub(crate) fn period(self) -> u64 {
        (self.term / 6).max(1)
    }

    /// `V (1 - d)`, rounded down.
    pub(crate) fn lease(self) -> u64 {
        let slack = if is_dropped(Rule::LeaseDrift) { 0 } else { self.slack() };
        self.term.saturating_sub(slack)
    }

    /// `V (1 + d)`, rounded up.
    pub(crate) fn window(self) -> u64 {
        let slack = if is_dropped(Rule::WindowDrift) { 0 } else { self.slack() };
        self.term.saturating_add(slack)
    }
}

/// What may be spent from now on, and until when that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) quota: Quota,
    /// The reading from which on it is another; `None` if that takes another table.
    pub(crate) until: Option<u64>,
}

/// An agent's view of the log. A model of it compares the times of two views by their age.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    terms: Terms,
    limit: Quota,
    /// The last reports: nonce, and when it was sent. The newest is last.
    pub(super) sent: VecDeque<(u64, u64)>,
    /// When the newest report that a table echoed was sent.
    pub(super) echoed: Option<u64>,
    /// My rows in the tables of the window, and when I read each. The newest is last, and stays.
    pub(super) window: VecDeque<(u64, Quota)>,
    /// The newest entry, and the limit that it tells.
    newest: Position,
    pub(super) newest_limit: Quota,
    /// Whether each entry since the last empty table was read.
    pub(super) is_following: bool,
}

impl Member {
    /// `is_new` says that the log had no entry yet, and that none was lost: there is no table to be afraid of.
    pub(crate) fn new(terms: Terms, limit: Quota, is_new: bool) -> Self {
        Self {
            terms,
            limit,
            sent: VecDeque::new(),
            echoed: None,
            window: VecDeque::new(),
            newest: Position::default(),
            newest_limit: Quota::ZERO,
            is_following: is_new || is_dropped(Rule::EmptyAtStart),
        }
    }

    pub(crate) fn limit(&self) -> Quota {
        self.limit
    }

    pub(crate) fn set_limit(&mut self, limit: Quota) {
        self.limit = limit;
    }

    pub(crate) fn newest(&self) -> Position {
        self.newest
    }

    /// A report is about to be sent, under a nonce that nobody has used. Before it is sent: the lease counts from
    /// here.
    pub(crate) fn sends(&mut self, nonce: u64, now: u64) {
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((nonce, now));
    }

    /// The log has never had an entry: there is no table to be afraid of. Nothing else was read.
    pub(crate) fn log_is_new(&mut self) {
        self.is_following |= self.newest == Position::default();
    }

    /// It is doubtful whether the next entry follows the last one: the log was followed anew, or was made anew, or its end
    /// lies before what was read, or entries were skipped.
    pub(crate) fn interrupted(&mut self) {
        self.is_following &= is_dropped(Rule::EmptyAfterInterruption);
    }

    /// An entry of the log arrives: its sequence, and the table in it, or the id of what is no table. `now` is read
    /// after it has arrived: the window counts from there. Returns whether the entry is a table to plan by.
    pub(crate) fn read(&mut self, sequence: u64, entry: Result<&Table, u128>, now: u64) -> bool {
        let position = Position { sequence, id: entry.map_or_else(|id| id, |table| table.id) };
        if self.is_following && position == self.newest {
            return false; // delivered twice
        }
        if !self.follows(position, entry.ok()) {
            self.window.push_back((now, Quota::ZERO));
        }
        self.is_following = true;
        self.newest = position;
        let is_good = |table: &&Table| table.is_sound() || is_dropped(Rule::ExcessIsZero);
        let table = entry.ok().filter(is_good);
        if table.is_some() || !is_dropped(Rule::UnreadableIsZero) {
            self.newest_limit = table.map_or(Quota::ZERO, |table| table.limit);
            let row = table.map_or(Quota::ZERO, |table| self.row(table));
            self.window.push_back((now, row));
        }
        let end = |read: u64| read.saturating_add(self.terms.window());
        while self.window.len() > 1
            && self.window.front().is_some_and(|(read, _)| end(*read) <= now)
        {
            self.window.pop_front();
        }
        table.is_some()
    }

    /// Whether the entry comes right after those that were read.
    fn follows(&self, position: Position, table: Option<&Table>) -> bool {
        let last = self.newest;
        let is_doubted = |rule, doubt: bool| doubt && !is_dropped(rule);
        // What its writer had read is not what was read here.
        let prev = table.map_or(Position::default(), |table| table.prev);
        self.is_following
            && !is_doubted(Rule::EmptyWhenBehind, position.sequence <= last.sequence)
            && !is_doubted(Rule::EmptyWhenAhead, prev.sequence > last.sequence)
            && !is_doubted(
                Rule::EmptyWhenElsewhere,
                prev.sequence == last.sequence && prev.id != last.id,
            )
    }

    /// My row of a table, which also extends the lease.
    fn row(&mut self, table: &Table) -> Quota {
        let mut mine = None;
        for row in &table.rows {
            let sent = self.sent.iter().find(|(nonce, _)| *nonce == row.nonce);
            if let Some((_, at)) = sent {
                self.echoed = self.echoed.max(Some(*at));
                mine = mine.or(Some(row.quota));
            }
        }
        if is_dropped(Rule::OwnRow) && mine.is_none() {
            mine = table.rows.first().map(|row| row.quota);
        }
        mine.unwrap_or(Quota::ZERO)
    }

    /// What may be spent at `now`.
    pub(crate) fn segment(&self, now: u64) -> Segment {
        const NOTHING: Segment = Segment { quota: Quota::ZERO, until: None };

        let lease = self.echoed.map(|sent| sent.saturating_add(self.terms.lease()));
        let lease = if is_dropped(Rule::Lease) { Some(u64::MAX) } else { lease };
        let Some(lease) = lease.filter(|end| now < *end) else { return NOTHING };
        if !self.newest_limit.is_within(self.limit) && !is_dropped(Rule::LimitIsKnown) {
            return NOTHING;
        }
        let Some((_, newest)) = self.window.back() else { return NOTHING };
        if is_dropped(Rule::Window) {
            return Segment { quota: *newest, until: Some(lease) };
        }
        // From the newest back: what holds at each reading, until one is found at which it is more.
        let (mut quota, mut until) = (*newest, lease);
        for (read, row) in self.window.iter().rev().skip(1) {
            let end = read.saturating_add(self.terms.window());
            if end <= now {
                break;
            }
            let lower = quota.min(*row);
            if lower != quota {
                // Later tables alone say `quota`: so it grows when this one leaves the window.
                (quota, until) = (lower, end.min(lease));
            }
        }
        Segment { quota, until: Some(until) }
    }
}
