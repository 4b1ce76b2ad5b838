//! What the console of the guest's kernel tells about its end.

/// The kernel's words for the beginning of trouble.
const TROUBLE: [&str; 4] = ["BUG: ", "Oops: ", "general protection fault", "Kernel panic"];

/// The kernel's last words after a CPU ran one thing of the kernel for two minutes.
const LOCKED_UP: &str = "Kernel panic - not syncing: softlockup";

/// How many lines an error shows: from the beginning of trouble, which has a trace for each CPU, or from the
/// end.
const OF_TROUBLE: usize = 200;
const OF_THE_END: usize = 30;

/// Whether a CPU was stuck in the kernel.
pub(super) fn locked_up(console: &str) -> bool {
    console.contains(LOCKED_UP)
}

/// The lines that matter to a reader.
pub(super) fn excerpt(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let is_trouble = |line: &&str| TROUBLE.iter().any(|words| line.contains(words));
    let from = lines.iter().position(is_trouble);
    let from = from.unwrap_or_else(|| lines.len().saturating_sub(OF_THE_END));
    let shown: Vec<&str> = lines.into_iter().skip(from).take(OF_TROUBLE).collect();
    format!("the guest's console:\n{}", shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A console with these lines after 100 others.
    fn console(last: &[&str]) -> String {
        let before = (0..100).map(|number| format!("[ {number}.0] br0: port 1 entered forwarding state"));
        let lines: Vec<String> = before.chain(last.iter().map(|&line| line.to_owned())).collect();
        lines.join("\r\n")
    }

    fn shown(console: &str) -> Vec<String> {
        excerpt(console).lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn trouble_is_shown_from_its_first_line() {
        let last = [
            "[ 210.1] watchdog: BUG: soft lockup - CPU#0 stuck for 123s! [ping:14032]",
            "[ 210.2] RIP: 0010:native_queued_spin_lock_slowpath+0x6e/0x2c0",
            "[ 210.3] Kernel panic - not syncing: softlockup: hung tasks",
            "[ 210.4] Call Trace:",
        ];
        assert_eq!(shown(&console(&last)), last);
        let first = last[0].to_owned();
        let endless: Vec<&str> = std::iter::once(last[0]).chain([last[1]; 1000]).collect();
        let shown = shown(&console(&endless));
        assert_eq!((shown.len(), &shown[0]), (OF_TROUBLE, &first));
    }

    #[test]
    fn without_trouble_the_end_is_shown() {
        let shown = shown(&console(&["[ 99.9] reboot: Power down"]));
        assert_eq!((shown.len(), &*shown[29]), (OF_THE_END, "[ 99.9] reboot: Power down"));
        assert_eq!(excerpt(""), "the guest's console:\n");
    }

    #[test]
    fn only_the_end_of_the_kernel_by_a_stuck_cpu_is_a_lockup() {
        assert!(locked_up(&console(&["[ 210.3] Kernel panic - not syncing: softlockup: hung tasks"])));
        for other in [
            "[ 1.0] Kernel panic - not syncing: Fatal exception in interrupt",
            "[ 1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            "[ 1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 123s! [ping:14032]",
        ] {
            assert!(!locked_up(&console(&[other])), "{other}");
        }
    }
}
