//! The files of records: written, read, listed and removed in the same way for every kind.

use std::fmt::{self, Debug, Formatter};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cni_conf::cni::error::{CniError, code};
use cni_conf::section::Section;
use cni_skel::draft;
use kernel::{Conn, link, netns};
use serde_json::{Map, Value};

use super::kept::{self, FileStamp};
use crate::lock::FOLDER;
use crate::ownership::{Attachment, Progress};

/// A kind of record.
pub trait Record: Clone + Send + Sync + 'static {
    /// Its folder in `/run/vlan-bridge`.
    const FOLDER: &'static str;

    /// The attachment of the record.
    fn attachment(&self) -> Attachment<'_>;

    /// The file's JSON object.
    fn to_json(&self) -> Value;

    /// Reads what [`Record::to_json`] of this or another release wrote.
    ///
    /// # Errors
    /// A key is missing or wrong.
    fn from_section(keys: &Section<'_>) -> Result<Self, CniError>;
}

/// A kind of record that has a folder for each device of the node below the node's folder.
pub trait PerDevice: Record {}

/// The records of one kind in one folder.
pub struct Records<R> {
    folder: PathBuf,
    kind: PhantomData<fn() -> R>,
}

impl<R> Debug for Records<R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Records").field(&self.folder).finish()
    }
}

impl<R: PerDevice> Records<R> {
    /// The records of attachments to this device of the node.
    pub fn of_device(device: &str) -> Result<Records<R>, CniError> {
        Ok(Records::at(node_folder(R::FOLDER)?.join(device)))
    }

    /// The records of each device that has some.
    pub fn by_device() -> Result<Vec<(String, Records<R>)>, CniError> {
        let folder = node_folder(R::FOLDER)?;
        let devices = names_in(&folder).into_iter();
        Ok(devices.map(|device| (device.clone(), Records::at(folder.join(device)))).collect())
    }

    /// Removes the folder of all devices if it is empty.
    pub fn end_devices() -> Result<bool, CniError> {
        Ok(Records::<R>::of_this_node()?.end())
    }
}

impl<R: Record> Records<R> {
    /// The records of the calling thread's namespace. Those of a kind that is [`PerDevice`] are below.
    pub fn of_this_node() -> Result<Records<R>, CniError> {
        Ok(Records::at(node_folder(R::FOLDER)?))
    }

    pub(super) fn at(folder: PathBuf) -> Records<R> {
        Records { folder, kind: PhantomData }
    }

    /// Writes the record of an attachment. Replaces an existing one. The file is renamed into place, so it
    /// is complete or missing. Names that begin with a dot are drafts.
    pub fn write(&self, record: &R) -> Result<(), CniError> {
        let name = record.attachment().host_interface();
        let make = |draft: &Path| {
            let mut file = draft::create(draft, OpenOptions::new().mode(0o600))?;
            file.write_all(record.to_json().to_string().as_bytes())
        };
        let (path, draft) = (self.folder.join(&name), self.folder.join(format!(".{name}")));
        create_folder(&self.folder)
            .and_then(|()| draft::replace(&path, &draft, make, std::convert::identity))
            .map_err(|e| self.failed("write", &name, &e))
    }

    /// The record of the attachment with this veth. None if there is none; one that cannot be read counts as
    /// none and is logged.
    pub fn read(&self, veth: &str) -> Option<Arc<R>> {
        let path = self.folder.join(veth);
        let stamp = match fs::metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return None,
            found => found.map(|file| FileStamp::of(&file)),
        };
        if let Some(record) = stamp.as_ref().ok().and_then(|stamp| kept::get(&path, *stamp)) {
            return Some(record);
        }
        let read = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return None,
            Err(e) => Err(e.to_string()),
            Ok(bytes) => serde_json::from_slice::<Map<String, Value>>(&bytes)
                .map_err(|e| e.to_string())
                .and_then(|keys| R::from_section(&Section::new(&keys, "")).map_err(|e| e.msg)),
        };
        let why = match read {
            // The file name alone proves nothing: the record may be another attachment's.
            Ok(record) if record.attachment().host_interface() == veth => {
                let record = Arc::new(record);
                if let Ok(stamp) = stamp {
                    kept::put(&path, stamp, &record);
                }
                return Some(record);
            }
            Ok(_) => "it is another attachment's".into(),
            Err(why) => why,
        };
        log::warn!("record {} cannot be used: {why}", path.display());
        None
    }

    /// Every readable record, by veth name.
    pub fn all(&self) -> Vec<(String, Arc<R>)> {
        self.names().into_iter().filter_map(|name| self.read(&name).map(|record| (name, record))).collect()
    }

    /// Any readable record, without reading the others.
    pub fn any(&self) -> Option<Arc<R>> {
        let entries = fs::read_dir(&self.folder).ok()?.flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.find_map(|name| if name.starts_with('.') { None } else { self.read(&name) })
    }

    /// The records of attachments whose veth exists, finished ones first, without `but`. Other records are
    /// removed. The caller holds the exclusive lock.
    pub async fn live(&self, node: &Conn, but: Option<&str>) -> Result<Vec<R>, CniError> {
        let (mut finished, mut under_way) = (Vec::new(), Vec::new());
        for (veth, record) in self.all().into_iter().filter(|(veth, _)| Some(veth.as_str()) != but) {
            let link = link::by_name(node, &veth).await?;
            match link.map_or(Progress::Foreign, |link| record.attachment().progress(&link)) {
                Progress::Ready => finished.push(Arc::unwrap_or_clone(record)),
                Progress::Adding => under_way.push(Arc::unwrap_or_clone(record)),
                Progress::Foreign => self.remove(&veth)?,
            }
        }
        finished.append(&mut under_way);
        Ok(finished)
    }
}

