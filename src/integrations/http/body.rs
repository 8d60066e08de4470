//! What the bodies of refusals say.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::aws;
use super::values::{self, MAX_WAIT};

/// What a JSON body says, however deep. One that is cut off, or goes wrong later, does not matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The delay of the first `google.rpc.RetryInfo`.
    pub(super) retry_delay: Option<Duration>,
    /// `retry_after`, in seconds: Discord and Telegram.
    pub(super) retry_after: Option<Duration>,
    /// `global`: Discord's limit of all requests.
    pub(super) is_global: bool,
    /// Whether an error's code is one by which AWS throttles.
    pub(super) is_throttled: bool,
}

impl Told {
    pub(super) fn read(body: &[u8]) -> Self {
        let mut told = Self::default();
        let mut json = serde_json::Deserializer::from_slice(body);
        let _ = Value(&mut told).deserialize(&mut json);
        told
    }
}

/// Whether GitHub says in words that a limit was exceeded.
pub(super) fn tells_of_limit(body: &[u8]) -> bool {
    ["rate limit", "abuse detection"].iter().any(|words| {
        body.windows(words.len()).any(|window| window.eq_ignore_ascii_case(words.as_bytes()))
    })
}

/// What a value is of use for.
enum Leaf {
    /// The type of a message.
    RetryInfo,
    Delay(Duration),
    ThrottlingCode,
    Seconds(Duration),
    True,
    Other,
}

struct Value<'a>(&'a mut Told);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Leaf;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Leaf, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Leaf;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Leaf, E> {
        if text.ends_with("google.rpc.RetryInfo") {
            return Ok(Leaf::RetryInfo);
        }
        if aws::is_throttling(text) {
            return Ok(Leaf::ThrottlingCode);
        }
        let delay = text.strip_suffix('s').and_then(values::seconds);
        Ok(delay.map_or(Leaf::Other, Leaf::Delay))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Leaf, A::Error> {
        let (mut is_retry_info, mut delay) = (false, None);
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), map.next_value_seed(Value(self.0))?) {
                ("@type", Leaf::RetryInfo) => is_retry_info = true,
                ("retryDelay", Leaf::Delay(told)) => delay = Some(told),
                ("retry_after", Leaf::Seconds(told)) => self.0.retry_after = Some(told),
                ("global", Leaf::True) => self.0.is_global = true,
                ("__type" | "code" | "Code", Leaf::ThrottlingCode) => self.0.is_throttled = true,
                _ => {}
            }
            if is_retry_info && self.0.retry_delay.is_none() {
                self.0.retry_delay = delay;
            }
        }
        Ok(Leaf::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Leaf, A::Error> {
        while seq.next_element_seed(Value(self.0))?.is_some() {}
        Ok(Leaf::Other)
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<Leaf, E> {
        Ok(if is_true { Leaf::True } else { Leaf::Other })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_u64<E>(self, seconds: u64) -> Result<Leaf, E> {
        Ok(Leaf::Seconds(Duration::from_secs(seconds).min(MAX_WAIT)))
    }

    fn visit_f64<E>(self, seconds: f64) -> Result<Leaf, E> {
        let seconds = Duration::try_from_secs_f64(seconds.min(MAX_WAIT.as_secs_f64()));
        Ok(seconds.map_or(Leaf::Other, Leaf::Seconds)) // it may be negative
    }

    fn visit_unit<E>(self) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str =
        r#"{"retryDelay":"45.837906927s","@type":"type.googleapis.com/google.rpc.RetryInfo"}"#;

    fn delay_of(body: &[u8]) -> Option<Duration> {
        Told::read(body).retry_delay
    }

    #[test]
    fn the_delay_is_found_in_any_place() {
        let delay = Some(Duration::new(45, 837_906_927));
        for (before, after) in [
            ("", ""),
            (r#"{"error":{"code":429,"details":[{"@type":"other","retryDelay":"1s"},null,"#, "]}}"),
            (r#"[{"error":{"details":["#, r#",{"a":[1,-2,3.5,true,"b"]}]}}]"#),
            ("[", ""),
            ("[", r#", {"cut": "of"#),
            ("[", &format!(",{INFO}]").replace("45.8", "1.8")),
        ] {
            let body = format!("{before}{INFO}{after}");
            assert_eq!(delay_of(body.as_bytes()), delay, "{body}");
        }
    }

    #[test]
    fn what_is_malformed_has_no_delay() {
        for body in [
            "",
            "RetryInfo",
            r#"{"retryDelay":"45s"}"#,
            r#"{"@type":"google.rpc.RetryInfo","retryDelay":"-1s"}"#,
            r#"{"@type":"google.rpc.RetryInfo","retryDelay":45}"#,
            r#"{"@type":"google.rpc.RetryInfo","retryDelay":"45m"}"#,
        ] {
            assert_eq!(delay_of(body.as_bytes()), None, "{body}");
        }
        assert_eq!(delay_of(&b"[".repeat(1_000_000)), None, "the depth is bounded");
        assert_eq!(delay_of(&br#"{"a":"#.repeat(1_000_000)), None, "the depth is bounded");
    }
}
