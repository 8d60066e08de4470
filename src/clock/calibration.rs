//! How the counter's time is kept in step with the system's: segments, and the next segment. Pure: the
//! counter and the clock are read elsewhere.
//!
//! The time is a chain of straight segments over the counter's ticks, each of which begins where the
//! one before ends. Where they meet, both clocks are read, and the next segment's slope is chosen so
//! that it meets the system's clock at its own end: an offset is worked off, never stepped over.
//!
//! # What remains
//!
//! A reading of both clocks is off by up to half of its width; it is used only if that is less than
//! a millionth of the time since the one before, usually a few thousandths of that. While both clocks
//! run evenly the offset at a segment's end is what this makes of its length, below a microsecond. If the
//! system's clock changes its pace by `p` (NTP does so), the next segment's end is `p` times its length
//! off, and the one after that is not.

/// Binary places of [`Segment::scale`]. Leaves room for ticks of up to 256 ns.
pub(super) const SCALE: u32 = 56;

/// The first segment's length and the longest, in nanoseconds: each is twice the one before.
pub(super) const FIRST: u64 = 250_000_000;
pub(super) const LONGEST: u64 = 16_000_000_000;

/// A counter that is so many nanoseconds before a segment's begin has jumped.
const JUMP: u64 = 1_000_000_000;

/// A segment's slope is off the system's pace by at most one part in so many: 500 ppm.
const SLEW: u64 = 2_000;
/// Both clocks agree on the time that has passed if they differ by less than one part in so many. Else
/// one of them has stopped or jumped, or the counter's pace is not known yet.
const AGREE: u64 = 1_000;
/// A counter that disagrees more often than this, without a long segment in between, is not used any more:
/// each time the readings may go forward by too much.
const MAX_STRIKES: u32 = 6;

/// Nanoseconds as a function of the counter's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it begins: ticks, and the reading.
    pub(super) base: u64,
    pub(super) nanos: u64,
    /// Nanoseconds a tick, in 2^-[`SCALE`].
    pub(super) scale: u64,
    /// Ticks after which the next segment is due; it goes on until there is one. 0 where the counter
    /// was given up: then ticks are the system's nanoseconds, and there is no next one.
    pub(super) length: u64,
}

impl Segment {
    /// The reading so many ticks on, of at most its length.
    #[inline]
    pub(super) fn after(&self, elapsed: u64) -> u64 {
        self.nanos.wrapping_add(((u128::from(elapsed) * u128::from(self.scale)) >> SCALE) as u64)
    }

    /// The reading at any ticks: before the segment's begin, that at its begin.
    pub(super) fn at(&self, ticks: u64) -> u64 {
        self.nanos.saturating_add(scaled(ticks_from(self.base, ticks), self.scale))
    }

    /// Whether the segment is due to be followed.
    pub(super) fn is_past_end(&self, ticks: u64) -> bool {
        ahead(ticks, self.base) >= self.length.cast_signed()
    }

    /// Whether it means nothing at these ticks: the counter has jumped back since it was made. One that
    /// is only a little behind is another core's.
    pub(super) fn is_lost(&self, ticks: u64) -> bool {
        ticks_from(ticks, self.base) > ratio(JUMP, self.scale)
    }
}

/// How far one tick is beyond another. Counters wrap, if anybody lives to see it.
fn ahead(ticks: u64, of: u64) -> i64 {
    ticks.wrapping_sub(of).cast_signed()
}

fn ticks_from(from: u64, to: u64) -> u64 {
    u64::try_from(ahead(to, from)).unwrap_or(0)
}

fn scaled(ticks: u64, scale: u64) -> u64 {
    let nanos = (u128::from(ticks) * u128::from(scale)) >> SCALE;
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// `nanos / ticks` as a [`Segment::scale`], and `nanos / scale` in ticks.
fn ratio(nanos: u64, by: u64) -> u64 {
    let ratio = (u128::from(nanos) << SCALE) / u128::from(by.max(1));
    u64::try_from(ratio).unwrap_or(u64::MAX).max(1)
}

fn differ(a: u64, b: u64) -> bool {
    a.abs_diff(b) > a / AGREE
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) ticks: u64,
    /// The system's.
    pub(super) nanos: u64,
    /// The ticks in which the system's clock was read: `ticks` is their middle.
    pub(super) width: u64,
}

