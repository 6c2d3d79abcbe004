//! Many callers at once: batching, the window, abandoned calls, and what must not disturb others.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinSet;

use super::{PATIENCE, Step, cluster, config, connect, eventually};
use crate::client::{CartOwner, Client, LineRef, Outcome, Transport};
use crate::limits;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tasks_share_one_client() {
    const TASKS: u64 = 200;
    const ROUNDS: u64 = 20;
    let (fakes, store) = cluster(3).await;
    let client = connect(&fakes);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let client = client.clone();
        tasks.spawn(async move {
            for round in 0..ROUNDS {
                let key = format!("{task}-{round}");
                let put = client.keys().put(key.clone(), key.clone());
                put.send().await.expect("one leads");
                let get = client.keys().get(key.clone());
                let item = get.send().await.expect("one leads").value;
                // Each caller gets its own answer, although they come last first.
                assert_eq!((item.key, item.value), (key.clone(), key.into()));
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
    for task in 0..TASKS {
        for round in 0..ROUNDS {
            assert_eq!(store.applied(&format!("{task}-{round}")), 1);
        }
    }
    let seen = fakes[0].seen();
    assert_eq!(seen.len() as u64, 2 * TASKS * ROUNDS);
    assert!(fakes[0].frames() * 4 < seen.len(), "frames carry many");
    assert_eq!(fakes[0].streams(), 1);
    let below: Vec<_> = seen.iter().map(|seen| seen.confirmed_below).collect();
    assert!(below.is_sorted(), "what is confirmed stays confirmed");
    assert!(seen.iter().all(|s| s.confirmed_below <= s.sequence));
}

/// Frames that it takes for 256 callers to call so many times each. All share one thread, so that nothing but the client decides
/// who goes into which.
async fn frames_for<F>(rounds: usize, call: impl Fn(Client) -> F) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
    let (fakes, _) = cluster(1).await;
    let client = connect(&fakes);
    call(client.clone()).await;
    let before = fakes[0].frames();
    let mut callers = JoinSet::new();
    for _ in 0..256 {
        let calls: Vec<_> = (0..rounds).map(|_| call(client.clone())).collect();
        callers.spawn(async move {
            for call in calls {
                call.await;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("no caller fails");
    }
    fakes[0].frames() - before
}

#[tokio::test]
async fn reads_are_asked_in_halves_and_writes_together() {
    const ROUNDS: usize = 20;
    let reads = frames_for(ROUNDS, |client: Client| async move {
        client.keys().get("a").send().await.expect("one serves");
    });
    let writes = frames_for(ROUNDS, |client: Client| async move {
        client
            .keys()
            .put("a", "1")
            .send()
            .await
            .expect("one serves");
    });
    let (reads, writes) = (reads.await, writes.await);
    assert!(
        2 * writes < 3 * ROUNDS && 3 * ROUNDS < 2 * reads,
        "{ROUNDS} rounds took {writes} frames of writes and {reads} of reads"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_writes_stay_below_the_window() {
    let (fakes, store) = cluster(1).await;
    fakes[0].script(|_, _| Step::Ignore);
    let config = config(&fakes).attempt_timeout(PATIENCE);
    let client = Client::connect(config).expect("the system has randomness");
    let puts = (0..limits::CLIENT_WINDOW + 100).map(|n| {
        // Those that find the window full give up before it has room again.
        let has_room = n < limits::CLIENT_WINDOW - 1;
        let timeout = Duration::from_millis(if has_room { 3000 } else { 200 });
        let put = client.keys().put(format!("{n}"), "1");
        put.timeout(timeout).send()
    });
    let results = join_all(puts).await;

    let errors: Vec<_> = results
        .into_iter()
        .map(|result| result.expect_err("nothing is answered"))
        .collect();
    let not_sent = |error: &&crate::client::Error| error.outcome() == Outcome::NotApplied;
    assert_eq!(errors.iter().filter(not_sent).count(), 101);
    let sequences: HashSet<_> = fakes[0].seen().iter().map(|seen| seen.sequence).collect();
    assert_eq!(sequences.len(), limits::CLIENT_WINDOW - 1);
    // They were given up, and with that confirmed: there is room again.
    fakes[0].script(|_, _| Step::Serve);
    client
        .keys()
        .put("later", "1")
        .send()
        .await
        .expect("one serves");
    assert_eq!(store.applied("later"), 1);
    let last = fakes[0].seen().pop().expect("one was just served");
    assert_eq!(last.confirmed_below, last.sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_write_is_confirmed_and_disturbs_nobody() {
    let (fakes, _) = cluster(1).await;
    fakes[0].script(|nth, _| if nth == 0 { Step::Ignore } else { Step::Serve });
    let client = connect(&fakes);
    {
        let abandoned = client.keys().put("a", "1").send();
        let mut abandoned = std::pin::pin!(abandoned);
        let arrived = eventually("the write arrives", || !fakes[0].seen().is_empty());
        tokio::select! {
            _ = abandoned.as_mut() => panic!("nobody answers it"),
            () = arrived => {}
        }
    }
    client
        .keys()
        .put("b", "1")
        .send()
        .await
        .expect("one serves");
    let last = fakes[0].seen().pop().expect("one was just served");
    assert_eq!((last.sequence, last.confirmed_below), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_node_would_read_is_refused_here() {
    let (fakes, _) = cluster(1).await;
    let client = connect(&fakes);
    let huge = client.keys().put("a", vec![0; 3 << 20]).send().await;
    let error = huge.expect_err("it is too large");
    assert_eq!(error.reason(), Some("FIELD_TOO_LONG"));
    assert!(error.is_invalid());
    assert_eq!(error.outcome(), Outcome::NotApplied);
    // The largest values there are travel together, over frames that a node accepts.
    let value = vec![7; limits::VALUE_BYTES];
    let puts = (0..8).map(|n| client.keys().put(format!("{n}"), value.clone()).send());
    for result in join_all(puts).await {
        result.expect("one serves");
    }
    assert_eq!(fakes[0].seen().len(), 8, "no stream broke");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_too_many_parts_is_refused_here() {
    let (fakes, _) = cluster(1).await;
    for transport in [Transport::Exchange, Transport::Unary] {
        let client = Client::connect(config(&fakes).transport(transport));
        let client = client.expect("the system has randomness");
        let owner = CartOwner::User("ada".to_owned());
        let update = (0..30_000).fold(client.carts().update(&owner), |update, _| update.clear());
        let error = update.send().await.expect_err("it has too many actions");
        assert_eq!(error.reason(), Some("TOO_MANY"), "{error}");
        assert!(error.is_invalid());
        assert_eq!(error.outcome(), Outcome::NotApplied);
    }
    assert_eq!(fakes[0].seen().len(), 0, "nothing was sent");
}

/// Requests of many parts come together, in so few bytes that one frame would hold them all. On one thread, so that they do.
#[tokio::test]
async fn frames_have_no_more_parts_than_a_node_takes() {
    const UPDATES: usize = 180;
    let (fakes, _) = cluster(1).await;
    let client = connect(&fakes);
    client.keys().get("a").send().await.expect("one serves");
    let owner = CartOwner::User("ada".to_owned());
    let updates = (0..UPDATES).map(|_| {
        let all = 1..=limits::CART_ACTIONS as u64;
        let update = all.fold(client.carts().update(&owner), |update, line| {
            update.remove(LineRef::Id(line))
        });
        update.send()
    });
    for result in join_all(updates).await {
        result.expect("one serves");
    }
    assert_eq!(fakes[0].seen().len(), 1 + UPDATES, "no stream broke");
}
