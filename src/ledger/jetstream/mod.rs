//! A ledger between machines: NATS `JetStream`.

mod api;
mod log;
mod reader;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::DeliverPolicy;
use tokio::time::Instant;

use self::api::Api;
use self::log::Log;
use self::reader::Reader;
use super::{Follower, Ledger, LedgerEntry, LedgerError, LedgerFuture, LedgerTerms};
use crate::bus::NatsBus;

/// The longest that an append waits for the server.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest that connecting and following wait: for a few requests each.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(4);

/// A ledger over [NATS JetStream](https://docs.nats.io/nats-concepts/jetstream): one stream for each swarm.
/// Clones share a connection.
///
/// ```no_run
/// use tollgate::{JetStreamConfig, JetStreamLedger, NatsBus};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // For a start:
/// let ledger = JetStreamLedger::connect("nats://localhost:4222", "billing").await?;
///
/// // The bus and the ledger on one connection, and three replicas:
/// let client = NatsBus::options().name("billing").connect("nats://localhost:4222").await?;
/// let config = JetStreamConfig { replicas: 3, ..JetStreamConfig::new("billing") };
/// let ledger = JetStreamLedger::new(client.clone(), config).await?;
/// let bus = NatsBus::from(client);
/// # Ok(())
/// # }
/// ```
///
/// * **The stream** `TOLLGATE_<swarm>` has a subject for each resource. It keeps the last 64 entries of each in
///   files, and has the [terms](LedgerTerms) in its metadata. The first agent creates it. A later agent with other
///   terms gets an error that names both.
/// * **No loss goes unnoticed.** Each entry names the one before it, which must be the one that the follower has
///   read. A follower that begins anew first reads its last entry again. If the stream was deleted, purged or
///   restored from an old copy, or if the follower was too slow for what is kept, the next item is
///   [`Gap`](super::LedgerItem::Gap). Then the agent has no share for a term, and nobody needs to do anything. A
///   stream that is gone is created again.
/// * **Outages.** A follower ends when the server has been silent for 2.5 s. The next one continues where it
///   was. An append fails after at most 2 s. It may still be applied later.
/// * **`replicas`.** With 1, the log is as available as its server: while that is down, agents spend for a term,
///   and then nothing. With 3, on a cluster of three, the log survives the loss of one server. When the leader
///   dies, nothing can be appended for 5 to 7 s: with a longer term, the agents spend on meanwhile.
/// * **`sync_interval`** is a setting of the server. By default it syncs its files every two minutes. A crash of the
///   server loses nothing. A power failure loses what came since, which followers notice. What they cannot
///   repair: some agents have read an entry that is then lost, and others read another in its place. If all that
///   happens within a term, about one burst and one term's tokens can be admitted beyond the limit.
///   `sync_interval: always` in the server's block `jetstream { }` prevents it. It costs a sync for each entry,
///   which are about two a second for each resource.
/// * **Permissions.** `docs/nats-permissions.conf` has what an agent needs and no more. Without one
///   of them, the error names the subject. Whoever can append to the log can take the quota from others, but not
///   raise it.
/// * **Servers** need `JetStream`, and version 2.10 or newer.
/// * **Resources** may have any name. As it is sent, with `%2F` for any byte but `A-Z`, `a-z`, `0-9`, `-` and `_`, it
///   has at most 1,024 bytes; a longer one is an error.
///
/// It needs a tokio runtime with `net` and `time` enabled, and lives as long as the one in which its client was
/// connected. While tokio's time is paused, calls that wait for it may time out at once.
#[derive(Clone)]
pub struct JetStreamLedger(Arc<Log>);

/// The options of a [`JetStreamLedger`].
#[derive(Clone, Debug, PartialEq)]
pub struct JetStreamConfig {
    /// The name of the swarm, whose agents share a log: 1 to 64 of `A-Z`, `a-z`, `0-9`, `-` and `_`.
    pub swarm: String,
    /// On how many servers the log is kept, if this agent creates it: 1 (the default), 3 or 5.
    pub replicas: usize,
    /// The term and the drift of the log, equal for all agents. To change them, stop all agents and delete the
    /// stream.
    pub terms: LedgerTerms,
}

