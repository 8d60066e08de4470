//! The tests are in `tests`.

/// The code of the guide that needs these frameworks compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/axum.md")]
struct Axum;
