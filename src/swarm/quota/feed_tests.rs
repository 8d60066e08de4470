use std::future::ready;

use tokio::sync::mpsc;

use super::*;
use crate::ledger::{Follower, LedgerError, LedgerFuture, LedgerTerms};

/// It is new, and each of its followers ends before the first entry.
struct Ending;

struct OnlyNew(Option<LedgerItem>);

impl Follower for OnlyNew {
    fn next(&mut self) -> LedgerFuture<'_, Option<LedgerItem>> {
        Box::pin(ready(self.0.take()))
    }
}

impl Ledger for Ending {
    fn terms(&self) -> LedgerTerms {
        LedgerTerms::DEFAULT
    }
    fn append<'a>(
        &'a self,
        _: &'a str,
        _: Vec<u8>,
        _: u64,
    ) -> LedgerFuture<'a, Result<(), LedgerError>> {
        Box::pin(ready(Ok(())))
    }
    fn follow<'a>(
        &'a self,
        _: &'a str,
        _: Option<LedgerEntry>,
    ) -> LedgerFuture<'a, Result<Box<dyn Follower>, LedgerError>> {
        let follower: Box<dyn Follower> = Box::new(OnlyNew(Some(LedgerItem::New)));
        Box::pin(ready(Ok(follower)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_log_is_followed_anew_after_a_gap() {
    let (to, mut incoming) = mpsc::channel(8);
    let _followed = Owned::spawn(follow(Arc::new(Ending), "api".to_string(), to));
    for expected in [LedgerItem::New, LedgerItem::Gap, LedgerItem::New, LedgerItem::Gap] {
        let Some(Incoming::Item(item)) = incoming.recv().await else { panic!("no item") };
        assert_eq!(item, expected);
    }
}
