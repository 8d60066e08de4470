//! What the bodies of refusals say.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::values;

/// The delay of the first `google.rpc.RetryInfo` in a JSON body, however deep. A body that is cut off, or goes
/// wrong after it, does not matter.
pub(super) fn retry_delay(body: &[u8]) -> Option<Duration> {
    let mut found = None;
    let mut json = serde_json::Deserializer::from_slice(body);
    let _ = Value(&mut found).deserialize(&mut json);
    found
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
    Other,
}

struct Value<'a>(&'a mut Option<Duration>);

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
        let delay = text.strip_suffix('s').and_then(values::seconds);
        Ok(delay.map_or(Leaf::Other, Leaf::Delay))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Leaf, A::Error> {
        let (mut is_retry_info, mut delay) = (false, None);
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), map.next_value_seed(Value(self.0))?) {
                ("@type", Leaf::RetryInfo) => is_retry_info = true,
                ("retryDelay", Leaf::Delay(told)) => delay = Some(told),
                _ => {}
            }
            if is_retry_info && self.0.is_none() {
                *self.0 = delay;
            }
        }
        Ok(Leaf::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Leaf, A::Error> {
        while seq.next_element_seed(Value(self.0))?.is_some() {}
        Ok(Leaf::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Leaf, E> {
        Ok(Leaf::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Leaf, E> {
        Ok(Leaf::Other)
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
            assert_eq!(retry_delay(body.as_bytes()), delay, "{body}");
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
            assert_eq!(retry_delay(body.as_bytes()), None, "{body}");
        }
        assert_eq!(retry_delay(&b"[".repeat(1_000_000)), None, "the depth is bounded");
        assert_eq!(retry_delay(&br#"{"a":"#.repeat(1_000_000)), None, "the depth is bounded");
    }
}
