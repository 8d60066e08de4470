//! A ledger within one process.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Follower, Ledger, LedgerEntry, LedgerError, LedgerFuture, LedgerItem, LedgerTerms};
use crate::sync::Mutex;

/// Entries of a resource that are kept. Who is further behind has a gap.
const KEPT: usize = 64;

/// A ledger within one process: for several limiters in one program, and for tests. Clones are one log.
///
/// It knows that it is new, so the first agents need not wait for a term. It bounds what the limiters of **one
/// process** admit together: two processes with a `MemoryLedger` each have two quotas.
#[derive(Clone)]
pub struct MemoryLedger(Arc<Shared>);

struct Shared {
    terms: LedgerTerms,
    logs: Mutex<HashMap<String, Log>>,
}

struct Log {
    entries: VecDeque<LedgerEntry>,
    /// The sequence of the last entry, for followers that wait.
    last: watch::Sender<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Self { entries: VecDeque::new(), last: watch::Sender::new(0) }
    }
}

impl Log {
    fn last(&self) -> u64 {
        *self.last.borrow()
    }
}

impl MemoryLedger {
    /// A log with a term of 3 seconds, for clocks that are within 1 % of real time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_terms(LedgerTerms::DEFAULT.term, LedgerTerms::DEFAULT.drift)
    }

    /// With other terms. `DistributedLimiter::share` fails if they are [not valid](LedgerTerms).
    #[must_use]
    pub fn with_terms(term: Duration, drift: f64) -> Self {
        let terms = LedgerTerms { term, drift };
        Self(Arc::new(Shared { terms, logs: Mutex::new(HashMap::new()) }))
    }
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger for MemoryLedger {
    fn terms(&self) -> LedgerTerms {
        self.0.terms
    }

    fn append<'a>(
        &'a self,
        resource: &'a str,
        entry: Vec<u8>,
        last: u64,
    ) -> LedgerFuture<'a, Result<(), LedgerError>> {
        let mut logs = self.0.logs.lock();
        let log = logs.entry(resource.to_string()).or_default();
        if log.last() > last {
            return Box::pin(ready(Err(LedgerError::Outrun)));
        }
        let sequence = log.last() + 1;
        log.entries.push_back(LedgerEntry { sequence, bytes: entry.into() });
        if log.entries.len() > KEPT {
            log.entries.pop_front();
        }
        log.last.send_replace(sequence);
        Box::pin(ready(Ok(())))
    }

    fn follow<'a>(
        &'a self,
        resource: &'a str,
        last: Option<LedgerEntry>,
    ) -> LedgerFuture<'a, Result<Box<dyn Follower>, LedgerError>> {
        let mut logs = self.0.logs.lock();
        let log = logs.entry(resource.to_string()).or_default();
        let newest = log.last().saturating_sub(1);
        let (read, first) = match last {
            None if log.last() == 0 => (0, Some(LedgerItem::New)),
            None => (newest, None),
            Some(last) if log.entries.contains(&last) => (last.sequence, None),
            Some(_) => (newest, Some(LedgerItem::Gap)),
        };
        let follower: Box<dyn Follower> = Box::new(Reader {
            ledger: Arc::clone(&self.0),
            resource: resource.to_string(),
            last: log.last.subscribe(),
            read,
            first,
        });
        Box::pin(ready(Ok(follower)))
    }
}

struct Reader {
    ledger: Arc<Shared>,
    resource: String,
    last: watch::Receiver<u64>,
    /// The sequence of the entry that was read last.
    read: u64,
    /// What comes before the entries.
    first: Option<LedgerItem>,
}

impl Reader {
    fn take(&mut self) -> Option<LedgerItem> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let logs = self.ledger.logs.lock();
        let entries = &logs.get(&self.resource)?.entries;
        let oldest = entries.front()?.sequence;
        if self.read + 1 < oldest {
            self.read = entries.back()?.sequence - 1;
            return Some(LedgerItem::Gap);
        }
        let index = usize::try_from(self.read + 1 - oldest).ok()?;
        let entry = entries.get(index)?.clone();
        self.read = entry.sequence;
        Some(LedgerItem::Entry(entry))
    }
}

impl Follower for Reader {
    fn next(&mut self) -> LedgerFuture<'_, Option<LedgerItem>> {
        Box::pin(async {
            loop {
                // Marked as seen before the look: an entry that comes after it is a change.
                self.last.borrow_and_update();
                if let Some(item) = self.take() {
                    return Some(item);
                }
                self.last.changed().await.ok()?;
            }
        })
    }
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { terms, logs } = &*self.0;
        f.debug_struct("MemoryLedger")
            .field("terms", terms)
            .field("resources", &logs.lock().len())
            .finish()
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
