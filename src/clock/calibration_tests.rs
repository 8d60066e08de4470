//! The next segment, whatever was sampled.

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn start(rate: u64) -> (Course, Segment) {
    Course::start(Sample { ticks: 1 << 40, nanos: 1 << 50, width: 50 }, rate)
}

/// A tick is half a nanosecond.
const RATE: u64 = 1 << (SCALE - 1);

/// So long after the start.
fn after(passed: u64, ticked: u64) -> Sample {
    Sample { ticks: (1 << 40) + ticked, nanos: (1 << 50) + passed, width: 50 }
}

#[test]
fn an_offset_is_worked_off_until_the_next_lines_end() {
    // 100 ppm fast: 25 us in the first quarter of a second.
    let (course, segment) = start(RATE);
    let (passed, ticked) = (FIRST, 2 * FIRST + 2 * FIRST / 10_000);
    let now = after(passed, ticked);
    assert_eq!(segment.at(now.ticks), FIRST + 25_000);
    let base = now.ticks + 100_000;
    let (course, second) = course.next(&now, base, segment.at(base));
    assert_eq!((second.base, second.nanos), (base, segment.at(base)));
    // The counter's pace, and from that 50 ppm less for half a second.
    let end = base + second.length;
    let at_end = passed + (base - now.ticks) * 10_000 / 20_002 + 2 * FIRST;
    assert!(second.at(end).abs_diff(at_end) <= 2, "{} for {at_end}", second.at(end));
    assert!(!second.is_past_end(end - 1) && second.is_past_end(end));

    // Then it goes on at the system's pace: the slope is off by what rounding leaves.
    let ticked = end - (1 << 40);
    let now = after(u64::try_from(u128::from(ticked) * 10_000 / 20_002).unwrap(), ticked);
    let (_, third) = course.next(&now, end, second.at(end));
    let exact = (u128::from(RATE) * 10_000 / 10_001) as u64;
    assert!(third.scale.abs_diff(exact) < exact / 50_000_000);
}

#[test]
fn a_wide_sample_is_not_used_before_its_time() {
    let (course, _) = start(RATE);
    let sample = |width| Sample { width, ..after(SECOND, 2 * SECOND) };
    assert!(course.accepts(&sample(1_900)), "950 ns in a second");
    assert!(!course.accepts(&sample(2_000)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2026), ..ProptestConfig::default() })]

    #[test]
    fn no_sample_steps_back_or_slews_by_more_than_it_may(
        rate in prop_oneof![Just(RATE), 1_u64.., 1_u64 << 40..1 << 62],
        samples in prop::collection::vec((any::<u64>(), any::<u64>(), 0_u32..64, any::<u32>()), 1..12),
    ) {
        let (mut course, mut segment) = start(rate);
        for (ticks, nanos, shift, margin) in samples {
            // Any jump of the counter; the system's clock does not go back.
            let nanos = course.last.nanos.saturating_add(nanos >> shift);
            let now = Sample { ticks: course.last.ticks.wrapping_add(ticks >> shift), nanos, width: 0 };
            let base = now.ticks.wrapping_add(margin.into());
            let read = segment.at(base);
            let (later, next) = course.next(&now, base, read);
            prop_assert!(next.nanos >= read);
            prop_assert!(next.length == 0 || next.base == base);
            prop_assert!(next.length == 0 || next.scale.abs_diff(later.rate) <= later.rate / SLEW);
            prop_assert!(next.length > 0 || later.strikes > MAX_STRIKES);
            let agrees = later.strikes <= course.strikes;
            prop_assert!(!agrees || next.nanos == read, "a step");
            if next.length == 0 {
                break;
            }
            (course, segment) = (later, next);
        }
    }
}
