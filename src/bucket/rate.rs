//! The arithmetic of a bucket: pure, exact, without atomics and without a clock.
//!
//! # Units
//!
//! A bucket counts in *units*, fractions of a token. A token has as many units as fit: a ring of
//! [`POSITION_BITS`] bits must have room for twice the capacity and an hour of accrual. If possible the
//! number is a multiple of the least one with which every nanosecond accrues whole units (10^9 at 1/s, 5
//! at 600,000,000/s): then nothing is ever rounded. Otherwise (999,999,937/s) it is a power of two.
//!
//! # The rate
//!
//! `tokens / window` is a reduced fraction `P / Q` of units per nanosecond. It is kept as a fixed-point
//! number with [`FRACTION_BITS`] fractional bits, **rounded up**. For every elapsed time `e` with
//! `e * Q <= 2^112` the product exceeds the true value by less than the distance from the true value to
//! the next whole unit. So its floor is the true floor:
//!
//! ```text
//! e * rate - e * P/Q  <  e / 2^112  <=  1/Q  <=  (distance to the next whole unit)
//! ```
//!
//! Rounding down instead would make each whole token one nanosecond late. [`Terms::horizon`] ends
//! before the inequality does, and the bucket moves its anchor there.

use super::batch::batch_size;
use super::word::POSITION_BITS;

/// Fractional bits of the rate.
pub(crate) const FRACTION_BITS: u32 = 112;
/// A scaled rate counts in 2^-20 of a token.
const SCALED_BITS: u32 = 20;
/// A carry counts in 2^-48 of a unit.
pub(crate) const CARRY_BITS: u32 = FRACTION_BITS - 64;

/// Parts of a token in which the burst of a share is counted.
pub(crate) const BURST_PARTS: u32 = 64;
/// The nanoseconds in which a nanotoken a second is a token.
const NANOTOKENS: u64 = 1_000_000_000_000_000_000;
const HOUR: u128 = 3_600_000_000_000;
/// Largest number of tokens, in a window or as a burst: 2^52, about 4.5e15.
pub(crate) const MAX_TOKENS: u64 = 1 << 52;

/// What a limit is scaled by after a cut. All that is scaled (the burst, the rate, what is shown and what
/// is announced) goes through [`tokens`](Self::tokens) or [`scaled`](Self::scaled), so that it agrees.
///
/// A factor is a float, and may lie a little below the one that was meant: 0.03 of 100 is 3, and 0.6 of 10
/// is 6. So a product that is almost a whole number is that number. "Almost" is a relative distance of
/// 2^-44, which is more than the error of a quotient and of hundreds of steps of a recovery, and less than
/// half a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Factor {
    mantissa: u64,
    /// The factor is `mantissa / 2^down`, with `down` from 42 to 72.
    down: u32,
}

impl Factor {
    #[cfg(test)]
    pub(crate) const FULL: Self = Self { mantissa: 1 << 52, down: 52 };
    /// A recovery without a cap stops growing at 1,024 times the limit.
    const MOST: f64 = 1024.0;

    /// At least 2^-20.
    pub(crate) fn new(factor: f64) -> Self {
        let bits = factor.max(1.0 / f64::from(1 << SCALED_BITS)).min(Self::MOST).to_bits();
        let exponent = (bits >> 52) as u32;
        Self { mantissa: bits & ((1 << 52) - 1) | 1 << 52, down: 52 + 1023 - exponent }
    }

    /// Whole tokens in `tokens * factor`; `tokens` has at most 54 bits.
    pub(crate) fn tokens(self, tokens: u64) -> u64 {
        let product = u128::from(tokens) * u128::from(self.mantissa);
        ((product + self.slack(product)) >> self.down) as u64
    }

    /// `tokens * factor` in 2^-20 of a token, rounded down, at least one token; `tokens` has at most 54
    /// bits.
    fn scaled(self, tokens: u64) -> u128 {
        let product = u128::from(tokens) * u128::from(self.mantissa);
        let whole = u128::from(self.tokens(tokens));
        let is_whole = product.abs_diff(whole << self.down) <= self.slack(product);
        let scaled =
            if is_whole { whole << SCALED_BITS } else { product >> (self.down - SCALED_BITS) };
        scaled.max(1 << SCALED_BITS)
    }

