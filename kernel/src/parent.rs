//! The parent process.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

/// Asks the kernel to kill this process when its parent `plugin` ends (prctl(2), `PR_SET_PDEATHSIG`). False
/// if `plugin` has ended already. If another process is between the two, for example a wrapper script, the
/// kernel cannot do this.
///
/// A plugin that is killed thus ends its IPAM plugin too. An address that the IPAM plugin reserved later
/// would leak, because the runtime's next DEL may be over by then.
pub fn die_with_parent(plugin: u32) -> bool {
    let Ok(plugin) = i32::try_from(plugin).map(Pid::from_raw) else { return true };
    if getppid() == plugin {
        // Fails only for a number that is no signal.
        let _ = set_pdeathsig(Signal::SIGKILL);
    }
    getppid() == plugin || kill(plugin, None).is_ok()
}
