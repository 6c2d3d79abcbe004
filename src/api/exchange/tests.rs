//! The stream against a node in memory.

mod carts;
mod tokens;
mod txn;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{FutureExt as _, SinkExt as _};
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::api::parse::{Origin, Parsed};
use crate::api::testing::MemoryNode;
use crate::node::ReadMode;
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

/// Who is refused has seen the state that led to it, as much as who is answered.
#[tokio::test]
async fn a_refusal_names_the_revision_that_it_saw() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![put(1, "a", "x"), put(2, "a", "y")]).await;
    client.outcomes(2).await;
    let create = v1::PutKeyRequest {
        key: "a".to_owned(),
        if_absent: true,
        ..Default::default()
    };
    client
        .send(vec![
            get(3, "absent", v1::Consistency::Linearizable),
            get(4, "absent", v1::Consistency::Stale),
            operation(5, Op::PutKey(create)),
            put(6, "", "bad"),
        ])
        .await;
    let outcomes = client.outcomes(4).await;
    let refused = |outcome: &Outcome| (failure(outcome).reason.clone(), outcome.revision);
    let refused: Vec<_> = outcomes.iter().map(refused).collect();
    let expected = [
        ("KEY_NOT_FOUND", 2),
        ("KEY_NOT_FOUND", 2),
        ("KEY_EXISTS", 2),
        ("EMPTY_FIELD", 0),
    ];
    assert_eq!(
        refused,
        expected.map(|(reason, at)| (reason.to_owned(), at))
    );
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

fn token(nth: u8) -> String {
    crate::types::SessionToken::from_bytes(vec![nth; 32]).expose()
}

fn create_session(sequence: u64, nth: u8, user: &str) -> Operation {
    let request = v1::CreateSessionRequest {
        token: token(nth),
        user_id: user.to_owned(),
        idle_ttl_ms: 1000,
        ..Default::default()
    };
    operation(sequence, Op::CreateSession(request))
}

fn get_session(sequence: u64, nth: u8, touch: bool) -> Operation {
    let request = v1::GetSessionRequest {
        token: token(nth),
        touch,
        ..Default::default()
    };
    operation(sequence, Op::GetSession(request))
}

fn last_seen(outcome: &Outcome) -> u64 {
    match &outcome.response {
        Some(Body::GetSession(got)) => got.session.as_ref().expect("a session").last_seen_ms,
        other => panic!("no session: {other:?}"),
    }
}

#[tokio::test]
async fn a_read_touches_only_what_is_due() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client
        .send(vec![create_session(1, 1, ""), create_session(2, 2, "")])
        .await;
    client.outcomes(2).await;
    client.send(vec![get_session(3, 1, true)]).await;
    let born = last_seen(&client.outcomes(1).await[0]);
    assert_eq!(client.node.proposed(), 2, "it was seen a moment ago");

    // Log time stands still where nothing is written; the clock does not.
    client.node.advance(100);
    client
        .send(vec![
            get_session(4, 1, true),
            get_session(5, 2, false),
            get_session(6, 3, true),
        ])
        .await;
    let outcomes = client.outcomes(3).await;
    assert_eq!(last_seen(&outcomes[0]), born + 100);
    assert_eq!(last_seen(&outcomes[1]), born);
    assert_eq!(failure(&outcomes[2]).reason, "SESSION_NOT_FOUND");
    assert_eq!(client.node.proposed(), 3);

    client.node.advance(1200);
    client.send(vec![get_session(7, 1, true)]).await;
    let outcome = &client.outcomes(1).await[0];
    assert_eq!(failure(outcome).reason, "SESSION_NOT_FOUND", "too late");
}

