//! Any text is parsed as a limit. The parser never panics, an error points into the text, and a limit
//! that can be configured is displayed as text that parses to the same limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::{Limit, ManualClock, MemoryLimiter};

fuzz_target!(|text: &str| {
    let limit = match text.parse::<Limit>() {
        Ok(limit) => limit,
        Err(error) => {
            assert!(text[error.position()..].starts_with(error.found()));
            assert!(!error.expected().is_empty() && !error.to_string().is_empty());
            return;
        }
    };
    let shown = limit.to_string();
    let again = shown.parse::<Limit>();
    let limiter = MemoryLimiter::with_clock(ManualClock::new());
    match limiter.configure("api", limit) {
        Ok(api) => {
            assert_eq!(again, Ok(limit), "{shown}");
            assert!(api.check().is_ok(), "a new bucket holds a token");
        }
        // It may have no text that parses, but its text is never that of another limit.
        Err(_) => assert!(again.is_err() || again == Ok(limit), "{shown}"),
    }
});
