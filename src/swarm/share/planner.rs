//! What the next table says. A wrong plan wastes a part of the limit, and breaks nothing.
//!
//! Each change of a row costs a term: what one agent loses at once, another gains a term later. So rows change only
//! when agents come or go, when the limit changes, or when an agent wants more than its row and would get it; and then
//! as little as serves.
//!
//! * **Rates.** An agent that wants more than it has gets what is its own by max-min fairness, and as much again where
//!   nobody wants it: demand is measured, and would soon be short again. This comes from what is free, and then from what
//!   others have beyond theirs, in proportion. What is left is split equally. All other rows stay: it costs nothing
//!   to move what nobody wants, and a term of it to move what somebody uses.
//! * **Bursts** are equal, but for an agent whose call waits for more tokens.
//! * **Turns.** Where the burst is too small for all, as many agents as it suffices for have shares, and the others
//!   none. A turn ends when its tokens are used. Then it is the turn of the agent that has had none for longest. Each
//!   planner knows from the tables who had a turn when, so that turns go on when another writes.
//! * **A silent agent** keeps its row, until three tables of the same writer have been read back without a word of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::quota::{BURST_UNITS, LEAST_BURST, Quota};
use super::report::Report;
use super::table::{Position, Row, Table};

/// Tables that an agent may miss.
const SILENT_TABLES: u32 = 3;
/// A turn is as long as it takes to use what accrues in this many terms, where that is more than a few tokens: the
/// agent after it has nothing for one.
const TURN_TERMS: u64 = 5;
/// The tokens of a turn at low rates.
const TURN_TOKENS: u64 = 2;
/// Rows change for an agent that gains at least this part of what it has.
const WORTH: u64 = 16;
/// The part of an equal share that an idle agent keeps.
const FLOOR: u64 = 32;
/// Agents that a planner knows of at the most, unless more have rows. A table of as many is about 280 kB. A larger one,
/// which a log may refuse, would never be read back, so nobody would be forgotten.
pub(crate) const MOST_AGENTS: usize = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct Planner {
    term: u64,
    agents: BTreeMap<u64, Agent>,
    /// The last tables that this planner made.
    made: VecDeque<u128>,
    /// When rows changed last.
    changed: Option<u64>,
}

/// What is known of one agent.
#[derive(Clone, Debug, Default)]
struct Agent {
    report: Option<Report>,
    /// Tables of this planner that were read back since the last report.
    missed: u32,
    /// When its turn began, and what it had spent by then, once that is known.
    turn: Option<(u64, Option<u64>)>,
    /// When its last turn ended.
    turned: u64,
}

impl Agent {
    fn is_gone(&self) -> bool {
        self.missed >= SILENT_TABLES || self.report.is_some_and(|report| report.leaves)
    }

    /// What it is to have, beside its row so far. Of one that is new, nobody knows yet; a silent one keeps its row.
    fn want(&self, row: Option<Quota>) -> u64 {
        let reported = self.report.map(|report| report.want);
        row.map_or(u64::MAX, |row| reported.unwrap_or(row.rate))
    }

    fn lacks(&self, row: Quota) -> bool {
        self.want(Some(row)) > row.rate || self.need() > row.burst
    }

    /// The burst that it cannot do without; 0 if it wants nothing.
    fn need(&self) -> u32 {
        let Some(report) = self.report else { return LEAST_BURST };
        match report.largest {
            0 if report.want == 0 => 0,
            largest => largest.saturating_add(LEAST_BURST - BURST_UNITS).max(LEAST_BURST),
        }
    }
}

impl Planner {
    pub(crate) fn new(term: u64) -> Self {
        Self { term, agents: BTreeMap::new(), made: VecDeque::new(), changed: None }
    }

    pub(crate) fn hear(&mut self, report: Report) {
        if self.agents.len() < MOST_AGENTS || self.agents.contains_key(&report.label) {
            self.note(report);
        }
    }

    fn note(&mut self, report: Report) {
        let agent = self.agents.entry(report.label).or_default();
        (agent.report, agent.missed) = (Some(report), 0);
        if let Some((_, spent @ None)) = &mut agent.turn {
            *spent = Some(report.spent);
        }
    }

    /// A table was read. If it is one of this planner's, agents that were silent are so for one more. Returns whether
    /// it is.
    pub(crate) fn read(&mut self, table: &Table, now: u64) -> bool {
        // Whoever writes the next one knows whose turn it is.
        for row in &table.rows {
            let agent = self.agents.entry(row.label).or_default();
            if row.quota.burst >= LEAST_BURST {
                let spent = agent.report.map(|report| report.spent);
                agent.turn.get_or_insert((now, spent));
            } else if agent.turn.take().is_some() {
                agent.turned = now;
            }
        }
        let is_mine = self.made.contains(&table.id);
        let labels: BTreeSet<u64> = table.rows.iter().map(|row| row.label).collect();
        self.agents.retain(|label, agent| {
            let has_row = labels.contains(label);
            // Of those that are heard by others, it is known by their rows that they are there.
            agent.missed = agent.missed.saturating_add(u32::from(is_mine || !has_row));
            has_row || agent.report.is_some() && !agent.is_gone()
        });
        is_mine
    }

