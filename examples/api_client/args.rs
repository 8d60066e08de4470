//! What the command line may say.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::http::Url;

const USAGE: &str = "\
usage: api_client [options]
  --upstream URL   aim at this server, http://host:port/path, instead of one of our own
  --rate N         requests a second that the server allows (50)
  --burst N        and so many at once after a rest (10)
  --tasks N        that send requests (64)
  --seconds N      that each phase lasts (3)";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) upstream: Option<Url>,
    pub(crate) rate: u32,
    pub(crate) burst: u32,
    pub(crate) tasks: u32,
    pub(crate) duration: Duration,
}

/// Why there are no arguments to work with.
#[derive(Debug)]
pub(crate) enum Stop {
    Help,
    Mistake(String),
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Stop> {
        let mut args = Self {
            upstream: None,
            rate: 50,
            burst: 10,
            tasks: 64,
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
                "--seconds" => {
                    let seconds = number(&name, &value()?, 1..=86_400)?;
                    args.duration = Duration::from_secs(seconds.into());
                }
                "--help" | "-h" => return Err(Stop::Help),
                _ => return Err(mistake(&name, "is not an option")),
            }
        }
        Ok(args)
    }
}

fn number(name: &str, value: &str, range: RangeInclusive<u32>) -> Result<u32, Stop> {
    let found = u32::from_str(value).ok().filter(|number| range.contains(number));
    found.ok_or_else(|| {
        let (least, most) = range.into_inner();
        mistake(name, format!("needs a whole number from {least} to {most}, not {value:?}"))
    })
}

fn mistake(name: &str, why: impl fmt::Display) -> Stop {
    Stop::Mistake(format!("{name} {why}"))
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => f.write_str(USAGE),
            Self::Mistake(what) => write!(f, "{what}\n\n{USAGE}"),
        }
    }
}
