//! How an ADD waits for addresses that the agent claims from a shared pool. The leases are not locked
//! meanwhile.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kernel::unix::try_connect;

use crate::poke::{LONGEST_LINE, Question, Reply};
use crate::shares::socket;

/// How often an ADD looks again if the agent is silent: a pod that ends frees an address too.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause before the next attempt to reach an agent that does not run, for example while it restarts.
const PAUSE: Duration = Duration::from_millis(100);

/// The patience of one ADD.
#[derive(Debug)]
pub(crate) struct Patience {
    socket: PathBuf,
    wait: Duration,
    deadline: Instant,
    asked: Option<Asked>,
    /// Why there is no address, as far as is known.
    reason: String,
}

/// A question that the agent got.
#[derive(Debug)]
struct Asked {
    question: Question,
    stream: UnixStream,
    /// What was read of a line.
    line: Vec<u8>,
}

impl Patience {
    /// The patience of an ADD that begins to wait now.
    pub(crate) fn begin(data_dir: &Path, wait: Duration) -> Patience {
        let (socket, deadline) = (socket(data_dir), Instant::now() + wait);
        Patience { socket, wait, deadline, asked: None, reason: String::new() }
    }

    /// Asks the agent and waits for its answer. Returns at once after the question was sent, because the
    /// agent may have granted something before that. False if the ADD has waited for too long.
    pub(crate) fn ask(&mut self, question: Question) -> bool {
        let question = Question { wait: !self.wait.is_zero(), ..question };
        let is_asked = self.asked.as_ref().is_some_and(|asked| asked.question == question);
        let outcome = if is_asked { self.listen() } else { self.connect(&question) };
        if let Err(error) = outcome {
            self.note(&error);
            self.asked = None;
            thread::sleep(PAUSE.min(self.deadline.saturating_duration_since(Instant::now())));
        }
        Instant::now() < self.deadline
    }

    /// Why the ADD got nothing.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    fn connect(&mut self, question: &Question) -> io::Result<()> {
        let stream = send(&self.socket, question)?;
        stream.set_nonblocking(false)?;
        self.reason = format!("the agent found none within {} s", self.wait.as_secs());
        self.asked = Some(Asked { question: question.clone(), stream, line: Vec::new() });
        Ok(())
    }

    /// Waits until the agent says that there is something, or until it is time to look anyway.
    fn listen(&mut self) -> io::Result<()> {
        let Some(asked) = &mut self.asked else { return Ok(()) };
        let until = self.deadline.min(Instant::now() + LOOK_EVERY);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            match asked.hear(left)? {
                Some(Reply::Look) | None => return Ok(()),
                Some(Reply::Dry(why)) => self.reason = format!("the agent says: {why}"),
            }
        }
    }

    fn note(&mut self, error: &io::Error) {
        let is_absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
        let what = if is_absent { "the agent does not run" } else { "the agent does not answer" };
        self.reason = format!("{what} ({}: {error})", self.socket.display());
    }
}

impl Asked {
    /// The next line. `None` if there is none in time.
    fn hear(&mut self, most: Duration) -> io::Result<Option<Reply>> {
        self.stream.set_read_timeout(Some(most))?;
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) if byte == *b"\n" => break,
                Ok(_) if self.line.len() < LONGEST_LINE => self.line.extend(byte),
                Ok(_) => return Err(io::Error::other("a line without an end")),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let line = std::mem::take(&mut self.line);
        Reply::parse(&line).map(Some).map_err(io::Error::other)
    }
}

/// Tells the agent that the stock is low, and does not wait for anything. If no agent takes it, the next ADD
/// tells it again.
pub(crate) fn note_low(data_dir: &Path, network: &str, sets: Vec<usize>) {
    let question = Question { network: network.to_owned(), wait: false, sets, addresses: Vec::new() };
    if let Err(error) = send(&socket(data_dir), &question) {
        log::debug!("the agent was not told that addresses run low: {error}");
    }
}

/// Sends a question, which is short enough for the socket's buffer.
fn send(socket: &Path, question: &Question) -> io::Result<UnixStream> {
    let mut stream = try_connect(socket)?;
    stream.write_all(question.to_line().as_bytes())?;
    Ok(stream)
}
