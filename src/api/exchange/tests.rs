//! The stream against a node in memory.

mod carts;
mod txn;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{FutureExt as _, SinkExt as _};
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::api::testing::MemoryNode;
use crate::proto::v1::outcome::Response as Body;
use crate::proto::v1::{self, Operation, Outcome, operation::Request as Op};

type Sent = mpsc::Sender<Result<ExchangeRequest, Status>>;

/// A client's end of a stream.
struct Client {
    api: Api<MemoryNode>,
    node: MemoryNode,
    send: Sent,
    stream: Exchange<MemoryNode, mpsc::Receiver<Result<ExchangeRequest, Status>>>,
}

impl Client {
    async fn connect(node: MemoryNode) -> Self {
        let api = Api::new(node.clone());
        let (send, frames) = mpsc::channel(16);
        let stream = Exchange::new(&api, frames);
        let mut client = Self {
            api,
            node,
            send,
            stream,
        };
        let first = client.frame().await;
        assert!(
            first.header.is_some() && first.outcomes.is_empty(),
            "the header comes first"
        );
        client
    }

    async fn send(&mut self, operations: Vec<Operation>) {
        let frame = ExchangeRequest {
            client_id: Bytes::from_static(&[5; 16]),
            confirmed_below: 0,
            operations,
        };
        self.send.send(Ok(frame)).await.expect("the stream is open");
    }

    async fn next(&mut self) -> Option<Result<ExchangeResponse, Status>> {
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, self.stream.next())
            .await
            .expect("the stream is not stuck")
    }

    async fn frame(&mut self) -> ExchangeResponse {
        self.next().await.expect("not ended").expect("not failed")
    }

    /// The outcomes of `count` operations, by sequence.
    async fn outcomes(&mut self, count: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while outcomes.len() < count {
            outcomes.extend(self.frame().await.outcomes);
        }
        assert_eq!(outcomes.len(), count, "an outcome too many");
        outcomes.sort_by_key(|outcome| outcome.sequence);
        outcomes
    }

    async fn end(&mut self) -> Status {
        loop {
            match self.next().await.expect("a status comes first") {
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    }

    /// The stream waits for something.
    fn is_idle(&mut self) -> bool {
        // The first look may be spent on lingering.
        let first = self.stream.next().now_or_never();
        first.is_none() && self.stream.next().now_or_never().is_none()
    }
}

fn operation(sequence: u64, request: Op) -> Operation {
    Operation {
        sequence,
        request: Some(request),
    }
}

fn put(sequence: u64, key: &str, value: impl Into<Bytes>) -> Operation {
    let request = v1::PutKeyRequest {
        key: key.to_owned(),
        value: value.into(),
        ..Default::default()
    };
    operation(sequence, Op::PutKey(request))
}

fn get(sequence: u64, key: &str, consistency: v1::Consistency) -> Operation {
    let request = v1::GetKeyRequest {
        key: key.to_owned(),
        read: Some(v1::ReadOptions {
            consistency: consistency.into(),
            min_revision: 0,
        }),
        ..Default::default()
    };
    operation(sequence, Op::GetKey(request))
}

fn failure(outcome: &Outcome) -> &v1::Failure {
    match &outcome.response {
        Some(Body::Failure(failure)) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map_or(String::new(), |info| info.reason)
}

#[tokio::test]
async fn every_operation_of_a_mixed_frame_has_one_outcome() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![put(1, "a", "x")]).await;
    assert!(matches!(
        client.outcomes(1).await[0].response,
        Some(Body::PutKey(_))
    ));
    client
        .send(vec![
            put(2, "b", "y"),
            get(3, "a", v1::Consistency::Linearizable),
            put(4, "", "bad"),
            get(5, "a", v1::Consistency::Stale),
            get(6, "absent", v1::Consistency::AtLeastRevision),
            Operation {
                sequence: 7,
                request: None,
            },
        ])
        .await;
    let outcomes = client.outcomes(6).await;
    let sequences: Vec<u64> = outcomes.iter().map(|outcome| outcome.sequence).collect();
    assert_eq!(sequences, [2, 3, 4, 5, 6, 7]);
    assert!(matches!(outcomes[0].response, Some(Body::PutKey(_))));
    for read in [&outcomes[1], &outcomes[3]] {
        let Some(Body::GetKey(found)) = &read.response else {
            panic!("{read:?}")
        };
        assert_eq!(found.item.as_ref().expect("it was put").value, "x");
        assert!(read.revision >= 1);
    }
    assert_eq!(failure(&outcomes[2]).reason, "EMPTY_FIELD");
    assert_eq!(failure(&outcomes[4]).reason, "KEY_NOT_FOUND");
    assert_eq!(failure(&outcomes[5]).reason, "EMPTY_FIELD");
}

