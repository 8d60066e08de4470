//! Any sequence of calls, on tollgate and on the reference limiter side by side.

use crate::common::any::{retry_after_is_exact, set, takes, terms, terms_on_a_grid};
use crate::common::{ByHandle, Gate, MutexBucket, SECOND, Terms, cases, turns};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Back(u64),
    Take(u64),
    Hold(u64),
    Refund,
    Peek(u64),
    Observe(u64),
    Reconfigure(Terms),
    Pause(u64),
    Cut,
}

/// Takes of what the bucket may hold, advances of what a take may wait for.
fn op(terms: Terms) -> impl Strategy<Value = Op> {
    let token = terms.due(1).min(20 * SECOND);
    let bucket = terms.due(terms.burst).min(20 * SECOND);
    let take = prop_oneof![
        3 => Just(1),
        3 => 1..=terms.burst,
        1 => Just(terms.burst),
        1 => Just(terms.burst + 1),
    ];
    prop_oneof![
        3 => (0..=2_u64, 1..=token).prop_map(|(whole, part)| Op::Advance(part * whole + 1)),
        3 => Just(Op::Advance(token)),
        3 => (1..=bucket).prop_map(Op::Advance),
        8 => take.clone().prop_map(Op::Take),
        2 => take.clone().prop_map(Op::Hold),
        2 => Just(Op::Refund),
        2 => take.prop_map(Op::Peek),
        2 => (0..=terms.burst).prop_map(Op::Observe),
    ]
}

fn any_op(terms: Terms, others: impl Strategy<Value = Terms>) -> impl Strategy<Value = Op> {
    let bucket = terms.due(terms.burst).min(20 * SECOND);
    prop_oneof![
        12 => op(terms),
        2 => others.prop_map(Op::Reconfigure),
        1 => Just(Op::Reconfigure(terms)),
        1 => (1..=bucket).prop_map(Op::Pause),
        1 => Just(Op::Cut),
        // Past every horizon.
        1 => (1..=1_u64 << 56).prop_map(Op::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(turns(6_000, 1_500)) as u32,
        failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        max_shrink_iters: 1_000,
        ..ProptestConfig::default()
    })]

    /// Where nothing needs rounding each decision is the reference's, backward clocks included.
    #[test]
    fn decides_as_the_reference_does(
        (terms, ops) in terms_on_a_grid().prop_flat_map(|terms| {
            let bucket = terms.due(terms.burst).min(20 * SECOND);
            let op = prop_oneof![9 => op(terms), 1 => (1..=bucket).prop_map(Op::Back)];
            (Just(terms), prop::collection::vec(op, 1..100))
        }),
    ) {
        let (gate, exact) = (ByHandle::new(terms), MutexBucket::new(terms));
        for op in ops {
            match op {
                Op::Advance(by) => set(&[&gate, &exact], gate.now() + by),
                Op::Back(by) => set(&[&gate, &exact], gate.now().saturating_sub(by)),
                Op::Take(n) => prop_assert_eq!(gate.take(n), exact.take(n), "take {}", n),
                Op::Hold(n) => prop_assert_eq!(gate.hold(n), exact.hold(n), "hold {}", n),
                Op::Refund => {
                    gate.refund();
                    exact.refund();
                }
                Op::Peek(n) => prop_assert_eq!(gate.peek(n), exact.peek(n), "peek {}", n),
                Op::Observe(n) => {
                    gate.observe(n);
                    exact.observe(n);
                }
                Op::Reconfigure(_) | Op::Pause(_) | Op::Cut => unreachable!("not drawn here"),
            }
            prop_assert_eq!(gate.available(), exact.available());
        }
    }

    /// Whatever is done to the limit: never a take that the reference denies, and never a denial
    /// where the reference has more than a sliver to spare. A sliver is a unit or two: at everyday
    /// rates 2^-40 of a token.
    #[test]
    fn never_early_and_at_most_a_sliver_late(
        (terms, ops) in terms().prop_flat_map(|first| {
            (Just(first), prop::collection::vec(any_op(first, terms()), 1..80))
        }),
    ) {
        let (gate, exact) = (ByHandle::new(terms), MutexBucket::new(terms));
        let mut sliver = terms.sliver();
        // The reference counts in 2^-20: it can follow ten cuts, down to no third of a token.
        let (mut factor, mut tokens) = (1.0, terms.tokens);
        for op in ops {
            match op {
                Op::Advance(by) => set(&[&gate, &exact], gate.now() + by),
                Op::Take(n) | Op::Hold(n) | Op::Peek(n) => {
                    let admitted = match op {
                        Op::Take(_) => gate.take(n),
                        Op::Hold(_) => gate.hold(n),
                        _ => gate.peek(n),
                    };
                    if admitted {
                        let agreed = match op {
                            Op::Take(_) => exact.take(n),
                            Op::Hold(_) => exact.hold(n),
                            _ => exact.peek(n),
                        };
                        prop_assert!(agreed, "{:?} early by {:e} tokens", op, {
                            let (exact, now) = exact.look();
                            exact.short_of(n, now)
                        });
                    } else if !exact.is_paused() {
                        let (exact, now) = exact.look();
                        let short = exact.short_of(n, now);
                        prop_assert!(short > -3.0 * sliver, "{:?} late by {:e} tokens", op, -short);
                    }
                }
                Op::Refund => {
                    gate.refund();
                    exact.refund();
                }
                Op::Observe(n) => {
                    gate.observe(n);
                    exact.observe(n);
                }
                Op::Reconfigure(to) => {
                    sliver = sliver.max(to.sliver());
                    tokens = to.tokens;
                    gate.reconfigure(to);
                    exact.reconfigure(to);
                }
                Op::Pause(nanos) => {
                    gate.pause(nanos);
                    exact.pause(nanos);
                }
                #[allow(clippy::cast_precision_loss)] // near enough
                Op::Cut if factor > 0.06 && factor * 0.75 * tokens as f64 >= 1.0 => {
                    factor *= 0.75;
                    gate.cut();
                    exact.cut();
                }
                Op::Cut => {}
                Op::Back(_) => unreachable!("not drawn here"),
            }
            prop_assert!(gate.available() <= exact.available());
        }
    }

    /// The contract from a log, for any terms; and `retry_after` is the first nanosecond at which
    /// the same take succeeds.
    #[test]
    fn retry_after_is_the_first_nanosecond(case in takes()) {
        let gate = ByHandle::new(case.0);
        let check = |n| gate.resource.check_n(n).map_err(|error| error.retry_after());
        let peek = |n| gate.resource.peek(n).map_err(|error| error.retry_after());
        retry_after_is_exact(&gate, case, check, peek, || ())?;
    }
}
