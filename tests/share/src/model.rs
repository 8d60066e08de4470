//! A model of the rules that a checker explores in full: two agents, a log, and clocks that tick unevenly.
//!
//! A term is 15 and the drift a quarter, so that a lease is 11 and a window 19. In a tick of 4, one clock advances by 3
//! and the other by 5, either way. Agents report. Tables are appended that answer their newest reports or the ones before:
//! so a table that was long on its way is one of them. They name nothing that their writer had read. Agents read them
//! whenever they do, miss some of them, or start again and begin with the newest. The log loses its last entry, if none
//! has read it, or a term after it was appended. How often each of this happens is bounded, and so is time.

use std::hash::{Hash, Hasher};

use stateright::{Checker, Model, Property};

use crate::member::{Member, Rule, Terms};
use crate::quota::Quota;
use crate::table::{Position, Row, Table};
use crate::{DROPPED, Premise, without};

const TERMS: Terms = Terms { term: 15, drift: 250_000 };
const TICK: u64 = 4;
const LIMIT: u64 = 2;

fn quota(share: u64) -> Quota {
    Quota { rate: share, burst: share as u32 }
}

/// What a table says: the rows of both agents, and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Plan {
    Shares([Option<u64>; 2]),
    /// Rows of more than its limit.
    Excess,
    /// Rows and a limit of more than the agents know.
    OtherLimit,
    /// The first has all, and only the first can read it.
    Newer,
}

const PLANS: [Plan; 6] = [
    Plan::Shares([Some(2), None]),
    Plan::Shares([None, Some(2)]),
    Plan::Shares([Some(1), Some(1)]),
    Plan::Excess,
    Plan::OtherLimit,
    Plan::Newer,
];

#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// How far each clock advances.
    Tick([u64; 2]),
    Report(usize),
    /// Of a table. Whether it answers the reports before the last ones.
    Append(Plan, bool),
    Read(usize),
    /// Reads the newest entry, and knows that it missed others.
    Skip(usize),
    Restart(usize),
    /// The log loses its last entry.
    Lose,
}

/// How often what is rare may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    ticks: u8,
    reports: [u8; 2],
    writes: u8,
    /// Tables that no planner writes.
    odd: u8,
    /// Restarts, skips and losses.
    faults: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    table: Table,
    is_newer: bool,
    is_read: bool,
    /// Since it was appended, up to a term.
    age: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Agent {
    member: Member,
    now: u64,
    /// The entry that it read last; `None` if it begins with the newest.
    read: Option<Position>,
    /// The last reports, the newest first.
    reports: [u64; 2],
}

#[derive(Clone, Debug, PartialEq)]
struct State {
    agents: [Agent; 2],
    log: Vec<Entry>,
    /// Tables, and reports of each agent, so far.
    tables: u64,
    left: Left,
}

/// What an agent's future depends on: ages, not times.
impl Hash for Agent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let age_of_report = |at: u64| (self.now - at).min(TERMS.term);
        let age = |at: u64| (self.now - at).min(TERMS.window());
        let Self { member, read, reports, .. } = self;
        (read, reports, member.is_following, member.newest_limit).hash(state);
        member.echoed.map(age_of_report).hash(state);
        for (nonce, at) in &member.sent {
            (nonce, age_of_report(*at)).hash(state);
        }
        // The newest; and of others, those in the window that say less than all later ones.
        let mut least: Option<Quota> = None;
        for (at, row) in member.window.iter().rev() {
            let lower = least.map_or(*row, |least| least.min(*row));
            if least.is_none() || least != Some(lower) && age(*at) < TERMS.window() {
                (age(*at), lower).hash(state);
                least = Some(lower);
            }
        }
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { agents, log, tables, left } = self;
        (agents, tables, left).hash(state);
        // Without more faults, what both have read is read by none again.
        let next = [0, 1].map(|at| self.next(at));
        let newest = log.len().saturating_sub(1);
        let read = next.map(|next| next.unwrap_or(newest)).into_iter().min().unwrap_or(0);
        (next, log.len()).hash(state);
        if left.faults > 0 {
            log.hash(state);
        } else {
            log.iter().skip(read).for_each(|entry| (&entry.table, entry.is_newer).hash(state));
        }
    }
}

impl State {
    /// Both have followed from the beginning, and read the first table.
    fn new(plan: Plan, left: Left) -> Self {
        let agent = || Agent {
            member: Member::new(TERMS, quota(LIMIT), true),
            now: 100,
            read: Some(Position::default()),
            reports: [0, 0],
        };
        let agents = [agent(), agent()];
        let mut state = Self { agents, log: Vec::new(), tables: 0, left };
        state.report(0);
        state.report(1);
        let table = state.table(plan, false);
        state.log.push(table);
        state.read(0);
        state.read(1);
        state
    }

