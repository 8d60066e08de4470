//! The arithmetic of [`rate`](super::rate) against exact fractions of arbitrary width.

use num_bigint::BigInt;
use proptest::prelude::*;

use super::{CARRY_BITS, Factor, Level, MAX_TOKENS, POSITION_BITS, Rate, Rescaled, Terms};

const HOUR: u64 = 3_600_000_000_000;
/// Factors are tested in parts of 2^20, which a float holds exactly.
const PARTS: u32 = 20;

/// Terms, and beside them the fraction that their rate stands for: `p / q` units per nanosecond.
#[derive(Clone, Debug)]
struct Case {
    terms: Terms,
    p: BigInt,
    q: BigInt,
}

/// Numbers up to `most`, as many of each length, with the round ones that people write.
fn spread(most: u64) -> impl Strategy<Value = u64> {
    let bits = u64::BITS - most.leading_zeros();
    prop_oneof![
        4 => (1..=bits, any::<u64>()).prop_map(move |(bits, number)| {
            (number >> (u64::BITS - bits)).clamp(1, most)
        }),
        1 => (0..20_u32).prop_map(move |power| 10_u64.pow(power.min(19)).min(most)),
        1 => 1..=most.min(64),
        1 => Just(most),
    ]
}

fn window() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => spread(u64::MAX),
        1 => Just(1_000_000_000),
        1 => (1..=10_000_u64).prop_map(|seconds| seconds * 1_000_000_000),
        1 => (1..=366_u64).prop_map(|days| days * 24 * HOUR),
    ]
}

fn parts() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(1_u64 << PARTS), 2 => spread(1 << PARTS), 1 => spread(1 << (PARTS + 10))]
}

#[allow(clippy::cast_precision_loss)] // 30 bits
fn factor(parts: u64) -> Factor {
    Factor::new(parts as f64 / f64::from(1 << PARTS))
}

fn case_of(tokens: u64, window: u64, burst: u64, parts: u64) -> Option<Case> {
    let terms = Terms::new(tokens, window, burst, factor(parts))?;
    let one = BigInt::from(1_u64 << PARTS);
    let scaled = almost_whole(BigInt::from(tokens) * parts).max(one.clone());
    let case = Case { terms, p: scaled * terms.unit, q: one * window };
    Some(case)
}

/// Parts of tokens, or the whole tokens that they almost are: see [`Factor`].
fn almost_whole(scaled: BigInt) -> BigInt {
    let whole = (&scaled + (BigInt::from(1) << (PARTS - 1))) >> PARTS << PARTS;
    let distance = (&whole - &scaled).magnitude().clone();
    let is_close = (distance.clone() << 44) <= *scaled.magnitude()
        && distance * 2_u8 < (1_u64 << PARTS).into();
    if is_close { whole } else { scaled }
}

fn cases() -> impl Strategy<Value = Case> {
    // What has no room is given fewer tokens, not thrown away: the edge is where bugs live.
    (spread(MAX_TOKENS), window(), spread(MAX_TOKENS), parts()).prop_map(
        |(mut tokens, window, mut burst, mut parts)| {
            loop {
                if let Some(case) = case_of(tokens, window, burst, parts) {
                    return case;
                }
                parts = (parts / 2).max(1 << PARTS);
                if parts == 1 << PARTS {
                    tokens = (tokens / 2).max(1);
                    burst = (burst - burst / 3).max(1);
                }
            }
        },
    )
}

/// `at` of 2^32 on the way from 0 to `end`, both of which come up.
fn part_of(end: u64, at: u64) -> u64 {
    ((u128::from(end) * u128::from(at.min(1 << 32))) >> 32) as u64
}

fn moments() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..=1_u64 << 32, 1 => Just(1 << 32), 1 => Just(0), 2 => 0..=64_u64]
}

/// What a carry stands for: it is noted one step short.
fn steps_of(carry: u64) -> BigInt {
    BigInt::from(carry) + u64::from(carry > 0)
}

impl Case {
    /// `elapsed x p / q` and a remainder, in whole units.
    fn exactly(&self, elapsed: u64) -> (BigInt, BigInt) {
        let product = &self.p * elapsed;
        (&product / &self.q, &product % &self.q)
    }