#[tokio::test]
async fn a_touch_gives_its_read_no_more_time() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![create_session(1, 1, "")]).await;
    client.outcomes(1).await;
    client.node.advance(500);
    client.node.hold(true);
    let request = get_session(2, 1, true).request.expect("it was just made");
    let parsed = crate::api::parse::operation(request, Origin::Unary);
    let Ok(Parsed::Read(read)) = parsed else {
        panic!("no read: {parsed:?}");
    };
    let (mut reads, mut outbox) = (Reads::new(client.node.clone()), Outbox::default());
    // As it stands when the barrier took nearly all of the time.
    let deadline = Instant::now() + Duration::from_millis(50);
    reads.start(ReadMode::Stale, [(2, read.query)].into(), deadline);
    let answered = std::future::poll_fn(|cx| {
        reads.poll(cx, &mut outbox);
        if outbox.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(outbox.take())
    });
    let patience = Duration::from_millis(limits::REQUEST_DEADLINE_MS / 2);
    let outcomes = tokio::time::timeout(patience, answered).await;
    let outcomes = outcomes.expect("its deadline is long over");
    assert_eq!(failure(&outcomes[0]).reason, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_touch_that_cannot_be_proposed_fails_its_read() {
    let mut client = Client::connect(MemoryNode::leader()).await;
    client.send(vec![create_session(1, 1, "")]).await;
    client.outcomes(1).await;
    client.node.advance(500);
    client.node.follow(Some("host:1"));
    client
        .send(vec![get_session(2, 1, true), get_session(3, 1, false)])
        .await;
    let outcomes = client.outcomes(2).await;
    assert_eq!(failure(&outcomes[0]).reason, "NOT_LEADER");
    assert!(matches!(outcomes[1].response, Some(Body::GetSession(_))));
}

fn rotate(nth: u8) -> v1::RotateSessionRequest {
    v1::RotateSessionRequest {
        token: token(1),
        new_token: token(nth),
        user_id: "ann".to_owned(),
        ..Default::default()
    }
}

/// A user with two sessions, of which the one with token 4 is newer; its rotation ended the oldest of three.
async fn logged_in() -> (Client, v1::RotateSessionResponse) {
    let mut client = Client::connect(MemoryNode::leader()).await;
    let limit = v1::SetNamespaceRequest {
        settings: Some(v1::NamespaceSettings {
            session: Some(v1::SessionSettings {
                max_per_user: Some(2),
                ..Default::default()
            }),
            ..Default::default()
        }),
        if_revision: Some(0),
        ..Default::default()
    };
    let undrawn = v1::RotateSessionRequest {
        new_token: String::new(),
        ..rotate(4)
    };
    client
        .send(vec![
            operation(1, Op::SetNamespace(Box::new(limit))),
            create_session(2, 1, ""),
            create_session(3, 2, "ann"),
            create_session(4, 3, "ann"),
            operation(5, Op::RotateSession(Box::new(undrawn))),
            operation(6, Op::RotateSession(Box::new(rotate(4)))),
        ])
        .await;
    let outcomes = client.outcomes(6).await;
    let Some(Body::CreateSession(first)) = &outcomes[2].response else {
        panic!("{outcomes:?}")
    };
    let oldest = first.session.as_ref().expect("a session").handle.clone();
    assert_eq!(failure(&outcomes[4]).reason, "EMPTY_FIELD");
    let Some(Body::RotateSession(rotated)) = &outcomes[5].response else {
        panic!("{outcomes:?}")
    };
    assert_eq!(rotated.token, token(4));
    assert_eq!(rotated.ended, [oldest]);

    let rotated = rotated.clone();
    // A retry tells the same.
    client
        .send(vec![operation(6, Op::RotateSession(Box::new(rotate(4))))])
        .await;
    let again = client.outcomes(1).await;
    assert!(again[0].replayed);
    assert_eq!(again[0].response, outcomes[5].response);
    (client, rotated)
}

#[tokio::test]
async fn a_users_devices_are_listed_and_ended() {
    let (mut client, rotated) = logged_in().await;
    let list = v1::ListSessionsRequest {
        user_id: "ann".to_owned(),
        current_token: token(4),
        limit: 1,
        ..Default::default()
    };
    client
        .send(vec![operation(7, Op::ListSessions(list.clone()))])
        .await;
    let outcomes = client.outcomes(1).await;
    let Some(Body::ListSessions(page)) = &outcomes[0].response else {
        panic!("{outcomes:?}")
    };
    assert!(!page.sessions[0].current && !page.next_cursor.is_empty());
    let next = v1::ListSessionsRequest {
        cursor: page.next_cursor.clone(),
        ..list.clone()
    };
    let foreign = v1::ListSessionsRequest {
        user_id: "bob".to_owned(),
        ..next.clone()
    };
    let end = v1::EndSessionRequest {
        user_id: "ann".to_owned(),
        handle: page.sessions[0].handle.clone(),
        ..Default::default()
    };
    let revoke = v1::RevokeAllSessionsRequest {
        user_id: "ann".to_owned(),
        ..Default::default()
    };
    client
        .send(vec![
            operation(8, Op::ListSessions(next)),
            operation(9, Op::ListSessions(foreign)),
        ])
        .await;
    let outcomes = client.outcomes(2).await;
    let Some(Body::ListSessions(page)) = &outcomes[0].response else {
        panic!("{outcomes:?}")
    };
    assert!(page.sessions[0].current && page.next_cursor.is_empty());
    assert_eq!(page.sessions[0].handle, rotated.handle);
    assert_eq!(failure(&outcomes[1]).reason, "BAD_CURSOR");
    client
        .send(vec![
            operation(10, Op::EndSession(end)),
            operation(11, Op::RevokeAllSessions(revoke)),
        ])
        .await;
    let outcomes = client.outcomes(2).await;
    assert!(matches!(outcomes[0].response, Some(Body::EndSession(_))));
    let Some(Body::RevokeAllSessions(revoked)) = &outcomes[1].response else {
        panic!("{outcomes:?}")
    };
    assert_eq!(revoked.ended, 1);
    client.send(vec![get_session(12, 4, false)]).await;
    let outcome = &client.outcomes(1).await[0];
    assert_eq!(failure(outcome).reason, "SESSION_NOT_FOUND");
}

#[tokio::test]
async fn a_save_names_what_it_conflicts_with() {
    use v1::SaveConflictPolicy::{LastWriterWins, Unspecified};
    let mut client = Client::connect(MemoryNode::leader()).await;
    let fields = |value: &str| [("lang".to_owned(), Bytes::from(value.to_owned()))].into();
    let save = |base: Option<&str>, value: &str, policy: v1::SaveConflictPolicy| {
        Op::SaveSession(v1::SaveSessionRequest {
            token: token(1),
            loaded_revision: 1,
            fields: fields(value),
            base: base.map(|base| v1::SessionFields {
                fields: fields(base),
            }),
            policy: policy.into(),
            ..Default::default()
        })
    };
    client
        .send(vec![
            create_session(1, 1, ""),
            operation(2, save(None, "de", Unspecified)),
            operation(3, save(Some("de"), "de", Unspecified)),
            operation(4, save(Some("it"), "fr", Unspecified)),
            operation(5, save(Some("it"), "fr", LastWriterWins)),
        ])
        .await;
    let outcomes = client.outcomes(5).await;
    let saved = |outcome: &Outcome| match &outcome.response {
        Some(Body::SaveSession(saved)) => (saved.merged, saved.overwritten.clone()),
        other => panic!("not saved: {other:?}"),
    };
    assert_eq!(saved(&outcomes[1]), (false, vec![]));
    assert_eq!(saved(&outcomes[2]), (true, vec![]));
    let refused = failure(&outcomes[3]);
    assert_eq!(refused.reason, "SAVE_CONFLICT");
    assert_eq!(refused.metadata["fields"], r#"["lang"]"#);
    assert_eq!(saved(&outcomes[4]), (true, vec!["lang".to_owned()]));
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