    /// The units of a bucket of `tokens`, rounded down, at least those of its whole tokens.
    fn units(self, tokens: u64, unit: u64) -> u128 {
        let units = u128::from(tokens) * u128::from(unit); // at most 75 bits
        let whole = u128::from(self.tokens(tokens)) * u128::from(unit);
        ((units * u128::from(self.mantissa)) >> self.down).max(whole)
    }

    /// How far below a whole number of tokens a product is that number.
    fn slack(self, product: u128) -> u128 {
        (product >> 44).min((1 << (self.down - 1)) - 1)
    }
}

/// A token bucket's terms: what is needed to say how much has accrued, and how much may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Units a token.
    pub(crate) unit: u64,
    /// Tokens that a stripe reserves: see [`super::stripes`]. 0 for no stripes.
    pub(crate) batch: u64,
    /// Units in a full bucket; at least one token.
    pub(crate) capacity: u64,
    /// Whole tokens in a full bucket.
    pub(crate) capacity_tokens: u64,
    pub(crate) rate: Rate,
    /// The rate after a pace: another than `rate` while that lasts.
    pub(crate) after: Rate,
    /// Elapsed nanoseconds below which [`Rate::accrue`] is exact and positions do not wrap.
    pub(crate) horizon: u64,
    /// Nanoseconds in which a whole number of units accrues: an anchor that moves by a multiple of it
    /// loses nothing. `u64::MAX` if it is too long to be of use.
    pub(crate) period: u64,
}

/// Units per nanosecond as `hi * 2^64 + lo` over 2^112.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate {
    pub(crate) hi: u64,
    pub(crate) lo: u64,
}

/// What has accrued since an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accrued {
    /// Whole units.
    pub(crate) floor: u64,
    /// The fraction of a unit beyond them, in 2^-48, rounded down; 0 where there is none.
    pub(crate) fraction: u64,
    /// Whole units, rounded up.
    pub(crate) ceil: u64,
}

impl Rate {
    /// What accrues in `elapsed` nanoseconds, on top of a `carry` of 2^-48ths of a unit.
    ///
    /// A carry is stored one step short (see [`Level::rescale`]). So the product's own rounding, which is
    /// less than a step, never counts a unit before it has accrued. The ceiling adds that step back.
    #[inline]
    pub(crate) fn accrue(self, elapsed: u64, carry: u64) -> Accrued {
        let low = u128::from(elapsed) * u128::from(self.lo);
        let sum = u128::from(elapsed) * u128::from(self.hi) + (low >> 64) + u128::from(carry);
        let floor = saturate(sum >> CARRY_BITS);
        let fraction = sum as u64 & ((1 << CARRY_BITS) - 1);
        if carry == 0 {
            // Less than `elapsed` in the last place is the rate's rounding, not a remainder.
            let whole = fraction == 0 && (low as u64) < elapsed.max(1);
            return Accrued { floor, fraction, ceil: floor.saturating_add(u64::from(!whole)) };
        }
        Accrued { floor, fraction, ceil: saturate((sum + 1) >> CARRY_BITS).saturating_add(1) }
    }

    /// Units a nanosecond; 0 if that is no whole number.
    pub(crate) fn whole_units(self) -> u64 {
        let fraction = self.hi & ((1 << CARRY_BITS) - 1);
        if fraction == 0 && self.lo == 0 { self.hi >> CARRY_BITS } else { 0 }
    }

