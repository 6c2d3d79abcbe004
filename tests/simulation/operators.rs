//! Operators: they add nodes, remove some, and replace one that has lost its disk, two of them at the same time.
//!
//! A change that is begun is asked for until it succeeds, of whoever may lead: that it goes on where the last attempt came to is
//! what `node::membership` promises. Before the heal the outcome may be long in coming; after it, every change ends or the run
//! fails, and then the members are those that the operators made.
//!
//! A disk is lost only while nobody changes anything else and three voters are left: whoever takes one of two voters away, and
//! then loses the other's disk, has lost the cluster, and no store can help.

use std::sync::Arc;

use tokio::sync::RwLock;

use crate::asks::{Answer, Ask};
use crate::bugs::Bug;
use crate::clients::Shop;

/// Whoever finds so many members adds none, so that a run is no longer than others. Two operators may find one less.
const MOST: usize = 6;
/// At least so many are left.
const LEAST: usize = 2;
/// Longest pause between two changes of an operator.
const PAUSE_MS: u64 = 3_000;
/// Longest pause between two attempts.
const RETRY_MS: u64 = 150;

/// Changes share it; whoever loses a disk has it alone.
pub type Works = Arc<RwLock<()>>;

/// Works until the heal.
pub async fn operator(shop: Arc<Shop>, works: Works) {
    loop {
        shop.pause(PAUSE_MS).await;
        if shop.is_healed() {
            return;
        }
        let members = shop.world.roster.members().len();
        match shop.world.draw(0..3) {
            0 if members < MOST => {
                let _together = works.read().await;
                add(&shop).await;
            }
            1 => {
                let _together = works.read().await;
                if let Some(id) = shop.world.roster.take_leave(&shop.world, LEAST) {
                    remove(&shop, id).await;
                }
            }
            _ => {
                let _alone = works.write().await;
                if let Some(id) = shop.world.roster.take_leave(&shop.world, LEAST) {
                    replace(&shop, id).await;
                }
            }
        }
    }
}

async fn add(shop: &Shop) {
    loop {
        let id = shop.world.roster.begin();
        if insist(shop, Ask::Add(id)).await {
            check(shop, id, true);
            shop.world.roster.joined(id);
            shop.count("node added");
            return;
        }
        // A node with a higher id came first.
        shop.count("id refused");
        shop.world.roster.end(id);
    }
}

async fn remove(shop: &Shop, id: u64) {
    if insist(shop, Ask::Remove(id)).await {
        check(shop, id, false);
        shop.world.roster.left(id);
        shop.world.roster.end(id);
        shop.count("node removed");
    } else {
        shop.fail("members", format!("node {id} was a member, and has no id"));
    }
}

/// Its disk is lost, and the node with it.
async fn replace(shop: &Shop, id: u64) {
    shop.count("disk lost");
    if shop.world.has(Bug::EmptyDisk) {
        shop.world.roster.stay(id);
        return;
    }
    shop.world.roster.end(id);
    remove(shop, id).await;
    add(shop).await;
}

/// Whoever is told that a change was made may end a node for it: it must be one that nothing undoes.
fn check(shop: &Shop, id: u64, is_member: bool) {
    let voters = shop.world.ledger.voters();
    if voters.contains(&id) != is_member {
        let what = if is_member { "added" } else { "removed" };
        shop.fail(
            "members",
            format!("node {id} was said to be {what}, and {voters:?} vote"),
        );
    }
}

/// Asks until it is done. False if the id was used before.
async fn insist(shop: &Shop, ask: Ask) -> bool {
    let mut node = shop.world.roster.any(&shop.world);
    loop {
        match shop.ask(node, ask.clone()).await {
            Some(Answer::Changed) => return true,
            Some(Answer::IdUsed) => return false,
            Some(Answer::Refused(Some(leader))) => node = leader,
            _ => node = shop.world.roster.any(&shop.world),
        }
        shop.pause(RETRY_MS).await;
    }
}
