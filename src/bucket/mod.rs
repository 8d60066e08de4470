//! One token bucket, exact, in one atomic word. Time is passed in; nothing waits here.
//!
//! | file | has |
//! | --- | --- |
//! | `rate.rs` | the arithmetic, without atomics: what accrues, the decision, a level in other units |
//! | `word.rs`, `slot.rs` | the word that takes contend on, and the configuration that they read |
//! | `atomic.rs` | the bucket: the CAS loops |
//! | `snapshot.rs` | a consistent look; `standing.rs`: its figures; `outcome.rs`: why a take did not happen |
//! | `reconfigure.rs` | the next configuration and position, as pure functions; `swing.rs`: how a bucket gets there |
//! | `stripes.rs` | prepaid batches of a hot bucket; `stripe.rs`: their data, `batch.rs`: their sizes, `demand.rs`: which buckets are hot |
//! | `in_flight.rs` | permits in flight; `counter.rs`: their count as data |
//! | `counting.rs` | what it counts for metrics |
//! | `locked.rs` | a bucket under a lock: a further window of a resource |
//! | `compact.rs` | many buckets of one configuration, a word each |

mod atomic;
mod batch;
mod compact;
mod counter;
mod counting;
mod demand;
mod in_flight;
mod locked;
mod outcome;
pub(crate) mod rate;
mod reconfigure;
mod slot;
mod snapshot;
mod standing;
mod stripe;
mod stripes;
mod swing;
mod word;

pub(crate) use atomic::{Bucket, Transition};
pub(crate) use compact::{CompactBucket, MAX_SWEEP_AGE, SharedRate, SweepWindow};
pub(crate) use counter::CountedAt;
pub(crate) use demand::is_sample;
pub(crate) use in_flight::NotEntered;
pub(crate) use locked::LockedBucket;
pub(crate) use outcome::{Deficit, Denied, Never, Refused, Retry, worse, worst_of};
pub(crate) use rate::{BURST_PARTS, Level, Terms};
pub(crate) use reconfigure::SlotChange;
pub(crate) use slot::{SlotConfig, SlotState};
pub(crate) use snapshot::Snapshot;
pub(crate) use standing::Standing;
pub(crate) use stripes::Drained;
#[cfg(feature = "swarm")]
pub(crate) use word::POSITION_BITS;
