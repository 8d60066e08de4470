use super::*;
use crate::ledger::LedgerItem::{Entry, Gap, New};

async fn append(ledger: &MemoryLedger, byte: u8, last: u64) -> Result<(), LedgerError> {
    ledger.append("api", vec![byte], last).await
}

fn entry(sequence: u64, byte: u8) -> LedgerEntry {
    LedgerEntry { sequence, bytes: vec![byte].into() }
}

#[tokio::test]
async fn followers_see_each_entry_once_and_in_order() {
    let ledger = MemoryLedger::new();
    let mut first = ledger.follow("api", None).await.unwrap();
    assert_eq!(first.next().await, Some(New));
    append(&ledger, 1, 0).await.unwrap();
    append(&ledger, 2, 1).await.unwrap();
    // From the newest entry.
    let mut second = ledger.clone().follow("api", None).await.unwrap();
    assert_eq!(second.next().await, Some(Entry(entry(2, 2))));
    let waiting = tokio::spawn(async move { second.next().await });
    tokio::task::yield_now().await;
    append(&ledger, 3, 2).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Some(Entry(entry(3, 3))));
    for sequence in 1..=3 {
        assert_eq!(first.next().await, Some(Entry(entry(sequence, sequence as u8))));
    }
}

#[tokio::test]
async fn an_append_that_is_outrun_does_nothing() {
    let ledger = MemoryLedger::new();
    append(&ledger, 1, 0).await.unwrap();
    assert_eq!(append(&ledger, 9, 0).await, Err(LedgerError::Outrun));
    let mut follower = ledger.follow("api", None).await.unwrap();
    assert_eq!(follower.next().await, Some(Entry(entry(1, 1))));
}

#[tokio::test]
async fn what_is_gone_is_a_gap() {
    let ledger = MemoryLedger::new();
    append(&ledger, 1, 0).await.unwrap();
    let mut behind = ledger.follow("api", None).await.unwrap();
    for sequence in 1..100 {
        append(&ledger, 7, sequence).await.unwrap();
    }
    assert_eq!(behind.next().await, Some(Gap));
    assert_eq!(behind.next().await, Some(Entry(entry(100, 7))));

    let mut again = ledger.follow("api", Some(entry(99, 7))).await.unwrap();
    assert_eq!(again.next().await, Some(Entry(entry(100, 7))));
    // Not what is there.
    let mut another = ledger.follow("api", Some(entry(99, 8))).await.unwrap();
    assert_eq!(another.next().await, Some(Gap));
    assert_eq!(another.next().await, Some(Entry(entry(100, 7))));
}
