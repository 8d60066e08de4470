//! When an agent asks.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn an_agent_that_joins_asks_three_times() {
    let start = Instant::now();
    let mut queries = Queries::new(start);
    for i in 0..3 {
        let at = start + i * INTERVAL;
        assert_eq!(queries.next(), Some(at));
        assert!(queries.is_due(at) && !queries.is_due(at - Duration::from_nanos(1)));
        queries.asked(at);
    }
    assert_eq!(queries.next(), None);
}

#[tokio::test(start_paused = true)]
async fn losses_are_asked_after_at_random_and_ever_later() {
    let start = Instant::now();
    let mut queries = Queries::new(start);
    queries.stop();
    let (mut now, mut most) = (start, FIRST_DELAY);
    for _ in 0..20 {
        queries.lost(now);
        let at = queries.next().expect("a query");
        assert!((now..=now + most).contains(&at));
        queries.lost(at);
        assert_eq!(queries.next(), Some(at), "one at a time");
        queries.asked(at);
        assert_eq!(queries.next(), None);
        (now, most) = (at, (most * 2).min(LONGEST_DELAY));
    }
    assert_eq!(most, LONGEST_DELAY);
    // A minute without a loss: as at first.
    now += LONGEST_DELAY + SECOND;
    queries.lost(now);
    assert!(queries.next().expect("a query") <= now + FIRST_DELAY);
}
