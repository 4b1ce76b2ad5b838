//! Folders of leases without a network list of that name: the network was renamed or removed while it had
//! pods.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::{Call, Failure};
use crate::store::Store;

/// The file extensions of network lists and of single plugin configurations.
const LISTS: [&str; 3] = ["conflist", "conf", "json"];

/// Prints each of them. If there is no list, prints nothing: the lists may be in another folder.
pub(super) fn print(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    let named = named(&call.conf_dir);
    if named.is_empty() {
        return Ok(());
    }
    for (network, held) in Store::orphans(&call.data_dir, &named)? {
        if call.network.as_ref().is_some_and(|only| *only != network) {
            continue;
        }
        writeln!(
            out,
            "{network}: no list in {} has this name, but {held} addresses are held. If the network was renamed or removed, a DEL \
             of its pods releases them under any name. By hand: vlan-bridge-ipam release ADDRESS --network {network}",
            call.conf_dir.display()
        )?;
    }
    Ok(())
}

/// The names of all networks in a folder of lists, of any plugin.
fn named(folder: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let lists = files
        .filter(|path| path.extension().and_then(|end| end.to_str()).is_some_and(|end| LISTS.contains(&end)));
    lists.filter_map(|path| name_of(&fs::read(path).ok()?)).collect()
}

fn name_of(text: &[u8]) -> Option<String> {
    let list: Value = serde_json::from_slice(text).ok()?;
    list.get("name")?.as_str().map(str::to_owned)
}
