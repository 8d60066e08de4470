//! Limits as text: parser and `Display`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::adaptive::{BACK_IN, Bounds};
use super::lexer::{Lexer, ParseLimitError, Parsed};
use super::window::Window;
use super::{Limit, OnRelease, Recovers};
use crate::adapt::Recovery;

const NANOS: u128 = 1_000_000_000;

/// Units of time, longest first: the name shown, its synonyms, and the length in nanoseconds.
const UNITS: [(&str, &[&str], u128); 8] = [
    ("week", &["w", "weeks"], 7 * 86_400 * NANOS),
    ("day", &["d", "days"], 86_400 * NANOS),
    ("h", &["hour", "hours"], 3_600 * NANOS),
    ("min", &["minute", "minutes"], 60 * NANOS),
    ("s", &["sec", "second", "seconds"], NANOS),
    ("ms", &[], 1_000_000),
    ("us", &["\u{b5}s", "\u{3bc}s"], 1_000), // micro and mu
    ("ns", &[], 1),
];
const UNIT_EXPECTED: &str = r#"a unit of time ("ns", "us", "ms", "s", "min", "h", "day", "week")"#;

/// Parses a limit: `"100/min"`, `"10/s burst 20 and 10_000/day"`, `"at most 100/min burst 10"`,
/// `"60/min, in flight 5, waiting 100, recovery x1.1 every 30s"`.
///
/// ```text
/// limit   = window { "and" window } { [","] setting }
/// window  = ["at most"] number ("/" | "per") time ["burst" number]
/// time    = [number] unit
/// unit    = "ns" | "us" | "ms" | "s" | "sec" | "second" | "seconds" | "min" | "minute" | "minutes"
///         | "h" | "hour" | "hours" | "d" | "day" | "days" | "w" | "week" | "weeks"
/// setting = "refund" | "spend"
///         | "in flight" number
///         | "waiting" number
///         | "cooldown" time
///         | "recovery" "x" factor "every" time ["uncapped"] | "no recovery"
///         | "min" number
///         | "adaptive" number "to" number ["back in" time]
/// ```
///
/// | text | meaning |
/// | --- | --- |
/// | `10/s`, `5/90s`, `3 per 7 days` | [`Limit::new`] |
/// | `at most 100/min` | [`Limit::at_most`] |
/// | `burst 20` | [`Limit::burst`], of the window before it |
/// | `and 10000/day` | [`Limit::and`] |
/// | `refund`, `spend` | [`Limit::on_release`] |
/// | `in flight 5` | [`Limit::max_in_flight`] |
/// | `waiting 100` | [`Limit::max_waiting`] |
/// | `cooldown 5s` | [`Limit::cooldown`] |
/// | `recovery x1.1 every 30s` | [`Limit::recovery`]; `uncapped` sets no cap |
/// | `no recovery` | [`Limit::no_recovery`] |
/// | `min 5` | [`Limit::min_rate`] |
/// | `adaptive 1 to 500` | [`Limit::adaptive`]; `back in 20s` sets [`Limit::back_in`] |
///
/// Settings apply to the whole limit. They follow the windows, in any order, each at most once.
/// Numbers may contain underscores, as in Rust; a factor may have a fraction. Case is ignored, and
/// `in-flight` and `at-most` are read too.
/// White space is allowed anywhere except within words and numbers, and is optional between a word
/// and a number.
///
/// # Errors
///
/// [`ParseLimitError`] if the text does not follow this grammar. Values are not validated: `0/s`
/// parses, and [`MemoryLimiter::configure`](crate::MemoryLimiter::configure) rejects it.
impl FromStr for Limit {
    type Err = ParseLimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Lexer::new(text).limit()
    }
}

