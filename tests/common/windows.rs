//! The reference for limits of several windows: each a level in exact fractions of a token, taken from
//! all or none. It shares no arithmetic with what it checks.

use std::time::Duration;

use tollgate::Limit;

use super::{DAY, Dice, SECOND, Terms};

/// Grains a token: each window below accrues a whole number of them in a nanosecond, scaled by
/// sixty-fourths as well.
const GRAINS: i128 = 64 * 7 * DAY as i128;

/// Limits as people have them. Each is counted without rounding.
const EVERYDAY: [(u64, u64); 17] = [
    (1, SECOND),
    (2, SECOND),
    (5, SECOND),
    (10, SECOND),
    (1_000, SECOND),
    (3, 7 * SECOND),
    (7, 7 * SECOND),
    (1, 60 * SECOND),
    (10, 60 * SECOND),
    (100, 60 * SECOND),
    (600, 60 * SECOND),
    (60, 3_600 * SECOND),
    (500, 3_600 * SECOND),
    (1_000, 3_600 * SECOND),
    (1_000, DAY),
    (10_000, DAY),
    (86_400, DAY),
];

pub(crate) fn any_terms(dice: &mut Dice) -> Terms {
    let (tokens, window) = EVERYDAY[dice.roll(EVERYDAY.len() as u64) as usize];
    let burst = match dice.roll(3) {
        0 => tokens,
        1 => 1 + dice.roll(5),
        _ => 1 + dice.roll(100),
    };
    Terms::new(tokens, window, burst)
}

/// One to four windows, of any lengths and in any order.
pub(crate) fn any_windows(dice: &mut Dice) -> Vec<Terms> {
    (0..=dice.roll(4)).map(|_| any_terms(dice)).collect()
}

/// As one limit.
pub(crate) fn together(windows: &[Terms]) -> Limit {
    let one = |terms: &Terms| {
        Limit::new(terms.tokens, Duration::from_nanos(terms.window)).burst(terms.burst)
    };
    let (first, more) = windows.split_first().expect("at least one window");
    more.iter().fold(one(first), |limit, terms| limit.and(one(terms)))
}

/// A limit of several windows, on a clock that is told.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    levels: Vec<Level>,
    /// What is left of the limit after cuts, in 64ths; doubled every `interval` since the last one.
    factor: i128,
    interval: u64,
    cut_at: u64,
}

#[derive(Clone, Debug)]
struct Level {
    terms: Terms,
    each: i128,
    capacity: i128,
    anchor: u64,
    /// Until the anchor nothing is admitted.
    is_paused: bool,
    /// Counted like the accrual from the anchor.
    spent: i128,
}

impl Level {
    fn full(terms: Terms, factor: i128, now: u64) -> Self {
        let window = i128::from(terms.window);
        let each = (i128::from(terms.tokens) * factor).max(64) * (GRAINS / 64 / window);
        let capacity = (i128::from(terms.burst) * factor).max(64) * (GRAINS / 64);
        Self { terms, each, capacity, anchor: now, is_paused: false, spent: 0 }
    }

    fn accrued(&self, now: u64) -> i128 {
        i128::from(now.saturating_sub(self.anchor)).saturating_mul(self.each).min(i128::MAX / 4)
    }

    /// Negative in debt.
    fn held(&self, now: u64) -> i128 {
        self.capacity - (self.spent - self.accrued(now)).max(0)
    }

    fn look(&mut self, now: u64) {
        self.is_paused &= now < self.anchor;
    }

    /// How many grains `n` tokens are short of: none, or fewer, if they are there.
    fn short_of(&self, n: u64, now: u64) -> i128 {
        i128::from(n) * GRAINS - self.held(now)
    }

    fn charge(&mut self, n: u64, now: u64) {
        self.spent = self.spent.max(self.accrued(now)) + i128::from(n) * GRAINS;
    }

    fn give_back(&mut self, n: u64, now: u64) {
        if self.spent > self.accrued(now) {
            self.spent = (self.spent - i128::from(n) * GRAINS).max(0);
        }
    }

    fn wait(&self, n: u64, now: u64) -> u64 {
        let missing = (self.spent + i128::from(n) * GRAINS - self.capacity).max(0);
        let elapsed = u64::try_from((missing + self.each - 1) / self.each).expect("it fits");
        (self.anchor + elapsed).saturating_sub(now)
    }

    /// On with other terms: what is held stays, as far as it fits.
    fn turned(&self, terms: Terms, factor: i128, now: u64, pause_until: u64) -> Self {
        let next = Self::full(terms, factor, now.max(self.anchor).max(pause_until));
        let is_paused = (self.is_paused || pause_until > now) && next.anchor > now;
        let spent = next.capacity - self.held(now).min(next.capacity);
        Self { is_paused, spent, ..next }
    }
}

