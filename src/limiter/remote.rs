//! What a neighbour's cuts and pauses change. Only a swarm has neighbours.

use std::sync::Arc;

use super::entry::Entry;
use super::limit::Limit;
use super::memory::MemoryLimiter;
use super::settings::PendingChange;
use crate::adapt::{Cut, Origin, Pause, Plain};
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

/// A neighbour's pause, as it was told.
#[derive(Clone, Debug)]
pub(crate) struct RemotePause {
    pub(crate) id: u64,
    /// In nanoseconds, as the next.
    pub(crate) length: u64,
    pub(crate) age: u64,
    pub(crate) origin: Arc<Origin>,
}

/// What a neighbour tells of a resource.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Cut(RemoteCut),
    Pause(RemotePause),
}

impl Told {
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        match self {
            Self::Cut(cut) => &cut.origin,
            Self::Pause(pause) => &pause.origin,
        }
    }

    /// In nanoseconds.
    pub(crate) fn age(&self) -> u64 {
        match self {
            Self::Cut(cut) => cut.age,
            Self::Pause(pause) => pause.age,
        }
    }

    /// The same, this many nanoseconds later.
    pub(crate) fn aged(mut self, by: u64) -> Self {
        let age = match &mut self {
            Self::Cut(cut) => &mut cut.age,
            Self::Pause(pause) => &mut pause.age,
        };
        *age = age.saturating_add(by);
        self
    }

    /// Whether both are tellings of one thing.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cut(cut), Self::Cut(other)) => cut.id == other.id && cut.size == other.size,
            (Self::Pause(pause), Self::Pause(other)) => pause.id == other.id,
            _ => false,
        }
    }
}

impl RemotePause {
    fn pause(&self, now: u64) -> Pause {
        Pause::new(self.id, self.length, self.age, now, Arc::clone(&self.origin))
    }
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

/// The cuts of a resource that are in effect at `now`, and the pause.
#[derive(Clone, Debug)]
pub(crate) struct ActiveCuts {
    pub(crate) cuts: Vec<Cut>,
    /// If it is told in the swarm.
    pub(crate) pause: Option<Pause>,
    pub(crate) now: u64,
    /// When the next step of the recovery is due, or the end of a pause.
    pub(crate) due: Option<u64>,
    /// What is left of the limit's tokens at present; or fewer, if an agent is there that has announced
    /// fewer and would raise its own limit to what it hears.
    pub(crate) tokens: u64,
}

/// What came of a neighbour's message.
#[derive(Clone, Debug, Default)]
pub(crate) struct MergeOutcome {
    /// It changed something here.
    pub(crate) is_news: bool,
    /// It is of an incident that was unknown here, and cut about as far as a cut of our own.
    pub(crate) is_incident: bool,
    /// The neighbour does not know of a cut or a pause that is in effect here.
    pub(crate) is_behind: bool,
    /// Of the pauses that hold this agent longer.
    pub(crate) paused_by: Vec<Arc<Origin>>,
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
    /// Merges all of which a neighbour told in one message.
    fn merge_all(&self, told: &[Told]) -> MergeOutcome {
        let before = self.settings.lock().cuts.full_incidents();
        let (mut is_news, mut paused_by) = (false, Vec::new());
        for told in told {
            match told {
                Told::Cut(cut) => is_news |= self.merge(cut),
                Told::Pause(pause) => {
                    if self.join_pause(|now| pause.pause(now)).is_some() {
                        paused_by.push(Arc::clone(&pause.origin));
                    }
                }
            }
        }
        let settings = self.settings.lock();
        let now = self.now();
        let (mut cuts, mut pauses) = (Vec::new(), Vec::new());
        for told in told {
            match told {
                Told::Cut(cut) => cuts.push(cut.cut(&settings.limit, now)),
                Told::Pause(pause) => pauses.push(pause.pause(now)),
            }
        }
        MergeOutcome {
            is_news: is_news || !paused_by.is_empty(),
            is_incident: is_news && settings.cuts.full_incidents() > before,
            is_behind: settings.cuts.is_ahead_of(&cuts, now)
                || settings.pauses.is_ahead_of(&pauses, now),
            paused_by,
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
            pause: settings.pauses.standing(now).cloned(),
            now,
            due: [cuts.due(), settings.pauses.until()].into_iter().flatten().min(),
            tokens: announced.map_or(ours, |announced| announced.min(ours)),
        }
    }
}

impl MemoryLimiter {
    pub(crate) fn clock(&self) -> &Clock {
        self.0.clock()
    }

    /// Merges what a neighbour tells; `None` if there is no such resource here.
    pub(crate) fn hear(&self, resource: &str, told: &[Told]) -> Option<MergeOutcome> {
        self.0.existing(resource).map(|entry| entry.merge_all(told))
    }

    /// Whether there is a resource or a key of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    /// What is in effect of a resource's cuts and pauses.
    pub(crate) fn standing(&self, resource: &str) -> Option<ActiveCuts> {
        self.0.promoted(resource).map(|entry| entry.active_cuts())
    }
}
