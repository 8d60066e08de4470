//! Streams and sinks that take tokens for their items. Feature `stream`.
