//! Situations that a limiter meets in programs: odd wakers, forks, threads that cannot be started, futures
//! that are held. Each runs in a child process, so that a hang is a failed test.

mod child;
mod executors;
#[cfg(target_os = "linux")]
mod fork;
mod held;
#[cfg(target_os = "linux")]
mod timer_thread;
mod wakers;
