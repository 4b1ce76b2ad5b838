//! Host ports that an attachment leaves to a sibling, another of the same container, and gets from it when it
//! goes.

use cni_conf::cni::error::CniError;
use kernel::nft::{Change, Element};
use kernel::{Conn, link};

use super::Nat;
use super::install::create;
use crate::ownership::is_attachment;
use crate::plan::nat as plan;
use crate::plan::nat::share::{are_siblings, follow, is_port, shared_elements};
use crate::record::Record;

impl Nat {
    /// Whether who has an element, as its comment tells, is a sibling to whom a host port is left. It is
    /// noted that `record` comes next. Only for who holds the lock alone.
    pub(super) fn leave_to_sibling(
        &self,
        record: &Record,
        element: &Element,
        comment: &str,
    ) -> Result<bool, CniError> {
        let Some(mut holder) = self.sibling(record, element, comment) else { return Ok(false) };
        if follow(&mut holder, record) {
            self.records.write(&holder)?;
        }
        let (port, network) = (plan::what(element), &holder.network);
        log::info!("{port}: leads to the same container on network {network}, and here when that is gone");
        Ok(true)
    }

    /// The sibling that has a host port.
    pub(super) fn sibling(&self, record: &Record, element: &Element, comment: &str) -> Option<Record> {
        let holder = plan::veth_of(comment).filter(|_| is_port(element))?;
        self.records.read(holder).filter(|holder| are_siblings(holder, record))
    }

    /// What gives elements that go with an attachment to those that come after it. Only for who holds the
    /// lock alone, if there may be some.
    pub(super) async fn handing_over(
        &self,
        node: &Conn,
        record: &Record,
        going: &[Element],
    ) -> Result<Vec<Change>, CniError> {
        let mut heirs = Vec::new();
        for veth in &record.followers {
            let Some(heir) = self.records.read(veth).filter(|heir| are_siblings(heir, record)) else {
                continue;
            };
            if link::by_name(node, veth).await?.is_some_and(|link| is_attachment(&link)) {
                heirs.push(heir);
            }
        }
        let elements = self.share(&mut heirs)?;
        let has_gone =
            |element: &Element| going.iter().any(|gone| (gone.set, &gone.key) == (element.set, &element.key));
        Ok(elements.into_iter().filter(|element| is_port(element) && has_gone(element)).map(create).collect())
    }

    /// The elements of these attachments, with who follows whom in their records.
    pub(super) fn share(&self, records: &mut [Record]) -> Result<Vec<Element>, CniError> {
        let before: Vec<usize> = records.iter().map(|record| record.followers.len()).collect();
        let elements = shared_elements(records);
        let changed = records.iter().zip(before).filter(|(record, before)| record.followers.len() > *before);
        changed.map(|(record, _)| record).try_for_each(|record| self.records.write(record))?;
        Ok(elements)
    }
}
