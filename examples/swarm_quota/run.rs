//! What happened in a run.

use std::time::Duration;

use crate::agent::micros;
use crate::crew::{Said, What};

pub(crate) struct Run {
    /// When it began: microseconds since 1970.
    start: u64,
    pub(crate) agents: Vec<AgentRun>,
    /// What happened to an agent: seconds since the start, the agent, and a verb.
    pub(crate) marks: Vec<(f64, usize, &'static str)>,
}

#[derive(Default)]
pub(crate) struct AgentRun {
    /// Requests: seconds since the start, and the status of the answer, 0 for none.
    pub(crate) requests: Vec<(f64, u16)>,
    /// Tokens a second.
    pub(crate) share: f64,
    /// Why it has ended.
    pub(crate) end: Option<&'static str>,
}

/// Answers of a part of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) admitted: u32,
    pub(crate) refused: u32,
    pub(crate) failed: u32,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { start: micros(), agents: Vec::new(), marks: Vec::new() }
    }

    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_micros(micros().saturating_sub(self.start)).as_secs_f64()
    }

    /// An agent starts, is killed or leaves.
    pub(crate) fn mark(&mut self, agent: usize, verb: &'static str) {
        self.marks.push((self.seconds(), agent, verb));
        if agent == self.agents.len() {
            self.agents.push(AgentRun::default());
        } else {
            self.agents[agent].end = Some(verb);
            self.agents[agent].share = 0.0;
        }
    }

    pub(crate) fn note(&mut self, said: &Said) {
        let at = Duration::from_micros(said.at.saturating_sub(self.start)).as_secs_f64();
        let agent = &mut self.agents[said.agent];
        match said.what {
            What::Status(status) => agent.requests.push((at, status)),
            What::Share(rate) if agent.end.is_none() => agent.share = rate,
            What::Share(_) => {}
        }
    }

    /// The answers to requests that were sent in these seconds.
    pub(crate) fn tally(&self, from: f64, to: f64) -> Tally {
        let mut tally = Tally::default();
        for (at, status) in self.agents.iter().flat_map(|agent| &agent.requests) {
            if (from..to).contains(at) {
                match status {
                    200..=399 => tally.admitted += 1,
                    429 => tally.refused += 1,
                    _ => tally.failed += 1,
                }
            }
        }
        tally
    }

    /// Requests a second of each agent that were admitted, for each step of `step` seconds.
    #[allow(clippy::cast_sign_loss)] // the casts saturate
    pub(crate) fn rates(&self, step: f64, until: f64) -> Vec<Vec<f64>> {
        let steps = (until / step) as usize;
        let rates = |agent: &AgentRun| {
            let mut rates = vec![0.0; steps];
            for (at, status) in &agent.requests {
                if (200..400).contains(status)
                    && let Some(rate) = rates.get_mut((at / step) as usize)
                {
                    *rate += 1.0 / step;
                }
            }
            rates
        };
        self.agents.iter().map(rates).collect()
    }

    /// A line of the table: the second before now.
    pub(crate) fn line(&self, begin: f64) -> String {
        let now = self.seconds();
        let Tally { admitted, refused, .. } = self.tally(now - 1.0, now);
        let there = self.agents.iter().filter(|agent| agent.end.is_none()).count();
        let shares: String = self
            .agents
            .iter()
            .map(|agent| match agent.end {
                Some(verb) => format!(" {verb:>6}"),
                None => format!(" {:>6.1}", agent.share),
            })
            .collect();
        format!("{:>5.0} {there:>6} {admitted:>8} {refused:>4} {shares}", now - begin)
    }
}
