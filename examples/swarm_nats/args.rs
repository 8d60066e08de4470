//! The command line.

use std::time::Duration;

use crate::http::Url;
use crate::options::{Stop, mistake, number, seconds};

pub(crate) const USAGE: &str = "\
usage: swarm_nats --serve ADDRESS [options]
       swarm_nats --upstream URL [options]
  --serve ADDRESS  also run the upstream: an API on this address, host:port
  --rate N         requests per second that it allows (40)
  --burst N        requests at once that it allows after idle time (80)
  --upstream URL   send requests to this server, http://host:port/path
  --nats URL       the agents' NATS server (nats://127.0.0.1:4222)
  --agent-id ID    this agent's id (agent- and the process id)
  --share N        requests per second that this agent may send (20)
  --tasks N        tasks that send requests (16)
  --seconds N      length of the run (10)";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) upstream: Upstream,
    pub(crate) nats: String,
    pub(crate) agent_id: String,
    pub(crate) share: u32,
    pub(crate) tasks: u32,
    pub(crate) duration: Duration,
}

#[derive(Debug)]
pub(crate) enum Upstream {
    /// In another process.
    At(Url),
    Own {
        address: String,
        rate: u32,
        burst: u32,
    },
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Stop> {
        let (mut serve, mut url) = (None, None);
        let (mut rate, mut burst) = (40, 80);
        let mut args = Self {
            upstream: Upstream::Own { address: String::new(), rate, burst },
            nats: "nats://127.0.0.1:4222".into(),
            agent_id: format!("agent-{}", std::process::id()),
            share: 20,
            tasks: 16,
            duration: Duration::from_secs(10),
        };
        while let Some(name) = words.next() {
            let mut value = || words.next().ok_or_else(|| mistake(&name, "needs a value"));
            match name.as_str() {
                "--serve" => serve = Some(value()?),
                "--rate" => rate = number(&name, &value()?, 1..=1_000_000)?,
                "--burst" => burst = number(&name, &value()?, 1..=1_000_000)?,
                "--upstream" => url = Some(value()?.parse().map_err(|why| mistake(&name, why))?),
                "--nats" => args.nats = value()?,
                "--agent-id" => args.agent_id = value()?,
                "--share" => args.share = number(&name, &value()?, 1..=1_000_000)?,
                "--tasks" => args.tasks = number(&name, &value()?, 1..=10_000)?,
                "--seconds" => args.duration = seconds(&name, &value()?)?,
                "--help" | "-h" => return Err(Stop::Help),
                _ => return Err(mistake(&name, "is not an option")),
            }
        }
        args.upstream = match (serve, url) {
            (Some(address), None) => Upstream::Own { address, rate, burst },
            (None, Some(url)) => Upstream::At(url),
            _ => return Err(mistake("--serve", "or --upstream is needed, and not both")),
        };
        Ok(args)
    }
}
