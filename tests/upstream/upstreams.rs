//! What an upstream allows. It sees requests in the order in which they arrive.

use std::ops::Range;
use std::time::Duration;

use crate::common::SECOND;

/// What an upstream answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    Served,
    Refused {
        retry_after: Option<Duration>,
    },
    /// As 503 does: it is not the client's rate.
    Unavailable {
        retry_after: Duration,
    },
}

/// An upstream: its rule, and what changes it at which time, in nanoseconds.
pub(crate) struct Upstream {
    rule: Rule,
    /// Rates from a time on, in requests a second, in the order of their times.
    changes: Vec<(u64, f64)>,
    /// When it refuses everything.
    outage: Range<u64>,
    /// What the first request from a time on is answered.
    told: Option<(u64, Answer)>,
}

enum Rule {
    Bucket {
        rate: f64,
        burst: f64,
        tokens: f64,
        last: u64,
    },
    /// At most `most` in each window, counted from time 0.
    Windows {
        most: u64,
        window: u64,
        current: u64,
        served: u64,
    },
}

impl Upstream {
    /// A token bucket: requests a second, and requests at once.
    pub(crate) fn bucket(rate: f64, burst: f64) -> Self {
        Self::new(Rule::Bucket { rate, burst, tokens: burst, last: 0 })
    }

    /// Fixed windows of this many seconds.
    pub(crate) fn windows(most: u64, seconds: u64) -> Self {
        Self::new(Rule::Windows { most, window: seconds * SECOND, current: 0, served: 0 })
    }

    fn new(rule: Rule) -> Self {
        Self { rule, changes: Vec::new(), outage: 0..0, told: None }
    }

    /// Another rate from `at` seconds on. A bucket's burst stays.
    pub(crate) fn changed(mut self, at: u64, rate: f64) -> Self {
        self.changes.push((at * SECOND, rate));
        self
    }

    /// All requests between these seconds are refused.
    pub(crate) fn outage(mut self, seconds: Range<u64>) -> Self {
        self.outage = seconds.start * SECOND..seconds.end * SECOND;
        self
    }

    /// The first request after `from` seconds is answered so. The others are not told.
    pub(crate) fn tells_one(mut self, from: u64, answer: Answer) -> Self {
        self.told = Some((from * SECOND, answer));
        self
    }

    /// Whether a request that arrives at `at` is served.
    pub(crate) fn answer(&mut self, at: u64) -> Answer {
        if self.outage.contains(&at) {
            return Answer::Refused { retry_after: None };
        }
        if let Some((_, told)) = self.told.take_if(|(from, _)| at >= *from) {
            return told;
        }
        while self.changes.first().is_some_and(|(from, _)| *from <= at) {
            let (from, new) = self.changes.remove(0);
            self.rule.accrue(from);
            if let Rule::Bucket { rate, .. } = &mut self.rule {
                *rate = new;
            }
        }
        if self.rule.takes(at) { Answer::Served } else { Answer::Refused { retry_after: None } }
    }
}

impl Rule {
    #[allow(clippy::cast_precision_loss)] // minutes, in nanoseconds
    fn accrue(&mut self, at: u64) {
        if let Self::Bucket { rate, burst, tokens, last } = self {
            let seconds = at.saturating_sub(*last) as f64 / SECOND as f64;
            *tokens = (*tokens + seconds * *rate).min(*burst);
            *last = at.max(*last);
        }
    }

    fn takes(&mut self, at: u64) -> bool {
        self.accrue(at);
        match self {
            Self::Bucket { tokens, .. } => {
                let fits = *tokens >= 1.0;
                *tokens -= f64::from(fits);
                fits
            }
            Self::Windows { most, window, current, served } => {
                if at / *window > *current {
                    (*current, *served) = (at / *window, 0);
                }
                let fits = served < most;
                *served += u64::from(fits);
                fits
            }
        }
    }
}
