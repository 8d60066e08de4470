//! Short scripts, one for each rule: without it the shares exceed the limit, with it they do not.

use crate::bucket::{Bucket, Level};
use crate::member::{Member, Rule, Segment, Terms};
use crate::quota::{BURST_UNITS, Quota};
use crate::table::{Position, Row, Table};
use crate::{DROPPED, Premise, without};

const RULES: [Rule; 13] = [
    Rule::OwnRow,
    Rule::UnreadableIsZero,
    Rule::ExcessIsZero,
    Rule::LimitIsKnown,
    Rule::Lease,
    Rule::LeaseDrift,
    Rule::Window,
    Rule::WindowDrift,
    Rule::EmptyAtStart,
    Rule::EmptyAfterInterruption,
    Rule::EmptyWhenBehind,
    Rule::EmptyWhenAhead,
    Rule::EmptyWhenElsewhere,
];

const LEVELS: [Level; 4] =
    [Level::StartsAtZero, Level::IsClipped, Level::IsVoidWithoutLease, Level::AccruesAtEachShare];

/// A lease is 90, a window 110.
const TERMS: Terms = Terms { term: 100, drift: 100_000 };
const LIMIT: u64 = 100;

fn quota(share: u64) -> Quota {
    Quota { rate: share, burst: share as u32 }
}

/// Two agents, the first and the second, that follow a log from its beginning.
struct Script {
    members: [Member; 2],
    /// How fast their clocks run, in percent.
    speeds: [u64; 2],
    now: u64,
    /// The last report of each.
    nonces: [u64; 2],
    next: u64,
    /// The largest sum of the shares.
    most: u64,
}

impl Script {
    fn new() -> Self {
        let member = || Member::new(TERMS, quota(LIMIT), true);
        Self {
            members: [member(), member()],
            speeds: [100, 100],
            now: 0,
            nonces: [0, 0],
            next: 1,
            most: 0,
        }
    }

    fn clock(&self, agent: usize) -> u64 {
        self.now * self.speeds[agent] / 100
    }

    fn new_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn report(&mut self, agent: usize) {
        self.nonces[agent] = self.new_id();
        let now = self.clock(agent);
        self.members[agent].sends(self.nonces[agent], now);
    }

    /// A table of these rows, for the last reports. Its writer had read nothing.
    fn table(&mut self, rows: [Option<u64>; 2]) -> Table {
        let nonces = self.nonces;
        let row = |agent: usize| {
            let share = rows[agent]?;
            Some(Row { label: agent as u64, nonce: nonces[agent], quota: quota(share) })
        };
        let rows = (0..2).filter_map(row).collect();
        let id = self.new_id().into();
        Table { id, prev: Position::default(), limit: quota(LIMIT), rows }
    }

    fn read(&mut self, agent: usize, sequence: u64, table: &Table) {
        let now = self.clock(agent);
        self.members[agent].read(sequence, Ok(table), now);
        self.check();
    }

    fn run_to(&mut self, now: u64) {
        while self.now < now {
            self.now += 1;
            self.check();
        }
    }

    fn check(&mut self) {
        let share = |agent: usize| self.members[agent].segment(self.clock(agent)).quota.rate;
        self.most = self.most.max(share(0) + share(1));
    }

    /// Both read that each has a half.
    fn halves(&mut self) {
        self.report(0);
        self.report(1);
        let table = self.table([Some(50), Some(50)]);
        self.read(0, 1, &table);
        self.read(1, 1, &table);
    }

    /// The first reads, as entry 2, that it has all. The second does not.
    fn first_has_all(&mut self) -> Table {
        self.report(0);
        let table = self.table([Some(100), Some(0)]);
        self.read(0, 2, &table);
        table
    }

    /// The second has nothing by entry 1. It misses entry 2, by which the first has all, and forgets entry 1 while the
    /// first still spends. Returns the entry that it missed.
    fn second_misses_one(&mut self) -> Table {
        self.report(0);
        self.report(1);
        let table = self.table([Some(100), Some(0)]);
        self.read(0, 1, &table);
        self.read(1, 1, &table);
        self.run_to(50);
        let missed = self.first_has_all();
        self.run_to(115);
        missed
    }

    /// Then it reads that each has a half.
    fn second_has_a_half(&mut self, sequence: u64, prev: Position) {
        self.report(1);
        let mut table = self.table([Some(50), Some(50)]);
        table.prev = prev;
        self.read(1, sequence, &table);
    }
}

fn own_row(script: &mut Script) {
    script.report(0);
    let all = script.table([Some(100), None]);
    script.read(0, 1, &all);
    script.read(1, 1, &all);
    script.report(1);
    let halves = script.table([Some(50), Some(50)]);
    script.read(1, 2, &halves);
}

/// The second is of a version that cannot read entry 2.
fn unreadable_is_zero(script: &mut Script) {
    script.halves();
    script.run_to(50);
    let unreadable = script.first_has_all();
    let now = script.clock(1);
    script.members[1].read(2, Err(unreadable.id), now);
    script.run_to(115);
    script.report(1);
    let halves = script.table([Some(50), Some(50)]);
    script.read(1, 3, &halves);
}

fn excess_is_zero(script: &mut Script) {
    script.report(0);
    script.report(1);
    let table = script.table([Some(100), Some(100)]);
    script.read(0, 1, &table);
    script.read(1, 1, &table);
}

fn limit_is_known(script: &mut Script) {
    script.report(0);
    script.report(1);
    let mut table = script.table([Some(100), Some(100)]);
    table.limit = quota(2 * LIMIT);
    script.read(0, 1, &table);
    script.read(1, 1, &table);
}

