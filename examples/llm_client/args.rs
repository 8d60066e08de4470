//! The command line.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::http::Uri;

use crate::options::{Stop, mistake, number, seconds};

pub(crate) const USAGE: &str = "\
usage: llm_client [options]
  --tasks N                 tasks that call the model (50)
  --seconds N               length of the run (20)
  --requests-per-minute N   what the provider allows, and the client believes (600)
  --tokens-per-minute N     the same in tokens (250000)
  --window SECONDS          length of a minute (10)
  --estimate-factor X       estimate X times the most that a call may cost, from 0.1 to 10 (1)
  --foreign X               another client uses this part of the quota, from 0 to 0.9 (0)
  --no-retry-after          the provider does not say when to try again
  --upstream URL            send to this server, http://host:port/path, not to a built-in one
  --model NAME              the model to ask for (mock)";

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) tasks: u32,
    pub(crate) duration: Duration,
    /// Requests and tokens in a window.
    pub(crate) requests: u32,
    pub(crate) tokens: u32,
    pub(crate) window: Duration,
    pub(crate) estimate_factor: f64,
    pub(crate) foreign: f64,
    pub(crate) tells_retry_after: bool,
    pub(crate) upstream: Option<Uri>,
    pub(crate) model: String,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Stop> {
        let mut args = Self {
            tasks: 50,
            duration: Duration::from_secs(20),
            requests: 600,
            tokens: 250_000,
            window: Duration::from_secs(10),
            estimate_factor: 1.0,
            foreign: 0.0,
            tells_retry_after: true,
            upstream: None,
            model: "mock".into(),
        };
        while let Some(name) = words.next() {
            let mut value = || words.next().ok_or_else(|| mistake(&name, "needs a value"));
            match name.as_str() {
                "--tasks" => args.tasks = number(&name, &value()?, 1..=10_000)?,
                "--seconds" => args.duration = seconds(&name, &value()?)?,
                "--requests-per-minute" => {
                    args.requests = number(&name, &value()?, 10..=1_000_000)?;
                }
                "--tokens-per-minute" => {
                    args.tokens = number(&name, &value()?, 10_000..=1_000_000_000)?;
                }
                "--window" => args.window = seconds(&name, &value()?)?,
                "--estimate-factor" => args.estimate_factor = part(&name, &value()?, 0.1..=10.0)?,
                "--foreign" => args.foreign = part(&name, &value()?, 0.0..=0.9)?,
                "--no-retry-after" => args.tells_retry_after = false,
                "--upstream" => args.upstream = Some(url(&name, &value()?)?),
                "--model" => args.model = value()?,
                "--help" | "-h" => return Err(Stop::Help),
                _ => return Err(mistake(&name, "is not an option")),
            }
        }
        if args.upstream.is_some() && (args.foreign > 0.0 || !args.tells_retry_after) {
            return Err(mistake("--upstream", "goes without --foreign and --no-retry-after"));
        }
        Ok(args)
    }
}

fn part(name: &str, value: &str, range: RangeInclusive<f64>) -> Result<f64, Stop> {
    let found = value.parse().ok().filter(|number| range.contains(number));
    let (least, most) = range.into_inner();
    found.ok_or_else(|| {
        mistake(name, format!("needs a number from {least} to {most}, not {value:?}"))
    })
}

fn url(name: &str, value: &str) -> Result<Uri, Stop> {
    let found = value.parse().ok().filter(|url: &Uri| {
        url.scheme_str() == Some("http") && url.host().is_some_and(|host| !host.is_empty())
    });
    found.ok_or_else(|| mistake(name, format!("needs http://host:port/path, not {value:?}")))
}
