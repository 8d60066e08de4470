//! The machine's time, corrected by who reads it.

use loom::sync::Arc;
use loom::thread;
use tollgate::SteeredClock;

use crate::model;

const SECOND: u64 = 1_000_000_000;

/// The counter is too fast, so that the next line is the slower one. Who reads the present one far
/// beyond the tick where the other has it end reads more than it will read after that.
#[test]
fn a_late_reader_beside_a_correction() {
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

/// A line that is made while another reader still holds on to the one in its slot.
#[test]
fn a_reader_beside_two_corrections() {
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
