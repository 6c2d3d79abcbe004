//! What a node's memory grows by when very many clients are connected, and when some of them do not read what they asked for.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;
use trolley::client::Client;
use trolley::limits::LARGE_ANSWERS_OF_CONNECTION;
use trolley::proto::v1::exchange_service_client::ExchangeServiceClient;
use trolley::proto::v1::operation;
use trolley::proto::v1::watch_service_client::WatchServiceClient;
use trolley::proto::v1::{
    Consistency, ExchangeRequest, ExchangeResponse, ListKeysRequest, ListKeysResponse, Operation,
    ReadOptions, WatchRequest, WatchResponse,
};

use crate::harness::Cluster;
use crate::harness::system::{allow_files, memory_kb};

/// Connections that wait, each with an exchange stream on it.
const IDLE: usize = 1_000;
/// Calls of each kind whose answers nobody reads.
const UNREAD: usize = 128;
/// What is listed and watched: more than a page, and more than is on its way to anybody.
const KEYS: u64 = 1_024;
const VALUE_BYTES: usize = 8 << 10;
/// What the idle ones may take of the node's memory.
const IDLE_KB: u64 = 64 << 10;
/// What the others may: the places of their connection, a message for each watch, two frames of the stream, and as much again.
const UNREAD_KB: u64 = 128 << 10;
/// What a call of such a client takes in before it is read: as little as HTTP/2 allows for from the beginning.
const WINDOW: u32 = 65_535;
/// What a connection with room for all of its calls takes in.
const WIDE_WINDOW: u32 = 16 << 20;

/// Files that a process may have open, unless it asks for more: on most systems twice as many.
const USUAL_FILES: u64 = 512;

/// The most that is seen of it while `watched` goes on.
async fn highest_kb(process: u32, watched: impl Future<Output = ()>) -> u64 {
    tokio::pin!(watched);
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let mut highest = 0;
    loop {
        tokio::select! {
            () = &mut watched => return highest,
            _ = looks.tick() => highest = highest.max(memory_kb(process)),
        }
    }
}

async fn connect(address: &str) -> Channel {
    connect_wide(address, WINDOW).await
}

async fn connect_wide(address: &str, window: u32) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(window);
    endpoint
        .connect()
        .await
        .expect("the node takes connections")
}

/// An open exchange stream: the node has said who leads.
struct Open {
    frames: mpsc::Sender<ExchangeRequest>,
    answers: Streaming<ExchangeResponse>,
}

impl Open {
    async fn on(channel: Channel, number: usize) -> Self {
        let (frames, receiver) = mpsc::channel(1);
        let mut client = ExchangeServiceClient::new(channel);
        let opened = client.exchange(ReceiverStream::new(receiver)).await;
        let mut answers = opened.expect("a stream").into_inner();
        let hello = ExchangeRequest {
            client_id: Bytes::copy_from_slice(
                &u128::try_from(number).expect("small").to_be_bytes(),
            ),
            ..ExchangeRequest::default()
        };
        frames.send(hello).await.expect("the stream is open");
        let said = answers.message().await.expect("an answer");
        assert!(said.expect("the stream goes on").header.is_some());
        Self { frames, answers }
    }
}

/// Many lists in one frame, none of whose answers is read.
async fn list_in_a_stream(open: &Open) {
    let list = |sequence| Operation {
        sequence,
        request: Some(operation::Request::ListKeys(list())),
    };
    let frame = ExchangeRequest {
        operations: (1..=UNREAD as u64).map(list).collect(),
        ..ExchangeRequest::default()
    };
    open.frames.send(frame).await.expect("the stream is open");
}

fn list() -> ListKeysRequest {
    // From what the node has: how long a leader takes to be found has nothing to do with it.
    let read = ReadOptions {
        consistency: Consistency::Stale.into(),
        ..ReadOptions::default()
    };
    ListKeysRequest {
        read: Some(read),
        limit: 1_000,
        ..ListKeysRequest::default()
    }
}

/// A unary list whose answer is under way, of which nobody reads anything.
async fn list_unread(channel: Channel) -> Streaming<ListKeysResponse> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("the connection stands");
    let path = PathAndQuery::from_static("/trolley.v1.KvService/List");
    let codec: ProstCodec<ListKeysRequest, ListKeysResponse> = ProstCodec::default();
    let asked = grpc.server_streaming(Request::new(list()), path, codec);
    asked.await.expect("the call is accepted").into_inner()
}

