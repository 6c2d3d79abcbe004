//! Stable reasons, as clients meet them beside the command line: requests that make no sense and change nothing, what nodes
//! say of each other and of their own end, and that no reason is without a test that meets it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use futures::stream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use trolley::api::NO_FORWARD;
use trolley::api::status::{OutcomeRule, REASONS};
use trolley::client::{CartOwner, Client, Error, LineRef, Rejected};
use trolley::limits;
use trolley::proto::v1;
use trolley::proto::v1::cluster_service_client::ClusterServiceClient;
use trolley::proto::v1::exchange_service_client::ExchangeServiceClient;
use trolley::proto::v1::kv_service_client::KvServiceClient;
use trolley::proto::v1::operation::Request;
use trolley::proto::v1::outcome::Response;
use trolley::proto::v1::watch_service_client::WatchServiceClient;
use trolley::proto::v1::{PutKeyRequest, TransferLeaderRequest};

use crate::harness::{Cluster, PATIENCE, eventually};

/// Well formed, and no session's.
const ABSENT_TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn reason<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.reason().unwrap_or("no reason").to_owned(),
    }
}

async fn revision(client: &Client) -> u64 {
    let status = client.cluster().status().await.expect("a node answers");
    let revisions = status.nodes.iter().map(|node| node.revision);
    revisions.max().unwrap_or_default()
}

