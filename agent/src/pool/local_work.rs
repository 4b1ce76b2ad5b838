//! What the protocol asks for on the node: files and the store of leases. It may wait for a disk or a lock.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use vlan_bridge_ipam::shares::{self, PoolShare};
use vlan_bridge_ipam::store::StoreError;
use vlan_bridge_pool::grants::Grants;
use vlan_bridge_pool::membership;
use vlan_bridge_pool::register::Identity;
use vlan_bridge_pool::runs::Runs;
use vlan_bridge_pool::stock;

use super::plan::PooledShare;

/// The pause before a file is read again that could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What became of an action, and the error if it failed.
pub(super) type Did<T> = (T, Result<(), StoreError>);

/// Does an action on a share that needs no store. `tell` hears of an error that holds it up.
pub(super) fn on_share(
    share: &PooledShare,
    action: &stock::Action,
    tell: impl Fn(&StoreError),
) -> Did<stock::Outcome> {
    let Some(files) = share.files() else { return (stock::Outcome::Failed, Ok(())) };
    let outcome = match action {
        stock::Action::Store(grants) => return store(&files, grants, tell),
        stock::Action::Inspect(block) => files.inspect(*block).map(stock::Outcome::Inspected),
        // All that is granted is offered.
        stock::Action::Offer(_) => files.offer().map(|()| stock::Outcome::Offered),
        // These need the store.
        stock::Action::Read(_) | stock::Action::Swap(..) => Ok(stock::Outcome::Failed),
    };
    or(outcome, stock::Outcome::Failed)
}

/// After an error, the plugin may read the old file or the new one. The protocol must know which.
fn store(files: &PoolShare<'_>, grants: &Grants, tell: impl Fn(&StoreError)) -> Did<stock::Outcome> {
    let Err(error) = files.store_grants(grants) else { return (stock::Outcome::Stored, Ok(())) };
    let mut is_told = false;
    loop {
        match files.grants() {
            Ok(found) => {
                let found = found.unwrap_or_else(|| nothing(grants));
                return (stock::Outcome::NotStored(found), Err(error));
            }
            // As long as the disk fails, nothing else can be done.
            Err(unreadable) => {
                if !std::mem::replace(&mut is_told, true) {
                    tell(&unreadable);
                }
                thread::sleep(READ_AGAIN);
            }
        }
    }
}

/// The grants of a share that has no file yet.
fn nothing(of: &Grants) -> Grants {
    let (home, leased, unproven) = (Runs::EMPTY, Runs::EMPTY, Runs::EMPTY);
    Grants { generation: 0, home, leased, unproven, blocks: BTreeSet::new(), ..of.clone() }
}

/// Writes the identity.
pub(super) fn save(data_dir: &Path, identity: &Identity) -> Did<membership::Outcome> {
    let saved = shares::save_identity(data_dir, identity).map(|()| membership::Outcome::Saved);
    or(saved, membership::Outcome::Failed)
}

fn or<T>(outcome: Result<T, StoreError>, otherwise: T) -> Did<T> {
    match outcome {
        Ok(value) => (value, Ok(())),
        Err(error) => (otherwise, Err(error)),
    }
}
