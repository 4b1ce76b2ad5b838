//! Runs programs to their end, and collects their output.

use crate::poll;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll as poll_streams};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

/// The time limit of any program, also in the emulator.
const LIMIT: Duration = Duration::from_secs(120);

/// The time limit for the end of the output after a program's end. Only another process that holds the output
/// open exceeds it.
const RELEASE: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
    shown: String,
}

impl Outcome {
    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// Returns itself, or panics with the program's output.
    #[track_caller]
    pub fn expect_ok(self) -> Outcome {
        assert!(self.ok(), "{self}");
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is no JSON: {error}\n{self}"))
    }

    /// The CNI error code of a failed call. Panics if it succeeded or printed no CNI error.
    #[track_caller]
    pub fn error_code(&self) -> u64 {
        assert!(!self.ok(), "success was not expected\n{self}");
        self.json()["code"].as_u64().unwrap_or_else(|| panic!("no code in the error\n{self}"))
    }

    /// The CNI error's `msg` and `details` as one text.
    #[track_caller]
    pub fn error_text(&self) -> String {
        assert!(!self.ok(), "success was not expected\n{self}");
        let error = self.json();
        let part = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", part("msg"), part("details"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}\nstdout: {}\nstderr: {}", self.shown, self.status, self.stdout, self.stderr)
    }
}

/// Runs a program without stdin.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    run_with(command, b"")
}

/// Runs a command line, split at spaces, with the command that `command` makes for its program.
#[track_caller]
pub(crate) fn run_line(line: &str, command: impl FnOnce(&str) -> Command) -> Outcome {
    let mut words = line.split_whitespace();
    let program = words.next().expect("the command line has a program");
    run(command(program).args(words))
}

/// Runs a program with `input` as its stdin. Panics if it cannot be started, if it does not end, or if
/// another process keeps its stdout or stderr open after its end. A runtime that reads to the end would hang.
#[track_caller]
pub fn run_with(command: &mut Command, input: &[u8]) -> Outcome {
    let shown = shown(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command);
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    std::thread::spawn(move || {
        // A program may exit before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let mut child = Background { child };
    let mut status = None;
    poll(LIMIT, &format!("the end of `{shown}`"), || {
        status = child.child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    let text = |stream: mpsc::Receiver<String>| {
        stream.recv_timeout(RELEASE).unwrap_or_else(|_| panic!("`{shown}` is gone, its output is still open"))
    };
    Outcome { status: status.expect("polled for"), stdout: text(stdout), stderr: text(stderr), shown }
}

/// Runs a program as [`run_with`] does, but without threads and pauses, for a test with thousands of short
/// calls. Input and output must each fit into a pipe.
#[track_caller]
pub fn run_quickly(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = start(command, input);
    collected(&mut child, command, |child| child.wait().expect("a child can be waited for"))
}

/// Starts a program. A copy that a test has just made cannot be run while another thread starts a program:
/// that child has the copy open for writing until it executes its own program.
#[track_caller]
fn spawn(command: &mut Command) -> Child {
    let mut spawned = None;
    poll(LIMIT, &format!("`{}` is open for writing no longer", shown(command)), || match command.spawn() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => false,
        outcome => {
            spawned = Some(outcome);
            true
        }
    });
    let outcome = spawned.expect("polled for");
    outcome.unwrap_or_else(|error| panic!("cannot run `{}`: {error}", shown(command)))
}

/// Starts a program and gives it its input.
#[track_caller]
pub(crate) fn start(command: &mut Command, input: &[u8]) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command);
    // A program may well exit before it has read everything.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input);
    child
}

/// A program's output and exit status. `end` waits for its end.
#[track_caller]
pub(crate) fn collected(
    child: &mut Child,
    command: &Command,
    end: impl FnOnce(&mut Child) -> ExitStatus,
) -> Outcome {
    let shown = shown(command);
    let stdout = to_its_end(child.stdout.take().expect("stdout is piped"), &shown);
    let stderr = to_its_end(child.stderr.take().expect("stderr is piped"), &shown);
    Outcome { status: end(child), stdout, stderr, shown }
}

/// Reads a stream to its end, within the time limit of any program.
#[track_caller]
fn to_its_end(mut stream: impl Read + AsFd, shown: &str) -> String {
    let limit = PollTimeout::try_from(LIMIT).expect("the limit is no long time");
    let mut bytes = Vec::new();
    loop {
        let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        let ready = poll_streams(&mut waiting, limit).expect("a stream can be waited for");
        assert!(ready > 0, "waited {LIMIT:?} in vain: the end of `{shown}`");
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).expect("a pipe can be read") {
            0 => return String::from_utf8_lossy(&bytes).into_owned(),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Runs programs at the same time. The outcomes have the order of the commands.
#[track_caller]
pub fn run_all(commands: Vec<Command>) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let running: Vec<_> =
            commands.into_iter().map(|mut command| scope.spawn(move || run(&mut command))).collect();
        running.into_iter().map(|thread| thread.join().expect("every program ends")).collect()
    })
}

/// A program in the background, killed when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
}

impl Background {
    /// Starts a program.
    #[track_caller]
    pub fn start(command: &mut Command) -> Background {
        Background { child: spawn(command) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stdout, if it was piped and not yet taken.
    pub(crate) fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("stdout is piped")
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a thread of a process is in write(2).
pub fn writes(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let mut calls =
        threads.map(|thread| std::fs::read_to_string(thread.path().join("syscall")).unwrap_or_default());
    let number = libc::SYS_write.to_string();
    calls.any(|call| call.split(' ').next() == Some(&number))
}

/// Writes a line to the test log for readers of a passed run, such as a measured loss or time.
pub fn note(text: &str) {
    // Directly to the terminal, because the harness hides the output of a passed test.
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// Reports what the running test cannot try here. `cargo xtask test` counts such a test as skipped and not as
/// passed.
pub fn not_tried(what: &str) {
    static TESTS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let is_first = TESTS.lock().unwrap_or_else(PoisonError::into_inner).insert(test.clone());
    if is_first {
        // Directly to the terminal, on a line of its own. With one thread, the harness has already begun a
        // line.
        let _ = writeln!(std::io::stdout(), "\nnot tried: {test}: {what}");
    } else {
        note(&format!("{test}: {what}, too"));
    }
}

/// Reads a stream to its end in a thread of its own.
fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
