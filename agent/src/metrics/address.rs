//! Where metrics are served: an address and port of the node, or a unix socket.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kernel::unix;

/// Before the path of a unix socket.
const UNIX: &str = "unix:";

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// An address and a port of the node.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<MetricsAddress, String> {
        if let Some(path) = text.strip_prefix(UNIX).map(Path::new) {
            return match path.is_absolute() && path.file_name().is_some() {
                true => Ok(MetricsAddress::Unix(path.to_owned())),
                false => Err("the path of the socket is not absolute: unix:/run/FILE".into()),
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            "neither an address and a port, such as 127.0.0.1:9470 or [::]:9470, nor unix:/PATH".to_owned()
        })?;
        match address.port() {
            0 => Err("no port".into()),
            _ => Ok(MetricsAddress::Tcp(address)),
        }
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricsAddress::Tcp(address) => write!(f, "{address}"),
            MetricsAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl MetricsAddress {
    /// The file of a unix socket.
    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            MetricsAddress::Tcp(_) => None,
            MetricsAddress::Unix(path) => Some(path.clone()),
        }
    }

    /// Listens there.
    pub(super) fn open(&self) -> io::Result<Socket> {
        let socket = match self {
            MetricsAddress::Tcp(address) => Socket::Tcp(TcpListener::bind(address)?),
            MetricsAddress::Unix(path) => Socket::Unix(listen(path)?),
        };
        match &socket {
            Socket::Tcp(socket) => socket.set_nonblocking(true)?,
            Socket::Unix(socket) => socket.set_nonblocking(true)?,
        }
        Ok(socket)
    }
}

/// Nobody listens on a socket file, or the error says who might.
fn expect_unused(path: &Path) -> io::Result<()> {
    let used = |why: String| Err(io::Error::new(ErrorKind::AddrInUse, why));
    match unix::try_connect(path) {
        Ok(_) => used("another process listens there".into()),
        Err(e) => match e.kind() {
            ErrorKind::ConnectionRefused => Ok(()),
            ErrorKind::WouldBlock => used("another process listens there, and takes no connection".into()),
            _ => used(format!("there is a socket: {e}")),
        },
    }
}

/// Makes a socket file that only its owner may use. Replaces one that nobody listens on any more, and nothing
/// else.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => expect_unused(path)?,
    }
    // Its mode can be set only after it was made. Nobody finds it before that.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}"));
    if fs::symlink_metadata(&draft).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(&draft)?;
    }
    let socket = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&draft, path))
        .inspect_err(|_| drop(fs::remove_file(&draft)))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_shown() {
        for text in ["127.0.0.1:9470", "[::]:9470", "unix:/run/vlan-bridge-metrics.sock"] {
            assert_eq!(text.parse::<MetricsAddress>().map(|address| address.to_string()), Ok(text.into()));
        }
        for wrong in
            ["", "9470", ":9470", "localhost:9470", "127.0.0.1", "127.0.0.1:0", "unix:", "unix:a", "unix:/"]
        {
            assert!(wrong.parse::<MetricsAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_replaces_only_one_that_nobody_listens_on() {
        let folder = std::env::temp_dir().join(format!("metrics-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let address = MetricsAddress::Unix(path.clone());
        let first = address.open().unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(address.open().unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        let second = address.open().unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        fs::remove_file(&path).unwrap();
        let datagrams = UnixDatagram::bind(&path).unwrap();
        let error = address.open().unwrap_err().to_string();
        assert!(error.starts_with("there is a socket: ") && error.ends_with("(os error 91)"), "{error}");
        drop(datagrams);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "foreign").unwrap();
        assert_eq!(address.open().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "foreign");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
