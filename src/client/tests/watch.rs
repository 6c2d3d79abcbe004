//! Watches over nodes that break off, fall silent, and send things twice.

use futures::TryStreamExt as _;

use super::*;
use crate::client::{Error, Watched};
use crate::proto::v1;
use crate::types::{NodeId, Revision};

fn message(places: &[(u64, u32)], progress_revision: u64) -> v1::WatchResponse {
    let event = |(revision, position): &(u64, u32)| v1::Event {
        revision: *revision,
        position: *position,
        ..v1::Event::default()
    };
    v1::WatchResponse {
        events: places.iter().map(event).collect(),
        progress_revision,
        ..v1::WatchResponse::default()
    }
}

/// The places of so many events.
async fn places(
    stream: &mut (impl futures::Stream<Item = Result<Watched, Error>> + Unpin),
    count: usize,
) -> Vec<(u64, u32)> {
    let mut places = Vec::new();
    while places.len() < count {
        let next = tokio::time::timeout(PATIENCE, stream.try_next()).await;
        let watched = next.expect("the stream is not stuck").expect("no error");
        if let Watched::Event(event) = watched.expect("not ended") {
            places.push((event.revision, event.position));
        }
    }
    places
}

/// Once every node has a stream, so that the order in which they are asked is known.
async fn all_open(client: &Client, fakes: &[Fake]) {
    client.core.shared().directory.call();
    let open = || fakes.iter().all(|fake| fake.streams() > 0);
    eventually("a stream to every node", open).await;
}

#[tokio::test]
async fn a_watch_goes_on_at_another_node_with_nothing_lost_or_doubled() {
    let (fakes, _store) = cluster(2).await;
    // Each breaks off twice, in the middle of a revision, and sends what it sent before.
    for fake in &fakes {
        fake.watch_script(|start| match start {
            0 => (vec![message(&[], 4), message(&[(5, 0), (6, 0)], 5)], false),
            6 => (
                vec![message(&[(6, 0), (6, 1)], 6), message(&[(7, 0)], 7)],
                false,
            ),
            8 => (vec![message(&[(8, 0)], 8), message(&[(9, 0)], 9)], true),
            other => panic!("nobody should ask for {other}"),
        });
    }
    let client = connect(&fakes);
    all_open(&client, &fakes).await;
    let mut stream = client.watch().stream();
    let expected = [(5, 0), (6, 0), (6, 1), (7, 0), (8, 0), (9, 0)];
    assert_eq!(places(&mut stream, expected.len()).await, expected);
    let asked: Vec<_> = fakes.iter().map(Fake::watch_starts).collect();
    let mut starts: Vec<_> = asked.concat();
    starts.sort_unstable();
    assert_eq!(starts, [0, 6, 8]);
    assert_eq!(client.revision().get(), 9, "what was watched was seen");
    // It was not the same node each time.
    assert!(asked.iter().all(|starts| !starts.is_empty()), "{asked:?}");
    client.close().await;
}

#[tokio::test]
async fn the_wanted_node_is_asked_first_and_another_when_it_is_lost() {
    let (fakes, _store) = cluster(3).await;
    for fake in &fakes {
        fake.watch_script(|start| (vec![message(&[(start, 0)], start)], start == 2));
    }
    let client = connect(&fakes);
    // Not a stream is open yet: it is waited for.
    let wanted = NodeId::new(3).expect("above 0");
    let watch = client.watch().from(Revision::new(1)).at(wanted);
    assert_eq!(places(&mut watch.stream(), 2).await, [(1, 0), (2, 0)]);
    assert_eq!(fakes[2].watch_starts(), [1]);
    let elsewhere = [fakes[0].watch_starts(), fakes[1].watch_starts()];
    assert_eq!(elsewhere.concat(), [2]);
    // One that nobody knows is no reason not to watch.
    let nobody = NodeId::new(9).expect("above 0");
    let watch = client.watch().from(Revision::new(2)).at(nobody);
    assert_eq!(places(&mut watch.stream(), 1).await, [(2, 0)]);
    client.close().await;
}

#[tokio::test]
async fn watches_that_nobody_reads_hold_up_no_other() {
    let (fakes, _store) = cluster(1).await;
    // More than a connection's usual window.
    fakes[0].watch_script(|start| match start {
        1 => {
            let event = v1::Event {
                namespace: "n".repeat(100 << 10),
                ..v1::Event::default()
            };
            let filled = v1::WatchResponse {
                events: vec![event],
                ..v1::WatchResponse::default()
            };
            (vec![filled; 60], true)
        }
        _ => (vec![message(&[(2, 0)], 2)], true),
    });
    let client = connect(&fakes);
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut stream = client.watch().from(Revision::new(1)).stream();
        stream.try_next().await.expect("it was told");
        unread.push(stream);
    }
    let mut read = client.watch().from(Revision::new(2)).stream();
    assert_eq!(places(&mut read, 1).await, [(2, 0)]);
    assert_eq!(fakes[0].watch_starts(), [1, 1, 1, 1, 2]);
    client.close().await;
}

#[tokio::test]
async fn a_silent_node_is_left() {
    let (fakes, _store) = cluster(2).await;
    for fake in &fakes {
        fake.watch_script(|start| match start {
            3 => (vec![message(&[(3, 0)], 3)], true),
            _ => (vec![message(&[(4, 0)], 4)], true),
        });
    }
    let client = connect(&fakes);
    all_open(&client, &fakes).await;
    let watch = client.watch().from(Revision::new(3));
    let mut stream = watch.progress_interval(Duration::from_millis(100)).stream();
    assert_eq!(places(&mut stream, 2).await, [(3, 0), (4, 0)]);
    client.close().await;
}

#[tokio::test]
async fn what_no_node_can_do_ends_the_stream() {
    let (fakes, _store) = cluster(1).await;
    fakes[0].watch_script(|_| (Vec::new(), false));
    fakes[0].watch_refusal(tonic::Status::out_of_range("compacted"));
    let client = connect(&fakes);
    let mut stream = client.watch().from(Revision::new(1)).stream();
    let error = stream.try_next().await.expect_err("it is refused");
    assert_eq!(
        error.rejected().expect("by a node").code,
        tonic::Code::OutOfRange
    );
    assert!(stream.try_next().await.expect("no error").is_none());
    client.close().await;
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_told_of_and_waited_for() {
    let address = dead_endpoint().await;
    let config = ClientConfig::new([address]).expect("it is well formed");
    let config = config.timeout(Duration::from_millis(200));
    let client = Client::connect(config).expect("the system has randomness");
    let mut stream = client.watch().stream();
    for _ in 0..2 {
        let error = stream.try_next().await.expect_err("nobody is there");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.is_retryable());
    }
    client.close().await;
    let error = stream.try_next().await.expect_err("the client is closed");
    assert!(matches!(error, Error::Closed { .. }), "{error:?}");
    assert!(stream.try_next().await.expect("no error").is_none());
}
