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
use tokio::sync::Semaphore;
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
            let text = Arc::clone(&text);
            tokio::spawn(async move {
                // A connection that fails concerns its client alone.
                let _ = timeout(CONNECTION, converse(stream, text)).await;
                drop(turn);
            });
        }
    });
}

async fn converse(stream: Box<dyn Stream>, text: Arc<Text>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(request, Arc::clone(&text)));
    let mut protocol = http1::Builder::new();
    protocol.keep_alive(false).max_buf_size(MOST).timer(TokioTimer::new()).header_read_timeout(REQUEST);
    protocol.serve_connection(TokioIo::new(stream), service).await
}

async fn answer(request: Request<Incoming>, text: Arc<Text>) -> Result<Response<String>, Infallible> {
    let (status, header, body) = if request.uri().path() != "/metrics" {
        (StatusCode::NOT_FOUND, None, "There is only /metrics.\n".to_owned())
    } else if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, Some((ALLOW, "GET")), "There is only GET.\n".to_owned())
    } else {
        match tokio::task::spawn_blocking(move || text()).await {
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
