//! Numbers and times as texts. Whatever does not parse is `None`; no time is longer than [`MAX_WAIT`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest wait that is taken from an answer: 24 hours.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A number of seconds above this one is a time since 1970, not a delay of more than 31 years.
const EPOCH_SECONDS: u64 = 1_000_000_000;
/// Above this one it is in milliseconds.
const EPOCH_MILLIS: u64 = 1_000_000_000_000;

/// Digits as a number; `u64::MAX` if it is larger.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let add = |sum: u64, digit: u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(text.bytes().fold(0, add))
}

/// A number of tokens: not negative, a fraction is dropped.
pub(super) fn count(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(fraction)?;
    digits(whole)
}

/// A number of `unit`s, in decimals, rounded up to a nanosecond.
fn decimal(text: &str, unit: Duration) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(fraction)?;
    let unit = unit.as_nanos();
    let places = &fraction[..fraction.len().min(9)];
    let of_fraction = u128::from(digits(places)?) * unit;
    let nanos =
        u128::from(digits(whole)?) * unit + of_fraction.div_ceil(10_u128.pow(places.len() as u32));
    Some(u64::try_from(nanos).map_or(MAX_WAIT, Duration::from_nanos).min(MAX_WAIT))
}

/// Seconds, in decimals.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    decimal(text, Duration::from_secs(1))
}

pub(super) fn millis(text: &str) -> Option<Duration> {
    decimal(text, Duration::from_millis(1))
}

/// A duration as Go writes it: `6m0s`, `1h30m`, `20ms`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, more) = rest.split_at(unit);
        let end = more.find(|c: char| c.is_ascii_digit()).unwrap_or(more.len());
        let unit = match &more[..end] {
            "d" => MAX_WAIT,
            "h" => Duration::from_secs(3_600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            "us" | "µs" | "μs" => Duration::from_micros(1),
            "ns" => Duration::from_nanos(1),
            _ => return None,
        };
        sum = sum.saturating_add(decimal(number, unit)?);
        rest = &more[end..];
    }
    (!text.is_empty()).then_some(sum.min(MAX_WAIT))
}

/// A time since 1970, as HTTP writes it.
fn http_date(text: &str) -> Option<Duration> {
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok()
}

fn rfc_3339(text: &str) -> Option<Duration> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(Duration::new(u64::try_from(time.unix_timestamp()).ok()?, time.nanosecond()))
}

/// When the answer was made, since 1970: its `Date`, else the local clock.
pub(super) fn date(header: Option<&str>) -> Duration {
    let local = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    header.and_then(http_date).unwrap_or_else(local)
}

/// A delay or a time in any of the formats that are in use, from `date` on; zero if it has passed.
pub(super) fn delay(text: &str, date: Duration) -> Option<Duration> {
    let since = |time: Duration| time.saturating_sub(date).min(MAX_WAIT);
    match count(text) {
        Some(millis) if millis > EPOCH_MILLIS => Some(since(Duration::from_millis(millis))),
        Some(seconds) if seconds > EPOCH_SECONDS => Some(since(Duration::from_secs(seconds))),
        Some(_) => seconds(text),
        None => go_duration(text).or_else(|| rfc_3339(text).or_else(|| http_date(text)).map(since)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_writes_durations_so() {
        let parsed = |text| go_duration(text).map(|duration| duration.as_nanos());
        for (text, nanos) in [
            ("6m0s", 360_000_000_000),
            ("20ms", 20_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("1.5µs", 1_500),
            ("0s", 0),
            ("99999999999999999999h", MAX_WAIT.as_nanos()),
        ] {
            assert_eq!(parsed(text), Some(nanos), "{text}");
        }
        for text in ["", "s", "5", "-1s", "1x", "1s2", "1..5s", "1 s", ".s", "1m "] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn decimals_are_rounded_up() {
        assert_eq!(seconds("2.0"), Some(Duration::from_secs(2)));
        assert_eq!(seconds("0.0000000001"), Some(Duration::ZERO), "beyond nine places");
        assert_eq!(millis("0.0000001"), Some(Duration::from_nanos(1)));
        assert_eq!(seconds("99999999999999999999999"), Some(MAX_WAIT));
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e9", "NaN", "inf", "0x10", "1,5"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_large_number_is_a_time() {
        let date = Duration::from_secs(1_700_000_000);
        for (text, wait) in [
            ("1000000000", MAX_WAIT), // the most that is a delay
            ("1700000030", Duration::from_secs(30)),
            ("1700000030500", Duration::from_millis(30_500)),
            ("1699999999", Duration::ZERO),
            ("2023-11-14T22:13:21Z", Duration::from_secs(1)),
            ("2023-11-14T23:13:21.5+01:00", Duration::from_millis(1_500)),
            ("Tue, 14 Nov 2023 22:13:50 GMT", Duration::from_secs(30)),
            ("1969-12-31T23:59:59Z", Duration::ZERO),
        ] {
            assert_eq!(delay(text, date).unwrap_or_default(), wait, "{text}");
        }
    }
}
