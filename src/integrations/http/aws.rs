//! How AWS says that it throttles: by a code, often under the status 400.

use http::HeaderMap;

/// The codes that the SDKs of AWS take for throttling, without those about a request that is still in progress.
const THROTTLING: [&str; 12] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// A code may stand between a namespace and an address, as in `com.amazonaws.dynamodb#SlowDown:http://...`.
pub(super) fn is_throttling(code: &str) -> bool {
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().trim();
    THROTTLING.contains(&code)
}

pub(super) fn throttles_in_headers(headers: &HeaderMap) -> bool {
    let code = headers.get("x-amzn-errortype").and_then(|code| code.to_str().ok());
    code.is_some_and(is_throttling)
}

/// Whether an element `Code` has such a code, for S3, EC2 and others that answer in XML.
pub(super) fn throttles_in_xml(body: &[u8]) -> bool {
    let elements = body.split(|byte| *byte == b'<');
    let mut codes = elements.filter_map(|element| element.strip_prefix(b"Code>"));
    codes.any(|code| str::from_utf8(code).is_ok_and(is_throttling))
}
