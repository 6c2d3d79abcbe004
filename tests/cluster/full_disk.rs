//! Disks that are full: what is refused, what goes on, and that nobody is needed to end it.

use std::collections::BTreeMap;

use trolley::client::{CartOwner, Client, Error, LineRef, Outcome};
use trolley::proto::v1::{DiskRoom, NodeStatus};

use crate::harness::{Cluster, Kind, Load, can_mount, eventually};

/// Of each node's disk. What must be free is a tenth of it, and the ballast three quarters of that.
const DISK_BYTES: u64 = 256 << 20;

/// Waits until a node has so much room, as it says itself.
async fn room(cluster: &Cluster, id: u64, room: DiskRoom) {
    eventually("a node's room", async || {
        cluster.figures(id).await.disk_room() == room
    })
    .await;
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Error {
    let error = result.expect_err("there is no room for it");
    assert_eq!(error.reason(), Some("NO_SPACE"), "{error}");
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    error
}

/// Waits until writes succeed again, without anybody's help.
async fn wait_for_writes(client: &Client) {
    eventually("a write that is taken", async || {
        client.keys().put("again", "v").send().await.is_ok()
    })
    .await;
}

/// A key, and the request that puts it.
const RETRIED: &str = "retried";

/// What a test wrote before disks were full.
struct Written {
    keys: BTreeMap<String, u64>,
    token: String,
    doomed: String,
    owner: CartOwner,
}

async fn write(client: &Client) -> Written {
    let mut keys = BTreeMap::new();
    for number in 0..50 {
        let key = format!("key-{number}");
        let put = client.keys().put(&key, "v".repeat(1000)).send().await;
        keys.insert(key, put.expect("there is room").mod_revision);
    }
    let first = client.keys().put(RETRIED, "v").request_id(RETRIED);
    let first = first.send().await.expect("there is room");
    assert!(!first.replayed);
    let create = || {
        client
            .sessions()
            .create()
            .field("theme", "dark")
            .user("ada")
    };
    let session = create().send().await.expect("there is room");
    let doomed = create().send().await.expect("there is room");
    let owner = CartOwner::User("ada".to_owned());
    for sku in ["SKU-1", "SKU-2", "SKU-3"] {
        let added = client.carts().add(&owner, sku, 2).send().await;
        added.expect("there is room");
    }
    Written {
        keys,
        token: session.token.clone(),
        doomed: doomed.token.clone(),
        owner,
    }
}

impl Written {
    async fn check(&self, client: &Client) {
        for (key, revision) in &self.keys {
            let item = client.keys().get(key).send().await;
            let item = item.expect("it was acknowledged").value;
            assert_eq!(item.mod_revision, *revision, "{key}");
        }
        let session = client.sessions().get(&self.token).touch().send().await;
        session.expect("reads are served, those that touch as well");
        let cart = client.carts().get(&self.owner).send().await;
        assert!(!cart.expect("reads are served").value.lines.is_empty());
    }
}

/// Everything that does not make the store larger.
async fn delete(client: &Client, written: &mut Written) {
    let (keys, sessions, carts) = (client.keys(), client.sessions(), client.carts());
    let deleted = keys.delete("key-0").send().await;
    deleted.expect("a delete");
    written.keys.remove("key-0");
    let destroyed = sessions.destroy(&written.doomed).send().await;
    destroyed.expect("a session's end");
    let touched = sessions.touch(&written.token).send().await;
    touched.expect("a touch");
    let line = |sku: &str| LineRef::Sku(sku.to_owned());
    let set = carts.set_quantity(&written.owner, line("SKU-1"), 1).send();
    set.await.expect("fewer pieces");
    let removed = carts.remove(&written.owner, line("SKU-2")).send().await;
    removed.expect("a line's end");
    let txn = client.txn().then(keys.delete("key-1"));
    txn.send().await.expect("a transaction of deletes");
    written.keys.remove("key-1");
    let nobody = sessions.revoke_all("nobody").send().await;
    nobody.expect("a user's sessions' end");
}

/// Everything that does.
async fn grow(client: &Client, written: &Written) {
    let (keys, sessions, carts) = (client.keys(), client.sessions(), client.carts());
    // The leader hears of each with the next heartbeat.
    eventually("a refusal that names all nodes", async || {
        let put = keys.put("early", "v").send().await;
        put.is_err() && refusal(put).to_string().contains("nodes 1, 2, 3")
    })
    .await;
    refusal(keys.put("new", "v").send().await);
    // One that was applied has its reply.
    let again = keys.put(RETRIED, "v").request_id(RETRIED).send().await;
    assert!(again.expect("it was acknowledged").replayed);
    refusal(keys.increment("stock", 1).send().await);
    refusal(sessions.create().send().await);
    refusal(sessions.update(&written.token).set("a", "b").send().await);
    refusal(sessions.rotate(&written.token).user("ada").send().await);
    refusal(carts.add(&written.owner, "SKU-4", 1).send().await);
    let mixed = client
        .txn()
        .then(keys.delete("key-2"))
        .then(keys.put("new", "v"));
    refusal(mixed.send().await);
    refusal(
        client
            .leases()
            .grant(std::time::Duration::from_secs(9))
            .send()
            .await,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_refuse_growth_take_deletes_and_recover() {
    let test = "full_disk::full_disks_refuse_growth_take_deletes_and_recover";
    if can_mount(Kind::Tmpfs, test) {
        full_disks(Kind::Tmpfs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_do_so_on_ext4_as_well() {
    if can_mount(Kind::Ext4, "full_disk::full_disks_do_so_on_ext4_as_well") {
        full_disks(Kind::Ext4).await;
    }
}

async fn full_disks(kind: Kind) {
    let mut cluster = Cluster::start_on_small_disks(3, kind, DISK_BYTES, &[]).await;
    let client = cluster.client();
    let mut written = write(&client).await;
    for id in 1..=3 {
        cluster.disk(id).fill();
    }
    for id in 1..=3 {
        room(&cluster, id, DiskRoom::Short).await;
    }
    grow(&client, &written).await;
    delete(&client, &mut written).await;
    written.check(&client).await;

    // A node that is killed on a full disk comes back on it.
    let leader = cluster.wait_for_leader().await;
    for id in cluster.others(leader).into_iter().chain([leader]) {
        cluster.node(id).kill();
        cluster.disk(id).fill();
        cluster.node(id).start();
        cluster.wait_until_caught_up(id).await;
    }
    cluster.wait_for_leader().await;
    written.check(&client).await;
    let deleted = client.keys().delete("key-3").send().await;
    deleted.expect("a delete, on the last of the ballast");
    written.keys.remove("key-3");

    for id in 1..=3 {
        cluster.disk(id).empty();
    }
    wait_for_writes(&client).await;
    for id in 1..=3 {
        room(&cluster, id, DiskRoom::Ample).await;
        assert!(cluster.node(id).exit_code().is_none(), "node {id} went on");
    }
    written.check(&client).await;
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// Nobody else fills the disks: the store itself stops in time, and what is deleted makes room for something new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fills_its_disks_stops_in_time_and_deletes_make_room() {
    if !can_mount(
        Kind::Tmpfs,
        "full_disk::a_store_that_fills_its_disks_stops_in_time_and_deletes_make_room",
    ) {
        return;
    }
    // So that most of what is on the disks is what is stored.
    let flags = [
        "--snapshot-log-bytes",
        "1MiB",
        "--snapshot-keep-entries",
        "10",
    ];
    let mut cluster = Cluster::start_on_small_disks(3, Kind::Tmpfs, DISK_BYTES, &flags).await;
    let client = cluster.client();
    let mut revisions = BTreeMap::new();
    let value = |number: u64| {
        let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        // It cannot be compressed.
        bytes.take(8 << 10).flatten().collect::<Vec<u8>>()
    };
    let error = loop {
        let number = revisions.len() as u64;
        let put = client.keys().put(format!("large-{number}"), value(number));
        match put.send().await {
            Ok(put) => revisions.insert(number, put.mod_revision),
            Err(error) => break error,
        };
        assert!(number * (64 << 10) < DISK_BYTES, "it is all still taken");
    };
    refusal(Err::<(), _>(error));
    for id in 1..=3 {
        assert!(cluster.node(id).exit_code().is_none(), "node {id} goes on");
    }
    for (number, revision) in &revisions {
        let item = client.keys().get(format!("large-{number}")).send().await;
        let item = item.expect("it was acknowledged").value;
        assert_eq!(item.mod_revision, *revision);
        assert_eq!(item.value, value(*number));
    }
    for number in revisions.keys() {
        let deleted = client.keys().delete(format!("large-{number}")).send().await;
        deleted.expect("deletes are taken");
    }
    wait_for_writes(&client).await;
    cluster.wait_for_agreement().await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_full_disk_stops_nobody() {
    if !can_mount(Kind::Tmpfs, "full_disk::one_full_disk_stops_nobody") {
        return;
    }
    let mut cluster = Cluster::start_on_small_disks(3, Kind::Tmpfs, DISK_BYTES, &[]).await;
    let client = cluster.client();
    let leader = cluster.wait_for_leader().await;
    let load = Load::start(&client, "guest", 8);
    load.wait_for(200).await;

    // A follower's: it follows as long as it can, and comes back by itself.
    let follower = cluster.others(leader)[0];
    cluster.disk(follower).fill();
    room(&cluster, follower, DiskRoom::Short).await;
    load.wait_for(1000).await;
    cluster.disk(follower).empty();
    room(&cluster, follower, DiskRoom::Ample).await;
    cluster.wait_until_caught_up(follower).await;

    // The leader's: it hands over, and nobody is refused meanwhile.
    let leader = cluster.wait_for_leader().await;
    cluster.disk(leader).fill();
    cluster.wait_for_leader_beside(leader).await;
    load.wait_for(1000).await;
    cluster.disk(leader).empty();
    room(&cluster, leader, DiskRoom::Ample).await;

    load.stop_and_check().await;
    for id in 1..=3 {
        assert!(cluster.node(id).exit_code().is_none(), "node {id} went on");
    }
    let nodes: Vec<NodeStatus> = cluster.wait_for_agreement().await;
    assert_eq!(nodes.len(), 3);
    client.close().await;
}

/// A follower's disk is filled so often that nothing is left: it falls behind, stays alive, and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_a_block_falls_behind_and_catches_up() {
    if !can_mount(
        Kind::Tmpfs,
        "full_disk::a_follower_without_a_block_falls_behind_and_catches_up",
    ) {
        return;
    }
    let mut cluster = Cluster::start_on_small_disks(3, Kind::Tmpfs, DISK_BYTES, &[]).await;
    let client = cluster.client();
    let leader = cluster.wait_for_leader().await;
    let follower = cluster.others(leader)[0];
    let load = Load::start(&client, "guest", 4);
    eventually("a full node", async || {
        cluster.disk(follower).fill();
        cluster.figures(follower).await.disk_room() == DiskRoom::Full
    })
    .await;
    let last = cluster.figures(follower).await.last_log_index;
    load.wait_for(2000).await;
    let figures = cluster.figures(follower).await;
    assert!(
        figures.last_log_index < last + 1000,
        "it takes no more: {figures:?}"
    );
    assert!(cluster.node(follower).exit_code().is_none(), "it goes on");
    cluster.disk(follower).empty();
    load.stop_and_check().await;
    cluster.wait_until_caught_up(follower).await;
    cluster.wait_for_agreement().await;
    client.close().await;
}
