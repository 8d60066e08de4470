//! Limits of one process that are asked and answer at once: decisions, windows, groups, text, and bad
//! input.

#[path = "../common/mod.rs"]
mod common;

mod adversarial;
mod decisions;
mod errors;
mod exactness;
mod groups;
mod invalid_input;
mod invalid_windows;
mod pauses;
mod recovering;
mod reference_model;
mod regressions;
mod remaining;
mod scaled;
mod settle;
mod snapshots;
mod strict_windows;
mod text;
#[cfg(feature = "serde")]
mod text_serde;
mod windows;
