//! Guards of tests that would hang where they should fail.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Longer than any test takes on however busy a machine: what has not ended by then hangs.
pub(crate) const HANG: Duration = Duration::from_secs(10 * 60);

/// Ends the whole run, as a failure, where the test that holds it hangs.
pub(crate) struct Watchdog {
    _ends_with_the_test: Sender<()>,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        let (sender, test) = channel();
        let name = thread::current().name().unwrap_or("a test").to_string();
        thread::spawn(move || {
            if test.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
                // Not by a macro, whose text would be captured and lost.
                let minutes = HANG.as_secs() / 60;
                let _ = writeln!(std::io::stderr(), "{name} hangs: no end after {minutes} minutes");
                std::process::abort();
            }
        });
        Self { _ends_with_the_test: sender }
    }
}