#[tokio::test]
async fn a_sequence_sent_again_is_a_replay() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![put(1, "a", "x")]).await;
    let first = client.outcomes(1).await;
    client.send(vec![put(1, "a", "x"), put(2, "a", "y")]).await;
    let again = client.outcomes(2).await;
    assert!(again[0].replayed && !again[1].replayed);
    assert_eq!(again[0].response, first[0].response);
    client.send(vec![put(2, "a", "other")]).await;
    assert_eq!(
        failure(&client.outcomes(1).await[0]).reason,
        "REQUEST_ID_REUSED"
    );
}

#[tokio::test]
async fn nothing_waits_for_an_earlier_frame() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.node.hold(true);
    client.send(vec![put(1, "a", "x")]).await;
    client.send(vec![get(2, "a", v1::Consistency::Stale)]).await;
    assert_eq!(client.outcomes(1).await[0].sequence, 2);
    client.node.hold(false);
    assert_eq!(client.outcomes(1).await[0].sequence, 1);
}

#[tokio::test]
async fn a_stream_is_not_read_beyond_its_bound() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.node.hold(true);
    let frame = |n: usize| {
        let first = n * limits::FRAME_OPERATIONS;
        let sequences = first..first + limits::FRAME_OPERATIONS;
        sequences
            .map(|sequence| put(sequence as u64 + 1, "k", "v"))
            .collect()
    };
    for n in 0..3 {
        client.send(frame(n)).await;
    }
    assert!(client.is_idle());
    assert_eq!(client.node.proposed(), limits::STREAM_IN_FLIGHT);
    client.node.hold(false);
    let outcomes = client.outcomes(3 * limits::FRAME_OPERATIONS).await;
    let answered = outcomes
        .iter()
        .filter(|o| matches!(o.response, Some(Body::PutKey(_))))
        .count();
    // What goes beyond the client's window of unconfirmed replies is refused by the state machine.
    assert_eq!(answered, limits::CLIENT_WINDOW);
}

#[tokio::test]
async fn writes_in_flight_are_bounded_by_bytes_too() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.node.hold(true);
    let value = Bytes::from(vec![0; limits::VALUE_BYTES]);
    let frames = limits::STREAM_IN_FLIGHT_BYTES / limits::VALUE_BYTES + 4;
    for sequence in 1..=8 {
        client
            .send(vec![
                put(sequence, "k", value.clone()),
                put(sequence + 100, "l", value.clone()),
            ])
            .await;
    }
    assert!(frames > 16 && client.is_idle());
    let proposed = client.node.proposed() * limits::VALUE_BYTES;
    assert!(
        proposed <= limits::STREAM_IN_FLIGHT_BYTES + 2 * limits::VALUE_BYTES,
        "{proposed}"
    );
    client.node.hold(false);
    client.outcomes(16).await;
}

#[tokio::test]
async fn large_answers_are_cut_into_frames_that_a_client_accepts() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let value = Bytes::from(vec![7; limits::VALUE_BYTES]);
    for n in 0..3 {
        client
            .send(vec![put(n + 1, &format!("k{n}"), value.clone())])
            .await;
        client.outcomes(1).await;
    }
    let list = |sequence| operation(sequence, Op::ListKeys(v1::ListKeysRequest::default()));
    client.send((10..30).map(list).collect()).await;
    let mut answered = 0;
    while answered < 20 {
        let frame = client.frame().await;
        assert!(
            frame.encoded_len() < limits::MESSAGE_BYTES,
            "{}",
            frame.encoded_len()
        );
        answered += frame.outcomes.len();
    }
}