impl JetStreamConfig {
    /// The default options.
    #[must_use]
    pub fn new(swarm: &str) -> Self {
        Self { swarm: swarm.to_string(), replicas: 1, terms: LedgerTerms::DEFAULT }
    }
}

impl JetStreamLedger {
    /// Connect as [`NatsBus::connect`] does, and use the log of this swarm with the default options.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and if the server cannot be reached: after at most 5 s for each address.
    pub async fn connect(url: &str, swarm: &str) -> Result<Self, LedgerError> {
        let bus = NatsBus::connect(url).await;
        let client =
            bus.map_err(|error| LedgerError::Unavailable(error.to_string()))?.into_client();
        Self::new(client, JetStreamConfig::new(swarm)).await
    }

    /// Use the log of this swarm over a client, and create the stream if there is none. Make the client with
    /// [`NatsBus::options`], which notice a lost connection early.
    ///
    /// # Errors
    ///
    /// * [`Unavailable`](LedgerError::Unavailable): the server does not answer within 4 s. If a permission may be
    ///   missing, the error says which.
    /// * [`Failed`](LedgerError::Failed): the options are invalid, the server is older than 2.10 or has no
    ///   `JetStream`, or a stream of this name has other terms or none.
    pub async fn new(client: Client, config: JetStreamConfig) -> Result<Self, LedgerError> {
        let log = Log::new(Api::new(client)?, config)?;
        log.ensure(Instant::now() + FOLLOW_TIMEOUT).await?;
        Ok(Self(Arc::new(log)))
    }
}

impl Ledger for JetStreamLedger {
    fn terms(&self) -> LedgerTerms {
        self.0.terms()
    }

    fn append<'a>(
        &'a self,
        resource: &'a str,
        entry: Vec<u8>,
        last: u64,
    ) -> LedgerFuture<'a, Result<(), LedgerError>> {
        Box::pin(async move {
            let subject = self.0.subject(resource)?;
            self.0.append(Instant::now() + APPEND_TIMEOUT, &subject, entry, last).await
        })
    }

    fn follow<'a>(
        &'a self,
        resource: &'a str,
        last: Option<LedgerEntry>,
    ) -> LedgerFuture<'a, Result<Box<dyn Follower>, LedgerError>> {
        Box::pin(async move {
            let subject = self.0.subject(resource)?;
            let reader = follow(&self.0, &subject, last).await?;
            Ok(Box::new(reader) as Box<dyn Follower>)
        })
    }
}

/// The one place that decides whether entries may be missing: at every doubt a [`Reader`] ends.
async fn follow(
    log: &Log,
    subject: &str,
    last: Option<LedgerEntry>,
) -> Result<Reader, LedgerError> {
    let deadline = Instant::now() + FOLLOW_TIMEOUT;
    if let Some(last) = &last {
        // Asked of the stream's leader: the consumer may be at a replica that is behind, and would wait for an
        // entry that never comes.
        if log.holds(deadline, subject, last).await? {
            // From the entry that was read, not the next one. So the consumer has delivered at least one, and
            // a reset of it, because the stream was replaced, shows: it counts from 1 again.
            let start = DeliverPolicy::ByStartSequence { start_sequence: last.sequence };
            let messages = log.consume(deadline, subject, start).await?;
            let mut reader = Reader::new(messages);
            if reader.begins_with(deadline, last).await? {
                return Ok(reader);
            }
        }
        tracing::info!(
            subject,
            last.sequence,
            "jetstream: the entry read last is gone, as if all were"
        );
    }
    let messages = log.consume(deadline, subject, DeliverPolicy::LastPerSubject).await?;
    let reader = Reader::new(messages);
    Ok(if last.is_some() { reader.after_a_gap() } else { reader })
}

impl fmt::Debug for JetStreamLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JetStreamLedger").field(&self.0.config).finish()
    }
}
