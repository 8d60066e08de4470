//! The bound, judged by what was admitted and not by what agents say of themselves.

/// Tokens a second, and tokens: what a swarm shares here.
pub(super) const RATE: u64 = 100;
pub(super) const BURST: u64 = 16;
/// By which the clocks of the agents may be off.
const DRIFT: f64 = 0.01;

/// An admission, between two readings of one clock: in nanoseconds, before the call and after it.
pub(super) type Admission = (u64, u64);

/// By how many tokens admissions exceed the bound in any window, at least: of each window those count that surely fall
/// into it, however late a busy machine has let anybody look at the clock. At most 0 if all is well.
pub(super) fn excess(admissions: &[Admission]) -> f64 {
    let mut by_end = admissions.to_vec();
    by_end.sort_unstable_by_key(|(_, after)| *after);
    let mut begins: Vec<u64> = admissions.iter().map(|(before, _)| *before).collect();
    begins.sort_unstable();
    begins.dedup();
    let rate = RATE as f64 / 1e9 * (1.0 + DRIFT);
    let mut worst = f64::NEG_INFINITY;
    for begin in begins {
        let within = by_end.iter().filter(|(before, _)| *before >= begin);
        for (count, (_, after)) in within.enumerate() {
            let most = BURST as f64 + rate * (after - begin) as f64;
            worst = worst.max((count + 1) as f64 - most);
        }
    }
    worst
}

#[test]
fn the_judge_sees_one_token_too_many() {
    let each = 10_000_000;
    let at = |nanos: u64| (nanos, nanos + 1);
    let mut well: Vec<Admission> = (0..BURST).map(|_| at(each)).collect();
    well.extend((2..500).map(|n| at(n * each)));
    assert!(excess(&well) <= 0.0, "{}", excess(&well));
    let mut bad = well.clone();
    bad.push(at(200 * each));
    assert!(excess(&bad) <= 0.0, "the drift: {}", excess(&bad));
    bad.extend((0..5).map(|_| at(200 * each)));
    assert!(excess(&bad) > 0.5, "{}", excess(&bad));
    // One of which nobody knows when it was.
    well.push((0, 500 * each));
    assert!(excess(&well) <= 0.0);
}
