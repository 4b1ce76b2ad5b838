//! Runs programs to ask for their version.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time limit of a program's answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The version that `PROGRAM --version` prints: the first word that begins with a digit, or with v and a
/// digit.
pub(super) fn ask_version(program: &Path) -> Option<String> {
    version_in(&ask(program, &["--version"])?)
}

/// The output of a program; none if it does not end in time.
pub(super) fn ask(program: &Path, words: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let command = command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    if !ends_in_time(&mut child) {
        // It may have ended meanwhile, and then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    Some(String::from_utf8_lossy(&child.wait_with_output().ok()?.stdout).into_owned())
}

fn ends_in_time(child: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            ended => return ended.is_ok(),
        }
    }
    false
}

fn version_in(text: &str) -> Option<String> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(str::to_owned)
}

/// The major and minor number of a version.
pub(super) fn numbers(version: &str) -> Option<(u32, u32)> {
    let digits = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let mut parts = version.split('.');
    Some((digits(parts.next()?)?, digits(parts.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_out_of_what_programs_say() {
        let containerd = "containerd github.com/containerd/containerd v1.6.20~ds1 1.6.20~ds1-1+b1";
        assert_eq!(version_in(containerd).as_deref(), Some("1.6.20~ds1"));
        assert_eq!(version_in("podman version 4.3.1\n").as_deref(), Some("4.3.1"));
        assert_eq!(version_in("crio version 1.31.2\nGitCommit: x\n").as_deref(), Some("1.31.2"));
        assert_eq!(version_in("unheard of"), None);
    }
}