    fn report(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let nonce = agent.reports[0].max(10 * (at as u64 + 1)) + 1;
        agent.reports = [nonce, agent.reports[0]];
        agent.member.sends(nonce, agent.now);
    }

    fn table(&mut self, plan: Plan, is_stale: bool) -> Entry {
        self.tables += 1;
        let (rows, limit) = match plan {
            Plan::Shares(rows) => (rows, LIMIT),
            Plan::Excess => ([Some(2), Some(2)], LIMIT),
            Plan::OtherLimit => ([Some(2), Some(2)], 2 * LIMIT),
            Plan::Newer => ([Some(2), None], LIMIT),
        };
        let row = |at: usize| {
            let nonce = self.agents[at].reports[usize::from(is_stale)];
            Some(Row { label: at as u64, nonce, quota: quota(rows[at]?) })
        };
        let table = Table {
            id: self.tables.into(),
            prev: Position::default(),
            limit: quota(limit),
            rows: (0..2).filter_map(row).collect(),
        };
        Entry { table, is_newer: plan == Plan::Newer, is_read: false, age: 0 }
    }

    /// The entry after the one that was read last, if that is still there; or the newest.
    fn next(&self, at: usize) -> Option<usize> {
        let Position { sequence, id } = self.agents[at].read?;
        let last = (sequence as usize).checked_sub(1);
        last.is_none_or(|last| self.log.get(last).is_some_and(|entry| entry.table.id == id))
            .then_some(sequence as usize)
    }

    fn read(&mut self, at: usize) {
        let next = self.next(at);
        let agent = &mut self.agents[at];
        if next.is_none() && agent.read.is_some() {
            agent.member.interrupted();
        }
        let next = next.unwrap_or(self.log.len().saturating_sub(1));
        let Some(entry) = self.log.get_mut(next) else { return };
        entry.is_read = true;
        let position = Position { sequence: next as u64 + 1, id: entry.table.id };
        agent.read = Some(position);
        let is_readable = at == 0 || !entry.is_newer;
        let table = if is_readable { Ok(&entry.table) } else { Err(entry.table.id) };
        agent.member.read(position.sequence, table, agent.now);
    }

    fn is_within_limit(&self) -> bool {
        let share = |agent: &Agent| agent.member.segment(agent.now).quota.rate;
        self.agents.iter().map(share).sum::<u64>() <= LIMIT
    }
}

struct Rules {
    dropped: Option<Premise>,
    /// The tables that are written.
    plans: &'static [Plan],
    /// Whether some answer the reports before the last ones.
    answers_late: bool,
    /// How far the clocks may advance in a tick.
    tempos: &'static [[u64; 2]],
    left: Left,
}

