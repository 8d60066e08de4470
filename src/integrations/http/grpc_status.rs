//! gRPC's refusals as a server writes them: the counterpart of `grpc.rs`.

use std::fmt::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderValue};

/// `INVALID_ARGUMENT`.
pub(crate) const INVALID_ARGUMENT: u8 = 3;
/// `RESOURCE_EXHAUSTED`.
pub(crate) const RESOURCE_EXHAUSTED: u8 = 8;
/// `UNAVAILABLE`.
pub(crate) const UNAVAILABLE: u8 = 14;

const RETRY_INFO: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";

/// Writes the status of an answer that has no body, with a `google.rpc.RetryInfo` if it is known when to come
/// again.
pub(crate) fn write(code: u8, message: &str, wait: Option<Duration>, headers: &mut HeaderMap) {
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    insert(headers, "grpc-message", &percent_encoded(message));
    if let Some(wait) = wait {
        let details = STANDARD_NO_PAD.encode(status(code, message, wait));
        insert(headers, "grpc-status-details-bin", &details);
    }
}

/// The value is visible ASCII and spaces.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// All but visible ASCII and spaces, and `%`.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// `google.rpc.Status`: a code (1), a message (2), and details (3), each an `Any`: a type (1) and a message
/// (2).
fn status(code: u8, message: &str, wait: Duration) -> Vec<u8> {
    // `RetryInfo` has a `Duration` in field 1: seconds (1) and nanoseconds (2).
    let mut duration = Vec::new();
    number(1, wait.as_secs().min(i64::MAX.cast_unsigned()), &mut duration);
    number(2, wait.subsec_nanos().into(), &mut duration);
    let mut info = Vec::new();
    bytes(1, &duration, &mut info);
    let mut any = Vec::new();
    bytes(1, RETRY_INFO, &mut any);
    bytes(2, &info, &mut any);
    let mut status = Vec::new();
    number(1, code.into(), &mut status);
    bytes(2, message.as_bytes(), &mut status);
    bytes(3, &any, &mut status);
    status
}

fn number(field: u8, value: u64, to: &mut Vec<u8>) {
    to.push(field << 3);
    varint(value, to);
}

fn bytes(field: u8, value: &[u8], to: &mut Vec<u8>) {
    to.push(field << 3 | 2);
    varint(value.len() as u64, to);
    to.extend_from_slice(value);
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrations::http::{MAX_WAIT, Outcome, grpc};

    #[test]
    fn a_client_reads_what_is_written() {
        for wait in [Duration::ZERO, Duration::new(0, 1), Duration::new(45, 837_906_927), MAX_WAIT]
        {
            let mut headers = HeaderMap::new();
            write(RESOURCE_EXHAUSTED, "come again", Some(wait), &mut headers);
            assert_eq!(grpc::refusal(&headers), Some((Outcome::Throttled, wait)));
            write(UNAVAILABLE, "come again", Some(wait), &mut headers);
            assert_eq!(grpc::refusal(&headers), Some((Outcome::Overloaded, wait)));
        }
        let mut headers = HeaderMap::new();
        write(RESOURCE_EXHAUSTED, "", Some(Duration::MAX), &mut headers);
        assert_eq!(grpc::refusal(&headers), Some((Outcome::Throttled, MAX_WAIT)));
    }

    #[test]
    fn a_message_may_have_any_characters() {
        let mut headers = HeaderMap::new();
        write(UNAVAILABLE, "50 % \r\n\u{1F980}\u{7f}", None, &mut headers);
        assert_eq!(headers["grpc-message"], "50 %25 %0D%0A%F0%9F%A6%80%7F");
        assert!(!headers.contains_key("grpc-status-details-bin"));
    }
}
