use std::future::{pending, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::stream::{self, FusedStream};
use futures_util::{FutureExt, Stream, StreamExt};
use tollgate::stream::{ItemError, RateLimitedStreamExt};
use tollgate::{AcquireError, Limit};

use crate::watchdog::Watchdog;
use crate::{ALMOST_A_SECOND, MILLI, NANO, SECOND, Wakes, manual, now};

/// The item that is there now; `None` if there is none yet.
fn item<T>(stream: &mut (impl Stream<Item = Result<T, ItemError<T>>> + Unpin)) -> Option<T> {
    now(stream.next()).map(|item| item.expect("an item").expect("tokens"))
}

#[test]
fn an_item_comes_in_the_moment_of_its_token() {
    let (_limiter, api, time) = manual(Limit::per_second(1).burst(2));
    let mut items = stream::iter(0..5).rate_limited(&api);
    assert_eq!((item(&mut items), item(&mut items), item(&mut items)), (Some(0), Some(1), None));
    for number in 2..5 {
        time.advance(ALMOST_A_SECOND);
        assert_eq!(item(&mut items), None);
        time.advance(NANO);
        assert_eq!(item(&mut items), Some(number));
        assert_eq!(api.capacity().available, 0);
    }
    assert_eq!(now(items.next()), Some(None), "an end takes no token");
    assert_eq!(api.capacity().in_flight, 0);
}

#[test]
fn an_end_does_not_wait() {
    let (_limiter, api, _time) = manual(Limit::per_day(1));
    api.check().unwrap();
    assert_eq!(now(stream::empty::<()>().rate_limited(&api).next()), Some(None));
}

/// Each round `next` is dropped, with its item in the queue. All items come, in order, and no token is lost.
#[test]
fn a_select_that_drops_next_loses_nothing() {
    let (_limiter, api, time) = manual(Limit::per_second(10));
    let mut items = stream::iter(0..).rate_limited(&api);
    let (mut got, mut cancelled) = (Vec::new(), 0);
    pollster::block_on(async {
        while cancelled < 1_000 {
            tokio::select! {
                biased;
                item = items.next() => got.push(item.unwrap().unwrap()),
                () = ready(()) => {
                    cancelled += 1;
                    time.advance(33 * MILLI);
                }
            }
        }
    });
    got.extend(item(&mut items));
    assert_eq!(got, (0..340).collect::<Vec<_>>(), "33 s from a full bucket");
    assert_eq!((item(&mut items), api.capacity().available), (None, 0));
}

#[test]
fn the_last_task_that_polled_is_woken() {
    let (_limiter, api, time) = manual(Limit::per_second(1));
    let mut items = stream::iter(0..).rate_limited(&api);
    assert_eq!(item(&mut items), Some(0));
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    for count in [&first, &second] {
        let waker = Waker::from(Arc::clone(count));
        assert!(items.next().poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    time.advance(SECOND);
    assert_eq!((first.count(), second.count()), (0, 1));
    assert_eq!(item(&mut items), Some(1));
}

/// An adaptor that is not polled has no place in the queue, and tokens accrue up to the burst.
#[test]
fn a_slow_consumer_finds_the_burst() {
    let (_limiter, api, time) = manual(Limit::per_second(10).burst(3));
    let mut items = stream::iter(0..).rate_limited(&api);
    for number in 0..3 {
        assert_eq!(item(&mut items), Some(number));
    }
    for _ in 0..20 {
        time.advance(10 * SECOND);
        assert_eq!((api.capacity().waiting, api.capacity().available), (0, 3));
        let got = (0..10).map_while(|_| item(&mut items)).collect::<Vec<_>>();
        assert_eq!(got.len(), 3, "{got:?}");
        assert_eq!(api.capacity().waiting, 1);
        time.advance(SECOND / 10);
        assert!(item(&mut items).is_some());
    }
}

/// A source that has nothing takes no tokens and no place in the queue.
#[test]
fn an_idle_source_takes_nothing() {
    let (_limiter, api, _time) = manual(Limit::per_second(1));
    let mut items = stream::once(pending::<()>().boxed()).rate_limited(&api);
    assert!(now(items.next()).is_none());
    assert_eq!((api.capacity().available, api.capacity().waiting), (1, 0));
}

#[test]
fn items_cost_what_the_function_says() {
    let (_limiter, api, time) = manual(Limit::per_second(10));
    let mut items = stream::iter([6_u64, 6, 0, 10, 11, 1]).rate_limited_by(&api, |cost| *cost);
    assert_eq!((item(&mut items), item(&mut items)), (Some(6), None));
    time.advance(SECOND / 5);
    assert_eq!((item(&mut items), item(&mut items)), (Some(6), Some(0)));
    assert_eq!(item(&mut items), None);
    time.advance(ALMOST_A_SECOND);
    assert_eq!(item(&mut items), None);
    time.advance(NANO);
    assert_eq!(item(&mut items), Some(10));
    let error = now(items.next()).unwrap().unwrap().unwrap_err();
    assert_eq!(error.item, 11);
    assert_eq!(error.cause, AcquireError::ExceedsCapacity { capacity: 10 });
    assert_eq!(error.to_string(), error.cause.to_string());
    time.advance(SECOND);
    assert_eq!(item(&mut items), Some(1), "the stream goes on");
    assert_eq!(api.capacity().available, 9);
}

#[test]
fn a_closed_limiter_wakes_and_hands_all_items_back() {
    let (limiter, api, _time) = manual(Limit::per_day(1));
    let mut items = stream::iter(0..4).rate_limited(&api);
    assert_eq!(item(&mut items), Some(0));
    let count = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(items.next().poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    limiter.close();
    assert_eq!(count.count(), 1);
    let rest: Vec<_> = now(items.collect()).unwrap();
    let rest: Vec<_> = rest.into_iter().map(Result::unwrap_err).collect();
    assert_eq!(rest.iter().map(|error| error.item).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(rest.iter().all(|error| error.cause == AcquireError::Closed));
}

#[test]
fn a_removed_resource_is_told_of() {
    let (limiter, api, _time) = manual(Limit::per_day(1));
    limiter.remove("api");
    let mut items = stream::iter([7]).rate_limited(&api);
    let error = now(items.next()).unwrap().unwrap().unwrap_err();
    assert_eq!((error.item, error.cause), (7, AcquireError::UnknownResource));
}

/// First come, first served: each has its turn, whoever has more to send.
#[test]
fn adaptors_share_a_resource_evenly() {
    let (_limiter, api, time) = manual(Limit::per_second(10).burst(1));
    let mut all: Vec<_> = (0..4).map(|_| stream::iter(0..).rate_limited(&api)).collect();
    let mut got = [0_u32; 4];
    for _ in 0..400 {
        for (items, got) in all.iter_mut().zip(&mut got) {
            while item(items).is_some() {
                *got += 1;
            }
        }
        time.advance(100 * MILLI);
    }
    assert_eq!(got.iter().sum::<u32>(), 400);
    assert!(got.iter().all(|got| (99..=101).contains(got)), "{got:?}");
}

/// In tasks that only their wakers move: no wake-up is lost.
#[test]
fn tasks_are_woken_for_each_item() {
    let _watchdog = Watchdog::new();
    let (_limiter, api, time) = manual(Limit::per_second(1_000).burst(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let items = stream::iter(0..50).rate_limited(&api);
            runtime.spawn(items.fold(0, |got, item| async move { got + u32::from(item.is_ok()) }))
        })
        .collect();
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        time.advance(MILLI);
        std::thread::yield_now();
    }
    let got = tasks.into_iter().map(|task| runtime.block_on(task).unwrap());
    assert!(got.into_iter().all(|got| got == 50));
}

#[test]
fn a_dropped_adaptor_takes_nothing_and_serves_the_next() {
    let (_limiter, api, time) = manual(Limit::per_second(1));
    api.check().unwrap();
    let mut first = stream::iter(0..).rate_limited(&api);
    let mut second = stream::iter(0..).rate_limited(&api);
    assert_eq!((item(&mut first), item(&mut second)), (None, None));
    time.advance(SECOND);
    assert_eq!(item(&mut second), None, "it is the other's turn");
    drop(first);
    assert_eq!(item(&mut second), Some(0));
    assert_eq!(api.capacity().waiting, 0);
}

#[test]
fn the_parts_are_the_source_and_the_item_that_waits() {
    let (_limiter, api, _time) = manual(Limit::per_day(1));
    let mut items = stream::iter(0..3).fuse().rate_limited(&api);
    assert_eq!((items.size_hint(), items.is_terminated()), ((3, Some(3)), false));
    assert_eq!(item(&mut items), Some(0));
    assert_eq!(item(&mut items), None);
    assert_eq!(items.size_hint(), (2, Some(2)), "with the one that waits");
    assert_eq!(items.get_ref().size_hint(), (1, Some(1)));
    assert_eq!(now(items.get_mut().next()), Some(Some(2)));
    assert!(now(items.get_mut().next()).is_some_and(|end| end.is_none()));
    assert!(!items.is_terminated(), "an item waits");
    let (source, held) = items.into_parts();
    assert_eq!(held, Some(1));
    assert!(source.is_terminated());
    assert_eq!(api.capacity().waiting, 0);
    let endless = stream::repeat(1).rate_limited(&api);
    assert_eq!(endless.size_hint(), (usize::MAX, None));
    let ended = stream::empty::<()>().rate_limited(&api);
    assert_eq!(ended.into_parts().1, None);
}

#[test]
fn poll_after_the_end_asks_the_source() {
    let (_limiter, api, _time) = manual(Limit::per_second(4));
    let mut polls = 0;
    let source = stream::poll_fn(move |_| {
        polls += 1;
        Poll::Ready((polls % 2 == 0).then_some(polls))
    });
    let mut items = source.rate_limited(&api);
    assert_eq!(now(items.next()), Some(None));
    assert_eq!(item(&mut items), Some(2));
}