    /// A bucket's level in units x q x 2^48.
    fn level(&self, position: u64, elapsed: u64, carry: u64) -> BigInt {
        let accrued = ((&self.p * elapsed) << CARRY_BITS) + steps_of(carry) * &self.q;
        let level =
            (((BigInt::from(self.terms.capacity) - position) * &self.q) << CARRY_BITS) + accrued;
        level.min((BigInt::from(self.terms.capacity) * &self.q) << CARRY_BITS)
    }
}

fn least_elapsed_is(rate: Rate, units: u64, carry: u64) -> Result<(), TestCaseError> {
    match rate.when(units, carry) {
        Some(elapsed) => {
            prop_assert!(rate.accrue(elapsed, carry).floor >= units);
            prop_assert!(elapsed == 0 || rate.accrue(elapsed - 1, carry).floor < units);
        }
        None => prop_assert!(rate.accrue(u64::MAX, carry).floor < units),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026), ..ProptestConfig::default() })]

    /// Floor, ceiling and fraction, for each elapsed time that the terms allow.
    #[test]
    fn accrual_is_exact(case in cases(), at in moments()) {
        let elapsed = part_of(case.terms.horizon - 1, at);
        // Beside the moment itself, the moments around the next whole unit, where a rate that is a
        // hair off shows.
        let unit = case.terms.rate.when(case.terms.rate.accrue(elapsed, 0).floor + 1, 0);
        let around = unit.into_iter().flat_map(|unit| [unit - 1, unit, unit.saturating_add(1)]);
        for elapsed in around.chain([elapsed]).filter(|at| *at < case.terms.horizon) {
            let (whole, rest) = case.exactly(elapsed);
            let accrued = case.terms.rate.accrue(elapsed, 0);
            prop_assert_eq!(&BigInt::from(accrued.floor), &whole, "floor at {}", elapsed);
            let ceil = whole + u32::from(rest != BigInt::ZERO);
            prop_assert_eq!(BigInt::from(accrued.ceil), ceil, "ceil at {}", elapsed);
            let fraction = (rest << CARRY_BITS) / &case.q;
            let excess = BigInt::from(accrued.fraction) - fraction;
            prop_assert!(excess == BigInt::ZERO || excess == BigInt::from(1));
        }
    }

    /// A carry never lets a unit count before it has accrued, nor late by more than its own step.
    #[test]
    fn a_carry_is_never_early(case in cases(), at in moments(), carry in 0..1_u64 << CARRY_BITS) {
        let elapsed = part_of(case.terms.horizon - 1, at);
        let product = (&case.p * elapsed) << CARRY_BITS;
        let most: BigInt = (&product + steps_of(carry) * &case.q) / (&case.q << CARRY_BITS);
        let least: BigInt = (product + &case.q * carry) / (&case.q << CARRY_BITS);
        let accrued = case.terms.rate.accrue(elapsed, carry);
        let floor = BigInt::from(accrued.floor);
        prop_assert!(least <= floor && floor <= most, "{} <= {} <= {}", least, floor, most);
        prop_assert!(BigInt::from(accrued.ceil) >= most);
        prop_assert!(accrued.ceil <= accrued.floor + 2);
    }

    /// `when` is the least elapsed time, with and without a carry, and `None` where there is none.
    #[test]
    fn when_is_the_first_moment(
        case in cases(), at in moments(), any in any::<u64>(), carry in 0..1_u64 << CARRY_BITS,
    ) {
        let reachable = case.terms.rate.accrue(case.terms.horizon - 1, 0).floor;
        for units in [part_of(reachable, at), any >> (any & 63), 0, 1] {
            least_elapsed_is(case.terms.rate, units, 0)?;
            least_elapsed_is(case.terms.rate, units, carry)?;
        }
    }

    /// The terms themselves: what they hold, how long they last, and that nothing leaves the line.
    #[test]
    fn terms_have_room(
        tokens in spread(MAX_TOKENS), window in window(), burst in spread(MAX_TOKENS),
        parts in parts(),
    ) {
        let Some(case) = case_of(tokens, window, burst, parts) else {
            // Refused only for want of room.
            let hourly = u128::from(tokens) * u128::from(parts) * u128::from(HOUR)
                / (u128::from(window) << PARTS);
            let held = (u128::from(burst) * u128::from(parts)) >> PARTS;
            prop_assert!(hourly.max(2 * held) + 1 >= 1 << (POSITION_BITS - 1));
            return Ok(());
        };
        let terms = case.terms;
        let held = (u128::from(burst) * u128::from(parts)).max(1 << PARTS);
        let whole: u64 = (almost_whole(held.into()) >> PARTS).try_into().expect("it fits");
        let units = (held * u128::from(terms.unit)) >> PARTS;
        prop_assert_eq!(u128::from(terms.capacity), units.max(u128::from(whole * terms.unit)));
        prop_assert_eq!(terms.capacity_tokens, terms.capacity / terms.unit);
        prop_assert!(terms.capacity_tokens >= 1);
        prop_assert!(parts != 1 << PARTS || terms.horizon >= HOUR, "{}", terms.horizon);
        prop_assert!(terms.horizon <= 1 << 62);
        // A position is at most a ceiling and a capacity; a carry adds less than a unit.
        let last = terms.rate.accrue(terms.horizon - 1, (1 << CARRY_BITS) - 1);
        prop_assert!(last.ceil + terms.capacity < 1 << POSITION_BITS);
        // A whole number of units each nanosecond; else as fine as fits: with units half as large
        // either the hour or the capacities do not fit.
        let even = case.exactly(1).1 == BigInt::ZERO;
        prop_assert_eq!(even, terms.rate.whole_units() > 0);
        let hourly = (&case.p * HOUR).to_string().parse::<f64>().unwrap_or(f64::MAX)
            / case.q.to_string().parse::<f64>().unwrap_or(1.0);
        let line = f64::from(POSITION_BITS - 3).exp2();
        #[allow(clippy::cast_precision_loss)]
        let wide = hourly.max(2.0 * terms.capacity as f64) >= line * 0.99;
        prop_assert!(even || wide, "hourly {}, capacity {}", hourly, terms.capacity);
        if terms.period != u64::MAX {
            prop_assert!(terms.period <= terms.horizon / 4);
            prop_assert_eq!(case.exactly(terms.period).1, BigInt::ZERO);
            // `reanchor` moves by many periods at a time, past the horizon as well.
            let many = u64::MAX / 2 / terms.period * terms.period;
            let (units, _) = case.exactly(many);
            let counted = BigInt::from(terms.rate.accrue(many, 0).floor);
            prop_assert_eq!(counted, units.min(BigInt::from(u64::MAX)));
        }
    }

    /// From one bucket's units to another's a level never grows, loses less than three steps (2^-48
    /// of a unit) of the old and two of the new, is clipped to the capacity; a debt stays a debt.
    #[test]
    fn rescaling_never_makes_tokens(
        from in cases(), to in cases(), same in prop::bool::weighted(0.2),
        at in moments(), carry in prop_oneof![Just(0), 0..1_u64 << CARRY_BITS],
        position in moments(), debt in prop::bool::weighted(0.2),
    ) {
        let to = if same { from.clone() } else { to };
        let elapsed = part_of(from.terms.horizon - 1, at);
        let accrued = from.terms.rate.accrue(elapsed, carry);
        // From full to empty, and as deep in debt as the line goes.
        let sweep_window =
            if debt { (1 << POSITION_BITS) - 1 - accrued.ceil } else { from.terms.capacity };
        let position = accrued.floor + part_of(sweep_window, position);

        let level = Level::at(position, accrued, from.terms.capacity);
        let Rescaled { position: position_after, carry: carry_after, delay } =
            level.rescale(&from.terms, &to.terms, 0);

        prop_assert!(position_after < 1 << (POSITION_BITS - 1));
        prop_assert!(carry_after < 1 << CARRY_BITS);
        // Both in tokens, over the common denominator q x q' x unit x unit' x 2^48.
        let (from_unit, to_unit) = (from.terms.unit, to.terms.unit);
        let before = from.level(position, elapsed, carry) * &to.q * to_unit;
        let accrues_first = (&to.p * delay) << CARRY_BITS;
        let after = (to.level(position_after, 0, carry_after) - accrues_first) * &from.q * from_unit;
        let most = (BigInt::from(to.terms.capacity) * &to.q * &from.q * from_unit) << CARRY_BITS;
        let allowed = before.clone().min(most);
        // The largest delay is for ever.
        prop_assert!(after <= allowed || delay == u64::MAX, "{} made", &after - &allowed);
        if delay == 0 {
            let both = &from.q * &to.q;
            // The fraction's own rounding, the step that it takes back, a noted carry's; the new
            // one's.
            let slip = &both * 3 * to_unit + both * 2 * from_unit;
            prop_assert!(after >= &allowed - &slip, "{} lost of {}", allowed - &after, slip);
        }
        prop_assert!(before >= BigInt::ZERO || after < BigInt::ZERO);
    }

    /// What an agent names is what another one keeps, shows and admits.
    #[test]
    fn a_quotient_gives_back_its_tokens(tokens in spread(MAX_TOKENS), more in spread(MAX_TOKENS)) {
        let capacity = tokens.saturating_add(more).min(MAX_TOKENS).min(tokens.saturating_mul(1 << PARTS));
        #[allow(clippy::cast_precision_loss)]
        let factor = Factor::new(tokens as f64 / capacity as f64);
        prop_assert_eq!(factor.tokens(capacity), tokens);
        prop_assert_eq!(factor.scaled(capacity), u128::from(tokens) << PARTS);
        if let Some(terms) = Terms::new(capacity, 1_000_000_000, capacity, factor) {
            prop_assert_eq!(terms.capacity_tokens, tokens);
        }
    }

    /// Rounded down, but for what is almost whole.
    #[test]
    fn products_round_down(capacity in spread(1 << 40), factor in 1e-6..1_000.0_f64) {
        let scaled = Factor::new(factor);
        let exact = BigInt::from(capacity) * scaled.mantissa;
        let tokens = BigInt::from(scaled.tokens(capacity)) << scaled.down;
        prop_assert!(&tokens - &exact <= &exact >> 44);
        prop_assert!(&exact - &tokens < BigInt::from(1) << scaled.down);
        let parts = BigInt::from(scaled.scaled(capacity)) << (scaled.down - PARTS);
        let least = BigInt::from(1) << scaled.down;
        prop_assert!(parts <= least.max(&exact + (&exact >> 44)));
        prop_assert!(&exact - parts < (BigInt::from(1) << (scaled.down - PARTS)).max((exact >> 44) + 1));
        prop_assert_eq!(u128::from(scaled.tokens(capacity)).max(1), scaled.scaled(capacity) >> PARTS);
    }
}

/// Each number of tokens of each capacity up to 1,000: the tokens, the rate, and the bucket.
#[test]
fn each_part_of_each_capacity_is_exact() {
    for capacity in 1..=1_000_u32 {
        for tokens in 1..=capacity {
            let factor = Factor::new(f64::from(tokens) / f64::from(capacity));
            let (capacity, tokens) = (capacity.into(), u64::from(tokens));
            assert_eq!(factor.tokens(capacity), tokens, "of {capacity}");
            assert_eq!(factor.scaled(capacity), u128::from(tokens) << PARTS, "of {capacity}");
            let terms = Terms::new(capacity, 1_000_000_000, capacity, factor).expect("room");
            assert_eq!(terms.capacity, tokens * terms.unit, "of {capacity}");
        }
    }
}

#[test]
fn factors_stay_in_range() {
    for none in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY, 1e-300] {
        assert_eq!(Factor::new(none), factor(1), "{none}");
    }
    for huge in [f64::INFINITY, 1e300, 1025.0] {
        assert_eq!(Factor::new(huge), factor(1 << (PARTS + 10)), "{huge}");
    }
    assert_eq!(Factor::new(1.0), Factor::FULL);
}
