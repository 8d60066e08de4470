//! The stream of a swarm: its names, its terms, its entries.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use async_nats::client::Request;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, IntoConsumerConfig, push};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::{Config, Info, RawMessage};
use async_nats::{HeaderMap, HeaderValue, Subscriber};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::Instant;

use super::JetStreamConfig;
use super::api::{Answer, Api, refused};
use crate::ledger::LedgerError::{Failed, Outrun};
use crate::ledger::{LedgerEntry, LedgerError, LedgerTerms};

/// Entries of a resource that are kept. A follower that is further behind has a gap.
const KEPT: i64 = 64;

/// In bytes. A server ends a connection that sends it a line of more than 4 KiB, and the subject that creates a
/// consumer has that of the resource in it.
const LONGEST_NAME: usize = 1_024;
const LONGEST_SWARM: usize = 64;

/// How often the server lets a follower hear that it is there, if there is no entry.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The terms, in the stream's metadata.
const TERM: &str = "tollgate-term";
const DRIFT: &str = "tollgate-drift";

/// The sequence of the entry before this one. The server's own header of this meaning is a condition of the
/// append, which a server need not store.
pub(super) const PREVIOUS: &str = "Tollgate-Previous";

/// "Wrong last sequence", of a cluster that has another append of the same subject in flight.
const WRONG_LAST_SEQUENCE_CONSTANT: ErrorCode = ErrorCode(10164);

pub(super) struct Log {
    pub(super) config: JetStreamConfig,
    api: Api,
    stream: String,
    /// What the subjects of the resources begin with.
    prefix: String,
}

/// The answer to a request for a message.
#[derive(Deserialize)]
struct Stored {
    message: RawMessage,
}

impl Log {
    pub(super) fn new(api: Api, config: JetStreamConfig) -> Result<Self, LedgerError> {
        let swarm = &config.swarm;
        if !(1..=LONGEST_SWARM).contains(&swarm.len()) || !swarm.bytes().all(is_plain) {
            return Err(Failed(format!(
                "no name of a swarm: {swarm:?}; use 1 to {LONGEST_SWARM} of A-Z, a-z, 0-9, `-` and `_`"
            )));
        }
        if !config.terms.is_valid() {
            return Err(Failed(format!(
                "no terms: {:?}; a term is 100 ms to 1 h, and a drift 0 to 0.1",
                config.terms
            )));
        }
        let stream = format!("TOLLGATE_{swarm}");
        let prefix = format!("tollgate.quota.{swarm}.");
        Ok(Self { config, api, stream, prefix })
    }

    pub(super) fn terms(&self) -> LedgerTerms {
        self.config.terms
    }

    /// The subject of a resource.
    pub(super) fn subject(&self, resource: &str) -> Result<String, LedgerError> {
        let name = token(resource);
        if name.len() > LONGEST_NAME {
            return Err(Failed(format!(
                "the name of a resource is too long for a log: {} bytes as it is sent, more than {LONGEST_NAME}",
                name.len()
            )));
        }
        Ok(format!("{}{name}", self.prefix))
    }

    /// Create the stream if there is none, and see that it is ours.
    pub(super) async fn ensure(&self, deadline: Instant) -> Result<(), LedgerError> {
        let info = match self.info(deadline).await? {
            Err(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                match self.create(deadline).await? {
                    // Somebody else was faster.
                    Err(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                        self.info(deadline).await?
                    }
                    created => created,
                }
            }
            info => info,
        };
        let info =
            info.map_err(|error| refused(&format!("the stream `{}`", self.stream), &error))?;
        self.check(&info.config)
    }

    async fn info(&self, deadline: Instant) -> Answer<Info> {
        self.api.call(deadline, &format!("STREAM.INFO.{}", self.stream), &()).await
    }

    async fn create(&self, deadline: Instant) -> Answer<Info> {
        let config = Config {
            name: self.stream.clone(),
            description: Some(format!("The quota of the tollgate swarm `{}`", self.config.swarm)),
            subjects: vec![format!("{}*", self.prefix)],
            max_messages_per_subject: KEPT,
            num_replicas: self.config.replicas,
            metadata: self.metadata(),
            ..Config::default()
        };
        let created =
            self.api.call(deadline, &format!("STREAM.CREATE.{}", self.stream), &config).await?;
        if created.is_ok() {
            tracing::info!(stream = self.stream, "jetstream: created the log");
        }
        Ok(created)
    }

    fn metadata(&self) -> HashMap<String, String> {
        let LedgerTerms { term, drift } = self.terms();
        [(TERM, format!("{term:?}")), (DRIFT, drift.to_string())]
            .map(|(key, value)| (key.to_string(), value))
            .into()
    }

    fn check(&self, found: &Config) -> Result<(), LedgerError> {
        let stream = &self.stream;
        let ours = self.metadata();
        let [ours, theirs] = [&ours, &found.metadata].map(|of| (of.get(TERM), of.get(DRIFT)));
        let name = |(term, drift): (Option<&String>, Option<&String>)| {
            let or_none = |value: Option<&String>| value.map_or("none".to_string(), String::clone);
            format!("term {}, drift {}", or_none(term), or_none(drift))
        };
        if theirs == (None, None) {
            return Err(Failed(format!(
                "the stream `{stream}` is not a log of ours: it has no `{TERM}` in its metadata. Rename the swarm"
            )));
        }
        if ours != theirs {
            return Err(Failed(format!(
                "the log of the swarm `{}` has other terms than this agent: {}, not {}. All agents need the same; to \
                 change them, stop all agents and delete the stream `{stream}`",
                self.config.swarm,
                name(theirs),
                name(ours),
            )));
        }
        if found.num_replicas != self.config.replicas {
            tracing::warn!(
                stream,
                replicas = found.num_replicas,
                "jetstream: the log has another number of replicas than configured: `nats stream edit` changes it"
            );
        }
        Ok(())
    }