/// What is known when a segment is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    last: Sample,
    /// The counter's pace by the system's clock, as a [`Segment::scale`].
    rate: u64,
    /// Another pace that was measured once.
    suspect: Option<u64>,
    /// What the readings are to be beyond the system's; wraps.
    beyond: u64,
    /// By how much the last segment began ahead of what it was to read.
    lead: u64,
    /// The last segment's length, in nanoseconds.
    span: u64,
    /// How often the clocks disagreed since the last long segment.
    strikes: u32,
}

impl Course {
    /// From 0 on, at a pace that need not be right.
    pub(super) fn start(now: Sample, rate: u64) -> (Self, Segment) {
        let beyond = 0_u64.wrapping_sub(now.nanos);
        let (suspect, lead, span, strikes) = (None, 0, FIRST, 0);
        let course = Self { last: now, rate, suspect, beyond, lead, span, strikes };
        let length = ratio(FIRST, rate);
        (course, Segment { base: now.ticks, nanos: 0, scale: rate, length })
    }

    /// Ticks in so many nanoseconds.
    pub(super) fn ticks(&self, nanos: u64) -> u64 {
        ratio(nanos, self.rate)
    }

    /// Whether a sample is good enough to measure the time since the last one by.
    pub(super) fn accepts(&self, now: &Sample) -> bool {
        scaled(now.width, self.rate) <= now.nanos.saturating_sub(self.last.nanos) >> 20
    }

    /// The segment that begins at the tick `base` with `read` or later, by a sample of just before.
    ///
    /// Where the clocks disagree on the time since the last sample the later of the two is believed,
    /// and from there on they count as equal. So the readings go forward with a counter that went on
    /// while the system's clock stood still, and with the system's clock where the counter stopped or
    /// jumped back; never back.
    pub(super) fn next(&self, now: &Sample, base: u64, read: u64) -> (Self, Segment) {
        let passed = now.nanos.saturating_sub(self.last.nanos);
        let ticked = ticks_from(self.last.ticks, now.ticks);
        let measured = ratio(passed, ticked);
        let agree = ticked > 0 && !differ(passed, scaled(ticked, self.rate));
        // A pace that is measured twice is the counter's.
        let again = self.suspect.is_some_and(|suspect| ticked > 0 && !differ(suspect, measured));
        let rate = if agree || again { measured } else { self.rate };

        let until_base = scaled(ticks_from(now.ticks, base), rate);
        let mut wanted = now.nanos.wrapping_add(self.beyond).wrapping_add(until_base);
        let mut nanos = read;
        let (mut span, mut strikes) = ((self.span * 2).min(LONGEST), self.strikes);
        if !agree {
            nanos = read.max(wanted.saturating_add(self.lead));
            (wanted, span, strikes) = (nanos, FIRST, strikes + 1);
        } else if span == LONGEST {
            strikes = 0;
        }
        let course = Self {
            last: *now,
            rate,
            suspect: (!agree && !again && ticked > 0).then_some(measured),
            beyond: wanted.wrapping_sub(until_base).wrapping_sub(now.nanos),
            lead: nanos.saturating_sub(wanted),
            span,
            strikes,
        };
        if strikes > MAX_STRIKES {
            let base = now.nanos.saturating_add(until_base);
            return (course, Segment { base, nanos, scale: 1 << SCALE, length: 0 });
        }
        let length = ratio(span, rate);
        let slope = ratio(wanted.saturating_add(span).saturating_sub(nanos), length);
        let most = rate / SLEW;
        let scale = slope.clamp(rate - most, rate.saturating_add(most));
        (course, Segment { base, nanos, scale, length })
    }
}

#[cfg(all(test, not(loom)))]
#[path = "course_tests.rs"]
mod tests;
