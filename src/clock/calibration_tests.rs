//! The next segment, for any sequence of samples.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn start(rate: u64) -> (Calibration, Segment) {
    Calibration::start(Sample { ticks: 1 << 40, nanos: 1 << 50, width: 50 }, rate)
}

/// A tick is half a nanosecond.
const RATE: u64 = 1 << (SCALE - 1);

/// A sample `passed` nanoseconds and `ticked` ticks after the start.
fn after(passed: u64, ticked: u64) -> Sample {
    Sample { ticks: (1 << 40) + ticked, nanos: (1 << 50) + passed, width: 50 }
}

#[test]
fn an_offset_is_worked_off_by_the_next_segments_end() {
    // 100 ppm fast: 25 us in the first quarter of a second.
    let (calibration, segment) = start(RATE);
    let (passed, ticked) = (FIRST, 2 * FIRST + 2 * FIRST / 10_000);
    let now = after(passed, ticked);
    assert_eq!(segment.at(now.ticks), FIRST + 25_000);
    let base = now.ticks + 100_000;
    let (calibration, second) = calibration.next(&now, base, segment.at(base));
    assert_eq!((second.base, second.nanos), (base, segment.at(base)));
    // The counter's pace minus 50 ppm, for half a second.
    let end = base + second.length;
    let at_end = passed + (base - now.ticks) * 10_000 / 20_002 + 2 * FIRST;
    assert!(second.at(end).abs_diff(at_end) <= 2, "{} for {at_end}", second.at(end));
    assert!(!second.is_past_end(end - 1) && second.is_past_end(end));

    // Then it continues at the system's pace, but for rounding.
    let ticked = end - (1 << 40);
    let now = after(u64::try_from(u128::from(ticked) * 10_000 / 20_002).unwrap(), ticked);
    let (_, third) = calibration.next(&now, end, second.at(end));
    let exact = (u128::from(RATE) * 10_000 / 10_001) as u64;
    assert!(third.scale.abs_diff(exact) < exact / 50_000_000);
}

#[test]
fn a_wide_sample_is_used_only_after_a_long_time() {
    let (calibration, _) = start(RATE);
    let sample = |width| Sample { width, ..after(SECOND, 2 * SECOND) };
    assert!(calibration.accepts(&sample(1_900)), "950 ns in a second");
    assert!(!calibration.accepts(&sample(2_000)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026), ..ProptestConfig::default() })]

    #[test]
    fn no_sample_steps_back_or_slews_by_more_than_the_bound(
        rate in prop_oneof![Just(RATE), 1_u64.., 1_u64 << 40..1 << 62],
        samples in prop::collection::vec((any::<u64>(), any::<u64>(), 0_u32..64, any::<u32>()), 1..12),
    ) {
        let (mut calibration, mut segment) = start(rate);
        for (ticks, nanos, shift, margin) in samples {
            // The counter may jump anywhere; the system's clock does not go back.
            let nanos = calibration.last.nanos.saturating_add(nanos >> shift);
            let now = Sample { ticks: calibration.last.ticks.wrapping_add(ticks >> shift), nanos, width: 0 };
            let base = now.ticks.wrapping_add(margin.into());
            let read = segment.at(base);
            let (later, next) = calibration.next(&now, base, read);
            prop_assert!(next.nanos >= read);
            prop_assert!(next.length == 0 || next.base == base);
            prop_assert!(next.length == 0 || next.scale.abs_diff(later.rate) <= later.rate / SLEW);
            prop_assert!(next.length > 0 || later.strikes > MAX_STRIKES);
            let agrees = later.strikes <= calibration.strikes;
            prop_assert!(!agrees || next.nanos == read, "a step");
            if next.length == 0 {
                break;
            }
            (calibration, segment) = (later, next);
        }
    }
}
