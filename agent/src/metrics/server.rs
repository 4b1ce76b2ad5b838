//! Answers `GET /metrics`. One request for each connection, few connections at a time, and none for long.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::address::Socket;

/// How many connections are served at a time. Others wait in the kernel.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const REQUEST: Duration = Duration::from_secs(2);
/// How long a connection may take. A reading of the node may wait for locks, and the answer for a slow
/// reader.
const CONNECTION: Duration = Duration::from_secs(10);
/// The longest request that is read.
const MOST: usize = 8192;
/// The pause after the kernel refused a connection, for example because there are too many open files.
const REFUSED: Duration = Duration::from_millis(100);
/// The type of OpenMetrics' text format.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Makes the text of an answer.
type Text = dyn Fn() -> String + Send + Sync;

/// Starts the thread. It ends with the process.
pub(super) fn start(socket: Socket, text: impl Fn() -> String + Send + Sync + 'static) -> io::Result<()> {
    // One text is made at a time.
    let runtime = Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(1).build()?;
    let socket = {
        let _inside = runtime.enter();
        Listener::of(socket)?
    };
    thread::Builder::new().name("metrics".into()).spawn(move || serve(&runtime, &socket, Arc::new(text)))?;
    Ok(())
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn of(socket: Socket) -> io::Result<Listener> {
        Ok(match socket {
            Socket::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
            Socket::Unix(socket) => Listener::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listener::Tcp(socket) => Box::new(socket.accept().await?.0),
            Listener::Unix(socket) => Box::new(socket.accept().await?.0),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

fn serve(runtime: &Runtime, socket: &Listener, text: Arc<Text>) {
    runtime.block_on(async {
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(turn) = Arc::clone(&free).acquire_owned().await else { return };
            let Ok(stream) = socket.accept().await else {
                sleep(REFUSED).await;
                continue;
            };
            let (text, turn) = (Arc::clone(&text), Arc::new(turn));
            tokio::spawn(async move {
                // A connection that fails concerns its client alone.
                let _ = timeout(CONNECTION, converse(stream, text, turn)).await;
            });
        }
    });
}

async fn converse(
    stream: Box<dyn Stream>,
    text: Arc<Text>,
    turn: Arc<OwnedSemaphorePermit>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&text), Arc::clone(&turn)));
    let mut protocol = http1::Builder::new();
    protocol.keep_alive(false).max_buf_size(MOST).timer(TokioTimer::new()).header_read_timeout(REQUEST);
    protocol.serve_connection(TokioIo::new(stream), service).await
}

async fn answer(
    request: Request<Incoming>,
    text: Arc<Text>,
    turn: Arc<OwnedSemaphorePermit>,
) -> Result<Response<String>, Infallible> {
    let (status, header, body) = if request.uri().path() != "/metrics" {
        (StatusCode::NOT_FOUND, None, "There is only /metrics.\n".to_owned())
    } else if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, Some((ALLOW, "GET")), "There is only GET.\n".to_owned())
    } else {
        let make = move || {
            // A client that is gone leaves its text in the queue, and its turn with it.
            let _turn = turn;
            text()
        };
        match tokio::task::spawn_blocking(make).await {
            Ok(text) => (StatusCode::OK, Some((CONTENT_TYPE, TYPE)), text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, None, format!("{error}\n")),
        }
    };
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    // All parts are valid.
    Ok(response.body(body).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};

    use super::*;

    fn ask(address: std::net::SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
        client
    }

    /// Whether the service closes the connection of a client that has sent all it wanted to send.
    fn is_closed(mut client: TcpStream, within: Duration) -> bool {
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.set_read_timeout(Some(within)).unwrap();
        let waits = |error: &io::Error| error.kind() == ErrorKind::WouldBlock;
        !client.read(&mut [0; 64]).is_err_and(|error| waits(&error))
    }

    #[test]
    fn clients_that_leave_before_the_answer_do_not_pile_up() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (go, gate) = mpsc::channel::<()>();
        let (gate, asked) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&asked);
        let text = move || {
            // Until the test says so.
            let _ = gate.lock().unwrap().recv();
            counted.fetch_add(1, Ordering::Relaxed);
            "text".to_owned()
        };
        start(Socket::Tcp(socket), text).unwrap();
        let mut served = 0;
        // The next one waits in the kernel. Some leave before their request is looked at.
        while is_closed(ask(address), Duration::from_millis(500)) {
            served += 1;
            assert!(served < 8 * CONNECTIONS, "the answers to {served} clients wait");
        }
        assert!(served >= CONNECTIONS);
        drop(go);
        let mut answer = String::new();
        ask(address).read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("text"), "{answer}");
        assert!(asked.load(Ordering::Relaxed) > CONNECTIONS, "{asked:?}");
    }
}
