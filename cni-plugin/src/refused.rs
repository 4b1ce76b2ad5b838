//! ADDs that were refused because another network's attachment of the same container and interface is there.
//! The runtime answers with a DEL for the network that was refused, which must leave that attachment alone;
//! any other DEL of this container and interface means it, by whatever name its network went then.
//!
//! A line for each, `INDEX NETWORK` with the index of the veth, in `/run/vlan-bridge/refused/NODE/VETH`. An
//! attachment to which nothing of the kind happened has no file.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use cni_conf::cni::error::{CniError, code};
use cni_conf::request::Request;
use kernel::{Conn, link};

use crate::ownership::Attachment;
use crate::record::node_folder;

const KIND: &str = "refused";

/// Notes an ADD that failed, whatever it failed for, where another network has the attachment.
pub async fn note(request: &Request) {
    if let Err(error) = try_note(request).await {
        log::error!("{error}; a DEL of network {} may take what another network attached", request.name);
    }
}

async fn try_note(request: &Request) -> Result<(), CniError> {
    let attachment = Attachment::of(request);
    let veth = attachment.host_interface();
    let Some(host) = link::by_name(&Conn::open()?, &veth).await? else { return Ok(()) };
    if attachment.other_network(&host).is_none() || was(host.index, &veth, &request.name)? {
        return Ok(());
    }
    let path = path(&veth)?;
    let failed = |e: std::io::Error| failure("write", &path, &e);
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    file.write_all(line(host.index, &request.name).as_bytes()).map_err(failed)
}

/// Whether an ADD to a network was refused because of this very veth.
pub fn was(index: u32, veth: &str, network: &str) -> Result<bool, CniError> {
    let path = path(veth)?;
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().any(|found| line(index, network).trim_end() == found)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failure("read", &path, &e)),
    }
}

/// Removes what was noted of an attachment.
pub fn delete_record(veth: &str) -> Result<(), CniError> {
    let path = path(veth)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failure("remove", &path, &e)),
        _ => Ok(()),
    }
}

fn line(index: u32, network: &str) -> String {
    format!("{index} {network}\n")
}

fn path(veth: &str) -> Result<PathBuf, CniError> {
    Ok(node_folder(KIND)?.join(veth))
}

fn failure(what: &str, path: &std::path::Path, error: &std::io::Error) -> CniError {
    CniError::new(code::IO_FAILURE, format!("cannot {what} {}: {error}", path.display()))
}