impl Windows {
    pub(crate) fn new(windows: &[Terms], interval: u64) -> Self {
        let levels = windows.iter().map(|terms| Level::full(*terms, 64, 0)).collect();
        Self { levels, factor: 64, interval, cut_at: 0 }
    }

    /// What is due at `now`, at its own time.
    fn look(&mut self, now: u64) {
        while self.factor < 64 && self.cut_at + self.interval <= now {
            self.cut_at += self.interval;
            self.factor = (self.factor * 2).min(64);
            let at = self.cut_at;
            self.turn(at, 0);
        }
        self.levels.iter_mut().for_each(|level| level.look(now));
    }

    fn turn(&mut self, now: u64, pause_until: u64) {
        let factor = self.factor;
        for level in &mut self.levels {
            level.look(now);
            *level = level.turned(level.terms, factor, now, pause_until);
        }
    }

    /// Whether `n` are admitted; with `take`, they are taken.
    pub(crate) fn admit(&mut self, n: u64, now: u64, take: bool) -> bool {
        self.look(now);
        let fits = n == 0 || (!self.is_paused() && self.short_of(n, now) <= 0.0);
        if fits && take {
            self.levels.iter_mut().filter(|_| n > 0).for_each(|level| level.charge(n, now));
        }
        fits
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.levels.iter().any(|level| level.is_paused)
    }

    /// How many tokens `n` are short of, in the window that is shortest of them.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn short_of(&self, n: u64, now: u64) -> f64 {
        let most = self.levels.iter().map(|level| level.short_of(n, now)).max();
        most.expect("a window") as f64 / GRAINS as f64
    }

    /// Nanoseconds until `n` are admitted, at the rates of now.
    pub(crate) fn wait(&self, n: u64, now: u64) -> u64 {
        self.levels.iter().map(|level| level.wait(n, now)).max().expect("a window")
    }

    /// The most that can be taken at once.
    pub(crate) fn largest(&self) -> u64 {
        let least = self.levels.iter().map(|level| level.capacity / GRAINS).min();
        u64::try_from(least.expect("a window")).expect("it fits")
    }

    /// Whole tokens in each window.
    pub(crate) fn available(&mut self, now: u64) -> Vec<u64> {
        self.look(now);
        let whole = |level: &Level| {
            let held = if level.is_paused { 0 } else { level.held(now).max(0) };
            u64::try_from(held / GRAINS).expect("it fits")
        };
        self.levels.iter().map(whole).collect()
    }

    pub(crate) fn settle(&mut self, granted: u64, actual: u64, now: u64) {
        self.look(now);
        for level in &mut self.levels {
            if actual > granted {
                level.charge(actual - granted, now);
            } else {
                level.give_back(granted - actual, now);
            }
        }
    }

    pub(crate) fn pause(&mut self, nanos: u64, now: u64) {
        self.look(now);
        self.turn(now, now + nanos);
    }

    /// Down to three quarters.
    pub(crate) fn cut(&mut self, now: u64) {
        self.look(now);
        (self.factor, self.cut_at) = (self.factor * 3 / 4, now);
        self.turn(now, 0);
    }

    pub(crate) fn terms(&self) -> Vec<Terms> {
        self.levels.iter().map(|level| level.terms).collect()
    }

    /// Whether another cut leaves whole 64ths, and a token a window.
    pub(crate) fn may_cut_at(&self, now: u64) -> bool {
        let mut then = self.clone();
        then.look(now);
        then.factor % 4 == 0
            && then.levels.iter().all(|level| i128::from(level.terms.tokens) * then.factor >= 128)
    }

    /// A window goes on from one of its length, else from one that is left over, else it is full.
    pub(crate) fn reconfigure(&mut self, windows: &[Terms], now: u64) {
        self.look(now);
        let mut old: Vec<Option<Level>> = self.levels.iter().cloned().map(Some).collect();
        let mut from = vec![None; windows.len()];
        for (from, terms) in from.iter_mut().zip(windows) {
            let same = |level: &Option<Level>| {
                level.as_ref().is_some_and(|level| level.terms.window == terms.window)
            };
            *from = old.iter().position(same).and_then(|index| old[index].take());
        }
        let mut left = old.into_iter().flatten();
        for from in from.iter_mut().filter(|from| from.is_none()) {
            *from = left.next();
        }
        // A pause is that of all.
        let paused = self.levels.iter().filter(|level| level.is_paused).map(|level| level.anchor);
        let paused = paused.max().unwrap_or(0);
        let factor = self.factor;
        let next = from.into_iter().zip(windows).map(|(from, terms)| match from {
            Some(level) => level.turned(*terms, factor, now, 0),
            None => Level::full(*terms, factor, now).turned(*terms, factor, now, paused),
        });
        self.levels = next.collect();
    }
}
