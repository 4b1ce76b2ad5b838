//! The process that started us.

/// Has the kernel kill this process when the one that started it, the process `parent`, is gone (prctl(2),
/// `PR_SET_PDEATHSIG`). False if it is gone already.
///
/// A plugin that is killed takes its IPAM plugin along: what that took afterwards would be nobody's, for the DEL that
/// the runtime sends next may be over by then.
pub fn end_with(parent: u32) -> bool {
    // SAFETY: neither call touches memory of ours.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        u32::try_from(libc::getppid()).is_ok_and(|now| now == parent)
    }
}
