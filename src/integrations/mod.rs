//! What the limiter meets at its borders, one feature and one folder each.

#[cfg(feature = "http")]
pub mod http;