/// What is refused, and why.
async fn refusals(client: &Client) -> Vec<(&'static str, String, &'static str)> {
    let keys = client.keys();
    let carts = client.carts();
    let user = CartOwner::User("alice".to_owned());
    let full = CartOwner::User("full".to_owned());
    let add = |quantity| carts.add(&user, "sku", quantity).send();
    let priced = |currency: &str| carts.add(&user, "sku", 1).unit_price(100, currency).send();
    let line = || LineRef::Sku("sku".to_owned());
    let long_key = "k".repeat(limits::KEY_BYTES + 1);
    let long_value = vec![0_u8; limits::VALUE_BYTES + 1];
    vec![
        (
            "no key",
            reason(keys.put("", "v").send().await),
            "EMPTY_FIELD",
        ),
        (
            "no key to read",
            reason(keys.get("").send().await),
            "EMPTY_FIELD",
        ),
        (
            "a long key",
            reason(keys.put(long_key, "v").send().await),
            "FIELD_TOO_LONG",
        ),
        (
            "a large value",
            reason(keys.put("k", long_value).send().await),
            "FIELD_TOO_LONG",
        ),
        ("no pieces", reason(add(0).await), "OUT_OF_RANGE"),
        ("minus one piece", reason(add(-1).await), "OUT_OF_RANGE"),
        (
            "the fewest pieces",
            reason(add(i64::MIN).await),
            "OUT_OF_RANGE",
        ),
        (
            "the most pieces",
            reason(add(i64::MAX).await),
            "OUT_OF_RANGE",
        ),
        (
            "2^32 + 1 pieces",
            reason(add((1 << 32) + 1).await),
            "OUT_OF_RANGE",
        ),
        (
            "a sum too large",
            reason(carts.add(&full, "sku", 1).send().await),
            "QUANTITY_LIMIT",
        ),
        (
            "a quantity of zero",
            reason(carts.set_quantity(&full, line(), 0).send().await),
            "OUT_OF_RANGE",
        ),
        (
            "a line that is not there",
            reason(carts.remove(&user, line()).send().await),
            "CART_LINE_NOT_FOUND",
        ),
        (
            "an unknown currency",
            reason(priced("ZZZ").await),
            "MALFORMED",
        ),
        (
            "a currency in small letters",
            reason(priced("eur").await),
            "MALFORMED",
        ),
        (
            "a bad cursor",
            reason(keys.list().cursor("not a cursor").send().await),
            "BAD_CURSOR",
        ),
        (
            "no SKU",
            reason(carts.add(&user, "", 1).send().await),
            "EMPTY_FIELD",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_have_stable_reasons_and_change_nothing() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let full = CartOwner::User("full".to_owned());
    let most = i64::from(limits::QUANTITY_MAX);
    let added = client.carts().add(&full, "sku", most).send().await;
    added.expect("as many as are allowed");
    let before = revision(&client).await;

    for (what, found, expected) in refusals(&client).await {
        assert_eq!(found, expected, "{what}");
    }
    // The client library has no negative durations.
    let channel = cluster.channel(1).await;
    let request = PutKeyRequest {
        key: "k".to_owned(),
        ttl_ms: -1,
        ..PutKeyRequest::default()
    };
    assert_eq!(put(&channel, request, PATIENCE).await, "OUT_OF_RANGE");
    // Nor does it ask for two things of which only one can be.
    let request = PutKeyRequest {
        key: "k".to_owned(),
        if_absent: true,
        if_revision: Some(1),
        ..PutKeyRequest::default()
    };
    assert_eq!(put(&channel, request, PATIENCE).await, "EXCLUSIVE_FIELDS");

    assert_eq!(revision(&client).await, before, "something was changed");
    let cart = client.carts().get(&full).send().await;
    let cart = cart.expect("a cart can be read").value;
    assert_eq!(cart.lines[0].quantity, limits::QUANTITY_MAX);
    client.close().await;
}

/// An answer that told malformed tokens from unknown ones would help those who guess.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_answers_a_malformed_token_like_an_absent_one() {
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let absent = told_of(&client, ABSENT_TOKEN).await;
    for refused in &absent {
        assert_eq!(refused.reason, "SESSION_NOT_FOUND");
    }
    let long = "A".repeat(4000);
    for malformed in ["", "x", "!!!!", "\u{fc}", long.as_str()] {
        assert_eq!(told_of(&client, malformed).await, absent, "{malformed:?}");
    }
    client.close().await;
}

/// What each verb says of a token that names no session.
async fn told_of(client: &Client, token: &str) -> Vec<Rejected> {
    let sessions = client.sessions();
    let answers = [
        sessions.get(token).send().await.map(drop),
        sessions.touch(token).send().await.map(drop),
        sessions.destroy(token).send().await.map(drop),
        sessions.update(token).set("a", "b").send().await.map(drop),
    ];
    answers
        .into_iter()
        .map(|answer| {
            let error = answer.expect_err("it names no session");
            error.rejected().expect("a node refused it").clone()
        })
        .collect()
}

/// The reason of a failure, which has the code and the outcome that the table of reasons says.
fn reason_of(rejected: &Rejected) -> String {
    let row = REASONS.iter().find(|row| row.name == rejected.reason);
    let row = row.unwrap_or_else(|| panic!("not in the table: {rejected:?}"));
    assert_eq!(rejected.code, row.code, "{rejected:?}");
    if row.outcome != OutcomeRule::InMetadata {
        let outcome = rejected.metadata.get("outcome").map(String::as_str);
        assert_eq!(outcome, Some(row.outcome.as_str()), "{rejected:?}");
    }
    rejected.reason.clone()
}

/// What became of a call: a reason, that it was done, or that the transport gave up first.
fn told<T>(answer: Result<T, tonic::Status>) -> String {
    match answer.map_err(Rejected::from) {
        Ok(_) => "done".to_owned(),
        Err(rejected) if rejected.reason.is_empty() => "no answer".to_owned(),
        Err(rejected) => reason_of(&rejected),
    }
}

async fn put(node: &Channel, request: PutKeyRequest, patience: Duration) -> String {
    let mut request = tonic::Request::new(request);
    request.set_timeout(patience);
    told(KvServiceClient::new(node.clone()).put(request).await)
}

fn some_put() -> PutKeyRequest {
    PutKeyRequest {
        key: "k".to_owned(),
        value: "v".into(),
        ..PutKeyRequest::default()
    }
}

/// A put that is not sent on to the leader.
async fn put_here(node: &Channel) -> String {
    let mut request = tonic::Request::new(some_put());
    request.set_timeout(PATIENCE);
    let yes = MetadataValue::from_static("1");
    request.metadata_mut().insert(NO_FORWARD, yes);
    told(KvServiceClient::new(node.clone()).put(request).await)
}

/// The last index of the node's log, by its own word.
async fn log_end(node: &Channel, id: u64) -> u64 {
    let mut client = ClusterServiceClient::new(node.clone());
    let status = client.status(v1::StatusRequest {}).await;
    let nodes = status.expect("it answers").into_inner().nodes;
    let own = nodes.iter().find(|node| node.node_id == id);
    own.expect("it is among them").last_log_index
}

async fn get(node: &Channel, read: v1::ReadOptions, patience: Duration) -> String {
    let mut request = tonic::Request::new(v1::GetKeyRequest {
        read: Some(read),
        key: "k".to_owned(),
        ..v1::GetKeyRequest::default()
    });
    request.set_timeout(patience);
    told(KvServiceClient::new(node.clone()).get(request).await)
}

/// Of a revision that no store comes to.
fn far_ahead() -> v1::ReadOptions {
    v1::ReadOptions {
        consistency: v1::Consistency::AtLeastRevision.into(),
        min_revision: u64::MAX,
    }
}

/// Puts under these sequences, and what the last of them was answered.
async fn exchange(
    node: &Channel,
    client: u8,
    confirmed_below: u64,
    sequences: std::ops::RangeInclusive<u64>,
) -> String {
    let operations = sequences.clone().map(|sequence| v1::Operation {
        sequence,
        request: Some(Request::PutKey(some_put())),
    });
    let frame = v1::ExchangeRequest {
        client_id: vec![client; limits::CLIENT_ID_BYTES].into(),
        confirmed_below,
        operations: operations.collect(),
    };
    // The stream stays open until it is dropped.
    let frames = futures::StreamExt::chain(stream::iter([frame]), stream::pending());
    let answer = ExchangeServiceClient::new(node.clone())
        .exchange(frames)
        .await;
    let mut answers = answer.expect("a stream").into_inner();
    loop {
        let frame = answers.message().await.expect("it is whole");
        let outcomes = frame.expect("it is open").outcomes.into_iter();
        let mut last = outcomes.filter(|outcome| outcome.sequence == *sequences.end());
        match last
            .next()
            .map(|outcome| outcome.response.expect("an answer"))
        {
            Some(Response::Failure(failure)) => return reason_of(&failure.into()),
            Some(_) => return "done".to_owned(),
            None => {}
        }
    }
}

/// Clients that do not keep to what the exchange stream asks of them, and more watchers than a node takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_too_much_is_told_what() {
    let mut cluster = Cluster::start(1, &[]).await;
    let node = cluster.channel(1).await;
    assert_eq!(exchange(&node, 1, 5, 7..=7).await, "done");
    assert_eq!(exchange(&node, 1, 5, 3..=3).await, "SEQUENCE_CONFIRMED");
    let most = limits::CLIENT_WINDOW as u64;
    assert_eq!(exchange(&node, 2, 1, 1..=most).await, "done");
    let beyond = exchange(&node, 2, 1, most + 1..=most + 1).await;
    assert_eq!(beyond, "CLIENT_WINDOW_FULL");
    // Confirming makes room.
    let beyond = exchange(&node, 2, most, most + 1..=most + 1).await;
    assert_eq!(beyond, "done");

    let mut watchers = Vec::new();
    let watch = async |channel: &Channel| {
        let mut client = WatchServiceClient::new(channel.clone());
        client.watch(v1::WatchRequest::default()).await
    };
    let each = limits::HTTP2_STREAMS as usize;
    for _ in 0..limits::WATCHERS / each {
        let channel = cluster.channel(1).await;
        let opened = join_all((0..each).map(|_| watch(&channel))).await;
        watchers.extend(
            opened
                .into_iter()
                .map(|stream| stream.expect("there is room")),
        );
    }
    let another = watch(&node).await;
    assert_eq!(told(another), "WATCHERS_LIMIT");
    watchers.pop();
    eventually("room for another watcher", async || {
        watch(&node).await.is_ok()
    })
    .await;
}