    /// The least elapsed time at which `units` have accrued; `None` if no clock reading is late enough.
    #[cold]
    #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss)] // a guess; the casts saturate
    pub(crate) fn when(self, units: u64, carry: u64) -> Option<u64> {
        let step = self.whole_units();
        if step != 0 {
            return Some(units.div_ceil(step)); // a carry is less than a unit
        }
        if self.accrue(u64::MAX, carry).floor < units {
            return None;
        }
        // A floating-point guess brackets the answer to a few nanoseconds. If it did not, the whole range
        // does.
        let per_unit = self.as_f64().recip();
        let guess = units as f64 * per_unit;
        let slip = guess * 1e-14 + 2.0 + per_unit;
        let (mut early, mut late) = ((guess - slip) as u64, (guess + slip) as u64);
        if early > 0 && self.accrue(early, carry).floor >= units {
            early = 0;
        }
        if self.accrue(late, carry).floor < units {
            late = u64::MAX;
        }
        while early < late {
            let middle = early + (late - early) / 2;
            if self.accrue(middle, carry).floor >= units {
                late = middle;
            } else {
                early = middle + 1;
            }
        }
        Some(late)
    }
}

impl Rate {
    #[allow(clippy::cast_precision_loss)]
    fn as_f64(self) -> f64 {
        let fixed = u128::from(self.hi) << 64 | u128::from(self.lo);
        fixed as f64 / (1_u128 << FRACTION_BITS) as f64
    }
}

impl Terms {
    /// The terms of `tokens` per `window` nanoseconds with a bucket of `burst`, scaled by `factor`. `None`
    /// if they do not fit on the ring. The arguments are positive, and the tokens at most [`MAX_TOKENS`].
    pub(crate) fn new(tokens: u64, window: u64, burst: u64, factor: Factor) -> Option<Self> {
        Self::with_parts(tokens, window, burst, 1, factor)
    }

    /// The terms of a share of a swarm's quota: nanotokens a second, and a burst in 1/[`BURST_PARTS`] of a token,
    /// of which there is at least one token. Without stripes: a share ends at a given reading.
    pub(crate) fn of_share(rate: u64, burst: u32, factor: Factor) -> Option<Self> {
        let (mut rate, mut window) = (rate, NANOTOKENS);
        while rate > MAX_TOKENS {
            (rate, window) = (rate / 10, window / 10);
        }
        let terms = Self::with_parts(rate, window, burst.into(), BURST_PARTS.into(), factor)?;
        Some(Self { batch: 0, ..terms })
    }

    /// As [`new`](Self::new), with a burst in `parts` of a token.
    fn with_parts(
        tokens: u64,
        window: u64,
        burst: u64,
        parts: u64,
        factor: Factor,
    ) -> Option<Self> {
        let scaled = factor.scaled(tokens);
        let per = u128::from(window) << SCALED_BITS;

        // Both twice the capacity and an hour's accrual stay below half of the ring.
        let hourly = (scaled * HOUR).div_ceil(per);
        let widest = hourly.max(2 * (u128::from(factor.tokens(burst) / parts) + 1));
        let (tokens, nanos) = reduce(scaled, per);
        // As many units as fit: a power of two times the least number that makes a nanosecond's accrual
        // whole, or times one.
        let room = |unit: u128| {
            let bits = u128::BITS - unit.checked_mul(widest)?.leading_zeros();
            (POSITION_BITS - 1).checked_sub(bits).map(|shift| (unit << shift) as u64)
        };
        let unit = room(nanos).or_else(|| room(1))?;
        let capacity = ((factor.units(burst, unit) / u128::from(parts)) as u64).max(unit);

        let common = reduce(u128::from(unit), nanos);
        let (units, per) = reduce(tokens * common.0, common.1);
        let rate = fixed_point(units, per);
        let (horizon, period) = horizon(rate, per, capacity);
        let capacity_tokens = capacity / unit;
        let batch = batch_size(capacity_tokens);
        Some(Self { unit, batch, capacity, capacity_tokens, rate, after: rate, horizon, period })
    }

