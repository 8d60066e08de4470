//! A pair of barriers of which one side costs nearly nothing.
//!
//! Who writes A and then reads B, while another writes B and then reads A, needs a full barrier in
//! between on both sides, or each may miss the other. Where one side runs a thousand times as often,
//! Linux lets the other one pay for both: `membarrier` returns after every running thread of the process
//! has passed a full barrier. What is left for the frequent side is that the compiler keeps the order.
//! (P1202 of the C++ committee, "asymmetric fences"; `MEMBARRIER_CMD_PRIVATE_EXPEDITED` of
//! membarrier(2), since Linux 4.14.)

/// The frequent side's: between its write and its read.
#[inline]
pub(crate) fn light_barrier() {
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    #[cfg(loom)]
    if !super::seeded("thread_cache-without-barrier") {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }
}

/// The rare side's: between its write and its read. Says whether it could be had; it costs some
/// microseconds where other threads of the process run.
pub(crate) fn heavy_barrier() -> bool {
    #[cfg(all(not(loom), not(tollgate_no_membarrier), target_os = "linux"))]
    return has_barrier() && linux::membarrier(linux::PRIVATE_EXPEDITED);
    #[cfg(all(not(loom), any(tollgate_no_membarrier, not(target_os = "linux"))))]
    return false;
    #[cfg(loom)]
    {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        true
    }
}

/// Whether there is such a pair: not in every kernel or sandbox, and on Linux alone.
pub(crate) fn has_barrier() -> bool {
    #[cfg(all(not(loom), not(tollgate_no_membarrier), target_os = "linux"))]
    {
        static IS_REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        let register = || linux::membarrier(linux::REGISTER_PRIVATE_EXPEDITED);
        *IS_REGISTERED.get_or_init(register)
    }
    #[cfg(all(not(loom), any(tollgate_no_membarrier, not(target_os = "linux"))))]
    return false;
    #[cfg(loom)]
    true
}

#[cfg(all(not(loom), not(tollgate_no_membarrier), target_os = "linux"))]
mod linux {
    // Of the kernel's uapi/linux/membarrier.h.
    pub(super) const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    pub(super) const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    #[allow(unsafe_code)] // the one call that no safe crate of the core's wraps
    pub(super) fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: the system call takes two integers beside the command, and no pointer; whatever they
        // are it touches no memory of the process. A kernel that does not know it says so.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }
}