impl<R> Records<R> {
    /// Removes the record of the attachment with this veth, and the draft that a killed ADD left.
    pub fn remove(&self, veth: &str) -> Result<(), CniError> {
        self.discard(veth)?;
        self.discard(&format!(".{veth}"))
    }

    fn discard(&self, name: &str) -> Result<(), CniError> {
        remove_file_if_any(&self.folder.join(name)).map_err(|e| self.failed("remove", name, &e))
    }

    /// Removes the drafts that killed ADDs left. The caller holds the exclusive lock.
    pub fn remove_drafts(&self) -> Result<(), CniError> {
        let entries = names_in(&self.folder);
        entries.iter().filter(|name| name.starts_with('.')).try_for_each(|draft| self.discard(draft))
    }

    /// The names of all veths that have a record, readable or not.
    pub fn names(&self) -> Vec<String> {
        names_in(&self.folder).into_iter().filter(|name| !name.starts_with('.')).collect()
    }

    /// The names of all veths that have a record, readable or not, or a draft.
    pub fn veths(&self) -> Vec<String> {
        names_in(&self.folder).iter().map(|name| name.trim_start_matches('.').to_owned()).collect()
    }

    /// Whether there is a record with this veth's name, readable or not.
    pub fn has(&self, veth: &str) -> bool {
        self.folder.join(veth).symlink_metadata().is_ok()
    }

    /// Whether there are no records and no drafts.
    pub fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_none()) || !self.folder.exists()
    }

    /// Whether the folder does not exist: the node has had no records of this kind, or all were removed.
    pub fn are_absent(&self) -> bool {
        !self.folder.exists()
    }

    /// Makes the folder.
    pub fn begin(&self) -> Result<(), CniError> {
        create_folder(&self.folder)
            .map_err(|e| CniError::new(code::IO_FAILURE, format!("create {}: {e}", self.folder.display())))
    }

    /// Removes the folder if it is empty. True if it is gone.
    pub fn end(&self) -> bool {
        fs::remove_dir(&self.folder).is_ok() || !self.folder.exists()
    }

    fn failed(&self, what: &str, name: &str, error: &io::Error) -> CniError {
        let path = self.folder.join(name);
        CniError::new(code::IO_FAILURE, format!("{what} record {}: {error}", path.display()))
    }
}

/// The names of a folder's entries. Empty if the folder does not exist.
fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The folder of this node's records of one kind: `/run/vlan-bridge/KIND/NODE`.
pub(crate) fn node_folder(kind: &str) -> Result<PathBuf, CniError> {
    // A process runs on one node and reads its records many times.
    static NODE: OnceLock<String> = OnceLock::new();
    let node = match NODE.get() {
        Some(node) => node,
        None => {
            let node = netns::identity()?;
            NODE.get_or_init(|| node)
        }
    };
    Ok(PathBuf::from(format!("{FOLDER}/{kind}/{node}")))
}

/// Removes all of this node's records of a kind, when no pod is attached any more.
pub(crate) fn remove_node_folder(kind: &str) -> Result<(), CniError> {
    let folder = node_folder(kind)?;
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(CniError::new(code::IO_FAILURE, format!("remove {}: {e}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Makes a folder that only root may read, with the folders above it.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Removes a file. That it is missing is no error.
pub(crate) fn remove_file_if_any(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
