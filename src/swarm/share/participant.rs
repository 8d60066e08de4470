//! When an agent reports and writes. Time, randomness and the net are the caller's.
//!
//! Agents report once a period, a sixth of the term, to those of the first three rows. The first of these writes a
//! table each period. The second and third write after two and two and a half periods without one, any
//! other after three and a random part of one: so a crash is made up for. Who has taken over goes on until the first
//! one is back.

use super::member::{Member, Segment, Terms};
use super::planner::Planner;
use super::quota::{BURST_UNITS, Quota};
use super::report::Report;
use super::table::{Position, Table};

/// Rows whose agents hear reports.
const WRITERS: usize = 3;

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send to the agents with these labels.
    Report { report: Report, to: Vec<u64> },
    /// Append to the log, if its last entry still has this sequence.
    Append { table: Table, after: u64 },
}

/// What an agent's callers want, as it was last measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Nanotokens a second.
    pub(crate) want: u64,
    /// The most tokens that one call waits for.
    pub(crate) largest: u64,
    /// Tokens spent since the agent began.
    pub(crate) spent: u64,
    /// Whether callers have lacked tokens for a while.
    pub(crate) is_short: bool,
}

/// One agent's part in one quota.
#[derive(Clone, Debug)]
pub(crate) struct Participant {
    label: u64,
    period: u64,
    member: Member,
    planner: Planner,
    newest: Option<Table>,
    /// The largest sequence since the log was followed anew: appends go after it.
    tail: u64,
    demand: Demand,
    /// The newest table that the bucket follows.
    applied: Position,
    leaves: bool,
    next_report: u64,
    next_write: u64,
}

impl Participant {
    /// `label` is random. `random` is any number: it spreads what agents do at the same time.
    pub(crate) fn new(
        terms: Terms,
        limit: Quota,
        label: u64,
        is_new: bool,
        random: u64,
        now: u64,
    ) -> Self {
        let period = terms.period();
        let delay = if is_new { 0 } else { period + random % period };
        Self {
            label,
            period,
            member: Member::new(terms, limit, is_new),
            planner: Planner::new(terms.term),
            newest: None,
            tail: 0,
            demand: Demand::default(),
            applied: Position::default(),
            leaves: false,
            next_report: now,
            next_write: now.saturating_add(delay),
        }
    }

    pub(crate) fn label(&self) -> u64 {
        self.label
    }

    pub(crate) fn limit(&self) -> Quota {
        self.member.limit()
    }

    /// The log has never had an entry: the first table is written at once.
    pub(crate) fn log_is_new(&mut self, now: u64) {
        self.member.log_is_new();
        self.next_write = now;
    }

    /// What may be spent from `now` on, and until when, as far as that is known.
    pub(crate) fn segments(&self, now: u64) -> Vec<(Quota, u64)> {
        let mut segments = Vec::new();
        let mut segment = self.segment(now);
        while let Some(until) = segment.until {
            segments.push((segment.quota, until));
            segment = self.segment(until);
        }
        segments
    }

    pub(crate) fn segment(&self, now: u64) -> Segment {
        self.member.segment(now)
    }

    pub(crate) fn set_limit(&mut self, limit: Quota, now: u64) {
        self.member.set_limit(limit);
        self.next_report = now;
    }

    /// The newest entry that was read.
    #[allow(dead_code)] // simulated logs ask where a follower is
    pub(crate) fn newest(&self) -> Position {
        self.member.newest()
    }

    /// The bucket follows the newest table.
    pub(crate) fn applied(&mut self) {
        self.applied = self.member.newest();
    }

    /// See [`Member::interrupted`].
    pub(crate) fn interrupted(&mut self) {
        self.member.interrupted();
        self.tail = 0;
    }

    /// It leaves, and says so. Its row is its own until [`has_left`](Self::has_left): so little of it is idle before others
    /// have it.
    pub(crate) fn leaves(&mut self, now: u64) {
        self.leaves = true;
        self.next_report = now;
        // Who writes the tables writes a last one, without itself.
        self.next_write = if self.rank() == Some(0) { now } else { u64::MAX };
    }

    /// Whether it leaves, and the newest table has no row of it.
    pub(crate) fn has_left(&self) -> bool {
        self.leaves && self.rank().is_none()
    }

