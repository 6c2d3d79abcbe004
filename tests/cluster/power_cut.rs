//! The power of all machines goes at once: real processes over file systems that keep what was synced and nothing else.
//!
//! Killed processes leave the page cache behind, so they say nothing about syncs. These disks lose it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;
use trolley::client::Client;

use crate::harness::{Cluster, Random, eventually};

mod disks;

use self::disks::Disks;

const ROUNDS: u64 = 3;
const WRITERS: u64 = 16;

/// Clients that put keys of their own, one after the other, until the power goes.
struct Writers {
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Vec<String>>,
}

impl Writers {
    fn start(client: &Client, round: u64) -> Self {
        let mut writers = Self {
            acknowledged: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        for writer in 0..WRITERS {
            let client = client.clone();
            let stop = Arc::clone(&writers.stop);
            let acknowledged = Arc::clone(&writers.acknowledged);
            writers.tasks.spawn(async move {
                let mut keys = Vec::new();
                for turn in 0.. {
                    let key = format!("{round}/{writer}/{turn}");
                    // The last one is not answered, for the power is gone.
                    let put = client.keys().put(&key, "v").send().await;
                    if stop.load(Ordering::Acquire) || put.is_err() {
                        break;
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    keys.push(key);
                }
                keys
            });
        }
        writers
    }

    async fn wait_for(&self, count: u64) {
        eventually("acknowledged puts", async || {
            self.acknowledged.load(Ordering::Relaxed) >= count
        })
        .await;
    }

    /// The keys whose puts were acknowledged. Nobody waits for answers of nodes that are gone.
    async fn keys(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        let keys = self.tasks.join_all().await;
        keys.into_iter().flatten().collect()
    }
}

/// Writes until the power goes, and what was acknowledged up to then. The nodes are back on their disks, and not started.
async fn write_until_the_power_goes(
    cluster: &mut Cluster,
    disks: &Disks,
    round: u64,
    count: u64,
) -> Vec<String> {
    // With little patience, so that it gives up soon what nobody will answer.
    let client = cluster.client().timeout(std::time::Duration::from_secs(2));
    let writers = Writers::start(&client, round);
    writers.wait_for(count).await;
    disks.cut_power();
    for node in cluster.nodes() {
        node.kill();
    }
    let keys = writers.keys().await;
    client.close().await;
    disks.restore_power();
    keys
}

/// Those of the keys that are not there.
async fn missing(client: &Client, keys: &[String]) -> Vec<String> {
    let mut missing = Vec::new();
    for key in keys {
        match client.keys().get(key).send().await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => missing.push(key.clone()),
            Err(error) => panic!("{key} cannot be read: {error}"),
        }
    }
    missing
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_cut_of_all_nodes() {
    let Some(disks) = Disks::new(3) else {
        return;
    };
    let mut random = Random::seeded();
    let mut cluster = Cluster::start_over(&disks.places(), &[], &[]).await;
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let count = 100 + random.below(1500);
        all.extend(write_until_the_power_goes(&mut cluster, &disks, round, count).await);
        for node in cluster.nodes() {
            node.start();
        }
        cluster.wait_for_leader().await;
        let client = cluster.client();
        assert_eq!(
            missing(&client, &all).await,
            [""; 0],
            "lost in round {round}"
        );
        client.close().await;
        cluster.wait_for_agreement().await;
    }
    println!("{} puts survived {ROUNDS} power cuts", all.len());
    drop(cluster);
}

/// The same with syncs that are lies: the test above would have found that writes are lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_a_power_cut_is_found_to_lose_writes() {
    let Some(disks) = Disks::new(3) else {
        return;
    };
    let mut cluster = Cluster::start_over(&disks.places(), &[], &disks.liar()).await;
    let client = cluster.client();
    let put = client.keys().put("synced", "v").send().await;
    put.expect("three nodes take a write");
    client.close().await;
    disks.lie();
    let keys = write_until_the_power_goes(&mut cluster, &disks, 0, 500).await;
    disks.tell_the_truth();
    for node in cluster.nodes() {
        node.start();
    }
    cluster.wait_for_leader().await;
    let client = cluster.client();
    assert_eq!(missing(&client, &["synced".to_owned()]).await, [""; 0]);
    let lost = missing(&client, &keys).await;
    println!(
        "{} of {} acknowledged puts are lost",
        lost.len(),
        keys.len()
    );
    assert!(!lost.is_empty(), "nothing was lost without syncs");
    client.close().await;
    drop(cluster);
}