/// What nodes say of a leader that is another, that does not answer, that is dead, or that there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_leader_is_told_apart() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let others = cluster.others(leader);
    let (to_leader, follower) = (
        cluster.channel(leader).await,
        cluster.channel(others[0]).await,
    );
    assert_eq!(put_here(&follower).await, "NOT_LEADER");
    let soon = Duration::from_millis(300);
    assert_eq!(get(&follower, far_ahead(), soon).await, "BEHIND_REVISION");

    // Asleep: it was sent there, and nobody knows what became of it when the leader dies.
    assert_eq!(put(&follower, some_put(), PATIENCE).await, "done");
    cluster.node(leader).pause();
    let (forwarded, ()) = tokio::join!(put(&follower, some_put(), PATIENCE), async {
        cluster.wait_for_leader_beside(leader).await;
        cluster.node(leader).kill();
    });
    assert_eq!(forwarded, "FORWARD_INTERRUPTED");
    cluster.node(leader).start();
    cluster.wait_until_caught_up(leader).await;

    // Dead, and not replaced: whoever would vote for another is asleep.
    let second = cluster.wait_for_leader().await;
    let rest = cluster.others(second);
    let follower = cluster.channel(rest[0]).await;
    assert_eq!(put(&follower, some_put(), PATIENCE).await, "done");
    cluster.node(rest[1]).pause();
    cluster.node(second).kill();
    eventually("a follower that cannot reach its leader", async || {
        put(&follower, some_put(), PATIENCE).await == "LEADER_UNREACHABLE"
    })
    .await;
    cluster.node(rest[1]).resume();

    // Alone.
    let (third, to_third) = loop {
        let third = cluster.wait_for_leader_beside(second).await;
        let to_third = cluster.channel(third).await;
        let last = if third == rest[0] { rest[1] } else { rest[0] };
        cluster.node(last).kill();
        match &*put(&to_third, some_put(), soon).await {
            "DEADLINE_EXCEEDED" => break (third, to_third),
            // The last one had just been elected when it died, on a machine that is slow to say so.
            "LEADERSHIP_LOST" | "NO_LEADER" | "NOT_LEADER" => cluster.node(last).start(),
            other => panic!("a leader without followers said {other}"),
        }
    };
    let linearizable = v1::ReadOptions::default();
    eventually("a leader that cannot confirm a read", async || {
        get(&to_third, linearizable, PATIENCE).await == "NO_QUORUM"
    })
    .await;
    cluster.node(third).kill();
    cluster.node(third).start();
    cluster.node(third).wait_until_listening().await;
    eventually("a node that knows no leader", async || {
        put(&to_third, some_put(), PATIENCE).await == "NO_LEADER"
    })
    .await;
    drop(to_leader);
}

