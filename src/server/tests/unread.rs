//! Clients that ask for much and do not read it.

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::*;
use crate::limits::{LARGE_ANSWERS, LARGE_ANSWERS_OF_CONNECTION};

/// More than a stream's window.
const LARGE: usize = 100_000;
/// What a call takes in before it is read: as little as HTTP/2 allows for from the beginning.
const WINDOW: u32 = 65_535;

/// A connection that takes in so much before anything is read.
async fn narrow(server: &Running, window: u32) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).expect("a valid uri");
    let endpoint = endpoint
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(window);
    endpoint.connect().await.expect("it listens")
}

/// A call whose answer has begun, of which nobody reads anything.
async fn begin<M, A>(channel: Channel, path: &'static str, message: M) -> Streaming<A>
where
    M: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("the connection stands");
    let codec = ProstCodec::<M, A>::default();
    let path = PathAndQuery::from_static(path);
    let asked = grpc.server_streaming(Request::new(message), path, codec);
    asked.await.expect("it is served").into_inner()
}

async fn begin_get(channel: Channel) -> Streaming<v1::GetKeyResponse> {
    begin(channel, "/trolley.v1.KvService/Get", get("large")).await
}

async fn put_large(server: &Running) {
    let put = v1::PutKeyRequest {
        value: vec![7; LARGE].into(),
        ..put("large")
    };
    let mut keys = KvServiceClient::new(server.channel().await);
    keys.put(put).await.expect("it is put");
    keys.put(super::put("small")).await.expect("it is put");
}

/// Calls on the same connection that come behind those that wait, and are answered.
async fn others_go_on(channel: &Channel) {
    let mut keys = KvServiceClient::new(channel.clone());
    for _ in 0..100 {
        let small = keys.get(get("small")).await;
        small.expect("small answers need no place");
    }
}

/// However much room the connection has.
#[tokio::test]
async fn large_answers_that_nobody_reads_wait_for_places() {
    let server = Running::start(MemoryNode::leader()).await;
    put_large(&server).await;
    let channel = narrow(&server, 16 << 20).await;
    let mut calls = JoinSet::new();
    for _ in 0..4 * LARGE_ANSWERS_OF_CONNECTION {
        calls.spawn(begin_get(channel.clone()));
    }
    let mut begun = Vec::new();
    while begun.len() < LARGE_ANSWERS_OF_CONNECTION {
        begun.push(calls.join_next().await.expect("there are more"));
    }
    others_go_on(&channel).await;
    assert!(calls.try_join_next().is_none(), "too many have begun");
    drop(begun.pop());
    let next = timeout(Duration::from_secs(10), calls.join_next()).await;
    next.expect("it has a place")
        .expect("one call")
        .expect("no panic");
}

#[tokio::test]
async fn writes_whose_answers_are_large_wait_for_places() {
    let node = MemoryNode::leader();
    let server = Running::start(node.clone()).await;
    put_large(&server).await;
    let channel = narrow(&server, 16 << 20).await;
    let before = node.proposed();
    let mut calls = JoinSet::new();
    for _ in 0..4 * LARGE_ANSWERS_OF_CONNECTION {
        let create = v1::CreateSessionRequest {
            fields: BTreeMap::from([("blob".to_owned(), Bytes::from(vec![7; LARGE]))]),
            ..Default::default()
        };
        let path = "/trolley.v1.SessionService/Create";
        calls.spawn(begin::<_, v1::CreateSessionResponse>(
            channel.clone(),
            path,
            create,
        ));
    }
    let mut begun = Vec::new();
    while begun.len() < LARGE_ANSWERS_OF_CONNECTION {
        begun.push(calls.join_next().await.expect("there are more"));
    }
    others_go_on(&channel).await;
    // Who has no place has written nothing.
    assert_eq!(node.proposed() - before, LARGE_ANSWERS_OF_CONNECTION);
}

#[tokio::test]
async fn nobody_waits_for_those_who_have_stopped_reading() {
    let server = Running::start(MemoryNode::leader()).await;
    put_large(&server).await;
    let mut calls = JoinSet::new();
    // The first of each connection has its window, and leaves; the others have none.
    for _ in 0..2 * LARGE_ANSWERS / LARGE_ANSWERS_OF_CONNECTION {
        let channel = narrow(&server, WINDOW).await;
        for _ in 0..LARGE_ANSWERS_OF_CONNECTION {
            calls.spawn(begin_get(channel.clone()));
        }
    }
    let mut begun = Vec::new();
    while begun.len() < LARGE_ANSWERS {
        begun.push(calls.join_next().await.expect("there are more"));
    }
    let mut keys = KvServiceClient::new(server.channel().await);
    let large = timeout(Duration::from_secs(10), keys.get(get("large"))).await;
    large.expect("in time").expect("it is served");
}
