//! The queue as a plain structure: order, graces, deadlines, and the sums it keeps.

use super::super::waiter::Wake;
use super::*;

const MS: u64 = 1_000_000;

fn wake() -> Wake {
    Wake::default()
}

fn task(n: u64) -> Waiter {
    Waiter::new(n, true, false, None, wake())
}

fn thread(n: u64) -> Waiter {
    Waiter::new(n, true, true, None, wake())
}

/// Notifies pending waiters while the tokens last, as serving does; returns how many.
fn notify(queue: &mut WaitQueue, tokens: u64, now: u64) -> usize {
    let mut wakes = Wakes::new();
    while queue.first_pending().is_some_and(|(sum, _)| sum <= tokens) {
        queue.notify_first_pending(now, &mut wakes);
    }
    wakes.len()
}

#[test]
fn waiters_are_notified_in_order_and_only_if_all_ahead_fit() {
    let mut queue = WaitQueue::default();
    let tickets: Vec<Ticket> = [3, 5, 1].map(|n| queue.push(task(n))).into();
    assert!(queue.is_head(tickets[0]) && !queue.is_head(tickets[1]));
    assert_eq!((queue.len(), queue.sum()), (3, 9));
    // Four tokens are enough for the first, and for the third, but not for the second.
    assert_eq!(notify(&mut queue, 4, 0), 1);
    assert_eq!(queue.first_pending(), Some((8, 2)));
    assert_eq!(notify(&mut queue, 9, 0), 2);
    assert_eq!(queue.first_pending(), None);
    assert!(queue.first_present().is_some());
}

#[test]
fn a_waiter_that_leaves_takes_its_tokens_out_of_the_sums() {
    let mut queue = WaitQueue::default();
    let tickets: Vec<Ticket> = [3, 5, 1].map(|n| queue.push(task(n))).into();
    notify(&mut queue, 8, 0);
    queue.remove(tickets[0]);
    assert_eq!((queue.sum(), queue.first_pending()), (6, Some((6, 2))));
    queue.remove(tickets[1]);
    queue.remove(tickets[1]);
    assert_eq!((queue.sum(), queue.first_pending()), (1, Some((1, 1))));
    assert!(!queue.arrived(tickets[1]) && queue.arrived(tickets[2]));
}

#[test]
fn a_task_that_does_not_arrive_is_skipped_and_has_its_old_place_again() {
    let mut queue = WaitQueue::default();
    let (first, second) = (queue.push(task(2)), queue.push(task(1)));
    notify(&mut queue, 2, 0);
    queue.skip_absent_heads(CALL_GRACE - 1, &mut Wakes::new());
    assert!(queue.is_head(first));
    queue.skip_absent_heads(CALL_GRACE, &mut Wakes::new());
    assert!(queue.is_head(second));
    // A skipped waiter still counts, but neither its tokens nor its notification do.
    assert_eq!((queue.len(), queue.sum(), queue.first_pending()), (2, 1, Some((1, 1))));
    assert!(queue.arrived(first));
    assert!(queue.is_head(first) && queue.first_present().is_some());
    assert_eq!((queue.sum(), queue.first_pending()), (3, Some((3, 2))));
}

/// With each absence in a row the grace is halved, and twice as many are skipped with the head.
#[test]
fn many_absent_heads_cost_little_more_than_one() {
    for held in [1_usize, 7, 256, 5_000] {
        let mut queue = WaitQueue::default();
        let tickets: Vec<Ticket> = (0..held).map(|_| queue.push(task(1))).collect();
        let fresh = queue.push(thread(1));
        let mut now = 0;
        while !queue.is_head(fresh) {
            let mut wakes = Wakes::new();
            notify(&mut queue, 1, now);
            now += queue.call_grace();
            queue.skip_absent_heads(now, &mut wakes);
        }
        assert!(now < 3 * CALL_GRACE, "{held}: {now}");
        // They have their places again when they arrive, and the grace grows back.
        assert!(tickets.iter().rev().all(|ticket| queue.arrived(*ticket)));
        assert!(queue.is_head(tickets[0]));
        assert_eq!((queue.sum(), queue.len()), (held as u64 + 1, held + 1));
        assert_eq!(queue.call_grace(), CALL_GRACE);
    }
}

#[test]
fn a_thread_is_never_skipped() {
    let mut queue = WaitQueue::default();
    let first = queue.push(thread(1));
    queue.push(task(1));
    notify(&mut queue, 2, 0);
    queue.skip_absent_heads(u64::MAX, &mut Wakes::new());
    assert!(queue.is_head(first) && queue.has_threads());
    queue.remove(first);
    assert!(!queue.has_threads());
}