    /// Another agent writes the tables: it alone hears of those that have come and gone.
    pub(crate) fn rests(&mut self) {
        self.made.clear();
        for agent in self.agents.values_mut() {
            (agent.report, agent.missed) = (None, 0);
        }
    }

    /// The table after `newest`, which is at `prev`. `own` is this agent's report.
    pub(crate) fn plan(
        &mut self,
        newest: Option<&Table>,
        prev: Position,
        own: Report,
        is_first: bool,
        id: u128,
        now: u64,
    ) -> Table {
        self.note(own);
        let old: &[Row] = newest.map_or(&[], |table| &table.rows);
        for row in old {
            self.agents.entry(row.label).or_default();
        }
        // The old rows first, in their order: those of the first three write.
        let first = is_first.then_some(own.label);
        let labels = first.into_iter().chain(old.iter().map(|row| row.label));
        let mut seen = BTreeSet::new();
        let labels = labels.chain(self.agents.keys().copied());
        let mut labels: Vec<u64> = labels.filter(|label| seen.insert(*label)).collect();
        labels.retain(|label| !self.agents[label].is_gone());

        let limits = labels.iter().filter_map(|label| self.agents[label].report);
        let limit = limits.fold(own.limit, |least, report| least.min(report.limit));

        let before: BTreeMap<u64, &Row> = old.iter().map(|row| (row.label, row)).collect();
        let had: Vec<Option<Quota>> =
            labels.iter().map(|label| before.get(label).map(|row| row.quota)).collect();
        let is_same = newest.is_some_and(|table| table.limit == limit && old.len() == labels.len());
        let kept = had.iter().copied().collect::<Option<Vec<_>>>().filter(|_| is_same);
        let quotas = match kept {
            Some(kept) if !self.must_change(&labels, &kept, limit, now) => kept,
            kept => {
                let quotas = self.quotas(&labels, &had, limit, now);
                if kept.as_ref() != Some(&quotas) {
                    self.changed = Some(now);
                }
                quotas
            }
        };
        let rows = std::iter::zip(&labels, quotas).map(|(label, quota)| {
            let carried = before.get(label).map_or(0, |row| row.nonce);
            let nonce = self.agents[label].report.map_or(carried, |report| report.nonce);
            Row { label: *label, nonce, quota }
        });
        let table = Table { id, prev, limit, rows: rows.collect() };
        if self.made.len() == 8 {
            self.made.pop_front();
        }
        self.made.push_back(id);
        table
    }

    /// Whether the rows of the same agents, by the same limit, should be others.
    fn must_change(&self, labels: &[u64], kept: &[Quota], limit: Quota, now: u64) -> bool {
        // What the last change gave has only now arrived.
        if self.changed.is_some_and(|changed| now.saturating_sub(changed) < self.term) {
            return false;
        }
        let agents = || labels.iter().map(|label| &self.agents[label]);
        // Who took over waits until it knows what all want.
        if agents().any(|agent| agent.report.is_none()) {
            return false;
        }
        let has_turns = kept.iter().any(|quota| quota.burst < LEAST_BURST);
        if has_turns
            && std::iter::zip(labels, kept).any(|(label, quota)| self.is_done(*label, *quota, now))
        {
            return true;
        }
        if !std::iter::zip(agents(), kept).any(|(agent, row)| agent.lacks(*row)) {
            return false;
        }
        let had: Vec<_> = kept.iter().copied().map(Some).collect();
        let new = self.quotas(labels, &had, limit, now);
        std::iter::zip(std::iter::zip(agents(), kept), new).any(|((agent, old), new)| {
            let gains = new.rate > old.rate.saturating_add(old.rate / WORTH);
            agent.lacks(*old) && (gains || agent.need() > old.burst && new.burst > old.burst)
        })
    }

    /// Whether an agent has used its turn.
    fn is_done(&self, label: u64, quota: Quota, now: u64) -> bool {
        let agent = &self.agents[&label];
        let (Some((began, base)), Some(report)) = (agent.turn, agent.report) else { return false };
        let Some(base) = base else { return false };
        if quota.burst < LEAST_BURST {
            return false;
        }
        let accrued = u128::from(quota.rate) * u128::from(self.term) / 1_000_000_000;
        let tokens = (accrued * u128::from(TURN_TERMS) / 1_000_000_000) as u64;
        let used = report.spent.wrapping_sub(base);
        // One that wants nothing any more, or not what it has.
        let most = u128::from(tokens.max(TURN_TOKENS)) * 1_000_000_000_000_000_000 * 2;
        let longest = most / u128::from(quota.rate.max(1)) + 2 * u128::from(self.term);
        used >= tokens.max(TURN_TOKENS)
            || agent.need() == 0
            || u128::from(now.saturating_sub(began)) > longest
    }