    /// These terms at a pace of `units` in `nanos`, which is not 0, if that is a lower rate. Without stripes:
    /// a pace ends at a given reading.
    pub(crate) fn paced(self, units: u128, nanos: u64) -> Self {
        let (units, per) = reduce(units, nanos.into());
        if units / per >= 1 << (u128::BITS - FRACTION_BITS) {
            return self;
        }
        let rate = fixed_point(units, per);
        if rate >= self.rate {
            return self;
        }
        let (horizon, period) = horizon(rate, per, self.capacity);
        Self { batch: 0, rate, horizon, period, ..self }
    }

    /// Tokens that accrue in a second.
    #[cfg(feature = "metrics")]
    #[allow(clippy::cast_precision_loss)] // a rate
    pub(crate) fn per_second(&self) -> f64 {
        self.rate.as_f64() * 1e9 / self.unit as f64
    }

    pub(crate) fn is_paced(&self) -> bool {
        self.rate != self.after
    }

    /// The largest debt, in units.
    pub(crate) fn max_debt(&self) -> u64 {
        max_debt(self.rate, self.after, self.capacity)
    }

    /// Nanoseconds in which this many tokens have certainly accrued.
    fn time_for(&self, tokens: u64) -> u64 {
        let when = |units| self.rate.when(units, 0).unwrap_or(u64::MAX);
        match tokens.checked_mul(self.unit) {
            Some(units) => when(units),
            None => tokens.saturating_mul(when(self.unit)),
        }
    }
}

/// How full a bucket is, in 2^-48 of a unit; negative for a debt. Never above the capacity. Accrual is
/// rounded down, debt up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(pub(crate) i128);

impl Level {
    pub(crate) const MAX: Self = Self(i128::MAX);
    pub(crate) const ZERO: Self = Self(0);

    /// The level of a bucket at `position` units from its origin.
    pub(crate) fn at(position: u64, accrued: Accrued, capacity: u64) -> Self {
        if position <= accrued.floor {
            return Self(i128::from(capacity) << CARRY_BITS);
        }
        let units = i128::from(accrued.floor) + i128::from(capacity) - i128::from(position);
        // The rate's rounding may have added a step to the fraction.
        let fraction = accrued.fraction.saturating_sub(1);
        Self((units << CARRY_BITS) + i128::from(fraction))
    }

    /// This level and `units` more, in whole units; 0 if that is negative.
    pub(crate) fn plus(self, units: u64) -> u64 {
        let sum = (self.0 >> CARRY_BITS) + i128::from(units);
        u64::try_from(sum.max(0)).unwrap_or(u64::MAX)
    }

    /// This level, or that of `tokens` if that is lower.
    pub(crate) fn min_tokens(self, tokens: u64, unit: u64) -> Self {
        let most = i128::from(tokens).saturating_mul(i128::from(unit) << CARRY_BITS);
        Self(self.0.min(most))
    }

    /// Whole units that `tokens` are above it.
    pub(crate) fn short_of(self, tokens: u64, unit: u64) -> u128 {
        let ceil = -(-self.0 >> CARRY_BITS);
        (i128::from(tokens) * i128::from(unit) - ceil).max(0).unsigned_abs()
    }

    /// Subtracts what accrues in `nanos`, rounded up; at most 2^78 units, more than can be owed.
    pub(crate) fn owe(&mut self, rate: Rate, nanos: u64) {
        let low = u128::from(nanos) * u128::from(rate.lo);
        let sum = u128::from(nanos) * u128::from(rate.hi) + (low >> 64);
        let most = 1 << (78 + CARRY_BITS);
        self.0 -= (sum.min(most - 1) + u128::from(low as u64 != 0)).cast_signed();
    }

