//! Which counts are logged.

use super::*;

#[test]
fn the_log_gets_a_line_for_each_power_of_ten() {
    let counter = Counter::default();
    let logged = (0..1_000).filter(|_| counter.add(1)).count();
    assert_eq!(logged, 4);
    assert!(!counter.add(5) && counter.add(100_000));
}
