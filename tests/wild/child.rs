//! Scenarios in a process of their own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a scenario takes on however busy a machine.
const HANG: Duration = Duration::from_secs(120);
const VARIABLE: &str = "TOLLGATE_SCENARIO";

/// The scenario that this process is to run, if it is a child.
fn scenario() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// Runs `scenario` of the test `test` in a child, which must end in time and succeed.
#[track_caller]
fn spawn(test: &str, scenario: &str) {
    let mut child = Command::new(std::env::current_exe().expect("a test binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, scenario)
        .stdout(Stdio::null())
        .spawn()
        .expect("a child process");
    let end = Instant::now() + HANG;
    loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            assert!(status.success(), "{test}, {scenario}: {status}");
            return;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{test}, {scenario}: it hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs each of the scenarios of a test in a child. `test` is its path.
pub(crate) fn each(test: &str, scenarios: &[&str], run: impl Fn(&str)) {
    match scenario() {
        Some(scenario) => run(&scenario),
        None => scenarios.iter().for_each(|scenario| spawn(test, scenario)),
    }
}
