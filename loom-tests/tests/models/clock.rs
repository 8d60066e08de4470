//! The machine's time, which its readers correct.

use loom::sync::Arc;
use loom::thread;
use tollgate::SteeredClock;

use crate::model;

const SECOND: u64 = 1_000_000_000;

/// The counter is too fast, so the next segment is slower. A reader that used this segment far beyond its
/// sealed end would later read less on the next one.
#[test]
fn late_reader_beside_correction() {
    model(|| {
        let clock = Arc::new(SteeredClock::new());
        clock.pass(SECOND);
        let other = Arc::clone(&clock);
        let reads = thread::spawn(move || {
            other.pass(10 * SECOND);
            let first = other.now();
            let second = other.now();
            assert!(second >= first, "stepped back: {second} after {first}");
        });
        clock.now();
        reads.join().unwrap();
    });
}

/// A segment is stored while a reader still uses the one that was in its slot.
#[test]
fn reader_beside_two_corrections() {
    model(|| {
        let clock = Arc::new(SteeredClock::new());
        let other = Arc::clone(&clock);
        let reads = thread::spawn(move || other.now());
        let mut last = 0;
        for _ in 0..3 {
            clock.pass(SECOND);
            let now = clock.now();
            assert!(now >= last, "stepped back: {now} after {last}");
            last = now;
        }
        let read = reads.join().unwrap();
        assert!(read < 4 * SECOND, "torn: {read}");
    });
}