#[tokio::test]
async fn a_follower_names_the_leader_and_serves_reads() {
    let mut client = Client::connect(MemoryNode::follower(Some("leader:7400"))).await;
    client
        .send(vec![put(1, "a", "x"), get(2, "a", v1::Consistency::Stale)])
        .await;
    let outcomes = client.outcomes(2).await;
    let refused = failure(&outcomes[0]);
    assert_eq!(
        (refused.reason.as_str(), refused.code),
        ("NOT_LEADER", Code::Unavailable.into())
    );
    assert_eq!(refused.metadata["leader_address"], "leader:7400");
    assert_eq!(refused.metadata["outcome"], "not_applied");
    assert_eq!(failure(&outcomes[1]).reason, "KEY_NOT_FOUND");
}

#[tokio::test]
async fn a_change_of_leader_is_told_at_once() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.node.follow(Some("other:7400"));
    let header = client.frame().await.header.expect("leadership changed");
    assert_eq!(
        (header.leader_id, header.leader_address.as_str()),
        (2, "other:7400")
    );
    client.node.follow(None);
    let header = client.frame().await.header.expect("leadership changed");
    assert_eq!((header.leader_id, header.leader_address.as_str()), (0, ""));
}

#[tokio::test]
async fn a_deposed_leader_does_not_make_new_failures_wait_behind_hanging_writes() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.node.hold(true);
    client.send(vec![put(1, "a", "x")]).await;
    assert!(client.is_idle());
    client.node.follow(Some("other:7400"));
    client.send(vec![put(2, "a", "y")]).await;
    let outcomes = client.outcomes(1).await;
    assert_eq!(
        (outcomes[0].sequence, failure(&outcomes[0]).reason.as_str()),
        (2, "NOT_LEADER")
    );
    client.node.hold(false);
    assert_eq!(client.outcomes(1).await[0].sequence, 1);
}

#[tokio::test]
async fn a_frame_without_a_client_ends_the_stream() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let frame = ExchangeRequest {
        operations: vec![put(1, "a", "x")],
        ..Default::default()
    };
    client
        .send
        .send(Ok(frame))
        .await
        .expect("the stream is open");
    let status = client.end().await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "MALFORMED")
    );
    assert!(client.next().await.is_none());
    assert_eq!(client.node.proposed(), 0);
}

#[tokio::test]
async fn a_frame_of_too_many_operations_ends_the_stream() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let operations = limits::FRAME_OPERATIONS as u64 + 1;
    client
        .send(
            (0..operations)
                .map(|sequence| put(sequence, "k", "v"))
                .collect(),
        )
        .await;
    let status = client.end().await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "TOO_MANY")
    );
    assert_eq!(client.node.proposed(), 0);
}

#[tokio::test]
async fn the_client_id_is_needed_once() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![put(1, "a", "x")]).await;
    client.outcomes(1).await;
    let frame = ExchangeRequest {
        operations: vec![put(1, "a", "x")],
        ..Default::default()
    };
    client
        .send
        .send(Ok(frame))
        .await
        .expect("the stream is open");
    assert!(client.outcomes(1).await[0].replayed);
}

#[tokio::test]
async fn a_caller_that_is_done_gets_its_last_outcomes() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.node.hold(true);
    client.send(vec![put(1, "a", "x")]).await;
    client.send.close_channel();
    assert!(client.is_idle());
    client.node.hold(false);
    assert_eq!(client.outcomes(1).await[0].sequence, 1);
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.node.hold(true);
    client.send(vec![put(1, "a", "x")]).await;
    assert!(client.is_idle());
    let api = client.api.clone();
    let finished = api.finish();
    tokio::pin!(finished);
    assert!(
        finished.as_mut().now_or_never().is_none(),
        "a stream is open"
    );
    client.send(vec![put(2, "a", "never read")]).await;
    client.node.hold(false);
    assert_eq!(client.outcomes(1).await[0].sequence, 1);
    let status = client.end().await;
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "DRAINING")
    );
    assert_eq!(client.node.proposed(), 1);
    drop(client);
    finished.await;
}

#[tokio::test]
async fn replies_that_arrive_one_by_one_share_a_frame() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let operations: Vec<_> = (1..=100).map(|sequence| put(sequence, "k", "v")).collect();
    client.send(operations).await;
    let frame = client.frame().await;
    assert_eq!(frame.outcomes.len(), 100);
    assert!(
        frame.header.is_none(),
        "nothing about leadership has changed"
    );
}
