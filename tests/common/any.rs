//! Terms of all sizes, for what is tested with any of them.

use std::time::Duration;

use proptest::prelude::*;

use super::{Gate, Log, SECOND, Terms};

/// Of all lengths alike, up to `most`.
pub(crate) fn spread(most: u64) -> impl Strategy<Value = u64> {
    (0..=most.ilog2(), any::<u64>()).prop_map(move |(bits, any)| (any % (2 << bits)).clamp(1, most))
}

/// Windows whose fractions fit the reference; tokens and bursts of all sizes.
pub(crate) fn terms() -> impl Strategy<Value = Terms> {
    let windows = prop::sample::select(vec![
        1,
        1_000,
        999_983,
        SECOND,
        7 * SECOND,
        60 * SECOND,
        3_600 * SECOND,
        86_400 * SECOND,
    ]);
    (spread(1_000_000_000), windows, spread(1_000_000)).prop_map(|(tokens, window, burst)| {
        // At most a token a nanosecond: a higher rate is cut down.
        Terms::new(tokens.min(window), window, burst)
    })
}

/// Terms that accrue a whole number of units in each nanosecond: nothing is ever rounded.
pub(crate) fn terms_on_a_grid() -> impl Strategy<Value = Terms> {
    (0..=20_u32, 0..=30_u32, spread(1_000_000))
        .prop_map(|(tokens, window, burst)| Terms::new(1 << tokens.min(window), 1 << window, burst))
}

/// All clocks to one time.
pub(crate) fn set(gates: &[&dyn Gate], now: u64) {
    for gate in gates {
        gate.clock().set(now);
    }
}

/// Takes of up to a burst. Each has a pause before it, and whether the same limit is set once more.
pub(crate) fn takes() -> impl Strategy<Value = (Terms, Vec<(u64, u64, bool)>)> {
    terms().prop_flat_map(|terms| {
        let pause = 0..=terms.due(terms.burst).min(1 << 50);
        let take = (1..=terms.burst, pause, prop::bool::weighted(0.2));
        (Just(terms), prop::collection::vec(take, 1..30))
    })
}

/// What a take, or a look, is denied with: its `retry_after`.
pub(crate) type Asked = Result<(), Option<Duration>>;

/// `retry_after` is the first nanosecond at which the same take succeeds; and the contract holds.
/// `changed` is called after each step of the clock to it.
pub(crate) fn retry_after_is_exact(
    gate: &impl Gate,
    (terms, takes): (Terms, Vec<(u64, u64, bool)>),
    check: impl Fn(u64) -> Asked,
    peek: impl Fn(u64) -> Asked,
    changed: impl Fn(),
) -> Result<(), TestCaseError> {
    let mut log = Log::new(terms);
    for (n, pause, anew) in takes {
        gate.advance(pause / 16);
        if anew {
            // What is left is a remainder to carry.
            gate.reconfigure(terms);
        }
        if let Err(wait) = check(n) {
            let wait = wait.expect("it is exhausted");
            prop_assert_eq!(peek(n), Err(Some(wait)));
            prop_assert!(wait > Duration::ZERO);
            let wait = u64::try_from(wait.as_nanos()).unwrap();
            if gate.now().saturating_add(wait) >= 3 << 62 {
                return Ok(()); // the clock ends there
            }
            gate.advance(wait - 1);
            changed();
            prop_assert_eq!(check(n), Err(Some(Duration::from_nanos(1))));
            gate.advance(1);
            changed();
            prop_assert_eq!(check(n), Ok(()));
        }
        log.admit(gate.now(), n);
    }
    Ok(())
}
