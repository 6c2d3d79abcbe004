//! The append stream against a follower that answers when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::cluster::{DEADLINE, eventually, local};
use crate::clock::{Clock, LogClock};
use crate::limits;
use crate::network::append::Session;
use crate::network::{Error, Lane, Pool, Timing};
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_server::{RaftService, RaftServiceServer};
use crate::raft::{Entry, LogId, TypeConfig};

/// Accepts every request whose answer it has a permit for, and echoes its previous log id.
#[derive(Clone)]
struct Follower {
    requests: Arc<AtomicU64>,
    envelopes: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
}

#[tonic::async_trait]
impl RaftService for Follower {
    type StreamAppendStream = BoxStream<'static, Result<pb::AppendResponse, Status>>;

    async fn stream_append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let (seen, envelopes) = (self.requests.clone(), self.envelopes.clone());
        // Reads ahead of its answers as far as the leader sends.
        let counted = request.into_inner().map(move |request| {
            let request = request?;
            seen.fetch_add(1, Ordering::SeqCst);
            envelopes.fetch_add(u64::from(request.envelope.is_some()), Ordering::SeqCst);
            let accepted = pb::Accepted {
                last_log_id: request.prev_log_id,
            };
            Ok::<_, Status>(pb::AppendResponse {
                result: Some(pb::append_response::Result::Accepted(accepted)),
                ..pb::AppendResponse::default()
            })
        });
        let permits = self.permits.clone();
        let answers = counted
            .map(move |answer| {
                let permits = permits.clone();
                async move {
                    permits.acquire().await.expect("never closed").forget();
                    answer
                }
            })
            .buffered(1000);
        Ok(Response::new(answers.boxed()))
    }

    async fn append(
        &self,
        _: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        Err(Status::unimplemented("append"))
    }

    async fn vote(
        &self,
        _: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        Err(Status::unimplemented("vote"))
    }

    async fn pre_vote(
        &self,
        _: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        Err(Status::unimplemented("pre_vote"))
    }

    async fn transfer_leader(
        &self,
        _: Request<pb::TransferRequest>,
    ) -> Result<Response<pb::TransferResponse>, Status> {
        Err(Status::unimplemented("transfer_leader"))
    }

    async fn offer_snapshot(
        &self,
        _: Request<pb::SnapshotOffer>,
    ) -> Result<Response<pb::SnapshotProgress>, Status> {
        Err(Status::unimplemented("offer_snapshot"))
    }

    async fn send_snapshot(
        &self,
        _: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotProgress>, Status> {
        Err(Status::unimplemented("send_snapshot"))
    }

    async fn install_snapshot(
        &self,
        _: Request<pb::SnapshotOffer>,
    ) -> Result<Response<pb::SnapshotInstalled>, Status> {
        Err(Status::unimplemented("install_snapshot"))
    }
}

/// A follower and the address it is served at.
async fn follower(serving: &mut JoinSet<()>) -> (Follower, String) {
    let follower = Follower {
        requests: Arc::default(),
        envelopes: Arc::default(),
        permits: Arc::new(Semaphore::new(0)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let service = RaftServiceServer::new(follower.clone());
    serving.spawn(async move {
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await
            .expect("serves");
    });
    (follower, address)
}

fn log_id(index: u64) -> LogId {
    pb::LogId {
        term: 1,
        node_id: 1,
        index,
    }
    .into()
}

/// A request after entry `index`, with one entry or none.
fn request(index: u64, has_entry: bool) -> AppendEntriesRequest<TypeConfig> {
    let vote = pb::Vote {
        term: 1,
        node_id: 1,
        committed: true,
    };
    let entry = || Entry {
        log_id: log_id(index + 1),
        payload: EntryPayload::Blank,
    };
    AppendEntriesRequest {
        vote: vote.into(),
        prev_log_id: Some(log_id(index)),
        leader_commit: None,
        entries: has_entry.then(entry).into_iter().collect(),
    }
}

fn session(
    address: &str,
    count: u64,
    soft_ttl: Duration,
) -> BoxStream<'static, Result<openraft::raft::StreamAppendResult<TypeConfig>, Error>> {
    let requests = stream::iter((0..count).map(|index| request(index, true)));
    session_of(address, requests.boxed(), soft_ttl)
}

fn session_of(
    address: &str,
    requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    soft_ttl: Duration,
) -> BoxStream<'static, Result<openraft::raft::StreamAppendResult<TypeConfig>, Error>> {
    let pool = Pool::new(Timing::default());
    let client = pool.raft(address, Lane::Log).expect("an address");
    let envelope = local(1).envelope(2, local(2).instance);
    let clock = Arc::new(LogClock::new(Clock::System));
    Session::new(client, envelope, clock, requests, soft_ttl)
        .results()
        .boxed()
}