    /// Append after `last`, the entry that the caller has read last.
    pub(super) async fn append(
        &self,
        deadline: Instant,
        subject: &str,
        entry: Vec<u8>,
        last: u64,
    ) -> Result<(), LedgerError> {
        if self.append_after(deadline, subject, &entry, last).await? {
            return Ok(());
        }
        // If what the caller has read is gone, it could never append again. Followers that have read it too notice
        // by this entry, if not before: it names another one.
        let newest = self.newest(deadline, subject).await?;
        if newest < last && self.append_after(deadline, subject, &entry, newest).await? {
            return Ok(());
        }
        Err(Outrun)
    }

    /// Returns whether `last` was the newest entry, and this one was appended.
    async fn append_after(
        &self,
        deadline: Instant,
        subject: &str,
        entry: &[u8],
        last: u64,
    ) -> Result<bool, LedgerError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(last));
        headers.insert(PREVIOUS, HeaderValue::from(last));
        let request = Request::new().headers(headers).payload(entry.to_vec().into());
        match self.api.request::<PublishAck>(deadline, subject, request).await? {
            Ok(_) => Ok(true),
            Err(error) => match error.error_code() {
                ErrorCode::STREAM_WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT => Ok(false),
                _ => Err(refused(&format!("appending to `{subject}`"), &error)),
            },
        }
    }

    /// The sequence of the newest entry, 0 for none.
    async fn newest(&self, deadline: Instant, subject: &str) -> Result<u64, LedgerError> {
        let newest = self.get(deadline, &json!({ "last_by_subj": subject })).await?;
        Ok(newest.map_or(0, |message| message.sequence))
    }

    /// Whether this entry is in the log.
    pub(super) async fn holds(
        &self,
        deadline: Instant,
        subject: &str,
        entry: &LedgerEntry,
    ) -> Result<bool, LedgerError> {
        let found = self.get(deadline, &json!({ "seq": entry.sequence })).await?;
        Ok(found.is_some_and(|found| *found.subject == *subject && *found.payload == *entry.bytes))
    }

    /// From the stream's leader, which direct gets need not ask.
    async fn get(
        &self,
        deadline: Instant,
        which: &serde_json::Value,
    ) -> Result<Option<StreamMessage>, LedgerError> {
        let operation = format!("STREAM.MSG.GET.{}", self.stream);
        match self.api.call::<Stored>(deadline, &operation, which).await? {
            Ok(Stored { message }) => {
                let message = StreamMessage::try_from(message);
                Ok(Some(message.map_err(|error| Failed(format!("{operation}: {error}")))?))
            }
            Err(error) => match error.error_code() {
                ErrorCode::NO_MESSAGE_FOUND | ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(refused(&operation, &error)),
            },
        }
    }

    /// The messages of a new consumer. It is in the server's memory alone, and the server forgets it 5 s after
    /// the subscriber is gone.
    pub(super) async fn consume(
        &self,
        deadline: Instant,
        subject: &str,
        deliver_policy: DeliverPolicy,
    ) -> Result<Subscriber, LedgerError> {
        let (inbox, messages) = self.api.inbox(deadline).await?;
        // As random as the inbox.
        let name = inbox.rsplit('.').next().unwrap_or(&inbox).to_string();
        let operation = format!("CONSUMER.CREATE.{}.{name}.{subject}", self.stream);
        let config = push::Config {
            name: Some(name),
            deliver_subject: inbox,
            deliver_policy,
            filter_subject: subject.to_string(),
            // Otherwise the server sends again, after 30 s, what nobody acknowledges.
            ack_policy: AckPolicy::None,
            idle_heartbeat: HEARTBEAT,
            memory_storage: true,
            num_replicas: 1,
            ..push::Config::default()
        };
        let request =
            json!({ "stream_name": self.stream, "config": config.into_consumer_config() });
        let mut created = self.api.call::<IgnoredAny>(deadline, &operation, &request).await?;
        if created.as_ref().is_err_and(|error| error.error_code() == ErrorCode::STREAM_NOT_FOUND) {
            self.ensure(deadline).await?;
            created = self.api.call(deadline, &operation, &request).await?;
        }
        created.map_err(|error| refused(&operation, &error))?;
        // After the consumer, which ends with its stream: the stream may have been deleted and created again, with
        // other terms, since we last looked.
        self.ensure(deadline).await?;
        Ok(messages)
    }
}

/// A resource's name as one token of a subject.
fn token(resource: &str) -> String {
    if resource.is_empty() {
        return "%".to_string();
    }
    let mut token = String::with_capacity(resource.len());
    for byte in resource.bytes() {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            let _ = write!(token, "%{byte:02X}");
        }
    }
    token
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
