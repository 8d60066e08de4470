//! The command line.

use std::time::Duration;

use crate::http::Url;
use crate::options::{Stop, mistake, number, seconds};

pub(crate) const USAGE: &str = "\
usage: api_client [options]
  --upstream URL   send requests to this server, http://host:port/path, not to a built-in one
  --rate N         requests per second that the server allows (50)
  --burst N        requests at once that it allows after idle time (10)
  --tasks N        tasks that send requests (64)
  --demand N       send N requests per second instead, whatever is answered
  --adaptive       start at --rate, and find what the server allows
  --seconds N      length of each phase (3)";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) upstream: Option<Url>,
    pub(crate) rate: u32,
    pub(crate) burst: u32,
    pub(crate) tasks: u32,
    /// Requests a second that come to be, whatever became of those before.
    pub(crate) demand: Option<u32>,
    pub(crate) adaptive: bool,
    pub(crate) duration: Duration,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Stop> {
        let mut args = Self {
            upstream: None,
            rate: 50,
            burst: 10,
            tasks: 64,
            demand: None,
            adaptive: false,
            duration: Duration::from_secs(3),
        };
        while let Some(name) = words.next() {
            let mut value = || words.next().ok_or_else(|| mistake(&name, "needs a value"));
            match name.as_str() {
                "--upstream" => {
                    args.upstream = Some(value()?.parse().map_err(|why| mistake(&name, why))?);
                }
                "--rate" => args.rate = number(&name, &value()?, 1..=1_000_000)?,
                "--burst" => args.burst = number(&name, &value()?, 1..=1_000_000)?,
                "--tasks" => args.tasks = number(&name, &value()?, 1..=10_000)?,
                "--demand" => args.demand = Some(number(&name, &value()?, 1..=100_000)?),
                "--adaptive" => args.adaptive = true,
                "--seconds" => args.duration = seconds(&name, &value()?)?,
                "--help" | "-h" => return Err(Stop::Help),
                _ => return Err(mistake(&name, "is not an option")),
            }
        }
        Ok(args)
    }
}
