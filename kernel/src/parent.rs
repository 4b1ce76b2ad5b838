//! The process that started us.

/// Has the kernel kill this process when the one that started it, the process `plugin`, is gone (prctl(2),
/// `PR_SET_PDEATHSIG`). False if it is gone already. Where somebody stands between the two, a script around
/// this plugin for one, nothing can be asked of the kernel.
///
/// A plugin that is killed takes its IPAM plugin along: what that took afterwards would be nobody's, for the
/// DEL that the runtime sends next may be over by then.
pub fn end_with(plugin: u32) -> bool {
    let Ok(plugin) = i32::try_from(plugin) else { return true };
    // SAFETY: none of these calls touches memory of ours, and signal 0 is none.
    unsafe {
        if libc::getppid() == plugin {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        libc::getppid() == plugin || libc::kill(plugin, 0) == 0
    }
}
