//! The error of a denied call: one that its caller is told, or one of an attempt before a wait.

use super::error::TryAcquireError;
use crate::bucket::Denied;

/// What a denial becomes. Not by `From`: by that, `?` would turn the error of an attempt into a final one.
pub(crate) trait Refusal<D> {
    /// Whether it is what the caller is told: not of an attempt, after which the call waits.
    const IS_FINAL: bool;

    fn new(denied: D) -> Self;
}

impl Refusal<Denied> for TryAcquireError {
    const IS_FINAL: bool = true;

    #[inline]
    fn new(denied: Denied) -> Self {
        denied.into()
    }
}

impl Refusal<Self> for Denied {
    const IS_FINAL: bool = false;

    #[inline]
    fn new(denied: Self) -> Self {
        denied
    }
}
