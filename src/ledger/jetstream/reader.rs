//! What a follower reads, and how it knows that it missed nothing.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use futures_core::Stream;
use tokio::time::{Instant, timeout_at};

use super::log::PREVIOUS;
use crate::ledger::{Follower, LedgerEntry, LedgerError, LedgerFuture, LedgerItem};

/// How many messages the consumer has delivered, in a heartbeat.
const LAST_CONSUMER: &str = "Nats-Last-Consumer";

/// Longer than the server is ever silent: two heartbeats and a half.
const SILENCE: Duration = Duration::from_millis(2_500);

/// The messages of one consumer. It ends at every doubt whether it missed any.
pub(super) struct Reader {
    /// `None` once it has ended.
    messages: Option<Subscriber>,
    position: Position,
    /// What was read and not yet yielded.
    items: VecDeque<LedgerItem>,
    /// When the server has been silent for too long.
    deadline: Instant,
}

impl Reader {
    pub(super) fn new(messages: Subscriber) -> Self {
        Self {
            messages: Some(messages),
            position: Position::default(),
            items: VecDeque::new(),
            deadline: Instant::now() + SILENCE,
        }
    }

    pub(super) fn after_a_gap(mut self) -> Self {
        self.items.push_back(LedgerItem::Gap);
        self
    }

    /// Read the first entry, and say whether it is this one.
    pub(super) async fn begins_with(
        &mut self,
        deadline: Instant,
        last: &LedgerEntry,
    ) -> Result<bool, LedgerError> {
        while self.items.is_empty() {
            if timeout_at(deadline, self.read()).await.is_err() || self.messages.is_none() {
                let why = "the log's replica at hand is behind its leader, or its server is gone";
                return Err(LedgerError::Unavailable(why.to_string()));
            }
        }
        Ok(self.items.pop_front() == Some(LedgerItem::Entry(last.clone())))
    }

    /// Wait for a message. Cancel-safe: there is no wait after it was taken.
    async fn read(&mut self) {
        let Some(messages) = &mut self.messages else { return };
        let next = poll_fn(|context| Pin::new(&mut *messages).poll_next(context));
        let read = match timeout_at(self.deadline, next).await {
            Ok(Some(message)) => self.take(&message),
            Ok(None) | Err(_) => None,
        };
        match read {
            Some(()) => self.deadline = Instant::now() + SILENCE,
            None => self.messages = None,
        }
    }

    /// Returns `None` if there may be messages that did not arrive.
    fn take(&mut self, message: &Message) -> Option<()> {
        let headers = message.headers.as_ref();
        if let Some(status) = message.status {
            let delivered = number(headers, LAST_CONSUMER);
            let alive = status == StatusCode::IDLE_HEARTBEAT;
            return (alive && delivered.is_none_or(|n| n == self.position.delivered)).then_some(());
        }
        let place = place(message.reply.as_deref()?)?;
        match self.position.advance(place, number(headers, PREVIOUS)) {
            Step::Next => {}
            Step::Gap => self.items.push_back(LedgerItem::Gap),
            Step::Doubt => return None,
        }
        let bytes = (*message.payload).into();
        let sequence = place.sequence;
        self.items.push_back(LedgerItem::Entry(LedgerEntry { sequence, bytes }));
        Some(())
    }
}

impl Follower for Reader {
    fn next(&mut self) -> LedgerFuture<'_, Option<LedgerItem>> {
        Box::pin(async {
            loop {
                if let Some(item) = self.items.pop_front() {
                    return Some(item);
                }
                self.messages.as_ref()?;
                self.read().await;
            }
        })
    }
}

/// Where a message comes from.
#[derive(Clone, Copy)]
struct Place {
    /// Of the stream.
    sequence: u64,
    /// Its number among the messages of the consumer, from 1 on.
    delivered: u64,
}

/// How far a consumer has been read. Two things together prove that nothing was missed:
///
/// 1. The entry names the one that was read as the one before it. Otherwise entries were removed before the
///    consumer came to them; the consumer does not count those.
/// 2. The consumer's count has no hole. So nothing was lost on the way, and it is the same consumer: if the
///    server restarts it, on what may be another content of the stream, it counts from 1 again.
#[derive(Default)]
struct Position {
    delivered: u64,
    /// The entry that was read last.
    last: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Next,
    /// It is the next one, but entries before it may have been removed.
    Gap,
    /// It is not the next message.
    Doubt,
}

impl Position {
    /// `previous` is the entry before it, as its writer knew it.
    fn advance(&mut self, place: Place, previous: Option<u64>) -> Step {
        let Place { sequence, delivered } = place;
        if delivered != self.delivered + 1 || self.last.is_some_and(|last| sequence <= last) {
            return Step::Doubt;
        }
        let first = self.last.is_none();
        let follows = self.last == previous;
        *self = Self { delivered, last: Some(sequence) };
        if first || follows { Step::Next } else { Step::Gap }
    }
}

fn number(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}

/// From a message's reply subject, `$JS.ACK.` and then
/// `<domain>.<account>.<stream>.<consumer>.<attempts>.<sequence>.<delivered>.<time>.<pending>...`, or the same
/// without domain and account.
fn place(reply: &str) -> Option<Place> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let at = if tokens.len() < 9 { 3 } else { 5 };
    Some(Place {
        sequence: tokens.get(at)?.parse().ok()?,
        delivered: tokens.get(at + 1)?.parse().ok()?,
    })
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
