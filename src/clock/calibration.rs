//! How the counter's time is kept in step with the system's clock: segments, and the choice of the
//! next one. Pure: the counter and the clock are read elsewhere.
//!
//! The time is a chain of straight segments over the counter's ticks, each beginning where the one
//! before ends. Where they meet both clocks are read, and the next segment's slope is chosen so
//! that it meets the system's clock at its end: an offset is worked off, never stepped over.
//!
//! # Remaining error
//!
//! A reading of both clocks is off by up to half of its width. It is used only if its width is less
//! than a millionth of the time since the one before; usually it is a few thousandths of that.
//! While both clocks run evenly, the offset at a segment's end is this error scaled to its length:
//! below a microsecond. If the system's clock changes its pace by `p` (NTP does so), the end of the
//! next segment is off by `p` times its length, and the end of the one after that is not.

/// Binary places of [`Segment::scale`]. Leaves room for ticks of up to 256 ns.
pub(super) const SCALE: u32 = 56;

/// The first segment's length and the longest, in nanoseconds: each is twice the one before.
pub(super) const FIRST: u64 = 250_000_000;
pub(super) const LONGEST: u64 = 16_000_000_000;

/// A counter this many nanoseconds before a segment's begin has jumped.
const JUMP: u64 = 1_000_000_000;

/// A segment's slope is off the system's pace by at most one part in this many: 500 ppm.
const SLEW: u64 = 2_000;
/// Both clocks agree on the time that has passed if they differ by less than one part in this many.
/// Otherwise one of them has stopped or jumped, or the counter's pace is not known yet.
const AGREE: u64 = 1_000;
/// A counter that disagrees more often than this without a longest segment in between is given up,
/// because each disagreement may put the readings forward by too much.
const MAX_STRIKES: u32 = 6;

/// Nanoseconds as a function of the counter's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it begins, in ticks, and the reading there.
    pub(super) base: u64,
    pub(super) nanos: u64,
    /// Nanoseconds a tick, in units of 2^-[`SCALE`].
    pub(super) scale: u64,
    /// Ticks after which the next segment is due; until there is one this one continues. 0 if the
    /// counter was given up: then ticks are the system's nanoseconds, and no segment follows.
    pub(super) length: u64,
}

impl Segment {
    /// The reading `elapsed` ticks after the begin, at most the segment's length.
    #[inline]
    pub(super) fn after(&self, elapsed: u64) -> u64 {
        self.nanos.wrapping_add(((u128::from(elapsed) * u128::from(self.scale)) >> SCALE) as u64)
    }

    /// The reading at any tick: before the segment's begin, the reading at its begin.
    pub(super) fn at(&self, ticks: u64) -> u64 {
        self.nanos.saturating_add(scaled(ticks_from(self.base, ticks), self.scale))
    }

    /// Whether the next segment is due.
    pub(super) fn is_past_end(&self, ticks: u64) -> bool {
        signed_diff(ticks, self.base) >= self.length.cast_signed()
    }

    /// Whether the counter has jumped back since the segment began, so that its ticks mean nothing
    /// on it. A counter that is only a little behind is another core's.
    pub(super) fn is_lost(&self, ticks: u64) -> bool {
        ticks_from(ticks, self.base) > ratio(JUMP, self.scale)
    }
}

/// How far `ticks` is beyond `from`. Counters may wrap.
fn signed_diff(ticks: u64, from: u64) -> i64 {
    ticks.wrapping_sub(from).cast_signed()
}

/// The ticks from one to the other; 0 if `to` is before `from`.
fn ticks_from(from: u64, to: u64) -> u64 {
    u64::try_from(signed_diff(to, from)).unwrap_or(0)
}

fn scaled(ticks: u64, scale: u64) -> u64 {
    let nanos = (u128::from(ticks) * u128::from(scale)) >> SCALE;
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// `nanos / ticks` as a [`Segment::scale`], or `nanos / scale` in ticks.
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
    /// The system's clock.
    pub(super) nanos: u64,
    /// The ticks that reading the system's clock took: `ticks` is their middle.
    pub(super) width: u64,
}

