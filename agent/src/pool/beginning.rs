//! How a life begins: what is on the disk and in the pools' documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kernel::random;
use vlan_bridge_ipam::shares;
use vlan_bridge_pool::agent::{Agent, Policy};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::grants::Grants;
use vlan_bridge_pool::membership::Membership;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::{Network, Settings};
use vlan_bridge_pool::plan::Me;
use vlan_bridge_pool::register::Identity;
use vlan_bridge_pool::runs::Runs;
use vlan_bridge_pool::stock::Stock;
use vlan_bridge_pool::version::Version;

use super::plan::{NodePlan, PooledShare};
use crate::registers::{Etcd, StoreError};

/// How often the store is asked whether the node lives.
const CONFIRM_EVERY: Duration = Duration::from_secs(600);

/// A share that takes part, and its pool's document.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) share: PooledShare,
    pub(super) version: Version,
    pub(super) document: Document,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    pub(super) agent: Option<Agent>,
    pub(super) members: BTreeMap<Name, Arc<Member>>,
    /// Shares that cannot take part, and why.
    pub(super) problems: BTreeMap<Name, String>,
}

/// The pools' documents. None: there is no such pool. The error is of this pool alone.
type Documents = BTreeMap<Name, Result<Option<(Version, Document)>, StoreError>>;

/// The documents of the plan's pools.
///
/// # Errors
/// The store does not answer.
pub(super) async fn documents(plan: &NodePlan, store: &Etcd) -> Result<Documents, StoreError> {
    let mut documents = Documents::new();
    for pool in plan.pools() {
        let found = match store.document(&pool).await {
            Err(
                error @ (StoreError::Unreadable { .. }
                | StoreError::NotPermitted { .. }
                | StoreError::Refused { .. }),
            ) => Err(error),
            found => Ok(found?),
        };
        documents.insert(pool, found);
    }
    Ok(documents)
}

/// A pool's document, if it can be used.
pub(super) fn of_pool<'a>(documents: &'a Documents, pool: &Name) -> Option<&'a (Version, Document)> {
    documents.get(pool)?.as_ref().ok()?.as_ref()
}

impl Beginning {
    /// Reads the node's files. `boot` is the boot's identity.
    pub(super) fn of(plan: &NodePlan, documents: &Documents) -> Beginning {
        let mut beginning = Beginning::default();
        if let Err(why) = beginning.read(plan, documents) {
            let of_all = plan.shares.iter().map(|share| (share.holder.clone(), why.clone()));
            beginning.problems.extend(of_all);
        }
        beginning
    }

    fn read(&mut self, plan: &NodePlan, documents: &Documents) -> Result<(), String> {
        let identity = identity(&plan.data_dir)?;
        let mut networks = BTreeMap::new();
        for share in &plan.shares {
            match begin(plan, share, documents, &identity) {
                Ok((network, member)) => {
                    networks.insert(share.holder.clone(), network);
                    self.members.insert(share.holder.clone(), Arc::new(member));
                }
                Err(why) => {
                    self.problems.insert(share.holder.clone(), format!("pool {}: {why}", share.pool));
                }
            }
        }
        if networks.is_empty() {
            return Ok(());
        }
        // The register says one time for all pools. To give for a shorter time than a pool allows is safe.
        let used = || self.members.values().map(|member| &member.document);
        let give_for = used().filter_map(Document::give_for).min();
        let margin = used().map(|document| document.margin).max().unwrap_or_default();
        let policy = Policy { give_for, margin, confirm_every: CONFIRM_EVERY };
        let membership = Membership::new(shares::moment().boot, identity, give_for);
        let seed = random().map(u64::from_ne_bytes).map_err(|error| error.to_string())?;
        self.agent = Some(Agent::new(policy, membership, networks, seed));
        Ok(())
    }
}

/// The machine's identity. At the first start it is drawn, and written before the store hears of it.
fn identity(data_dir: &Path) -> Result<Identity, String> {
    if let Some(identity) = shares::identity(data_dir).map_err(|error| error.to_string())? {
        return Ok(identity);
    }
    let drawn: [u8; 16] = random().map_err(|error| format!("no random numbers: {error}"))?;
    let instance = drawn.iter().map(|byte| format!("{byte:02x}")).collect();
    let identity = Identity { instance, epoch: 0, since: 0, seq: 0 };
    shares::save_identity(data_dir, &identity).map_err(|error| error.to_string())?;
    Ok(identity)
}

fn begin(
    plan: &NodePlan,
    share: &PooledShare,
    documents: &Documents,
    identity: &Identity,
) -> Result<(Network, Member), String> {
    if let Some(Err(error)) = documents.get(&share.pool) {
        return Err(error.to_string());
    }
    let (version, document) = of_pool(documents, &share.pool).ok_or_else(|| {
        format!("there is no such pool: make it with vlan-bridgectl pool create {}", share.pool)
    })?;
    let files = share.files().ok_or("it has no range set")?;
    let range = files.usable(&document.addresses());
    let home = files.slice();
    if let Some(addr) = home.without(&range).first() {
        return Err(format!("{addr} of the node's slice is not an address of the pool"));
    }
    if range.is_empty() {
        return Err("it has no address of the network's subnet".to_owned());
    }
    let me = Me {
        node: plan.node.clone(),
        network: share.holder.clone(),
        epoch: identity.epoch,
        since: identity.since,
    };
    let grants = match files.grants().map_err(|error| error.to_string())? {
        Some(grants) => checked(grants, &me, share)?,
        None => Grants {
            pool: share.pool.clone(),
            pool_id: document.id.clone(),
            node: plan.node.clone(),
            network: share.holder.clone(),
            epoch: identity.epoch,
            restored: document.restored,
            generation: 0,
            home: Runs::EMPTY,
            leased: Runs::EMPTY,
            unproven: Runs::EMPTY,
            blocks: BTreeSet::new(),
        },
    };
    let network = Network::new(Stock::new(me, home, grants), settings(share, document));
    let member = Member { share: share.clone(), version: version.clone(), document: document.clone() };
    Ok((network, member))
}

/// Grants of another pool or under another name must not be taken for this one's: what they hold would be
/// given back nowhere.
fn checked(grants: Grants, me: &Me, share: &PooledShare) -> Result<Grants, String> {
    let of = [(&grants.pool, &share.pool, "pool"), (&grants.node, &me.node, "node")];
    for (before, now, what) in of {
        if before != now {
            return Err(format!(
                "its grants are of {what} {before}, not {now}: give them back first, as {what} {before}"
            ));
        }
    }
    if grants.network != me.network {
        return Err(format!("its grants are of network {}", grants.network));
    }
    Ok(grants)
}

/// What a share is configured to do, of the pool's addresses with those that its pods may get.
pub(super) fn settings(share: &PooledShare, document: &Document) -> Settings {
    let settings = Settings::of(document, share.marks, share.lends_home);
    let range = share.files().map(|files| files.usable(&settings.range)).unwrap_or_default();
    Settings { range, ..settings }
}