    /// The rows of the agents, in the order of `labels`, which `had` these so far.
    fn quotas(&self, labels: &[u64], had: &[Option<Quota>], limit: Quota, now: u64) -> Vec<Quota> {
        let bursts = self.bursts(labels, had, limit.burst, now);
        let holders: Vec<usize> = (0..labels.len()).filter(|at| bursts[*at] > 0).collect();
        // An idle agent keeps a little, so that its first call does not wait for a term.
        let floor = limit.rate / FLOOR / (holders.len() as u64).max(1);
        let want = |at: &usize| self.agents[&labels[*at]].want(had[*at]).max(floor);
        let wants: Vec<u64> = holders.iter().map(want).collect();
        let mut quotas: Vec<_> =
            bursts.iter().map(|burst| Quota { rate: 0, burst: *burst }).collect();
        let rates_had: Vec<u64> =
            holders.iter().map(|at| had[*at].unwrap_or_default().rate).collect();
        for (at, rate) in std::iter::zip(holders, rates(&wants, &rates_had, limit.rate)) {
            quotas[at].rate = rate;
        }
        quotas
    }

    fn bursts(&self, labels: &[u64], had: &[Option<Quota>], burst: u32, now: u64) -> Vec<u32> {
        let equal = burst / (labels.len() as u32).max(1);
        if equal >= LEAST_BURST && labels.iter().all(|label| self.agents[label].need() <= equal) {
            return vec![equal; labels.len()];
        }
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_by_cached_key(|at| {
            let (label, agent) = (labels[*at], &self.agents[&labels[*at]]);
            let quota = had[*at].unwrap_or_default();
            let has_turn = quota.burst >= LEAST_BURST && !self.is_done(label, quota, now);
            let turned = if agent.turn.is_some() { now } else { agent.turned };
            (agent.need() == 0, !has_turn, turned, label)
        });
        let mut bursts = vec![0; labels.len()];
        let (mut left, mut holders) = (burst, 0);
        for at in order {
            let need = self.agents[&labels[at]].need().max(LEAST_BURST).min(burst);
            if need <= left {
                bursts[at] = need;
                left -= need;
                holders += 1;
            }
        }
        let each = left.checked_div(holders).unwrap_or(0);
        for burst in bursts.iter_mut().filter(|burst| **burst > 0) {
            *burst += each;
        }
        bursts
    }
}

/// What each gets of `total`: no more than it wants, as equal as that allows.
fn max_min(wants: &[u64], total: u64) -> Vec<u64> {
    let count = wants.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|at| wants[*at]);
    let (mut shares, mut left) = (vec![0; count], total);
    for (done, at) in order.iter().enumerate() {
        shares[*at] = wants[*at].min(left / (count - done) as u64);
        left -= shares[*at];
    }
    shares
}

/// The rates of those that want so much, and had so much: those that are short get what is theirs by max-min, and as
/// much again if nobody wants it, from what is free and then from what others have beyond theirs. All else stays.
fn rates(wants: &[u64], had: &[u64], total: u64) -> Vec<u64> {
    let fair = max_min(wants, total);
    let sum = |numbers: &[u64]| numbers.iter().map(|n| u128::from(*n)).sum::<u128>();
    // Under a smaller limit, all begin with nothing.
    let fits = sum(had) <= total.into();
    let had: Vec<u64> = had.iter().map(|had| if fits { *had } else { 0 }).collect();
    let above = |a: &[u64], b: &[u64]| -> Vec<u64> {
        std::iter::zip(a, b).map(|(a, b)| a.saturating_sub(*b)).collect()
    };
    let (lacking, surplus) = (above(&fair, &had), above(&had, &fair));
    let (lacks, spare, free) = (sum(&lacking), sum(&surplus), u128::from(total) - sum(&had));
    let given = (2 * lacks).min(spare + free);
    let taken = given.saturating_sub(free);
    let gained = |at: usize| (u128::from(lacking[at]) * given / lacks.max(1)) as u64;
    // Rounded up: the rates must not sum to more than there is.
    let lost = |at: usize| (u128::from(surplus[at]) * taken).div_ceil(spare.max(1)) as u64;
    let mut rates: Vec<u64> = (0..had.len()).map(|at| had[at] + gained(at) - lost(at)).collect();
    let each = total.saturating_sub(sum(&rates) as u64) / (rates.len() as u64).max(1);
    for rate in &mut rates {
        *rate += each;
    }
    rates
}