    /// An entry arrives.
    pub(crate) fn read(
        &mut self,
        sequence: u64,
        entry: Result<Table, u128>,
        random: u64,
        now: u64,
    ) {
        self.tail = self.tail.max(sequence);
        let is_table = self.member.read(sequence, entry.as_ref().map_err(|id| *id), now);
        let mut is_mine = false;
        if let Ok(table) = entry
            && is_table
        {
            is_mine = self.planner.read(&table, now);
            if self.rank().is_none() && !table.rows.iter().any(|row| row.label == self.label) {
                self.next_report = now; // to those that can give it a row
            }
            self.newest = Some(table);
        }
        let rank = self.rank();
        if !is_mine && rank.is_none_or(|rank| rank >= WRITERS) {
            self.planner.rests();
        }
        let wait = match rank {
            Some(0) => self.period,
            // A bit more, so that the first one has it back if it is alive.
            _ if is_mine => self.period + self.period / 4,
            Some(1) => 2 * self.period,
            Some(2) => 2 * self.period + self.period / 2,
            _ => 3 * self.period + random % self.period,
        };
        if !self.leaves {
            self.next_write = now.saturating_add(wait);
        }
    }

    /// Another agent's report arrives.
    pub(crate) fn hear(&mut self, report: Report) {
        if report.label != self.label {
            self.planner.hear(report);
        }
    }

    /// What callers want now. More than the row says is reported at once.
    pub(crate) fn demands(&mut self, demand: Demand, now: u64) {
        let row = self.row();
        let exceeds =
            |demand: &Demand| demand.want > row.rate || burst_of(demand.largest) > row.burst;
        if exceeds(&demand) && !exceeds(&self.demand) {
            self.next_report = now;
        }
        self.demand = demand;
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn due(&self) -> u64 {
        self.next_report.min(self.next_write)
    }

    /// Does what is due. `random` gives numbers that nobody else has.
    pub(crate) fn poll(&mut self, now: u64, mut random: impl FnMut() -> u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.next_report <= now {
            self.next_report = now.saturating_add(self.period);
            let to: Vec<u64> = self.writers().filter(|label| *label != self.label).collect();
            if !to.is_empty() {
                actions.push(Action::Report { report: self.report(random(), now), to });
            }
        }
        if self.next_write <= now {
            // Until an entry is read that sets another time.
            self.next_write = now.saturating_add(self.period);
            let own = self.report(random(), now);
            let is_first = self.rank().is_none_or(|rank| rank >= WRITERS);
            let id = u128::from(random()) << 64 | u128::from(random());
            let prev = self.member.newest();
            let table = self.planner.plan(self.newest.as_ref(), prev, own, is_first, id, now);
            actions.push(Action::Append { table, after: self.tail });
        }
        actions
    }

    fn report(&mut self, nonce: u64, now: u64) -> Report {
        self.member.sends(nonce, now);
        let Demand { want, largest, spent, is_short } = self.demand;
        // What it spent lately may have been by a smaller row, or by none: it would use an equal part at least, or more
        // than its row.
        let (row, agents) =
            (self.row().rate, self.newest.as_ref().map_or(1, |table| table.rows.len()));
        let equal = self.member.limit().rate / (agents as u64).max(1);
        let least = if is_short { row.saturating_add(row / 4).max(equal) } else { 0 };
        let want = want.max(least.min(self.member.limit().rate));
        let Self { label, applied, leaves, .. } = *self;
        let (largest, limit) = (burst_of(largest), self.member.limit());
        Report { label, nonce, want, largest, spent, limit, applied, leaves }
    }

    fn row(&self) -> Quota {
        let rows = self.newest.iter().flat_map(|table| &table.rows);
        let mut mine = rows.filter(|row| row.label == self.label);
        mine.next().map_or(Quota::ZERO, |row| row.quota)
    }

    /// Which row of the newest table is this agent's.
    fn rank(&self) -> Option<usize> {
        let rows = &self.newest.as_ref()?.rows;
        rows.iter().position(|row| row.label == self.label)
    }

    fn writers(&self) -> impl Iterator<Item = u64> {
        let rows = self.newest.iter().flat_map(|table| table.rows.iter().take(WRITERS));
        rows.map(|row| row.label)
    }
}

fn burst_of(tokens: u64) -> u32 {
    u32::try_from(tokens.saturating_mul(BURST_UNITS.into())).unwrap_or(u32::MAX)
}