    /// This level less `charge` tokens, in another bucket's units, clipped to its capacity. A debt is
    /// kept.
    #[allow(clippy::cast_sign_loss)] // no position is negative: the level is at most the capacity
    pub(crate) fn rescale(self, from: &Terms, to: &Terms, charge: u64) -> Rescaled {
        let most = i128::from(to.capacity) << CARRY_BITS;
        // Half of the ring is room for a debt, beyond the capacity and an hour of accrual.
        let least = -(1_i128 << (POSITION_BITS - 2 + CARRY_BITS));
        // `self * to.unit / from.unit`, rounded down (a debt up), without a wider product: as many whole
        // tokens as fit, and the rest.
        let (from_unit, to_unit) = (i128::from(from.unit), i128::from(to.unit));
        let tokens = self.0.div_euclid(from_unit) - (i128::from(charge) << CARRY_BITS);
        let rest = self.0.rem_euclid(from_unit) * to_unit;
        // A debt that does not fit on the ring is paid before anything else accrues: in whole tokens, so
        // that no fraction of one is owed twice.
        let whole = 1_i128 << CARRY_BITS;
        let beyond =
            (least / to_unit - tokens).max(0).unsigned_abs().div_ceil(whole.unsigned_abs());
        let fitting = (tokens + beyond.cast_signed() * whole).min(most / to_unit + whole);
        let level = (fitting * to_unit + rest.div_euclid(from_unit)).min(most);
        let delay = if beyond > 0 { to.time_for(saturate(beyond)) } else { 0 };
        let units = level >> CARRY_BITS;
        let fraction = (level & ((1 << CARRY_BITS) - 1)) as u64;
        let position = (i128::from(to.capacity) - units) as u64;
        Rescaled { position, carry: fraction.saturating_sub(1), delay }
    }
}

/// A [`Level`] as another bucket counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rescaled {
    pub(crate) position: u64,
    /// See [`Rate::accrue`].
    pub(crate) carry: u64,
    /// Nanoseconds of accrual that a debt takes up on top of its position.
    pub(crate) delay: u64,
}

/// The decision: the position after a take of `units`, or the units that must have accrued before it
/// can succeed. May wrap on a slot that is being rewritten, and then the CAS fails.
#[inline]
pub(super) fn admit(
    position: u64,
    floor: u64,
    ceil: u64,
    capacity: u64,
    units: u64,
) -> Result<u64, u64> {
    if position <= floor {
        return Ok(ceil.wrapping_add(units));
    }
    let next = position.wrapping_add(units);
    if next <= floor.saturating_add(capacity) { Ok(next) } else { Err(next.wrapping_sub(capacity)) }
}

/// The largest debt, in units: what accrues in 24 hours, or a full bucket if that is more. Otherwise one
/// wrong number in a settlement would close a resource for years. While a pace lasts, which may have a rate of
/// 0, no more than fits on the ring.
pub(crate) fn max_debt(rate: Rate, after: Rate, capacity: u64) -> u64 {
    const DAY: u64 = 24 * 3_600 * 1_000_000_000;
    let most = after.accrue(DAY, 0).floor.max(capacity);
    if rate == after { most } else { most.min((1 << (POSITION_BITS - 2)) - 1) }
}

/// [`Terms::horizon`] and [`Terms::period`] of a rate of a whole number of units in `per` nanoseconds.
fn horizon(rate: Rate, per: u128, capacity: u64) -> (u64, u64) {
    let room = (1_u64 << POSITION_BITS) - 1 - 2 * capacity;
    let horizon = rate
        .when(room, 0)
        .unwrap_or(u64::MAX)
        .min(saturate((1_u128 << FRACTION_BITS) / per))
        .min(1 << 62);
    // After the anchor moved, up to a period has elapsed already: stay well inside the horizon.
    let period = u64::try_from(per).ok().filter(|per| *per <= horizon / 4).unwrap_or(u64::MAX);
    (horizon, period)
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn reduce(a: u128, b: u128) -> (u128, u128) {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x, b / x)
}

/// `ceil(p * 2^112 / q)` by long division: `p / q < 2^16`, `q < 2^127`.
fn fixed_point(p: u128, q: u128) -> Rate {
    let (mut quotient, mut rest) = (p / q, p % q);
    for _ in 0..FRACTION_BITS {
        rest <<= 1;
        quotient = quotient << 1 | u128::from(rest >= q);
        if rest >= q {
            rest -= q;
        }
    }
    quotient += u128::from(rest > 0);
    Rate { hi: (quotient >> 64) as u64, lo: quotient as u64 }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;
