//! The parent process.

/// Asks the kernel to kill this process when its parent `plugin` ends (prctl(2), `PR_SET_PDEATHSIG`). False
/// if `plugin` has ended already. If another process is between the two, for example a wrapper script, the
/// kernel cannot do this.
///
/// A plugin that is killed thus ends its IPAM plugin too. An address that the IPAM plugin reserved later
/// would leak, because the runtime's next DEL may be over by then.
pub fn die_with_parent(plugin: u32) -> bool {
    let Ok(plugin) = i32::try_from(plugin) else { return true };
    // SAFETY: none of these calls touches this process's memory, and signal 0 is no signal.
    unsafe {
        if libc::getppid() == plugin {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        }
        libc::getppid() == plugin || libc::kill(plugin, 0) == 0
    }
}
