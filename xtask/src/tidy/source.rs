//! Rules about Rust source: which file may name what.

use super::Finding;

/// A rule about the lines of some files.
struct Rule {
    /// The message about a breach.
    message: &'static str,
    /// Which files it is about.
    about: fn(&str) -> bool,
    /// Whether test modules are bound by it too.
    in_tests: bool,
    /// Paths and macros that may not be named, as they are written in code.
    banned: &'static [&'static str],
}

const RULES: [Rule; 8] = [
    // rtnetlink and related crates often break their API. With this rule, only one crate has to change.
    Rule {
        message: "only the crate kernel talks to the kernel",
        about: |path| is_product(path) && !path.starts_with("kernel/"),
        in_tests: false,
        banned: &[
            "libc",
            "netlink_packet_core",
            "netlink_packet_route",
            "netlink_proto",
            "netlink_sys",
            "nix",
            "rtnetlink",
        ],
    },
    // Decisions can then be tested without a kernel.
    Rule {
        message: "plans and the doctor's checks do no I/O",
        about: |path| path.starts_with("cni-plugin/src/plan") || path.starts_with("ctl/src/doctor/"),
        in_tests: true,
        banned: &[
            "std::fs",
            "std::process",
            "std::env",
            "std::io",
            "kernel::Conn",
            "kernel::Namespace",
            "kernel::{",
            "Nft",
            ".await",
            "SystemTime::now",
            "tokio",
        ],
    },
    // Parsing can then be fuzzed, and used by programs that are not plugins.
    Rule {
        message: "conf and pool do no I/O",
        about: |path| path.starts_with("conf/src/") || path.starts_with("pool/src/"),
        in_tests: false,
        banned: &[
            "std::fs",
            "std::process",
            "env::args",
            "env::current_dir",
            "env::temp_dir",
            "env::var",
            "env::var_os",
            "env::vars",
            "env::vars_os",
            "tokio",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "ToSocketAddrs",
        ],
    },
    // A runtime reads one JSON document from stdout. Any other output breaks it.
    Rule {
        message: "only skel writes to stdout",
        about: |path| is_product(path) && !path.starts_with("skel/"),
        in_tests: false,
        banned: &["print!", "println!", "io::stdout", "stdout()"],
    },
    Rule {
        message: "unfinished code",
        about: |path| is_rust(path),
        in_tests: true,
        banned: &["todo!", "unimplemented!", "dbg!"],
    },
    // A test waits for what it needs, never for a time.
    Rule {
        message: "only integration/src/wait.rs sleeps: use poll",
        about: |path| is_rust(path) && path.starts_with("integration/") && path != "integration/src/wait.rs",
        in_tests: true,
        banned: &["thread::sleep", "sleep_ms", "time::sleep", "park_timeout"],
    },
    Rule {
        message: "say it with not_tried, which counts the test as skipped",
        about: |path| is_rust(path) && path.starts_with("integration/tests/"),
        in_tests: true,
        banned: &["not tried\""],
    },
    // A skipped test is counted, and the count must be 0.
    Rule {
        message: "a test runs or is deleted",
        about: |path| is_rust(path),
        in_tests: true,
        banned: &["#[ignore"],
    },
];

/// Applies every rule to a file.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    // The rules and their bad examples are here.
    if path.starts_with("xtask/src/tidy") {
        return findings;
    }
    for rule in RULES.iter().filter(|rule| (rule.about)(path)) {
        for (index, line) in text.lines().enumerate() {
            if !rule.in_tests && (line.trim() == "#[cfg(test)]" || is_test_file(path)) {
                // Test modules stand at the end of their files.
                break;
            }
            for banned in rule.banned.iter().filter(|banned| names(line, banned)) {
                let message = format!("{banned}: {}", rule.message);
                findings.push(Finding { path: path.to_owned(), line: index + 1, message });
            }
        }
    }
    findings
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

pub(super) fn is_product(path: &str) -> bool {
    is_rust(path)
        && ["cni-plugin/src/", "conf/src/", "ctl/src/", "ipam/src/", "kernel/src/", "skel/src/"]
            .iter()
            .any(|dir| path.starts_with(dir))
}

pub(super) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Whether a line of code names a path or macro: as a whole word, and not in a comment. A crate counts where
/// it is used as a path: `nix::`, `use nix`.
fn names(line: &str, what: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let is_crate = what.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(what).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + what.len()..]);
        let starts = !before.ends_with(is_word) || !what.starts_with(is_word);
        let ends = !after.starts_with(is_word) || !what.ends_with(is_word);
        let as_path = !is_crate || after.starts_with("::") || before.trim_end().ends_with("use");
        starts && ends && as_path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    /// The lines at which a file breaks a rule.
    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn only_one_crate_names_the_kernels_crates() {
        let text = "use rtnetlink::Handle;\nuse nix;\nlet unix = libc::EPERM; // nix::x\nlet nix_like = phoenix::x();\n";
        assert_eq!(lines("cni-plugin/src/apply.rs", text), [1, 2, 3]);
        assert_eq!(lines("ipam/src/store/lock.rs", text), [1, 2, 3]);
        assert_eq!(lines("kernel/src/link.rs", text), NONE);
        assert_eq!(lines("integration/src/namespace.rs", text), NONE);
    }

    #[test]
    fn plans_and_conf_do_no_io() {
        let text = "use std::fs;\nuse std::net::IpAddr;\nuse kernel::Conn;\nUdpSocket::bind(a);\nstd::env::var_os(a);\nstd::env::split_paths(p);\n";
        assert_eq!(lines("cni-plugin/src/plan/uplink.rs", text), [1, 3, 5, 6]);
        assert_eq!(lines("conf/src/range.rs", text), [1, 4, 5]);
        assert_eq!(lines("conf/src/range.rs", &format!("#[cfg(test)]\nmod tests {{\n{text}}}\n")), NONE);
    }

    #[test]
    fn only_skel_speaks() {
        let text = "println!(\"x\");\neprintln!(\"y\");\nstd::io::stdout().lock();\n";
        assert_eq!(lines("cni-plugin/src/main.rs", text), [1, 3, 3]);
        assert_eq!(lines("skel/src/lib.rs", text), NONE);
    }

    #[test]
    fn nothing_is_left_unfinished_or_skipped() {
        assert_eq!(
            lines("ipam/src/add.rs", "todo!()\n#[cfg(test)]\ndbg!(1);\n#[ignore = \"slow\"]\n"),
            [1, 3, 4]
        );
        assert_eq!(lines("xtask/src/vm.rs", "unimplemented!(\"x\");"), [1]);
    }

    #[test]
    fn what_is_not_tried_counts_as_skipped() {
        let text = "note(\"no SCTP: not tried\");\nnot_tried(\"no SCTP\");\n";
        assert_eq!(lines("integration/tests/datacenter/nat.rs", text), [1]);
    }

    #[test]
    fn only_the_poll_helper_sleeps() {
        let text = "std::thread::sleep(pause);";
        assert_eq!(lines("integration/tests/native/rig.rs", text), [1]);
        assert_eq!(lines("integration/src/wait.rs", text), NONE);
    }
}