/// The state from which the next segment is computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calibration {
    last: Sample,
    /// The counter's pace by the system's clock, as a [`Segment::scale`].
    rate: u64,
    /// Another pace that was measured once.
    suspect: Option<u64>,
    /// The target of the readings minus the system's clock; wraps.
    target_offset: u64,
    /// By how much the last segment began ahead of its target.
    lead: u64,
    /// The last segment's length, in nanoseconds.
    span: u64,
    /// How often the clocks disagreed since the last longest segment.
    strikes: u32,
}

impl Calibration {
    /// The first segment, from a reading of 0, at a pace that need not be right.
    pub(super) fn start(now: Sample, rate: u64) -> (Self, Segment) {
        let target_offset = 0_u64.wrapping_sub(now.nanos);
        let (suspect, lead, span, strikes) = (None, 0, FIRST, 0);
        let first = Self { last: now, rate, suspect, target_offset, lead, span, strikes };
        let length = ratio(FIRST, rate);
        (first, Segment { base: now.ticks, nanos: 0, scale: rate, length })
    }

    /// `nanos` nanoseconds in ticks.
    pub(super) fn ticks(&self, nanos: u64) -> u64 {
        ratio(nanos, self.rate)
    }

    /// Whether a sample is precise enough to measure the time since the last one.
    pub(super) fn accepts(&self, now: &Sample) -> bool {
        scaled(now.width, self.rate) <= now.nanos.saturating_sub(self.last.nanos) >> 20
    }

    /// The segment that begins at tick `base`, just after `now`, with the reading `read` or later.
    ///
    /// If the clocks disagree on the time since the last sample, the later of the two is used, and
    /// from there on they count as equal. So the readings go forward with a counter that ran while
    /// the system's clock stood still, and with the system's clock if the counter stopped or jumped
    /// back. They never go back.
    pub(super) fn next(&self, now: &Sample, base: u64, read: u64) -> (Self, Segment) {
        let passed = now.nanos.saturating_sub(self.last.nanos);
        let ticked = ticks_from(self.last.ticks, now.ticks);
        let measured = ratio(passed, ticked);
        let agree = ticked > 0 && !differ(passed, scaled(ticked, self.rate));
        // A pace that is measured twice is the counter's.
        let again = self.suspect.is_some_and(|suspect| ticked > 0 && !differ(suspect, measured));
        let rate = if agree || again { measured } else { self.rate };

        let until_base = scaled(ticks_from(now.ticks, base), rate);
        let mut target = now.nanos.wrapping_add(self.target_offset).wrapping_add(until_base);
        let mut nanos = read;
        let (mut span, mut strikes) = ((self.span * 2).min(LONGEST), self.strikes);
        if !agree {
            nanos = read.max(target.saturating_add(self.lead));
            (target, span, strikes) = (nanos, FIRST, strikes + 1);
        } else if span == LONGEST {
            strikes = 0;
        }
        let next = Self {
            last: *now,
            rate,
            suspect: (!agree && !again && ticked > 0).then_some(measured),
            target_offset: target.wrapping_sub(until_base).wrapping_sub(now.nanos),
            lead: nanos.saturating_sub(target),
            span,
            strikes,
        };
        if strikes > MAX_STRIKES {
            let base = now.nanos.saturating_add(until_base);
            return (next, Segment { base, nanos, scale: 1 << SCALE, length: 0 });
        }
        let length = ratio(span, rate);
        let slope = ratio(target.saturating_add(span).saturating_sub(nanos), length);
        let most = rate / SLEW;
        let scale = slope.clamp(rate - most, rate.saturating_add(most));
        (next, Segment { base, nanos, scale, length })
    }
}

#[cfg(test)]
#[path = "calibration_tests.rs"]
mod tests;
