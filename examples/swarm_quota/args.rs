//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use tollgate::Limit;

use crate::http::Url;
use crate::options::{Stop, mistake, number, seconds};

pub(crate) const USAGE: &str = "\
usage: swarm_quota [options]
  --agents N      processes that share the limit (8)
  --limit N       requests a second that the upstream allows (200)
  --burst N       requests at once that it allows after idle time (20)
  --jitter MS     by how much the ways of two requests to it may differ (20)
  --term N        the ledger's term, in seconds (3)
  --seconds N     length of the run, from 2 terms after the start on (60)
  --kill N        agents that are killed meanwhile, by SIGKILL (0)
  --leave N       agents that leave (0)
  --join N        agents that join (0)
  --no-share      each agent takes the whole limit
  --upstream URL  send requests to this server, http://host:port/path (one of its own)
  --nats URL      a NATS server with JetStream (one of its own)
  --chart FILE    draw the run, as SVG";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) agents: u32,
    pub(crate) limit: u32,
    pub(crate) burst: u32,
    pub(crate) jitter: u32,
    pub(crate) term: Duration,
    pub(crate) duration: Duration,
    pub(crate) kill: u32,
    pub(crate) leave: u32,
    pub(crate) join: u32,
    pub(crate) is_shared: bool,
    pub(crate) upstream: Option<Url>,
    pub(crate) nats: Option<String>,
    pub(crate) chart: Option<PathBuf>,
    /// This process is an agent: its name, and that of its swarm. Options between this program and its children.
    pub(crate) agent: Option<String>,
    pub(crate) swarm: Option<String>,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Stop> {
        let mut args = Self {
            agents: 8,
            limit: 200,
            burst: 20,
            jitter: 20,
            term: Duration::from_secs(3),
            duration: Duration::from_secs(60),
            kill: 0,
            leave: 0,
            join: 0,
            is_shared: true,
            upstream: None,
            nats: None,
            chart: None,
            agent: None,
            swarm: None,
        };
        while let Some(name) = words.next() {
            let mut value = || words.next().ok_or_else(|| mistake(&name, "needs a value"));
            match name.as_str() {
                "--agents" => args.agents = number(&name, &value()?, 1..=1_000)?,
                "--limit" => args.limit = number(&name, &value()?, 1..=1_000_000)?,
                "--burst" => args.burst = number(&name, &value()?, 1..=1_000_000)?,
                "--jitter" => args.jitter = number(&name, &value()?, 0..=10_000)?,
                "--term" => args.term = seconds(&name, &value()?)?,
                "--seconds" => args.duration = seconds(&name, &value()?)?,
                "--kill" => args.kill = number(&name, &value()?, 0..=1_000)?,
                "--leave" => args.leave = number(&name, &value()?, 0..=1_000)?,
                "--join" => args.join = number(&name, &value()?, 0..=1_000)?,
                "--no-share" => args.is_shared = false,
                "--upstream" => {
                    let url = value()?.parse().map_err(|why| mistake(&name, why))?;
                    args.upstream = Some(url);
                }
                "--nats" => args.nats = Some(value()?),
                "--chart" => args.chart = Some(value()?.into()),
                "--agent" => args.agent = Some(value()?),
                "--swarm" => args.swarm = Some(value()?),
                "--help" | "-h" => return Err(Stop::Help),
                _ => return Err(mistake(&name, "is not an option")),
            }
        }
        if args.is_shared && args.quota_burst() < 1 {
            let why =
                "leaves nothing for requests that arrive together: raise it, or lower --jitter";
            return Err(mistake("--burst", why));
        }
        if args.kill + args.leave > args.agents + args.join {
            return Err(mistake("--kill", "and --leave are more than there are agents"));
        }
        Ok(args)
    }

    /// What the agents share of what the upstream allows, or what each of them takes.
    pub(crate) fn agent_limit(&self) -> Limit {
        if !self.is_shared {
            return Limit::per_second(self.limit.into()).burst(self.burst.into());
        }
        // The upstream's clock, or the agents', may be off by 0.1 %.
        let limit = Limit::new(u64::from(self.limit) * 999, Duration::from_secs(1_000));
        limit.burst(u64::try_from(self.quota_burst()).unwrap_or(1))
    }

    /// The agents' burst. Requests that were sent apart arrive together if the first is delayed by the jitter. And
    /// one is the upstream's own rounding.
    pub(crate) fn quota_burst(&self) -> i64 {
        let together = (u64::from(self.limit) * u64::from(self.jitter)).div_ceil(1_000);
        i64::from(self.burst) - i64::try_from(together).unwrap_or(i64::MAX - 1) - 1
    }
}