/// What the follower was asked about, by the index that each answer echoes.
async fn answered(requests: Vec<(u64, bool)>, stays_open: bool) -> Vec<u64> {
    let mut serving = JoinSet::new();
    let (follower, address) = follower(&mut serving).await;
    follower.permits.add_permits(requests.len());
    let last = requests.last().expect("at least one").0;
    let requests = stream::iter(requests).map(|(index, has_entry)| request(index, has_entry));
    let requests = if stays_open {
        requests.chain(stream::pending()).boxed()
    } else {
        requests.boxed()
    };
    let mut results = session_of(&address, requests, DEADLINE);
    let mut found = Vec::new();
    while let Some(result) = results.next().await {
        let index = result
            .expect("no error")
            .expect("accepted")
            .expect("echoed");
        found.push(index.index);
        if stays_open && index.index == last {
            break;
        }
    }
    found
}

#[tokio::test]
async fn entries_that_follow_stand_for_a_request_without_any() {
    let requests = vec![
        (0, true),
        (1, false),
        (1, false),
        (1, true),
        (2, false),
        (2, true),
    ];
    assert_eq!(answered(requests, false).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_request_without_entries_goes_when_nothing_follows() {
    for stays_open in [true, false] {
        let requests = vec![(0, true), (1, false), (2, false)];
        assert_eq!(answered(requests, stays_open).await, [0, 2]);
    }
}

#[tokio::test]
async fn requests_are_under_way_together_up_to_the_limit_and_answered_in_order() {
    let mut serving = JoinSet::new();
    let (follower, address) = follower(&mut serving).await;
    let total = 5 * limits::APPEND_PIPELINE as u64;
    let mut results = session(&address, total, DEADLINE);
    let polling = async {
        let mut answered = Vec::new();
        while let Some(result) = results.next().await {
            answered.push(
                result
                    .expect("no error")
                    .expect("accepted")
                    .expect("echoed")
                    .index,
            );
        }
        answered
    };
    let limit = limits::APPEND_PIPELINE as u64;
    let opening = async {
        eventually("a full pipeline without an answer", async || {
            follower.requests.load(Ordering::SeqCst) == limit
        })
        .await;
        follower.permits.add_permits(1);
        eventually("one more request for one answer", async || {
            follower.requests.load(Ordering::SeqCst) == limit + 1
        })
        .await;
        follower
            .permits
            .add_permits(usize::try_from(total).expect("small"));
    };
    let (answered, ()) = tokio::join!(polling, opening);
    assert_eq!(answered, (0..total).collect::<Vec<_>>());
    assert_eq!(
        follower.envelopes.load(Ordering::SeqCst),
        1,
        "in the first message only"
    );
}

#[tokio::test]
async fn a_follower_that_does_not_answer_is_given_up() {
    let mut serving = JoinSet::new();
    let (follower, address) = follower(&mut serving).await;
    follower.permits.add_permits(2);
    let mut results = session(&address, 5, Duration::from_millis(10));
    for _ in 0..2 {
        let result = results.next().await.expect("answered").expect("no error");
        assert!(result.is_ok());
    }
    let given_up = results.next().await.expect("an error");
    assert!(matches!(given_up, Err(Error::Timeout(_))), "{given_up:?}");
    assert!(results.next().await.is_none(), "the error is the end");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let mut results = session(&address, 5, DEADLINE);
    let refused = results.next().await.expect("an error");
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
}
