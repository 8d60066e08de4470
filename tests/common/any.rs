//! Terms of all sizes, for what is tested with any of them.

use proptest::prelude::*;

use super::{Gate, SECOND, Terms};

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
