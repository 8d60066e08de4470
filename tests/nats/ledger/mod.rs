//! The ledger over NATS, on servers that come and go.

mod cluster;
mod faults;
mod order;
mod permissions;
mod refusals;

use std::time::{Duration, Instant};

use crate::common::watchdog::HANG;
use crate::jetstream::StreamServer;
use tokio::time::{sleep, timeout};
use tollgate::async_nats::jetstream;
use tollgate::{
    Follower, JetStreamConfig, JetStreamLedger, Ledger, LedgerEntry, LedgerError, LedgerItem,
    NatsBus,
};

const SWARM: &str = "test";
const STREAM: &str = "TOLLGATE_test";

async fn connect(url: &str) -> JetStreamLedger {
    JetStreamLedger::connect(url, SWARM).await.expect("a ledger")
}

async fn start() -> (StreamServer, JetStreamLedger) {
    let server = StreamServer::start();
    let ledger = connect(&server.url()).await;
    (server, ledger)
}

/// What somebody else does with the server.
async fn admin(url: &str) -> jetstream::Context {
    jetstream::new(NatsBus::options().connect(url).await.expect("a connection"))
}

/// Reads as an agent does: whenever a follower has ended, it follows again from where it was.
struct Reading {
    ledger: JetStreamLedger,
    resource: &'static str,
    last: Option<LedgerEntry>,
    follower: Option<Box<dyn Follower>>,
}

impl Reading {
    fn of(ledger: &JetStreamLedger, resource: &'static str) -> Self {
        Self { ledger: ledger.clone(), resource, last: None, follower: None }
    }

    /// The sequence of the entry that was read last.
    fn last(&self) -> u64 {
        self.last.as_ref().map_or(0, |entry| entry.sequence)
    }

    /// Follow now, where otherwise the first `next` would.
    async fn follow(&mut self) -> Result<(), LedgerError> {
        self.follower = Some(self.ledger.follow(self.resource, self.last.clone()).await?);
        Ok(())
    }

    async fn next(&mut self) -> LedgerItem {
        let item = timeout(HANG, async {
            loop {
                if let Some(follower) = &mut self.follower
                    && let Some(item) = follower.next().await
                {
                    return item;
                }
                self.follower = None;
                match self.follow().await {
                    Ok(()) => {}
                    Err(LedgerError::Unavailable(_)) => sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let item = item.await.expect("an item");
        if let LedgerItem::Entry(entry) = &item {
            self.last = Some(entry.clone());
        }
        item
    }

    /// The text of the next entry, which comes without a gap.
    async fn text(&mut self) -> String {
        match self.next().await {
            LedgerItem::Entry(entry) => String::from_utf8(entry.bytes.to_vec()).expect("a text"),
            other => panic!("{other:?}, not an entry"),
        }
    }

    /// Nothing comes for as long as this.
    async fn is_silent(&mut self, time: Duration) {
        let item = timeout(time, self.next()).await;
        assert!(item.is_err(), "{item:?}");
    }
}

/// Append until it is done. One that failed may be applied later: then the next is outrun by it.
async fn append(ledger: &JetStreamLedger, resource: &str, text: &str, last: u64) {
    let since = Instant::now();
    let mut failed = false;
    loop {
        match ledger.append(resource, text.into(), last).await {
            Ok(()) => return,
            Err(LedgerError::Outrun) if failed => return,
            Err(LedgerError::Unavailable(_)) if since.elapsed() < HANG => {
                failed = true;
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Append `texts` after `reading`, which reads each.
async fn append_and_read(reading: &mut Reading, texts: &[&str]) {
    let ledger = reading.ledger.clone();
    for text in texts {
        append(&ledger, reading.resource, text, reading.last()).await;
        assert_eq!(reading.text().await, *text);
    }
}

async fn open(
    server: &StreamServer,
    change: impl FnOnce(&mut JetStreamConfig),
) -> Result<JetStreamLedger, LedgerError> {
    let client = NatsBus::options().connect(server.url()).await.expect("a connection");
    let mut config = JetStreamConfig::new(SWARM);
    change(&mut config);
    JetStreamLedger::new(client, config).await
}

/// The text of an error that somebody needs to mend.
fn failed<T>(result: Result<T, LedgerError>) -> String {
    match result {
        Err(LedgerError::Failed(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it did not fail"),
    }
}
