//! Errors that hand the item back.

use std::error::Error;
use std::fmt;

use crate::limiter::AcquireError;

/// Why no tokens were taken for an item, and the item.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemError<T> {
    /// The item, which was not handed on.
    pub item: T,
    /// What is wrong.
    pub cause: AcquireError,
}

/// Why a sink failed.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkError<T, E> {
    /// No tokens were taken for an item. The sink may be used on.
    Limit(ItemError<T>),
    /// The sink within failed. It has the item, if it took one.
    Sink(E),
}

/// Without the item, which may have no `Debug`.
impl<T> fmt::Debug for ItemError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemError").field("cause", &self.cause).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for ItemError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<T> Error for ItemError<T> {}

impl<T, E: fmt::Display> fmt::Display for SinkError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => error.fmt(f),
            Self::Sink(error) => error.fmt(f),
        }
    }
}

impl<T, E: fmt::Debug> fmt::Debug for SinkError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => f.debug_tuple("Limit").field(error).finish(),
            Self::Sink(error) => f.debug_tuple("Sink").field(error).finish(),
        }
    }
}

impl<T, E: Error> Error for SinkError<T, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Limit(_) => None,
            Self::Sink(error) => error.source(),
        }
    }
}