/// A leader that was deposed in its sleep does not know what becomes of what it has in its log; a target that sleeps takes no
/// leadership; and a node that drains takes nothing new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leads_no_more_says_so() {
    let mut cluster = Cluster::start(3, &[]).await;
    let leader = cluster.wait_for_leader().await;
    let followers = cluster.others(leader);
    let node = cluster.channel(leader).await;
    let before = log_end(&node, leader).await;
    for id in &followers {
        cluster.node(*id).kill();
    }
    // It takes writes that nobody else has, and sleeps while the others come back and elect one of them.
    let depose = async {
        eventually("a write in its log", async || {
            log_end(&node, leader).await > before
        })
        .await;
        cluster.node(leader).pause();
        for id in &followers {
            cluster.node(*id).start();
        }
        cluster.wait_for_leader_beside(leader).await;
        cluster.node(leader).resume();
    };
    let (told_all, ()) = tokio::join!(join_all((0..20).map(|_| put_here(&node))), depose);
    for reason in &told_all {
        let expected = ["LEADERSHIP_LOST", "NOT_LEADER", "NO_LEADER"];
        assert!(expected.contains(&reason.as_str()), "{reason}");
    }
    let is_lost = told_all.iter().any(|reason| reason == "LEADERSHIP_LOST");
    assert!(is_lost, "{told_all:?}");
    cluster.wait_until_caught_up(leader).await;

    let leader = cluster.wait_for_leader().await;
    let target = cluster.others(leader)[0];
    let node = cluster.channel(leader).await;
    cluster.node(target).pause();
    let mut transfer = tonic::Request::new(TransferLeaderRequest {
        target_node_id: target,
    });
    transfer.set_timeout(Duration::from_secs(2));
    let transfer = ClusterServiceClient::new(node.clone())
        .transfer_leader(transfer)
        .await;
    assert_eq!(told(transfer), "TRANSFER_FAILED");
    cluster.node(target).resume();
    cluster.wait_until_caught_up(target).await;

    let leader = cluster.wait_for_leader().await;
    let node = cluster.channel(leader).await;
    let frame = v1::ExchangeRequest {
        client_id: vec![3; limits::CLIENT_ID_BYTES].into(),
        ..v1::ExchangeRequest::default()
    };
    let frames = futures::StreamExt::chain(stream::iter([frame]), stream::pending());
    let answers = ExchangeServiceClient::new(node).exchange(frames).await;
    let mut answers = answers.expect("a stream").into_inner();
    cluster.node(leader).ask_to_stop();
    let end = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break told::<()>(Err(status)),
        }
    };
    assert_eq!(end, "DRAINING");
    let status = cluster.node(leader).wait_for_exit().await;
    assert!(status.success(), "{status}");
}

/// A reason that no test meets may mean anything.
#[test]
fn every_reason_is_met_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = String::new();
    let mut folders = vec![root.join("tests/cluster")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Keys lie there, too.
            let is_text = |it: &OsStr| it == "rs" || it == "txt";
            if !path.extension().is_some_and(is_text) {
                continue;
            }
            let text = fs::read_to_string(&path).expect("it can be read");
            let (met, _) = text.split_once("const NEVER_MET").unwrap_or((&text, ""));
            tests.push_str(met);
        }
    }
    let names = |text: &str, name: &str| {
        let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
        text.split(|c| !is_part(c)).any(|word| word == name)
    };
    for row in REASONS {
        let met = names(&tests, row.name);
        match NEVER_MET.iter().find(|(name, _)| *name == row.name) {
            None => assert!(met, "no test on real processes meets {}", row.name),
            Some((name, unit)) => {
                assert!(!met, "{name} is met");
                let unit = fs::read_to_string(root.join(unit)).expect("it can be read");
                assert!(names(&unit, name), "{name} has no unit test");
            }
        }
    }
    assert!(
        NEVER_MET
            .iter()
            .all(|(name, _)| REASONS.iter().any(|row| row.name == *name))
    );
}

/// What no real process can be made to say at will, and the unit tests that say it.
const NEVER_MET: [(&str, &str); 5] = [
    ("MEMBERS_CHANGING", "src/api/status/tests.rs"),
    ("STOPPED", "src/api/status/tests.rs"),
    ("FAULT", "src/api/status/tests.rs"),
    ("NO_RANDOMNESS", "src/api/status/tests.rs"),
    ("FOREIGN_REPLY", "src/api/status/tests.rs"),
];
