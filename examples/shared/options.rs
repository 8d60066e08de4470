//! Parsing of command-line options.

use std::fmt;
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// Why the program stops instead of running.
#[derive(Debug)]
pub(crate) enum Stop {
    Help,
    Mistake(String),
}

impl Stop {
    /// Prints the usage, after the mistake if there is one.
    pub(crate) fn exit(self, usage: &str) -> ExitCode {
        match self {
            Self::Help => {
                println!("{usage}");
                ExitCode::SUCCESS
            }
            Self::Mistake(what) => {
                eprintln!("{what}\n\n{usage}");
                ExitCode::from(2)
            }
        }
    }
}

pub(crate) fn mistake(name: &str, why: impl fmt::Display) -> Stop {
    Stop::Mistake(format!("{name} {why}"))
}

pub(crate) fn number(name: &str, value: &str, range: RangeInclusive<u32>) -> Result<u32, Stop> {
    let found = u32::from_str(value).ok().filter(|number| range.contains(number));
    found.ok_or_else(|| {
        let (least, most) = range.into_inner();
        mistake(name, format!("needs a whole number from {least} to {most}, not {value:?}"))
    })
}

pub(crate) fn seconds(name: &str, value: &str) -> Result<Duration, Stop> {
    number(name, value, 1..=86_400).map(|seconds| Duration::from_secs(seconds.into()))
}
