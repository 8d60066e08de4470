//! Ledgers: ordered logs that the agents of a swarm share.

#[cfg(feature = "nats")]
mod jetstream;
mod memory;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "nats")]
pub use jetstream::{JetStreamConfig, JetStreamLedger};
pub use memory::MemoryLedger;

/// A boxed future, which makes the traits of a ledger object-safe.
pub type LedgerFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An ordered log for each resource of a swarm, by which its agents divide a quota: see
/// `DistributedLimiter::share`. Implement it for the log that you have.
///
/// The quota holds whatever a ledger loses or delays. What it needs is order:
///
/// * All followers of a resource see the same entries in the same order. If one may have missed an entry, it is
///   told so by [`LedgerItem::Gap`] before the next one.
/// * An append may be lost, may be applied twice, and may be applied long after it failed.
/// * An entry that somebody has read must not be lost and the log go on within a term. A log that is restored from
///   an older copy must have been silent for a term.
pub trait Ledger: Send + Sync {
    /// The term and the drift of this log. They never change in its life, and are the same for all agents.
    fn terms(&self) -> LedgerTerms;

    /// Append `entry` to the log of `resource`. `last` is the sequence of the newest entry that the caller has
    /// read, 0 for none: if there is a later one, the ledger should append nothing. That saves entries, no more.
    ///
    /// # Errors
    ///
    /// The entry was not appended, or it is not known whether it was.
    fn append<'a>(
        &'a self,
        resource: &'a str,
        entry: Vec<u8>,
        last: u64,
    ) -> LedgerFuture<'a, Result<(), LedgerError>>;

    /// Follow the log of `resource`.
    ///
    /// With `last`, an entry that the caller has read: if it is still at its sequence, from the one after it. If
    /// not, the first item is [`Gap`](LedgerItem::Gap), and the next the newest entry.
    ///
    /// Without it, from the newest entry. If the log has none, and it is certain that it never had one, the first
    /// item is [`New`](LedgerItem::New). If that is uncertain, it is left out: then the agents wait for a term.
    ///
    /// # Errors
    ///
    /// The log cannot be read at present.
    fn follow<'a>(
        &'a self,
        resource: &'a str,
        last: Option<LedgerEntry>,
    ) -> LedgerFuture<'a, Result<Box<dyn Follower>, LedgerError>>;
}

/// The entries of one resource. Dropping it ends the following.
pub trait Follower: Send {
    /// The next item; `None` once the ledger has ended this. Then follow again. Cancel-safe: dropping the future loses
    /// no item.
    fn next(&mut self) -> LedgerFuture<'_, Option<LedgerItem>>;
}

/// What a follower yields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerItem {
    /// There was never an entry.
    New,
    /// The next entry.
    Entry(LedgerEntry),
    /// Entries may be missing before the next one.
    Gap,
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its place: larger than that of the entry before it, and at least 1.
    pub sequence: u64,
    /// What was appended.
    pub bytes: Arc<[u8]>,
}

/// How long the agents of a log trust what they know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LedgerTerms {
    /// An agent spends by a table for at most this long, and gets what others give up after as long. 100 ms to an
    /// hour.
    pub term: Duration,
    /// By which part a machine's clock may run faster or slower than real time: at least 0, at most 0.1.
    pub drift: f64,
}

impl LedgerTerms {
    /// 3 seconds, and 1 %.
    pub const DEFAULT: Self = Self { term: Duration::from_secs(3), drift: 0.01 };

    /// Whether they are within what is allowed.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let terms = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
        terms.contains(&self.term) && (0.0..=0.1).contains(&self.drift)
    }
}

impl Default for LedgerTerms {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why an operation on a ledger failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerError {
    /// The ledger cannot be reached at present. It may come back.
    Unavailable(String),
    /// Another entry came first: nothing was appended.
    Outrun,
    /// Any other failure, in the words of the ledger. It needs somebody to mend it.
    Failed(String),
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the ledger cannot be reached at present: {why}"),
            Self::Outrun => f.write_str("another entry came first"),
            Self::Failed(why) => write!(f, "the ledger failed: {why}"),
        }
    }
}

impl Error for LedgerError {}
