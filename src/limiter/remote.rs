//! What a neighbour's cuts change. Only a swarm has neighbours.

use std::sync::Arc;

use super::entry::Entry;
use super::limit::Limit;
use super::memory::MemoryLimiter;
use super::settings::PendingChange;
use crate::adapt::{Cut, Origin, Plain};
use crate::bucket::rate::{Factor, MAX_TOKENS};
use crate::clock::Clock;

/// A neighbour's cut, as it was announced.
#[derive(Clone, Debug)]
pub(crate) struct RemoteCut {
    pub(crate) id: u64,
    pub(crate) size: CutTarget,
    /// In nanoseconds.
    pub(crate) age: u64,
    pub(crate) origin: Arc<Origin>,
}

/// How far a neighbour's cut goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CutTarget {
    /// To this factor of the limit.
    Factor(f64),
    /// To this many tokens a window, as announced by an agent that knows neither factors nor incidents.
    Tokens(u64),
    /// The same, as a neighbour has heard it.
    Plain(Plain),
}

impl RemoteCut {
    fn cut(&self, limit: &Limit, now: u64) -> Cut {
        let factor = match self.size {
            CutTarget::Factor(factor) => factor,
            CutTarget::Tokens(tokens) | CutTarget::Plain(Plain { tokens, .. }) => {
                limit.factor_of(tokens)
            }
        };
        let cut = Cut::new(self.id, factor, now, self.age, Arc::clone(&self.origin));
        if let CutTarget::Plain(plain) = self.size { cut.announced_as(plain) } else { cut }
    }
}

/// The cuts of a resource that are in effect at `now`.
#[derive(Clone, Debug)]
pub(crate) struct ActiveCuts {
    pub(crate) cuts: Vec<Cut>,
    pub(crate) now: u64,
    /// When the next step of the recovery is due.
    pub(crate) due: Option<u64>,
    /// What is left of the limit's tokens at present; or fewer, if an agent is there that has announced
    /// fewer and would raise its own limit to what it hears.
    pub(crate) tokens: u64,
}

/// What came of a neighbour's message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MergeOutcome {
    /// It changed something here.
    pub(crate) is_news: bool,
    /// It is of an incident that was unknown here, and cut about as far as a cut of our own.
    pub(crate) is_incident: bool,
    /// The neighbour does not know of a cut that is in effect here.
    pub(crate) is_behind: bool,
}

impl Limit {
    /// This limit's tokens a window under a factor, rounded down, but at least one.
    fn tokens(&self, factor: f64) -> u64 {
        Factor::new(factor).tokens(self.first().capacity).max(1)
    }

    /// The factor at which this limit has `tokens` a window.
    #[allow(clippy::cast_precision_loss)] // at most 2^52
    fn factor_of(&self, tokens: u64) -> f64 {
        tokens.min(MAX_TOKENS) as f64 / self.first().capacity as f64
    }
}

impl Entry {
    /// Merges all cuts of which a neighbour told in one message.
    fn merge_all(&self, told: &[RemoteCut]) -> MergeOutcome {
        let before = self.settings.lock().cuts.full_incidents();
        let is_news = told.iter().fold(false, |is_news, remote| self.merge(remote) | is_news);
        let settings = self.settings.lock();
        let now = self.now();
        let told: Vec<Cut> = told.iter().map(|remote| remote.cut(&settings.limit, now)).collect();
        MergeOutcome {
            is_news,
            is_incident: is_news && settings.cuts.full_incidents() > before,
            is_behind: settings.cuts.is_ahead_of(&told, now),
        }
    }

    /// Merges a neighbour's cut. Returns whether that changed anything here.
    pub(super) fn merge(&self, remote: &RemoteCut) -> bool {
        self.change(|settings| {
            if settings.is_over() {
                return None;
            }
            let (now, before) = (self.now(), settings.cuts.scale());
            let incidents = settings.cuts.full_incidents();
            let cut = remote.cut(&settings.limit, now);
            let counts = match remote.size {
                CutTarget::Tokens(tokens) => settings.cuts.merge_plain(cut, tokens, now),
                CutTarget::Factor(_) | CutTarget::Plain(_) => settings.cuts.merge(cut, now),
            };
            // A step of the recovery that fell due since `catch_up` was taken along, and must be
            // installed: the slot has ended, and no step is due any more.
            let is_behind = settings.cuts.due() != settings.current.until;
            if !counts && is_behind {
                self.install(settings, PendingChange::default());
            }
            if settings.cuts.full_incidents() > incidents {
                self.slow_down(settings, remote.origin.is_measured, before, 1.0);
            }
            counts.then(|| {
                self.take_effect(settings, before, &remote.origin, PendingChange::default())
            })
        })
    }

    /// The cuts in effect, after all steps that are due.
    fn active_cuts(&self) -> ActiveCuts {
        self.bring_up_to_date();
        let settings = self.settings.lock();
        let (now, cuts) = (self.now(), &settings.cuts);
        let (ours, announced) = (settings.limit.tokens(cuts.factor()), cuts.fewest_announced(now));
        ActiveCuts {
            cuts: cuts.cuts(now).cloned().collect(),
            now,
            due: cuts.due(),
            tokens: announced.map_or(ours, |announced| announced.min(ours)),
        }
    }
}

impl MemoryLimiter {
    pub(crate) fn clock(&self) -> &Clock {
        self.0.clock()
    }

    /// Merges a neighbour's cuts; `None` if there is no such resource here.
    pub(crate) fn hear(&self, resource: &str, told: &[RemoteCut]) -> Option<MergeOutcome> {
        self.0.existing(resource).map(|entry| entry.merge_all(told))
    }

    /// Whether there is a resource or a key of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    /// The cuts of a resource that are in effect.
    pub(crate) fn standing(&self, resource: &str) -> Option<ActiveCuts> {
        self.0.promoted(resource).map(|entry| entry.active_cuts())
    }
}
