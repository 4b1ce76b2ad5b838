//! The socket by which ADDs ask for addresses. Only root's processes are heard.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use vlan_bridge_ipam::poke::{LONGEST_LINE, Question, Reply};
use vlan_bridge_ipam::shares;

/// How many ADDs are heard at a time. Others wait in the kernel.
const CONNECTIONS: usize = 256;
/// How long a process may take to send its question, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest time that an ADD waits, and somewhat more.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The pause after the kernel refused a connection, for example because there are too many open files.
const REFUSED: Duration = Duration::from_millis(100);

/// What comes by the socket. Connections are numbered.
#[derive(Debug)]
pub(super) enum Call {
    /// An ADD asks, and waits for answers.
    Asks(u64, Question, UnboundedSender<Reply>),
    /// An ADD or DEL says that something has changed.
    Notes(Question),
    /// An ADD waits no longer.
    Ends(u64),
}

/// The socket. It is closed and removed when this is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    data_dir: PathBuf,
    calls: UnboundedReceiver<Call>,
    task: JoinHandle<()>,
}

impl Socket {
    /// Listens in the folder of the leases.
    pub(super) fn bind(data_dir: &Path) -> io::Result<Socket> {
        let path = shares::socket(data_dir);
        let folder = path.parent().unwrap_or(data_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let folder = File::open(folder)?;
        // The agent's lock is held, so no process listens there.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = bind_in(&folder, &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let (calls, heard) = unbounded_channel();
        let task = tokio::spawn(accept(listener, calls));
        Ok(Socket { data_dir: data_dir.to_owned(), calls: heard, task })
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn calls(&mut self) -> &mut UnboundedReceiver<Call> {
        &mut self.calls
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(shares::socket(&self.data_dir));
    }
}

/// A socket's path has at most 107 bytes (unix(7)). The path by the open folder is short.
fn bind_in(folder: &File, path: &Path) -> io::Result<UnixListener> {
    let name = path.file_name().unwrap_or_default();
    UnixListener::bind(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

async fn accept(listener: UnixListener, calls: UnboundedSender<Call>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let mut number = 0;
    while let Ok(turn) = Arc::clone(&free).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) => {
                number += 1;
                let calls = calls.clone();
                tokio::spawn(async move {
                    let _turn = turn;
                    // Whatever is wrong with the connection ends it.
                    let _ = serve(number, stream, &calls).await;
                    let _ = calls.send(Call::Ends(number));
                });
            }
            Ok(_) => {}
            Err(_) => sleep(REFUSED).await,
        }
    }
}

async fn serve(number: u64, stream: UnixStream, calls: &UnboundedSender<Call>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(LONGEST_LINE as u64));
    let mut line = Vec::new();
    timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let question = Question::parse(&line).map_err(io::Error::other)?;
    if !question.wait {
        let _ = calls.send(Call::Notes(question));
        return Ok(());
    }
    let (answers, mut answer) = unbounded_channel();
    let _ = calls.send(Call::Asks(number, question, answers));
    let _ = timeout(LONGEST_WAIT, answer_all(reader, &mut writer, &mut answer)).await;
    Ok(())
}

/// Until the process closes the connection.
async fn answer_all(
    mut reader: BufReader<tokio::io::Take<OwnedReadHalf>>,
    writer: &mut OwnedWriteHalf,
    answers: &mut UnboundedReceiver<Reply>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            answer = answers.recv() => {
                let Some(answer) = answer else { return Ok(()) };
                timeout(PATIENCE, writer.write_all(answer.to_line().as_bytes())).await??;
            }
            // Nothing more is expected, so this is the end.
            _ = reader.read_u8() => return Ok(()),
        }
    }
}
