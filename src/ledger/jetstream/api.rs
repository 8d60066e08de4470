//! Requests to the server, each with a deadline, and what their failures mean.

use async_nats::client::{Request, RequestErrorKind};
use async_nats::connection::State;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{Error, ErrorCode};
use async_nats::{Client, Subscriber};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::ledger::LedgerError;
use crate::ledger::LedgerError::{Failed, Unavailable};

/// An answer of `JetStream`, which may be an error of its own; or there was none.
pub(super) type Answer<T> = Result<Result<T, Error>, LedgerError>;

/// The server.
pub(super) struct Api {
    client: Client,
}

impl Api {
    pub(super) fn new(client: Client) -> Result<Self, LedgerError> {
        let api = Self { client };
        api.connected()?;
        if !api.client.is_server_compatible(2, 10, 0) {
            let version = api.client.server_info().version;
            return Err(Failed(format!(
                "nats-server {version} is too old: update it to 2.10 or newer"
            )));
        }
        Ok(api)
    }

    /// Call `JetStream`'s API: `$JS.API.<operation>`.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        deadline: Instant,
        operation: &str,
        body: &impl Serialize,
    ) -> Answer<T> {
        let body = serde_json::to_vec(body).map_err(|error| Failed(error.to_string()))?;
        let subject = format!("$JS.API.{operation}");
        self.request(deadline, &subject, Request::new().payload(body.into())).await
    }

    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        deadline: Instant,
        subject: &str,
        request: Request,
    ) -> Answer<T> {
        // Without a connection the client would keep the message for the next one.
        self.connected()?;
        let request = self.client.send_request(subject.to_string(), request.timeout(None));
        let message = match timeout_at(deadline, request).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    RequestErrorKind::NoResponders => self.nobody_there(subject),
                    RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                        Failed(format!("{subject}: {error}"))
                    }
                    RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                        Unavailable(format!("{subject}: {error}"))
                    }
                });
            }
            Err(_) => {
                self.connected()?;
                return Err(Unavailable(format!(
                    "no answer to `{subject}` in time. If the server is up, then the user may not publish to \
                     that subject or not subscribe to `_INBOX.>` (docs/nats-permissions.conf has all that an \
                     agent needs), or a cluster has no leader at present"
                )));
            }
        };
        match serde_json::from_slice(&message.payload) {
            Ok(Response::Ok(answer)) => Ok(Ok(answer)),
            Ok(Response::Err { error }) => Ok(Err(error)),
            Err(error) => {
                Err(Failed(format!("an answer to `{subject}` that makes no sense: {error}")))
            }
        }
    }

    /// Subscribe to a new subject of our own.
    pub(super) async fn inbox(
        &self,
        deadline: Instant,
    ) -> Result<(String, Subscriber), LedgerError> {
        self.connected()?;
        let inbox = self.client.new_inbox();
        match timeout_at(deadline, self.client.subscribe(inbox.clone())).await {
            Ok(Ok(subscriber)) => Ok((inbox, subscriber)),
            Ok(Err(error)) => Err(Unavailable(format!("{inbox}: {error}"))),
            Err(_) => Err(Unavailable("the client's queue is full".to_string())),
        }
    }

    fn connected(&self) -> Result<(), LedgerError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => {
                Err(Unavailable("there is no connection to NATS".to_string()))
            }
        }
    }

    fn nobody_there(&self, subject: &str) -> LedgerError {
        if !self.client.server_info().jetstream {
            return Failed(
                "the server has no JetStream: start it with `-js`, or with a block `jetstream { }` in its \
                 configuration"
                    .to_string(),
            );
        }
        Unavailable(format!(
            "nobody answers to `{subject}`: JetStream is starting, or the stream is gone"
        ))
    }
}

/// What an error of `JetStream` means to us.
pub(super) fn refused(what: &str, error: &Error) -> LedgerError {
    let why = format!("{what}: {error}");
    match error.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Failed(format!(
                "{why}: put `jetstream: enabled` into the account's block in the server's configuration"
            ))
        }
        ErrorCode::INSUFFICIENT_RESOURCES | ErrorCode::STREAM_STORE_FAILED => Failed(why),
        // A stream that is not there has been deleted: whoever follows next creates it again.
        ErrorCode::STREAM_NOT_FOUND
        | ErrorCode::CLUSTER_NOT_LEADER
        | ErrorCode::CLUSTER_NOT_ASSIGNED
        | ErrorCode::RAFT_GENERAL => Unavailable(why),
        _ if error.code() == 503 => Unavailable(why),
        _ => Failed(why),
    }
}
