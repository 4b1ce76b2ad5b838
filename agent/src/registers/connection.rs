//! Connections to endpoints.
//!
//! In TLS 1.3 a client has finished before the server looks at its certificate. A refusal that arrives
//! later looks like any broken connection. etcd speaks first: it sends its settings, or refuses. So the
//! client listens before it sends a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// How long a server may be silent at first. A proxy may wait for the client.
const SILENT: Duration = Duration::from_millis(500);

/// Connects to the host of a URL, with TLS if the scheme is `https`.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) tls: Arc<ClientConfig>,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let tls = (uri.scheme_str() == Some("https")).then(|| self.tls.clone());
        Box::pin(async move { connect(&uri, tls).await.map(TokioIo::new) })
    }
}

async fn connect(uri: &Uri, tls: Option<Arc<ClientConfig>>) -> io::Result<Connection> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let plain = TcpStream::connect((host.as_str(), port)).await?;
    plain.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Connection { first: Vec::new(), stream: Box::new(plain) });
    };
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(tls).connect(name, plain).await?;
    let mut first = Vec::with_capacity(512);
    if let Ok(heard) = timeout(SILENT, stream.read_buf(&mut first)).await
        && heard? == 0
    {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Connection { first, stream: Box::new(stream) })
}

/// A connection, and what was heard on it already.
pub(super) struct Connection {
    first: Vec<u8>,
    stream: Box<dyn Stream>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = buf.remaining().min(self.first.len());
        buf.put_slice(&self.first[..count]);
        self.first.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
