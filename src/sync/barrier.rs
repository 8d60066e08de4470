//! An asymmetric pair of full barriers: light for the frequent side, heavy for the rare one.
//!
//! One thread writes A and then reads B; another writes B and then reads A. Each needs a full
//! barrier between its write and its read, or both may read the old value. Where one side runs a
//! thousand times as often, Linux lets the rare side pay for both: `membarrier` returns only after
//! every running thread of the process has executed a full barrier. The frequent side then needs a
//! compiler fence only. Sources: P1202 of the C++ committee ("asymmetric fences"), folly's
//! `AsymmetricMemoryBarrier`, seize, membarrier(2): `MEMBARRIER_CMD_PRIVATE_EXPEDITED` (Linux 4.14).
//!
//! # Orderings
//!
//! The pair is valid on every platform. `STATE` changes once, from `UNKNOWN` to `YES` or to `NO`,
//! by a compare-and-swap, so all threads agree on it. The light side reads it with Relaxed:
//!
//! 1. It reads `UNKNOWN` or `NO`, which may be stale, and executes a `SeqCst` fence. The heavy side
//!    always executes one too. Two `SeqCst` fences are totally ordered, and whichever comes second
//!    sees the write before the first.
//! 2. It reads `YES`, and only keeps the compiler from reordering. `STATE` can then never be `NO`,
//!    so the heavy side calls `membarrier`. A thread that runs meanwhile gets a full barrier by an
//!    interrupt: if that falls before the light side's read of B, the read sees B's new value;
//!    otherwise the write of A, which precedes the read in program order, is visible to the heavy
//!    side. A thread that does not run has passed a full barrier in the scheduler.
//!
//! The heavy side reads `STATE` with Acquire, and the compare-and-swap has Release: `membarrier` is
//! called after the registration that made it `YES`, as the kernel requires.

#[cfg(loom)]
use loom::sync::atomic::fence;
#[cfg(not(loom))]
use std::sync::atomic::fence;
use std::sync::atomic::{Ordering, compiler_fence};

/// The frequent side's barrier, between its write and its read: free once [`has_barrier`] or
/// [`heavy_barrier`] has found membarrier, a full fence before that and without it.
#[inline]
pub(crate) fn light_barrier() {
    if membarrier::is_known() {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The rare side's barrier, between its write and its read. With membarrier it takes some
/// microseconds while other threads of the process run.
///
/// `false` if membarrier was registered and then failed: the light side may have had no barrier.
pub(crate) fn heavy_barrier() -> bool {
    fence(Ordering::SeqCst);
    !has_barrier() || membarrier::run()
}

/// Whether membarrier is available, so that [`light_barrier`] is free. Not in every kernel or
/// sandbox, and on Linux only. In a model it is, and both barriers are fences.
pub(crate) fn has_barrier() -> bool {
    cfg!(loom) || membarrier::register()
}

#[cfg(all(not(loom), not(tollgate_no_membarrier), target_os = "linux"))]
mod membarrier {
    use std::sync::atomic::{AtomicU8, Ordering};

    const UNKNOWN: u8 = 0;
    const YES: u8 = 1;
    const NO: u8 = 2;

    /// Whether the process is registered.
    static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);

    // From the kernel's uapi/linux/membarrier.h.
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    #[inline]
    pub(super) fn is_known() -> bool {
        STATE.load(Ordering::Relaxed) == YES
    }

    pub(super) fn register() -> bool {
        match STATE.load(Ordering::Acquire) {
            UNKNOWN => register_first(),
            state => state == YES,
        }
    }

    /// Of threads that race here the first to store decides for all, though registering is
    /// idempotent: it may succeed for one and fail for another.
    #[cold]
    fn register_first() -> bool {
        let state = if call(REGISTER_PRIVATE_EXPEDITED) { YES } else { NO };
        let (new, old) = (Ordering::AcqRel, Ordering::Acquire);
        match STATE.compare_exchange(UNKNOWN, state, new, old) {
            Ok(_) => state == YES,
            Err(first) => first == YES,
        }
    }

    pub(super) fn run() -> bool {
        call(PRIVATE_EXPEDITED)
    }

    #[allow(unsafe_code)] // no safe crate of the core's dependencies wraps this call
    fn call(command: libc::c_int) -> bool {
        // SAFETY: the system call takes two more integers and no pointer. Whatever they are, it
        // touches no memory of the process. A kernel without the command returns an error.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }
}

#[cfg(not(all(not(loom), not(tollgate_no_membarrier), target_os = "linux")))]
mod membarrier {
    #[inline]
    pub(super) const fn is_known() -> bool {
        false
    }
    pub(super) const fn register() -> bool {
        false
    }
    pub(super) const fn run() -> bool {
        true
    }
}
