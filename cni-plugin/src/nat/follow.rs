//! The node's source addresses of pods with services and host ports, after the node's addresses have
//! changed. The host routes have followed already, and say which addresses they are now.

use std::sync::Arc;

use cni_conf::cni::error::CniError;
use kernel::nft::{Change, Element, RefusedChange};

use super::install::create;
use super::{Nat, delete};
use crate::lock::RecordLock;
use crate::plan::nat as plan;
use crate::plan::nat::ruleset::TABLE;
use crate::record::{HostRoutesRecord, NatRecord, Records, as_ipv4};
use crate::repairs::{Repairs, Subject};

impl Nat {
    /// Lets the sources of all pods follow.
    pub(super) fn follow_sources(
        &self,
        all: &[(String, Arc<NatRecord>)],
        repairs: &mut Repairs<'_>,
    ) -> Result<(), CniError> {
        for (veth, record) in all {
            let Some(now) = moved(veth, record)? else { continue };
            let what =
                vec![format!("{veth}: the node's sources {:?} are {:?} now", record.sources, now.sources)];
            if !repairs.permits(&Subject::Nat, &what) {
                continue;
            }
            let _lock = RecordLock::exclusive()?;
            let Some(record) = self.records.read(veth) else { continue };
            let Some(now) = moved(veth, &record)? else { continue };
            // Without the table, the elements come back from the record.
            if self.is_whole()? {
                self.replace(&record, &now)?;
            }
            self.records.write(&now)?;
            repairs.restored(&Subject::Nat, what);
        }
        Ok(())
    }

    fn replace(&self, before: &NatRecord, now: &NatRecord) -> Result<(), CniError> {
        let (old, new) = (plan::elements(before), plan::elements(now));
        let own = plan::element_comment(&before.pod.attachment());
        let mut changes: Vec<Change> = Vec::new();
        for element in old.iter().filter(|element| !new.contains(element)) {
            let there = self.nft.element(TABLE, element.set, &element.key)?;
            changes.extend(there.filter(|there| there.comment == own).map(|_| delete(element)));
        }
        let added = new.iter().filter(|element: &&Element| !old.contains(element));
        changes.extend(added.cloned().map(create));
        // A sibling of the same container may hold the port.
        self.commit_tolerating(changes, RefusedChange::exists).map(drop)
    }
}

/// The record with the sources of the pod's host routes, if these are others.
fn moved(veth: &str, record: &NatRecord) -> Result<Option<NatRecord>, CniError> {
    if record.sources.is_empty() {
        return Ok(None);
    }
    let routes = Records::<HostRoutesRecord>::of_device(&record.pod.device)?.read(veth);
    let now = routes.filter(|routes| routes.sources != record.sources);
    Ok(now.map(|routes| {
        let sources = routes.sources.clone();
        let localhost = record.localhost.and(sources.iter().copied().find_map(as_ipv4));
        NatRecord { sources, localhost, ..record.clone() }
    }))
}