#[test]
fn a_clock_that_steps_back_starts_the_grace_again() {
    let mut queue = WaitQueue::default();
    let first = queue.push(task(1));
    queue.push(task(1));
    notify(&mut queue, 1, 1_000 * MS);
    queue.skip_absent_heads(0, &mut Wakes::new());
    queue.skip_absent_heads(CALL_GRACE - 1, &mut Wakes::new());
    assert!(queue.is_head(first));
    queue.skip_absent_heads(CALL_GRACE, &mut Wakes::new());
    assert!(!queue.is_head(first));
}

#[test]
fn a_deadline_notifies_once_and_comes_back_with_the_waiter() {
    let mut queue = WaitQueue::default();
    let late = queue.push(Waiter::new(1, true, false, Some(9), wake()));
    let early = queue.push(Waiter::new(1, true, false, Some(5), wake()));
    assert_eq!(queue.first_deadline(), Some(5));
    let mut wakes = Wakes::new();
    queue.notify_expired(4, &mut wakes);
    assert!(wakes.is_empty());
    queue.notify_expired(9, &mut wakes);
    assert_eq!((wakes.len(), queue.first_deadline()), (2, None));
    // The clock stepped back before it arrived: its deadline still counts.
    assert!(queue.arrived(late));
    assert_eq!(queue.first_deadline(), Some(9));
    queue.remove(late);
    queue.remove(early);
    assert_eq!((queue.first_deadline(), queue.len()), (None, 0));
}

#[test]
fn a_head_that_lacks_another_resource_is_left_alone_for_a_while() {
    let mut queue = WaitQueue::default();
    let head = queue.push(task(1));
    notify(&mut queue, 1, 0);
    assert!(queue.arrived(head));
    queue.note_ready(head, true, 3);
    let mut wakes = Wakes::new();
    queue.notify_stale_head(3 + READY_GRACE - 1, &mut wakes);
    assert!(wakes.is_empty());
    queue.notify_stale_head(3 + READY_GRACE, &mut wakes);
    assert_eq!(wakes.len(), 1);
    // Once notified it must arrive, as any other.
    assert_eq!(
        queue.head().map(|head| (queue.head_ready_until(), head.notified)),
        Some((None, Some(3 + READY_GRACE)))
    );
}

#[test]
fn waiters_for_too_much_are_notified_skipped_ones_included() {
    let mut queue = WaitQueue::default();
    queue.push(task(5));
    queue.push(task(2));
    queue.push(task(7));
    notify(&mut queue, 5, 0);
    queue.skip_absent_heads(CALL_GRACE, &mut Wakes::new());
    let mut wakes = Wakes::new();
    queue.notify_above(4, CALL_GRACE, &mut wakes);
    assert_eq!(wakes.len(), 2);
    queue.notify_above(0, CALL_GRACE, &mut wakes);
    assert_eq!(wakes.len(), 5);
}

#[test]
fn sums_beyond_64_bits_saturate_and_come_back() {
    let mut queue = WaitQueue::default();
    let tickets: Vec<Ticket> = [u64::MAX, u64::MAX, 1].map(|n| queue.push(task(n))).into();
    assert_eq!(queue.sum(), u64::MAX);
    queue.remove(tickets[0]);
    queue.remove(tickets[1]);
    assert_eq!(queue.sum(), 1);
}

/// Every waiter of a random run is served once, and the sums are those of a plain list.
#[test]
fn random_runs_agree_with_a_plain_list() {
    fastrand::seed(7);
    for _ in 0..300 {
        let mut queue = WaitQueue::default();
        let mut list: Vec<(Ticket, u64)> = Vec::new();
        let mut now = 0;
        for _ in 0..200 {
            now += fastrand::u64(..CALL_GRACE / 2);
            match fastrand::u8(..4) {
                0 | 1 => {
                    let n = fastrand::u64(1..9);
                    list.push((queue.push(task(n)), n));
                }
                2 if !list.is_empty() => {
                    let (ticket, _) = list.remove(fastrand::usize(..list.len()));
                    queue.remove(ticket);
                }
                _ => {
                    notify(&mut queue, fastrand::u64(..20), now);
                    queue.skip_absent_heads(now, &mut Wakes::new());
                    if let Some((ticket, _)) = fastrand::choice(&list) {
                        assert!(queue.arrived(*ticket));
                    }
                }
            }
            assert_eq!(queue.len(), list.len());
        }
        // All arrive: they are present in the order in which they came.
        for (ticket, _) in &list {
            assert!(queue.arrived(*ticket));
        }
        assert_eq!(queue.sum(), list.iter().map(|(_, n)| n).sum::<u64>());
        for (ticket, n) in list {
            assert!(queue.is_head(ticket));
            assert_eq!(queue.head().map(|head| head.n), Some(n));
            queue.remove(ticket);
        }
        assert_eq!((queue.sum(), queue.notified_sum, queue.notified_permits), (0, 0, 0));
    }
}