fn lease(script: &mut Script) {
    script.halves();
    script.run_to(50);
    script.first_has_all();
    script.run_to(120);
}

/// The first clock is as fast, and the second as slow, as the drift allows: where the first has waited for the window,
/// the lease of the second has just ended.
fn drift(script: &mut Script) {
    script.speeds = [110, 90];
    lease(script);
}

fn window(script: &mut Script) {
    script.halves();
    script.first_has_all();
}

fn empty_at_start(script: &mut Script) {
    script.members[1] = Member::new(TERMS, quota(LIMIT), false);
    script.report(0);
    let all = script.table([Some(100), None]);
    script.read(0, 1, &all);
    script.report(1);
    let halves = script.table([Some(50), Some(50)]);
    script.read(1, 2, &halves);
}

fn empty_after_interruption(script: &mut Script) {
    script.second_misses_one();
    script.members[1].interrupted();
    script.second_has_a_half(3, Position::default());
}

/// The log was made anew, with what the second misses as its first entry.
fn empty_when_behind(script: &mut Script) {
    script.second_misses_one();
    script.second_has_a_half(1, Position::default());
}

fn empty_when_ahead(script: &mut Script) {
    let missed = script.second_misses_one();
    script.second_has_a_half(3, Position { sequence: 2, id: missed.id });
}

/// The log was made anew, and has another entry 1.
fn empty_when_elsewhere(script: &mut Script) {
    let missed = script.second_misses_one();
    script.second_has_a_half(2, Position { sequence: 1, id: missed.id });
}

type Run = fn(&mut Script);

fn script(rule: Rule) -> Run {
    match rule {
        Rule::OwnRow => own_row,
        Rule::UnreadableIsZero => unreadable_is_zero,
        Rule::ExcessIsZero => excess_is_zero,
        Rule::LimitIsKnown => limit_is_known,
        Rule::Lease => lease,
        Rule::LeaseDrift | Rule::WindowDrift => drift,
        Rule::Window => window,
        Rule::EmptyAtStart => empty_at_start,
        Rule::EmptyAfterInterruption => empty_after_interruption,
        Rule::EmptyWhenBehind => empty_when_behind,
        Rule::EmptyWhenAhead => empty_when_ahead,
        Rule::EmptyWhenElsewhere => empty_when_elsewhere,
    }
}

/// The term of the second is twice that of the first.
fn common_term(script: &mut Script) {
    if DROPPED.get() == Some(Premise::CommonTerm) {
        let terms = Terms { term: 2 * TERMS.term, ..TERMS };
        script.members[1] = Member::new(terms, quota(LIMIT), true);
    }
    lease(script);
}

/// The second is a child of the first's process.
fn fork_begins_anew(script: &mut Script) {
    script.report(0);
    let all = script.table([Some(100), None]);
    script.read(0, 1, &all);
    if DROPPED.get() == Some(Premise::ForkBeginsAnew) {
        script.members[1] = script.members[0].clone();
    }
    script.check();
}

/// Runs a script without a premise, and with all. Returns the largest sums of the shares.
fn most(script: Run, premise: Premise) -> (u64, u64) {
    let most = |dropped| {
        without(dropped, || {
            let mut state = Script::new();
            script(&mut state);
            state.most
        })
    };
    (most(Some(premise)), most(None))
}

#[test]
fn each_rule_is_needed() {
    let rules = RULES.map(|rule| (Premise::Rule(rule), script(rule)));
    let others: [(Premise, Run); 2] =
        [(Premise::CommonTerm, common_term), (Premise::ForkBeginsAnew, fork_begins_anew)];
    for (premise, script) in rules.into_iter().chain(others) {
        let (dropped, kept) = most(script, premise);
        println!("{premise:?}: shares of {kept} of {LIMIT}, and of {dropped} without it");
        assert!(kept <= LIMIT && dropped > LIMIT, "{premise:?}: {kept}, {dropped}");
    }
}

const SECOND: u64 = 1_000_000_000;

/// Tokens a second, and tokens.
fn share(rate: u64, burst: u32) -> Segment {
    let quota = Quota { rate: rate * SECOND, burst: burst * BURST_UNITS };
    Segment { quota, until: None }
}

/// The tokens of a bucket, and how many it may hold, by what its shares have been.
fn level(level: Level) -> (u64, u64) {
    let mut bucket = Bucket::new(0);
    let most = match level {
        Level::StartsAtZero => {
            bucket.change(|_| share(1, 4), 0);
            0
        }
        Level::IsClipped => {
            bucket.change(|_| share(4, 4), 0);
            bucket.advance(share_for_ever, SECOND);
            bucket.change(|_| share(1, 1), SECOND);
            1
        }
        Level::IsVoidWithoutLease => {
            bucket.change(|_| share(4, 4), 0);
            bucket.advance(share_for_ever, SECOND);
            bucket.change(|_| share(0, 0), SECOND);
            bucket.change(|_| share(4, 4), SECOND);
            0
        }
        Level::AccruesAtEachShare => {
            bucket.change(|_| Segment { until: Some(SECOND), ..share(1, 4) }, 0);
            bucket.advance(|_| share(4, 4), SECOND);
            1
        }
    };
    (bucket.tokens(), most)
}

/// A share that has no end is not asked for.
fn share_for_ever(_: u64) -> Segment {
    unreachable!("it has no end")
}

#[test]
fn each_part_of_the_level_is_needed() {
    for part in LEVELS {
        let (kept, most) = level(part);
        let (dropped, _) = without(Some(Premise::Level(part)), || level(part));
        println!("{part:?}: a level of {kept} of {most}, and of {dropped} without it");
        assert!(kept <= most && dropped > most, "{part:?}: {kept}, {dropped}");
    }
}
