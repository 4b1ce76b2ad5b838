//! GC: removes what belongs to this network and to no attachment that the runtime lists as valid.

use cni_conf::cni::env::Command;
use cni_conf::cni::error::CniError;
use cni_conf::network::Teardown;
use cni_conf::request::Request;
use kernel::link::Link;
use kernel::{Conn, link, remove};
use serde_json::Value;

use crate::delegate::Delegate;
use crate::features::{self, AlreadyRepaired};
use crate::ownership::{Attachment, belongs_to};
use crate::{guard, host_access, nat, ports, record, trunk};

/// Removes stale veths, then calls IPAM's GC for stale leases. Without a list of valid attachments nothing
/// is removed: a missing list is not an empty list. Continues after errors and returns the first.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let Some(valid) = request.valid_attachments()? else { return Ok(None) };
    let (teardown, warnings) = Teardown::parse(request);
    for warning in warnings {
        log::warn!("{warning}");
    }
    let wanted: Vec<String> = valid
        .iter()
        .map(|(container_id, ifname)| Attachment::new(&request.name, container_id, ifname).host_interface())
        .collect();
    let node = Conn::open()?;
    let mut outcome = nat::collect(&node, &request.name, &wanted, teardown.has_nat).await;
    let routes = host_access::OwnRoutes::look(&node).await?;
    let recorded = host_access::recorded_veths()?;
    let guarded = if teardown.has_guard { guard::ports() } else { Ok(Vec::new()) };
    let links = link::all(&node).await?;
    let is_stale = |link: &&Link| belongs_to(link, &request.name) && !wanted.contains(&link.name);
    let (stale, rest): (Vec<&Link>, Vec<&Link>) = links.iter().partition(is_stale);
    for stale in stale {
        log::info!("removing {}: {}", stale.name, stale.alias.as_deref().unwrap_or_default());
        outcome = outcome.and(ports::delete_record(&stale.name));
        outcome = outcome.and(remove::link(&node, stale.index, &stale.name).await.map_err(CniError::from));
    }
    outcome = outcome.and(guarded.and_then(|guarded| guard::remove_stale(&guarded, &rest)));
    outcome = outcome.and(host_access::delete_stale_records(&node, &recorded, &rest).await);
    outcome = outcome.and(host_access::remove_stale(&node, &routes, &rest).map_err(CniError::from));
    features::repair_and_log(&node, AlreadyRepaired::default(), None).await;
    if let Err(e) = record::prune() {
        // Such records do no harm.
        log::warn!("the records of removed nodes were not deleted: {e}");
    }
    if let Some(trunk) = &teardown.trunk {
        outcome = outcome.and(trunk::leave(&node, trunk).await);
    }
    if let Some(name) = &teardown.ipam {
        let collected = match Delegate::find(name, request) {
            Ok(delegate) => delegate.call(Command::Gc),
            Err(e) => Err(e),
        };
        outcome = outcome.and(collected);
    }
    outcome.map(|()| None)
}
