//! The machine's time over a counter that restarts.

use loom::sync::Arc;
use loom::thread;
use tollgate::SimulatedClock;

use crate::model;

const SECOND: u64 = 1_000_000_000;

/// Two readers find the counter restarted, at different ticks of it. If both moved the origin, the second
/// move would set the time back.
#[test]
fn two_readers_of_a_restarted_counter() {
    model(|| {
        let clock = Arc::new(SimulatedClock::new(90 * SECOND));
        clock.pass(SECOND);
        let before = clock.now();
        clock.set(0);
        let other = Arc::clone(&clock);
        let reads = thread::spawn(move || {
            other.pass(SECOND / 2);
            other.now()
        });
        let first = clock.now();
        let second = clock.now();
        assert!(first >= before && second >= first, "stepped back: {before}, {first}, {second}");
        let read = reads.join().unwrap();
        clock.pass(5 * SECOND);
        let last = clock.now();
        assert!(
            last >= second.max(read) + 5 * SECOND,
            "lost time: {last} after {second} and {read}"
        );
    });
}