async fn watch_unread(channel: Channel) -> Streaming<WatchResponse> {
    let mut client = WatchServiceClient::new(channel);
    let request = WatchRequest {
        start_revision: 1,
        ..WatchRequest::default()
    };
    client.watch(request).await.expect("a watch").into_inner()
}

/// A thousand idle connections, and clients that ask for large ranges and read none of it, cost a node a bounded amount of memory, and
/// others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_and_clients_that_do_not_read_cost_little() {
    let mut cluster = Cluster::start(3, &[]).await;
    let measured = cluster.wait_for_leader().await;
    // It is started again as systems start programs. Both ends of the connections are files, and these ends are here.
    cluster.node(measured).kill();
    allow_files(USUAL_FILES);
    cluster.node(measured).start();
    allow_files(u64::MAX);
    cluster.node(measured).wait_until_listening().await;
    cluster.wait_for_leader().await;
    let client = cluster.client();
    for key in 0..KEYS {
        let value = vec![b'v'; VALUE_BYTES];
        let put = client.keys().put(format!("key-{key:04}"), value).send();
        put.await.expect("there is room");
    }
    cluster.wait_until_caught_up(measured).await;
    let address = cluster.node(measured).address().to_owned();
    let process = cluster.node(measured).process();
    // What a first list, stream and watch take, they take once.
    read(list_unread(connect(&address).await).await).await;
    let before = memory_kb(process);
    let mut idle = Vec::new();
    let opening = async {
        for number in 0..IDLE {
            idle.push(Open::on(connect(&address).await, number).await);
        }
    };
    let highest = highest_kb(process, opening).await;
    let idle_kb = highest.saturating_sub(before);

    let mut begun_lists = Vec::new();
    // Two connections: unread events would leave the lists no window, of which each is to have its own.
    let listing = connect_wide(&address, WIDE_WINDOW).await;
    let watching = connect(&address).await;
    let mut unread = JoinSet::new();
    let mut watched = Vec::new();
    let before = memory_kb(process);
    let asking = async {
        list_in_a_stream(&idle[0]).await;
        for _ in 0..UNREAD {
            unread.spawn(list_unread(listing.clone()));
            watched.push(watch_unread(watching.clone()).await);
        }
        // As many as may come have come, and nobody reads them.
        for _ in 0..LARGE_ANSWERS_OF_CONNECTION {
            let begun = unread.join_next().await.expect("it was asked for");
            begun_lists.push(begun.expect("it is no panic"));
        }
        go_on(&client, &address).await;
    };
    let highest = highest_kb(process, asking).await;
    let unread_kb = highest.saturating_sub(before);
    println!(
        "{IDLE} idle connections: {idle_kb} KiB; {UNREAD} lists, as many watches and lists in a stream, unread: {unread_kb} KiB"
    );
    assert!(idle_kb <= IDLE_KB, "{idle_kb} KiB for {IDLE} connections");
    assert!(
        unread_kb <= UNREAD_KB,
        "{unread_kb} KiB for what nobody reads"
    );

    // Whoever begins to read is served: what did not come was not asked for yet.
    let woken = idle[0].answers.message().await.expect("it stands");
    assert!(!woken.expect("an answer").outcomes.is_empty());
    // All at once: what one of them has not read leaves the others no window. Those that wait for a place give up.
    unread.shutdown().await;
    let reading: JoinSet<()> = begun_lists.into_iter().map(read).collect();
    reading.join_all().await;
    read(list_unread(listing).await).await;
}

/// Reads a list whose answer was under way.
async fn read(mut list: Streaming<ListKeysResponse>) {
    let page = list.message().await.expect("it comes");
    assert!(page.expect("a page").items.len() > 100);
}

/// Somebody who reads what it asked for.
async fn go_on(client: &Client, address: &str) {
    read(list_unread(connect(address).await).await).await;
    for turn in 0..200 {
        let key = format!("other-{}", turn % 10);
        let put = client.keys().put(&key, turn.to_string()).send().await;
        put.expect("others go on");
        let got = client.keys().get(&key).send().await;
        got.expect("others go on");
    }
}
