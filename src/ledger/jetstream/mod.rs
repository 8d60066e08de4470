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

/// A ledger over [NATS JetStream](https://docs.nats.io/nats-concepts/jetstream): one stream for each swarm. Clones
/// share a connection and a stream.
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
/// * **The stream** `TOLLGATE_<swarm>` has a subject for each resource, keeps the last 64 entries of each in files,
///   and has the [terms](LedgerTerms) in its metadata. The first agent creates it. A later one with other terms gets
///   an error that names both.
/// * **No loss goes unnoticed.** Each entry names the one before it, and a follower checks that it is the one that
///   it has read. Whenever it begins anew, it first reads its last entry again. If the stream was deleted, purged or
///   restored from an old copy, or if the follower was too slow for what is kept, the next item is
///   [`Gap`](super::LedgerItem::Gap). Then an agent has no share for a term, and nobody needs to do anything. A
///   stream that is gone is created again.
/// * **Outages.** Following ends when the server has been silent for 2.5 s, and can begin again where it was. An append
///   fails after at most 2 s. It may be applied all the same, later.
/// * **`replicas`:** with 1, the log is as available as its server: while that is down, agents spend what they have
///   for a term, and then nothing. With 3, in a cluster of three, the log survives the loss of one server. When the
///   leader dies, no entry can be appended for about 5 s, so take a term of more than that to use all of the
///   quota meanwhile.
/// * **`sync_interval`** is a setting of the server. By default a server writes to its disk every two minutes. Its
///   own crash loses nothing, but a power failure loses what came since. Followers notice that. What they
///   cannot make good: entries on which some have acted, while others act on those that replace them. After the
///   power failure of a whole cluster within a term this can admit about one burst and one term's tokens beyond the
///   limit. `sync_interval: always` in the server's block `jetstream { }` excludes it, at the price of one write to
///   disk for each entry, of which there are about two a second for each resource.
/// * **Permissions.** `docs/nats-permissions.conf` has what an agent needs and no more. Without one of them, an error
///   names the subject. Whoever can append to the log can take the quota away from others, but cannot exceed it for
///   them.
/// * **Servers** need `JetStream`, and version 2.10 or newer.
/// * **Resources** may have any name of up to 1,024 bytes; a byte other than `A-Z`, `a-z`, `0-9`, `-` and `_`
///   counts three times, because it is sent as `%2F`.
///
/// It needs a tokio runtime with `net` and `time` enabled, and lives as long as the one in which its client was
/// connected. While tokio's time is paused, calls that wait for it may time out at once.
#[derive(Clone)]
pub struct JetStreamLedger(Arc<Log>);

/// The options of a [`JetStreamLedger`].
#[derive(Clone, Debug, PartialEq)]
pub struct JetStreamConfig {
    /// The name of the swarm: its agents share a log. 1 to 64 of the characters `A-Z`, `a-z`, `0-9`, `-` and `_`.
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
    /// [`Unavailable`](LedgerError::Unavailable): the server does not answer within 4 s. It says which permission is
    /// missing if that is the cause.
    ///
    /// [`Failed`](LedgerError::Failed): the options are invalid, the server is older than 2.10 or has no `JetStream`,
    /// or there is a stream of this name with other terms or of somebody else.
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

/// Every doubt whether something was missed ends a [`Reader`], so that it comes through here.
async fn follow(
    log: &Log,
    subject: &str,
    last: Option<LedgerEntry>,
) -> Result<Reader, LedgerError> {
    let deadline = Instant::now() + FOLLOW_TIMEOUT;
    if let Some(last) = &last {
        // The stream's leader knows whether it is there. Otherwise the consumer, which may be at a replica that
        // is behind, would be asked for an entry that never comes.
        if log.holds(deadline, subject, last).await? {
            // Beginning with the entry that was read, not with the next: from then on, a consumer that was
            // reset, because the stream was replaced, is one that counts from 1 again.
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
