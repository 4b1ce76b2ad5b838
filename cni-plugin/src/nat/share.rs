//! Host ports that siblings, attachments of one container, share. One sibling holds a port; the next gets
//! it when that one goes.

use std::sync::Arc;

use cni_conf::cni::error::CniError;
use kernel::nft::{Change, Element};
use kernel::{Conn, link};

use super::Nat;
use super::install::create;
use crate::ownership::is_attachment;
use crate::plan::nat as plan;
use crate::plan::nat::share::{are_siblings, follow, is_port, shared_elements};
use crate::record::NatRecord;

impl Nat {
    /// Whether the holder of a host port, found by the element's comment, is a sibling of `record`. Then
    /// the holder keeps the port, and its record notes that `record` is next. The caller holds the
    /// exclusive lock.
    pub(super) fn yield_to_sibling(
        &self,
        record: &NatRecord,
        element: &Element,
        comment: &str,
    ) -> Result<bool, CniError> {
        let Some(holder) = self.sibling(record, element, comment) else { return Ok(false) };
        let mut holder = Arc::unwrap_or_clone(holder);
        if follow(&mut holder, record) {
            self.records.write(&holder)?;
        }
        let (port, network) = (plan::what(element), &holder.pod.network);
        log::info!(
            "{port}: forwarded to the same container on network {network}, and here after that attachment is gone"
        );
        Ok(true)
    }

    /// The sibling that holds a host port.
    pub(super) fn sibling(
        &self,
        record: &NatRecord,
        element: &Element,
        comment: &str,
    ) -> Option<Arc<NatRecord>> {
        let holder = plan::veth_of(comment).filter(|_| is_port(element))?;
        self.records.read(holder).filter(|holder| are_siblings(holder, record))
    }

    /// Changes that transfer the host ports of an attachment that is being removed to its followers. The
    /// caller holds the exclusive lock if there may be followers.
    pub(super) async fn transfer_ports(
        &self,
        node: &Conn,
        record: &NatRecord,
        going: &[Element],
    ) -> Result<Vec<Change>, CniError> {
        let mut followers = Vec::new();
        for veth in &record.followers {
            let Some(follower) = self.records.read(veth).filter(|follower| are_siblings(follower, record))
            else {
                continue;
            };
            if link::by_name(node, veth).await?.is_some_and(|link| is_attachment(&link)) {
                followers.push(Arc::unwrap_or_clone(follower));
            }
        }
        let elements = self.share(&mut followers)?;
        let has_gone =
            |element: &Element| going.iter().any(|gone| (gone.set, &gone.key) == (element.set, &element.key));
        Ok(elements.into_iter().filter(|element| is_port(element) && has_gone(element)).map(create).collect())
    }

    /// The elements of these attachments. Writes followers that are new to the records.
    pub(super) fn share(&self, records: &mut [NatRecord]) -> Result<Vec<Element>, CniError> {
        let before: Vec<usize> = records.iter().map(|record| record.followers.len()).collect();
        let elements = shared_elements(records);
        let changed = records.iter().zip(before).filter(|(record, before)| record.followers.len() > *before);
        changed.map(|(record, _)| record).try_for_each(|record| self.records.write(record))?;
        Ok(elements)
    }
}