impl Model for Rules {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        DROPPED.set(self.dropped);
        [PLANS[0], PLANS[2]].map(|plan| State::new(plan, self.left)).into()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { log, left, .. } = state;
        if left.ticks > 0 {
            actions.extend(self.tempos.iter().copied().map(Action::Tick));
        }
        if left.writes > 0 {
            for plan in self.plans {
                if matches!(plan, Plan::Shares(_)) || left.odd > 0 {
                    actions.push(Action::Append(*plan, false));
                    if self.answers_late {
                        actions.push(Action::Append(*plan, true));
                    }
                }
            }
        }
        for at in 0..2 {
            let behind = state.next(at).map_or(0, |next| log.len() - next);
            if left.reports[at] > 0 {
                actions.push(Action::Report(at));
            }
            actions.push(Action::Read(at));
            if left.faults > 0 {
                actions.push(Action::Restart(at));
                if behind > 1 {
                    actions.push(Action::Skip(at));
                }
            }
        }
        let is_any_lost = self.dropped == Some(Premise::LossAfterTerm);
        let is_lost = |entry: &Entry| !entry.is_read || entry.age >= TERMS.term || is_any_lost;
        if left.faults > 0 && log.last().is_some_and(is_lost) {
            actions.push(Action::Lose);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        DROPPED.set(self.dropped);
        let mut state = last.clone();
        match action {
            Action::Tick(times) => {
                state.left.ticks -= 1;
                std::iter::zip(&mut state.agents, times)
                    .for_each(|(agent, time)| agent.now += time);
                for entry in &mut state.log {
                    entry.age = (entry.age + TICK).min(TERMS.term);
                }
            }
            Action::Report(at) => {
                state.left.reports[at] -= 1;
                state.report(at);
            }
            Action::Append(plan, is_stale) => {
                state.left.writes -= 1;
                state.left.odd -= u8::from(!matches!(plan, Plan::Shares(_)));
                let entry = state.table(plan, is_stale);
                state.log.push(entry);
            }
            Action::Read(at) => {
                let before = state.agents[at].read;
                state.read(at);
                if state.agents[at].read == before {
                    return None;
                }
            }
            Action::Skip(at) => {
                state.left.faults -= 1;
                state.agents[at].member.interrupted();
                state.agents[at].read = None;
                state.read(at);
            }
            Action::Restart(at) => {
                state.left.faults -= 1;
                let agent = &mut state.agents[at];
                agent.member = Member::new(TERMS, quota(LIMIT), false);
                agent.read = None;
            }
            Action::Lose => {
                state.left.faults -= 1;
                state.log.pop();
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("shares within the limit", |rules: &Rules, state: &State| {
            DROPPED.set(rules.dropped);
            state.is_within_limit()
        })]
    }
}

/// The length of the shortest way to too much, and how many states were seen.
fn check(rules: Rules) -> (Option<usize>, usize) {
    without(rules.dropped, || {
        let checker = rules.checker().threads(2).spawn_bfs().join();
        let path = checker.discovery("shares within the limit");
        (path.map(|path| path.into_actions().len()), checker.unique_state_count())
    })
}

const LEFT: Left = Left { ticks: 5, reports: [1, 1], writes: 1, odd: 0, faults: 0 };
const UNEVEN: [[u64; 2]; 2] = [[TICK - 1, TICK + 1], [TICK + 1, TICK - 1]];

/// A table of any kind.
fn one_table(odd: u8, faults: u8) -> Rules {
    let left = Left { odd, faults, ..LEFT };
    Rules { dropped: None, plans: &PLANS, answers_late: true, tempos: &UNEVEN, left }
}

/// Two tables, each right for itself.
fn two_tables(ticks: u8) -> Rules {
    let left = Left { ticks, writes: 2, ..LEFT };
    Rules { plans: &PLANS[..3], left, ..one_table(0, 0) }
}

/// Two tables and a fault: enough for one to miss what another reads.
fn a_table_is_missed(tempos: &'static [[u64; 2]]) -> Rules {
    const PLANS_OF_FIRST: [Plan; 2] = [PLANS[0], PLANS[2]];
    let left = Left { ticks: 4, writes: 2, faults: 1, ..LEFT };
    Rules { plans: &PLANS_OF_FIRST, answers_late: false, tempos, left, ..one_table(0, 0) }
}

/// Two tables, one of which only the first can read.
fn a_table_is_newer() -> Rules {
    const PLANS_OF_NEWER: [Plan; 2] = [PLANS[2], Plan::Newer];
    let left = Left { ticks: 4, writes: 2, odd: 1, ..LEFT };
    Rules { plans: &PLANS_OF_NEWER, answers_late: false, left, ..one_table(0, 0) }
}

fn assert_within_limit(all: impl IntoIterator<Item = Rules>) {
    for rules in all {
        let begin = std::time::Instant::now();
        let (path, states) = check(rules);
        println!("{states} states, {:.1?}", begin.elapsed());
        assert_eq!(path, None, "shares of more than the limit");
    }
}

#[test]
fn shares_are_within_the_limit() {
    let missed = [&UNEVEN[..1], &UNEVEN[1..]].map(a_table_is_missed);
    let others = [one_table(1, 0), one_table(0, 1), two_tables(3), a_table_is_newer()];
    assert_within_limit(others.into_iter().chain(missed));
}

#[test]
#[ignore = "takes minutes: scripts/deep.sh seeds"]
fn shares_are_within_the_limit_in_more_states() {
    assert_within_limit([one_table(1, 1), two_tables(5), a_table_is_missed(&UNEVEN)]);
}

#[test]
fn each_rule_is_needed() {
    let rules = [
        (Rule::OwnRow, one_table(0, 0)),
        (Rule::UnreadableIsZero, a_table_is_newer()),
        (Rule::ExcessIsZero, one_table(1, 0)),
        (Rule::LimitIsKnown, one_table(1, 0)),
        (Rule::Lease, one_table(0, 0)),
        (Rule::LeaseDrift, one_table(0, 0)),
        (Rule::Window, one_table(0, 0)),
        (Rule::WindowDrift, one_table(0, 0)),
        (Rule::EmptyAtStart, one_table(0, 1)),
        (Rule::EmptyAfterInterruption, a_table_is_missed(&UNEVEN[..1])),
    ];
    let rules = rules.map(|(rule, rules)| (Premise::Rule(rule), rules));
    let loss = (Premise::LossAfterTerm, a_table_is_missed(&UNEVEN[1..]));
    for (premise, rules) in rules.into_iter().chain([loss]) {
        let (path, states) = check(Rules { dropped: Some(premise), ..rules });
        println!("without {premise:?}: {path:?} steps, {states} states");
        assert!(path.is_some(), "nothing shows that {premise:?} is needed");
    }
}
