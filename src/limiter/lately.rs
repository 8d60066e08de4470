//! What was lately admitted, and what became of it: the ground for ceilings and pauses after a refusal.

use super::admitted::{COUNTS, WATCHES};
use super::entry::{Entry, Grant};
use super::seen::incidents_of;
use super::settings::Settings;
use crate::adapt::{SPACING, Usage};
use crate::bucket::CountedAt;
use crate::sync::{IS_MODEL, Ordering};

impl Entry {
    /// Notes a grant, made at about `now`.
    #[inline]
    pub(super) fn note_grant(&self, n: u64, counted: CountedAt, now: u64) {
        if IS_MODEL {
            return;
        }
        let uncounted = n.saturating_sub(u64::from(counted.is_own()));
        let tokens = self.admitted.tokens.load(Ordering::Relaxed);
        self.admitted.tokens.store(tokens.wrapping_add(uncounted), Ordering::Relaxed);
        if now >= self.admitted.due.load(Ordering::Relaxed) {
            self.sample(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn sample(&self, now: u64) {
        self.admitted.due.store(now.saturating_add(SPACING), Ordering::Relaxed);
        // Another thread that holds the lock samples at this moment, or reads the rate.
        if let Some(mut meter) = self.admitted.meter.try_lock() {
            meter.note(now, self.tokens_granted());
        }
    }

    /// A permit that a stripe has counted was not granted after all.
    pub(super) fn forget_grant(&self) {
        if !IS_MODEL {
            let tokens = self.admitted.tokens.load(Ordering::Relaxed);
            self.admitted.tokens.store(tokens.wrapping_sub(1), Ordering::Relaxed);
        }
    }

    /// All tokens that permits have taken; wraps.
    pub(super) fn tokens_granted(&self) -> u64 {
        let uncounted = self.admitted.tokens.load(Ordering::Relaxed);
        uncounted.wrapping_add(self.bucket.grants_counted())
    }

    /// The rate lately admitted to permits as a factor of the limit, but no more than `in_force`, which also
    /// stands in where too few were admitted to tell, and during a pace: then little was sent because little was
    /// left, which tells nothing of the upstream's rate. What is admitted from now on is measured anew.
    pub(super) fn take_lately(&self, settings: &Settings, in_force: f64, now: u64) -> f64 {
        let mut meter = self.admitted.meter.lock();
        let rate = meter.rate(now, self.tokens_granted());
        meter.clear();
        drop(meter);
        self.admitted.due.store(0, Ordering::Relaxed);
        let lately = rate.map(|rate| rate / settings.limit.first().rate());
        let tells = |lately: &f64| settings.pacing.is_none() && *lately < in_force;
        lately.filter(tells).unwrap_or(in_force)
    }

    /// Whether it matters that permits end: see [`CutState::watches_ends`](crate::adapt::CutState).
    #[inline]
    pub(crate) fn watches_ends(&self) -> bool {
        self.on_end.load(Ordering::Relaxed) & WATCHES != 0 // before `seen`, which the permit has read
    }

    /// A permit of a request ends that was not refused.
    #[inline(never)]
    pub(crate) fn got_through(&self, grant: &Grant) {
        let seen = incidents_of(grant.seen);
        if seen < incidents_of(self.seen()) {
            return;
        }
        self.admitted.through.fetch_add(1, Ordering::Relaxed);
        if self.on_end.load(Ordering::Relaxed) & COUNTS == 0 {
            let mut settings = self.settings.lock();
            settings.cuts.got_through(seen);
            self.watch(&settings);
        }
    }

    /// The part of the requests sent since the last cut that got through, of those that have ended. It is 1 while
    /// too few have ended to tell.
    #[allow(clippy::cast_precision_loss)] // a part
    pub(super) fn part_through(&self, settings: &mut Settings, seen: Option<u64>) -> f64 {
        let through = self.admitted.through.load(Ordering::Relaxed);
        if through > 0 {
            settings.cuts.got_through(settings.cuts.full_incidents());
        }
        let all = through + settings.cuts.refused_since() + u64::from(seen.is_some());
        if all < FEW { 1.0 } else { through as f64 / all as f64 }
    }

    /// Requests end from now on that were sent after a cut.
    pub(super) fn forget_through(&self) {
        self.admitted.through.store(0, Ordering::Relaxed);
    }

    /// What permits were lately granted, as factors of the limit.
    fn usage(&self, settings: &Settings, now: u64) -> Usage {
        let (meter, total) = (self.admitted.meter.lock(), self.tokens_granted());
        let factor = |rate: Option<f64>| rate.unwrap_or(0.0) / settings.limit.first().rate();
        Usage {
            lately: factor(meter.slow_rate(now, total)),
            longer: factor(meter.longer_rate(now, total)),
        }
    }

    /// Before steps that are due are taken.
    pub(super) fn note_usage(&self, settings: &mut Settings, now: u64) {
        if settings.cuts.is_adaptive() {
            let usage = self.usage(settings, now);
            settings.cuts.set_usage(usage);
        }
    }

    /// Under the lock of the settings.
    pub(super) fn watch(&self, settings: &Settings) {
        self.on_end.store(settings.on_end(), Ordering::Relaxed);
    }
}

/// Fewer outcomes tell nothing of the part that gets through.
const FEW: u64 = 8;
