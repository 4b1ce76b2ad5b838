//! ADDs that were refused because the same container and interface is attached to another network. The
//! runtime then calls DEL for the refused network, which must not remove that attachment. Any other DEL of
//! this container and interface removes it, whatever its network's name was.
//!
//! One line per refusal, `INDEX NETWORK` with the index of the veth, in
//! `/run/vlan-bridge/refused/NODE/VETH`. An attachment without refusals has no file.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use cni_conf::cni::error::{CniError, code};
use cni_conf::request::Request;
use kernel::{Conn, link};

use crate::ownership::Attachment;
use crate::record::{create_folder, node_folder, remove_file_if_any};

const KIND: &str = "refused";

/// Records a failed ADD if the attachment belongs to another network, whatever the error was.
pub async fn note(request: &Request) {
    if let Err(error) = try_note(request).await {
        log::error!("{error}; a DEL of network {} may remove another network's attachment", request.name);
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
        create_folder(folder).map_err(failed)?;
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

/// Removes the refusals that were recorded for an attachment.
pub fn delete_record(veth: &str) -> Result<(), CniError> {
    let path = path(veth)?;
    remove_file_if_any(&path).map_err(|e| failure("remove", &path, &e))
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
