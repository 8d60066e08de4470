//! gRPC's refusals: a status, and in its details, in protobuf and base64, when to try again.

use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

use super::types::Outcome;
use super::values::MAX_WAIT;

/// Senders may leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The outcome and the wait of a refusal that says when to try again. `RESOURCE_EXHAUSTED` without a time may
/// be a bill that is not paid, or a message that is too large: then no wait helps.
pub(super) fn refusal(headers: &HeaderMap) -> Option<(Outcome, Duration)> {
    let outcome = match headers.get("grpc-status")?.as_bytes() {
        b"8" => Outcome::Throttled,
        b"14" => Outcome::Overloaded,
        _ => return None,
    };
    let details = BASE64.decode(headers.get("grpc-status-details-bin")?.as_bytes()).ok()?;
    // `google.rpc.Status` has its details in field 3, each an `Any`: a type (1) and a message (2).
    let wait = messages(&details, 3).find_map(|any| {
        let kind = messages(any, 1).next()?;
        let info = messages(any, 2).next().unwrap_or_default();
        kind.ends_with(b"google.rpc.RetryInfo").then(|| retry_delay(info))
    })?;
    Some((outcome, wait))
}

/// `RetryInfo` has a `Duration` in field 1: seconds (1) and nanoseconds (2), each 0 if it is left out.
fn retry_delay(info: &[u8]) -> Duration {
    let duration = messages(info, 1).next().unwrap_or_default();
    let number = |wanted| {
        let mut numbers = Fields(duration).filter_map(|(number, field)| match field {
            Field::Number(value) if number == wanted => Some(value.cast_signed()),
            _ => None,
        });
        u64::try_from(numbers.next().unwrap_or(0)).unwrap_or(0)
    };
    let wait = Duration::from_secs(number(1)).saturating_add(Duration::from_nanos(number(2)));
    wait.min(MAX_WAIT)
}

/// The fields of this number that are messages or strings.
fn messages(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    Fields(message).filter_map(move |(number, field)| match field {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// A message's fields with their numbers, up to the first that is malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for place in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << place;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Field::Other)?,
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}
