use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::{Sink, SinkExt};
use tollgate::stream::{RateLimitedSinkExt, SinkError};
use tollgate::{AcquireError, Limit};

use crate::{ALMOST_A_SECOND, NANO, SECOND, manual, now};

/// Keeps what it is sent, is ready when it is told so, and fails from an item of 99 on.
#[derive(Debug, Default)]
struct Kept {
    items: Vec<u64>,
    is_busy: bool,
    flushed: usize,
    is_closed: bool,
}

impl Sink<u64> for Kept {
    type Error = &'static str;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.items.contains(&99) {
            return Poll::Ready(Err("broken"));
        }
        if self.is_busy { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn start_send(mut self: Pin<&mut Self>, item: u64) -> Result<(), Self::Error> {
        self.items.push(item);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.flushed = self.items.len();
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.is_closed = true;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn an_item_goes_in_the_moment_of_its_token() {
    let (_limiter, api, time) = manual(Limit::per_second(1).burst(2));
    let mut sink = Kept::default().rate_limited_sink(&api);
    assert_eq!(now(sink.send(1)), Some(Ok(())));
    assert_eq!(now(sink.send(2)), Some(Ok(())));
    assert_eq!(now(sink.send(3)), None, "it is held, and not flushed");
    assert_eq!((sink.get_ref().items.len(), sink.get_ref().flushed), (2, 2));
    time.advance(ALMOST_A_SECOND);
    assert_eq!(now(sink.flush()), None);
    time.advance(NANO);
    assert_eq!(now(sink.flush()), Some(Ok(())));
    assert_eq!((&sink.get_ref().items[..], sink.get_ref().flushed), (&[1, 2, 3][..], 3));
    assert_eq!((api.capacity().available, api.capacity().in_flight), (0, 0));
}

/// `feed` waits for the tokens of the item before.
#[test]
fn one_item_is_held_and_no_more() {
    let (_limiter, api, time) = manual(Limit::per_second(1).burst(1));
    let mut sink = Kept::default().rate_limited_sink(&api);
    assert_eq!(now(sink.feed(1)), Some(Ok(())));
    assert_eq!(now(sink.feed(2)), Some(Ok(())), "there is a token for the first");
    assert_eq!(now(sink.feed(3)), None);
    assert_eq!(sink.get_ref().items, [1]);
    time.advance(SECOND);
    assert_eq!(now(sink.feed(3)), Some(Ok(())));
    assert_eq!(sink.get_ref().items, [1, 2]);
    assert_eq!(now(sink.close()), None);
    assert!(!sink.get_ref().is_closed);
    time.advance(SECOND);
    assert_eq!(now(sink.close()), Some(Ok(())));
    assert_eq!((&sink.get_ref().items[..], sink.get_ref().is_closed), (&[1, 2, 3][..], true));
}

/// Each `send` is dropped after a poll: what it has accepted is sent, once, and no token is lost.
#[test]
fn a_send_that_is_dropped_loses_nothing() {
    let (_limiter, api, time) = manual(Limit::per_second(10));
    let mut sink = Kept::default().rate_limited_sink(&api);
    let mut accepted = Vec::new();
    for number in 0..1_000 {
        let mut context = Context::from_waker(Waker::noop());
        // Once it is ready, `send` has handed its item over.
        if sink.poll_ready_unpin(&mut context).is_ready() {
            accepted.push(number);
            let _ = now(sink.send(number));
        } else {
            assert_eq!(now(sink.send(number)), None);
        }
        time.advance(SECOND / 25);
    }
    let sent = sink.get_ref().items.clone();
    let (kept, held) = sink.into_parts();
    assert_eq!(kept.items, sent);
    assert_eq!(accepted, sent.iter().copied().chain(held).collect::<Vec<_>>());
    assert_eq!(sent.len() as u64 + api.capacity().available, 10 + 400);
}

#[test]
fn items_cost_what_the_function_says() {
    let (_limiter, api, time) = manual(Limit::per_second(10));
    let mut sink = Kept::default().rate_limited_sink_by(&api, |item| *item);
    assert_eq!(now(sink.send(7)), Some(Ok(())));
    assert_eq!(now(sink.send(0)), Some(Ok(())));
    let Some(Err(SinkError::Limit(error))) = now(sink.send(11)) else { panic!("too much") };
    assert_eq!((error.item, error.cause), (11, AcquireError::ExceedsCapacity { capacity: 10 }));
    assert_eq!(now(sink.send(4)), None, "the sink may be used on");
    time.advance(SECOND / 10);
    assert_eq!(now(sink.flush()), Some(Ok(())));
    assert_eq!(sink.get_ref().items, [7, 0, 4]);
}

#[test]
fn an_error_of_a_feed_is_of_the_item_before() {
    let (_limiter, api, _time) = manual(Limit::per_second(10));
    let mut sink = Kept::default().rate_limited_sink_by(&api, |item| *item);
    assert_eq!(now(sink.feed(11)), Some(Ok(())));
    let Some(Err(SinkError::Limit(error))) = now(sink.feed(1)) else { panic!("too much") };
    assert_eq!(error.item, 11);
    assert_eq!(now(sink.flush()), Some(Ok(())));
    assert_eq!(sink.get_ref().items, [0; 0], "the other was not taken");

    // Whoever waits before the item is handed over still has it.
    assert_eq!(now(sink.feed(11)), Some(Ok(())));
    let mut is_ready = || now(poll_fn(|cx| sink.poll_ready_unpin(cx)));
    assert!(is_ready().unwrap().is_err());
    assert_eq!(is_ready(), Some(Ok(())));
    assert_eq!(now(sink.send(1)), Some(Ok(())));
    assert_eq!(sink.get_ref().items, [1]);
}

#[test]
fn a_closed_limiter_hands_the_item_back() {
    let (limiter, api, _time) = manual(Limit::per_day(1));
    let mut sink = Kept::default().rate_limited_sink(&api);
    assert_eq!(now(sink.send(1)), Some(Ok(())));
    assert_eq!(now(sink.send(2)), None);
    limiter.close();
    let Some(Err(SinkError::Limit(error))) = now(sink.flush()) else { panic!("closed") };
    assert_eq!((error.item, error.cause), (2, AcquireError::Closed));
    assert_eq!(now(sink.flush()), Some(Ok(())), "nothing is held");
    assert_eq!(sink.get_ref().items, [1]);
}

/// The tokens were taken, and the sink within is not ready: they are not taken again.
#[test]
fn a_sink_that_is_not_ready_gets_its_item_later() {
    let (_limiter, api, _time) = manual(Limit::per_second(10));
    let mut sink = Kept { is_busy: true, ..Kept::default() }.rate_limited_sink(&api);
    for _ in 0..3 {
        assert_eq!(now(sink.send(5)), None);
    }
    assert_eq!(api.capacity().available, 9);
    sink.get_mut().is_busy = false;
    assert_eq!(now(sink.flush()), Some(Ok(())));
    assert_eq!(sink.get_ref().items, [5]);
    assert_eq!(api.capacity().available, 9);
}

#[test]
fn the_errors_of_the_sink_within_are_its_own() {
    let (_limiter, api, _time) = manual(Limit::per_second(10));
    let mut sink = Kept::default().rate_limited_sink(&api);
    assert_eq!(now(sink.send(99)), Some(Ok(())));
    assert_eq!(now(sink.send(1)), Some(Err(SinkError::Sink("broken"))));
    assert_eq!(SinkError::<u64, _>::Sink("broken").to_string(), "broken");
    assert_eq!(sink.into_parts().1, Some(1), "it was not passed on");
}
