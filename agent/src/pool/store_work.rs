//! What the protocol asks for in the store.

use vlan_bridge_pool::agent::Event;
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::membership;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Recall;
use vlan_bridge_pool::stock;
use vlan_bridge_pool::version::Version;

use crate::registers::{Etcd, StoreError};

/// An answer of the store as an event, and the error if there was none.
pub(super) type Answered = (Option<Event>, Result<(), StoreError>);

/// An action on the node's own register.
pub(super) async fn on_register(store: Etcd, node: Name, action: membership::Action) -> Answered {
    use membership::{Action, Outcome};
    let outcome = match action {
        Action::Read => store.register(&node).await.map(|(version, found)| Outcome::Read(version, found)),
        Action::Swap(at, value) => store.swap_register(&node, &at, &value).await.map(Outcome::Swapped),
        // It is no action on the store.
        Action::Save(_) => return (None, Ok(())),
    };
    let (outcome, answered) = or(outcome, Outcome::Failed);
    (Some(Event::Register(outcome)), answered)
}

/// An action of a share's stock on a block. `document` is the version of the pool's document that it counts
/// with.
pub(super) async fn on_block(
    store: Etcd,
    (holder, pool): (Name, Name),
    document: Version,
    action: stock::Action,
) -> Answered {
    use stock::{Action, Outcome};
    let outcome = match action {
        Action::Read(block) => {
            store.block(&pool, block).await.map(|(version, value)| Outcome::Read(version, value))
        }
        Action::Swap(block, at, value) => {
            store.swap_block(&pool, block, &at, &value, &document).await.map(Outcome::Swapped)
        }
        // They are no actions on the store.
        Action::Store(_) | Action::Inspect(_) | Action::Offer(_) => return (None, Ok(())),
    };
    let otherwise = match &outcome {
        // The store has answered. What another release wrote stays as it is.
        Err(StoreError::Unreadable { .. }) => Outcome::Unreadable,
        _ => Outcome::Failed,
    };
    let (outcome, answered) = or(outcome, otherwise);
    (Some(Event::Stock(holder, outcome)), answered)
}

/// Blocks with free addresses.
pub(super) async fn list(store: Etcd, holder: Name, pool: Name) -> Answered {
    let (blocks, answered) = or(store.free_blocks(&pool).await, Vec::new());
    (Some(Event::Listed(holder, blocks)), answered)
}

/// Another node's register.
pub(super) async fn look(store: Etcd, node: Name) -> Answered {
    let (register, answered) = or(store.register(&node).await.map(|(_, register)| register), None);
    (Some(Event::Looked(node, register)), answered)
}

/// Asks other nodes for addresses. A question that is lost is asked again.
pub(super) async fn ask(store: Etcd, pool: Name, nodes: Vec<Name>, recall: Recall) -> Answered {
    for node in nodes {
        if let Err(error) = store.ask(&pool, &node, &recall).await {
            return (None, Err(error));
        }
    }
    (None, Ok(()))
}

fn or<T>(outcome: Result<T, StoreError>, otherwise: T) -> (T, Result<(), StoreError>) {
    match outcome {
        Ok(value) => (value, Ok(())),
        Err(error) => (otherwise, Err(error)),
    }
}

/// Reads a pool's document. If it has to know of a restore and does not, that is written into it first.
pub(super) async fn document(
    store: &Etcd,
    pool: &Name,
    restored: u32,
) -> Result<Option<(Version, Document)>, StoreError> {
    let Some((version, document)) = store.document(pool).await? else { return Ok(None) };
    let Some(recovering) = document.recovering(restored) else { return Ok(Some((version, document))) };
    // If another node was faster, or nobody knows, the document tells.
    store.change(pool, &version, &recovering).await?;
    store.document(pool).await
}
