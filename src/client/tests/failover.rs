//! Where operations go when nodes refuse, break, fall silent or are not there.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::{PATIENCE, Step, cluster, config, connect, dead_endpoint, elect, eventually};
use crate::client::{Client, ClientConfig, Consistency, Outcome};
use crate::types::Revision;

#[tokio::test(flavor = "multi_thread")]
async fn one_follower_and_a_dead_endpoint_are_enough_to_find_the_cluster() {
    let (fakes, store) = cluster(3).await;
    let endpoints = [dead_endpoint().await, fakes[2].address.clone()];
    let config = ClientConfig::new(endpoints).expect("they are well formed");
    let client = Client::connect(config.timeout(PATIENCE)).expect("the system has randomness");
    assert!(fakes.iter().all(|fake| fake.streams() == 0), "it is lazy");

    let reply = client.keys().put("a", "1").send().await.expect("one leads");

    assert_eq!((reply.node_id, store.applied("a")), (1, 1));
    assert_eq!(client.revision(), reply.revision);
    eventually("a stream to every member", || {
        fakes.iter().all(|fake| fake.streams() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_follows_the_hint_under_the_same_sequence() {
    let (fakes, store) = cluster(2).await;
    let client = connect(&fakes);
    client.keys().put("a", "1").send().await.expect("one leads");
    eventually("both streams", || fakes[1].streams() == 1).await;
    // The first node stepped down, and nobody has said so yet.
    let refusal = fakes[0].not_leader(&fakes[1]);
    fakes[0].script(move |_, _| Step::Fail(refusal.clone()));
    fakes[1].script(|_, _| Step::Serve);

    client.keys().put("b", "1").send().await.expect("two leads");

    let sequences = |at: usize| fakes[at].seen().last().map(|seen| seen.sequence);
    assert_eq!(sequences(0), Some(2));
    assert_eq!(sequences(1), Some(2));
    assert_eq!(store.applied("b"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_is_applied_once() {
    let (fakes, store) = cluster(3).await;
    fakes[0].script(|_, _| Step::ServeAndBreak);
    let client = connect(&fakes);
    let put = async { client.keys().put("a", "1").send().await };
    let (reply, ()) = tokio::join!(put, async {
        eventually("the write arrives", || !fakes[0].seen().is_empty()).await;
        elect(&fakes, 2, 1);
    });
    let reply = reply.expect("two leads");
    assert!(reply.replayed);
    assert_eq!((reply.node_id, store.applied("a")), (2, 1));
    let all = fakes.iter().flat_map(super::Fake::seen);
    let identities: HashSet<_> = all.map(|seen| (seen.client, seen.sequence)).collect();
    assert_eq!(identities.len(), 1, "every attempt is the same write");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_left_for_its_successor() {
    let (fakes, store) = cluster(3).await;
    let client = connect(&fakes);
    client.keys().put("a", "1").send().await.expect("one leads");
    fakes[0].mute(true);
    let start = Instant::now();
    let put = async { client.keys().put("b", "1").send().await };
    let (reply, ()) = tokio::join!(put, async {
        eventually("the write arrives", || fakes[0].seen().len() >= 2).await;
        // Whoever asks the third is sent to the second.
        elect(&fakes[1..], 2, 0);
    });
    assert_eq!(reply.expect("two leads").node_id, 2);
    assert_eq!(store.applied("b"), 1);
    // The news of a new leader beats the attempt timeout.
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_only_paused_leads_again() {
    let (fakes, store) = cluster(2).await;
    let client = connect(&fakes);
    client.keys().put("a", "1").send().await.expect("one leads");
    fakes[0].mute(true);
    let put = async { client.keys().put("b", "1").send().await };
    let (reply, ()) = tokio::join!(put, async {
        eventually("the follower is asked", || !fakes[1].seen().is_empty()).await;
        fakes[0].mute(false);
    });
    assert_eq!(reply.expect("one is back").node_id, 1);
    assert_eq!(store.applied("b"), 1);
    // From now on nothing goes by way of the follower.
    let asked = fakes[1].seen().len();
    for round in 0..20 {
        let key = format!("c{round}");
        client.keys().put(key, "1").send().await.expect("one leads");
    }
    assert_eq!(fakes[1].seen().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_in_a_hurry_notice_a_silent_leader_together() {
    let (fakes, _) = cluster(2).await;
    let client = connect(&fakes);
    client.keys().put("a", "1").send().await.expect("one leads");
    fakes[0].mute(true);
    let hurried = client.timeout(Duration::from_millis(50));
    let give_up = Instant::now() + PATIENCE;
    // Each deadline is shorter than the attempt timeout, but what they gave up is owed all the same.
    while client.leader_address().is_some() {
        assert!(Instant::now() < give_up, "the leader is still believed in");
        hurried.keys().put("b", "1").send().await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deposed_leader_keeps_goes_to_its_successor() {
    let (fakes, store) = cluster(2).await;
    let config = config(&fakes).attempt_timeout(PATIENCE);
    let client = Client::connect(config).expect("the system has randomness");
    client.keys().put("a", "1").send().await.expect("one leads");
    eventually("both streams", || fakes[1].streams() == 1).await;
    fakes[0].script(|_, _| Step::Ignore);
    let put = async { client.keys().put("b", "1").send().await };
    let (reply, ()) = tokio::join!(put, async {
        eventually("the write arrives", || fakes[0].seen().len() >= 2).await;
        fakes[1].script(|_, _| Step::Serve);
        fakes[1].announce(2, Some(&fakes[1]));
    });
    assert_eq!(reply.expect("two leads").node_id, 2);
    assert_eq!(store.applied("b"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_any_node_may_answer_are_spread() {
    let (fakes, _) = cluster(3).await;
    for fake in &fakes {
        fake.script(|_, _| Step::Serve);
    }
    let client = connect(&fakes);
    client.keys().put("a", "1").send().await.expect("one leads");
    eventually("all streams", || fakes.iter().all(|f| f.streams() == 1)).await;
    let give_up = Instant::now() + PATIENCE;
    // The client may learn of a stream a little later than the node that opened it.
    while fakes.iter().any(|fake| fake.seen().len() < 8) {
        assert!(Instant::now() < give_up, "some node is not read from");
        let reader = client.read_your_writes();
        let item = reader.keys().get("a").send().await.expect("all serve");
        assert_eq!(item.value.value, "1");
    }
    assert_eq!(client.revision(), Revision::new(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_leaves_a_node_that_lags() {
    let (fakes, _) = cluster(2).await;
    let behind = fakes[0].failure(Code::Unavailable, "BEHIND_REVISION", "not_applied");
    fakes[0].script(move |_, _| Step::Fail(behind.clone()));
    fakes[1].script(|_, _| Step::Serve);
    let client = connect(&fakes).consistency(Consistency::AtLeast(Revision::new(0)));
    for _ in 0..4 {
        let reply = client.keys().get("a").send().await.expect("two serves");
        assert_eq!(reply.node_id, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_not_used() {
    let (fakes, store) = cluster(2).await;
    let client = connect(&fakes[..1]);
    client.keys().put("a", "1").send().await.expect("one leads");
    eventually("both streams", || fakes[1].streams() == 1).await;
    drop(client);

    fakes[1].join_cluster("another");
    let client = connect(&fakes[..1]).timeout(Duration::from_millis(300));
    client.keys().put("b", "1").send().await.expect("one leads");
    fakes[0].announce(2, Some(&fakes[1]));
    fakes[0].script(|_, _| Step::Ignore);
    fakes[1].script(|_, _| Step::Serve);
    let error = client.keys().put("c", "1").send().await;
    assert!(error.is_err(), "nobody of this cluster answers");
    assert_eq!(store.applied("c"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_dropped_or_closed_leaves_no_stream() {
    let (fakes, _) = cluster(2).await;
    let client = connect(&fakes);
    client.keys().put("a", "1").send().await.expect("one leads");
    eventually("both streams", || fakes.iter().all(|f| f.streams() == 1)).await;
    drop(client);
    eventually("no streams", || fakes.iter().all(|f| f.streams() == 0)).await;

    let client = connect(&fakes);
    client.keys().put("b", "1").send().await.expect("one leads");
    let clone = client.clone();
    client.close().await;
    eventually("no streams", || fakes.iter().all(|f| f.streams() == 0)).await;
    let error = clone.keys().put("c", "1").send().await;
    let error = error.expect_err("the client is closed");
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
}