/// The rules of the grammar.
impl Lexer<'_> {
    fn limit(&mut self) -> Parsed<Limit> {
        let mut limit = self.window()?;
        while self.accept("and") {
            limit = limit.and(self.window()?);
        }
        loop {
            // Nothing may follow a comma once each setting is named: then the comma is the mistake.
            let comma = limit.lacks_a_setting() && self.accept(",");
            if !self.setting(&mut limit)? {
                let ends = !comma && self.accept("");
                return if ends { Ok(limit) } else { Err(self.error()) };
            }
        }
    }

    fn window(&mut self) -> Parsed<Limit> {
        let new = if self.accept("at most") { Limit::at_most } else { Limit::new };
        let capacity = self.count()?;
        if !self.accept("/") && !self.accept("per") {
            return Err(self.error());
        }
        let limit = new(capacity, self.time()?);
        Ok(if self.accept("burst") { limit.burst(self.count()?) } else { limit })
    }

    fn setting(&mut self, limit: &mut Limit) -> Parsed<bool> {
        Ok(self.once(&mut limit.on_release, "refund", |_| Ok(OnRelease::Refund))?
            || self.once(&mut limit.on_release, "spend", |_| Ok(OnRelease::Spend))?
            || self.once(&mut limit.max_in_flight, "in flight", Self::count)?
            || self.once(&mut limit.max_waiting, "waiting", Self::count)?
            || self.once(&mut limit.cooldown, "cooldown", Self::time)?
            || self.once(&mut limit.recovery, "recovery", Self::recovery)?
            || self.once(&mut limit.recovery, "no recovery", |_| Ok(Recovers::Never))?
            || self.once(&mut limit.adaptive, "adaptive", Self::bounds)?
            || self.min_rate(limit)?)
    }

    /// Parses a setting, unless it was set before.
    fn once<T>(
        &mut self,
        setting: &mut Option<T>,
        words: &str,
        value: fn(&mut Self) -> Parsed<T>,
    ) -> Parsed<bool> {
        let is_next = setting.is_none() && self.accept(words);
        if is_next {
            *setting = Some(value(self)?);
        }
        Ok(is_next)
    }

    fn recovery(&mut self) -> Parsed<Recovers> {
        self.expect("x")?;
        let factor = self.factor()?;
        self.expect("every")?;
        let interval = self.time()?;
        Ok(Recovers::By(Recovery { interval, factor, cap: !self.accept("uncapped") }))
    }

    fn bounds(&mut self) -> Parsed<Bounds> {
        let min = self.count()?;
        self.expect("to")?;
        let max = self.count()?;
        let back_in = if self.accept("back in") { self.time()? } else { BACK_IN };
        Ok(Bounds { min, max, back_in })
    }

    fn min_rate(&mut self, limit: &mut Limit) -> Parsed<bool> {
        let is_next = limit.min_rate.is_none() && self.accept("min");
        if is_next {
            *limit = limit.min_rate(self.count()?);
        }
        Ok(is_next)
    }

    fn time(&mut self) -> Parsed<Duration> {
        let start = self.position();
        let count = self.number().unwrap_or(1);
        let Some((_, _, nanos)) = UNITS.iter().find(|(name, synonyms, _)| {
            self.accept_silently(name) || synonyms.iter().any(|name| self.accept_silently(name))
        }) else {
            self.note_expected(UNIT_EXPECTED);
            return Err(self.error());
        };
        let time = count.checked_mul(*nanos).and_then(|nanos| {
            let seconds = u64::try_from(nanos / NANOS).ok()?;
            Some(Duration::new(seconds, (nanos % NANOS) as u32))
        });
        time.ok_or_else(|| self.too_large(start, "a shorter time"))
    }

    fn count(&mut self) -> Parsed<u64> {
        let start = self.position();
        let number = self.number().ok_or_else(|| self.error())?;
        u64::try_from(number).map_err(|_| self.too_large(start, "a number below 2^64"))
    }
}

/// The shortest text that parses to an equal limit: `100/min`, `10/s burst 20`,
/// `at most 100/min and 10000/day, refund, in flight 5`. For a limit that could not be built, for
/// example of more than four windows, the text ends with the error and does not parse.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, window) in self.windows().enumerate() {
            f.write_str(if index == 0 { "" } else { " and " })?;
            write!(f, "{window}")?;
        }
        f.write_str(match self.on_release {
            None => "",
            Some(OnRelease::Spend) => ", spend",
            Some(OnRelease::Refund) => ", refund",
        })?;
        if let Some(n) = self.max_in_flight {
            write!(f, ", in flight {n}")?;
        }
        if let Some(n) = self.max_waiting {
            write!(f, ", waiting {n}")?;
        }
        if let Some(cooldown) = self.cooldown {
            write!(f, ", cooldown {}", Time(cooldown))?;
        }
        match self.recovery {
            None => {}
            Some(Recovers::Never) => f.write_str(", no recovery")?,
            Some(Recovers::By(Recovery { interval, factor, cap })) => {
                let uncapped = if cap { "" } else { " uncapped" };
                write!(f, ", recovery x{factor} every {}{uncapped}", Time(interval))?;
            }
        }
        if let Some(n) = self.min_rate {
            write!(f, ", min {n}")?;
        }
        if let Some(Bounds { min, max, back_in }) = self.adaptive {
            write!(f, ", adaptive {min} to {max}")?;
            if back_in != BACK_IN {
                write!(f, " back in {}", Time(back_in))?;
            }
        }
        match (self.fault, self.full_terms()) {
            (Some(_), Err(error)) => write!(f, " ({error})"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_most = if self.is_strict { "at most " } else { "" };
        // `#` omits a count of one: "10/s".
        write!(f, "{at_most}{}/{:#}", self.capacity, Time(self.length))?;
        self.burst.map_or(Ok(()), |burst| write!(f, " burst {burst}"))
    }
}

/// A duration as a whole number of the longest unit that divides it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_nanos();
        let divides = |(_, _, nanos): &&(_, _, u128)| total != 0 && total.is_multiple_of(*nanos);
        // Zero is shown in seconds.
        let (unit, _, nanos) = UNITS.iter().find(divides).unwrap_or(&UNITS[4]);
        let count = total / nanos;
        if count != 1 || !f.alternate() {
            write!(f, "{count}")?;
        }
        let plural = if count > 1 && ["day", "week"].contains(unit) { "s" } else { "" };
        write!(f, "{unit}{plural}")
    }
}

/// As text (feature `serde`). A limit that `configure` would reject is an error.
#[cfg(feature = "serde")]
impl serde::Serialize for Limit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.validate().map_err(serde::ser::Error::custom)?;
        serializer.collect_str(self)
    }
}

/// From text (feature `serde`), as `parse` reads it. A limit that `configure` would reject is an error.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Limit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl serde::de::Visitor<'_> for Text {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a limit, like "100/min" or "10/s burst 20""#)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Limit, E> {
                let limit: Limit = text.parse().map_err(E::custom)?;
                limit.validate().map_err(E::custom)?;
                Ok(limit)
            }
        }

        deserializer.deserialize_str(Text)
    }
}
