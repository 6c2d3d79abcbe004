//! Watches against a node in memory.

use bytes::Bytes;
use futures::FutureExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::api::testing::MemoryNode;
use crate::proto::v1::cart_service_server::CartService as _;
use crate::proto::v1::event::Record as Sent;
use crate::proto::v1::kv_service_server::KvService as _;
use crate::proto::v1::session_service_server::SessionService as _;
use crate::proto::v1::{self, EventType, RecordKind, WatchFilter, watch_filter::Filter as By};

const PATIENCE: Duration = Duration::from_secs(10);

/// A node and what its callers do.
struct Shop {
    node: MemoryNode,
    api: Api<MemoryNode>,
}

impl Shop {
    fn open() -> Self {
        let node = MemoryNode::leader();
        Self {
            api: Api::new(node.clone()),
            node,
        }
    }

    async fn put(&self, key: &str, value: impl Into<Bytes>) {
        let request = v1::PutKeyRequest {
            key: key.to_owned(),
            value: value.into(),
            ..v1::PutKeyRequest::default()
        };
        self.api.put(Request::new(request)).await.expect("it leads");
    }

    async fn log_in(&self, token: &str, user: &str) {
        let request = v1::CreateSessionRequest {
            token: token.to_owned(),
            user_id: user.to_owned(),
            ..v1::CreateSessionRequest::default()
        };
        self.api.create(Request::new(request)).await.expect("new");
    }

    async fn add(&self, owner: v1::cart_owner::Owner, sku: &str) {
        let request = v1::AddCartLineRequest {
            owner: Some(v1::CartOwner { owner: Some(owner) }),
            sku: sku.to_owned(),
            quantity: 1,
            ..v1::AddCartLineRequest::default()
        };
        self.api.add(Request::new(request)).await.expect("room");
    }

    async fn destroy(&self, token: &str) {
        let request = v1::DestroySessionRequest {
            token: token.to_owned(),
            ..v1::DestroySessionRequest::default()
        };
        self.api.destroy(Request::new(request)).await.expect("live");
    }

    async fn watch(&self, request: WatchRequest) -> Stream {
        let answer = self.api.watch(Request::new(request)).await;
        Stream(answer.expect("a valid request").into_inner())
    }

    async fn watch_all(&self, start_revision: u64) -> Stream {
        self.watch(WatchRequest {
            start_revision,
            ..WatchRequest::default()
        })
        .await
    }
}

struct Stream(BoxStream<'static, Result<WatchResponse, Status>>);

impl Stream {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("the stream is not stuck").expect("not ended")
    }

    async fn message(&mut self) -> WatchResponse {
        self.next().await.expect("not failed")
    }

    /// The next events, and how far they go.
    async fn events(&mut self, count: usize) -> Vec<v1::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.message().await.events);
        }
        assert_eq!(events.len(), count, "an event too many");
        events
    }

    async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                assert!(self.0.next().await.is_none(), "a status is the last");
                return status;
            }
        }
    }
}

fn place(event: &v1::Event) -> (u64, u32) {
    (event.revision, event.position)
}

fn name(event: &v1::Event) -> String {
    match event.record.as_ref().expect("it has a record") {
        Sent::User(user) => format!("all sessions of {}", user.user_id),
        Sent::Key(key) => key.key.clone(),
        Sent::Session(session) => format!("session of {}", session.user_id),
        Sent::Cart(cart) => match cart.owner.as_ref().expect("it has an owner") {
            v1::cart_event::Owner::UserId(user) => format!("cart of {user}"),
            v1::cart_event::Owner::TokenHash(_) => "cart of a session".to_owned(),
        },
    }
}

fn reason(status: &Status) -> (String, std::collections::HashMap<String, String>) {
    let info = status.get_details_error_info().expect("it has a reason");
    (info.reason, info.metadata)
}

fn by(filter: By) -> WatchFilter {
    WatchFilter {
        filter: Some(filter),
    }
}

const ADAS: &str = "YWRhLXNlc3Npb24tdG9rZW4";
const GUESTS: &str = "Z3Vlc3Qtc2Vzc2lvbi10b2s";

#[tokio::test]
async fn history_and_presence_join_without_gap_or_double() {
    let shop = Shop::open();
    for nth in 1..=5 {
        shop.put("k", format!("{nth}")).await;
    }
    let mut stream = shop.watch_all(3).await;
    let history = stream.message().await;
    let header = history.header.expect("the first message has one");
    assert_eq!(header.revision, 5);
    assert_eq!(history.progress_revision, 5);
    assert_eq!(
        history.events.iter().map(place).collect::<Vec<_>>(),
        [(3, 0), (4, 0), (5, 0)]
    );
    for nth in 6..=8 {
        shop.put("k", format!("{nth}")).await;
        let message = stream.message().await;
        assert!(message.header.is_none());
        assert_eq!(message.progress_revision, nth);
        let event = &message.events[..];
        assert_eq!(event.iter().map(place).collect::<Vec<_>>(), [(nth, 0)]);
        let Some(Sent::Key(key)) = &event[0].record else {
            panic!("a key changed");
        };
        let item = key.item.as_ref().expect("it is there");
        assert_eq!(item.value, format!("{nth}"));
        assert_eq!(item.mod_revision, nth);
    }
}

#[tokio::test]
async fn without_a_start_only_what_comes_next_is_told() {
    let shop = Shop::open();
    shop.put("before", "1").await;
    let mut stream = shop.watch_all(0).await;
    let first = stream.message().await;
    assert!(first.events.is_empty());
    assert_eq!(first.progress_revision, 1);
    shop.put("after", "1").await;
    assert_eq!(name(&stream.events(1).await[0]), "after");
}

#[tokio::test]
async fn a_start_that_is_not_there_yet_is_waited_for() {
    let shop = Shop::open();
    let mut stream = shop.watch_all(3).await;
    assert!(stream.message().await.events.is_empty());
    for nth in 1..=3 {
        shop.put(&format!("k{nth}"), "v").await;
    }
    assert_eq!(name(&stream.events(1).await[0]), "k3");
}

#[tokio::test]
async fn sessions_carts_and_keys_are_told_of_with_what_they_hold() {
    use EventType::{Created, Deleted};
    let shop = Shop::open();
    shop.log_in(ADAS, "ada").await;
    shop.add(v1::cart_owner::Owner::SessionToken(ADAS.to_owned()), "S-1")
        .await;
    shop.add(v1::cart_owner::Owner::UserId("ada".to_owned()), "S-2")
        .await;
    shop.destroy(ADAS).await;
    let mut stream = shop.watch_all(1).await;
    let events = stream.events(5).await;
    let types: Vec<_> = events.iter().map(v1::Event::r#type).collect();
    assert_eq!(types, [Created, Created, Created, Deleted, Deleted]);
    let names: Vec<_> = events.iter().map(name).collect();
    assert_eq!(
        names,
        [
            "session of ada",
            "cart of a session",
            "cart of ada",
            "cart of a session",
            "session of ada"
        ]
    );
    let token = crate::types::SessionToken::parse(ADAS).expect("it is well formed");
    let (Some(Sent::Session(created)), Some(Sent::Session(ended))) =
        (&events[0].record, &events[4].record)
    else {
        panic!("both are of the session");
    };
    assert_eq!(created.token_hash, token.hash().as_bytes()[..]);
    let session = created.session.as_ref().expect("it is there");
    assert_eq!(session.user_id, "ada");
    assert!(ended.session.is_none());
    let Some(Sent::Cart(cart)) = &events[2].record else {
        panic!("the third is of a cart");
    };
    assert_eq!(cart.cart.as_ref().expect("it is there").lines[0].sku, "S-2");
    // Nothing that was sent says the token.
    assert!(!format!("{events:?}").contains(ADAS));
}

#[tokio::test]
async fn each_filter_lets_its_own_through_and_any_is_enough() {
    let shop = Shop::open();
    let user_cart = |user: &str| v1::cart_owner::Owner::UserId(user.to_owned());
    shop.log_in(ADAS, "ada").await;
    shop.log_in(GUESTS, "").await;
    shop.add(v1::cart_owner::Owner::SessionToken(GUESTS.to_owned()), "S")
        .await;
    shop.add(user_cart("ada"), "S").await;
    shop.add(user_cart("bob"), "S").await;
    shop.put("stock/1", "v").await;
    shop.put("price/1", "v").await;
    let owner = |owner| By::CartOwner(v1::CartOwner { owner: Some(owner) });
    let cases: [(Vec<By>, &[u64]); 8] = [
        (vec![], &[1, 2, 3, 4, 5, 6, 7]),
        (vec![By::Kind(RecordKind::Session.into())], &[1, 2]),
        (vec![By::Kind(RecordKind::Cart.into())], &[3, 4, 5]),
        (vec![By::KeyPrefix("stock/".to_owned())], &[6]),
        (vec![By::UserId("ada".to_owned())], &[1, 4]),
        (vec![owner(user_cart("bob"))], &[5]),
        (
            vec![owner(v1::cart_owner::Owner::SessionToken(
                GUESTS.to_owned(),
            ))],
            &[3],
        ),
        (
            vec![
                By::KeyPrefix("price".to_owned()),
                By::Kind(RecordKind::Session.into()),
            ],
            &[1, 2, 7],
        ),
    ];
    for (filters, expected) in cases {
        let told = format!("{filters:?}");
        let request = WatchRequest {
            start_revision: 1,
            filters: filters.into_iter().map(by).collect(),
            ..WatchRequest::default()
        };
        let message = shop.watch(request).await.message().await;
        let revisions: Vec<_> = message.events.iter().map(|event| event.revision).collect();
        assert_eq!(revisions, expected, "{told}");
        assert_eq!(message.progress_revision, 7);
    }
}

#[tokio::test]
async fn namespaces_are_apart_unless_all_are_asked_for() {
    let shop = Shop::open();
    shop.put("k", "v").await;
    let elsewhere = v1::PutKeyRequest {
        namespace: "other".to_owned(),
        key: "k".to_owned(),
        ..v1::PutKeyRequest::default()
    };
    let put = shop.api.put(Request::new(elsewhere)).await;
    put.expect("it leads");
    for (namespace, all_namespaces, expected) in [
        ("", false, vec!["default"]),
        ("other", false, vec!["other"]),
        ("", true, vec!["default", "other"]),
    ] {
        let request = WatchRequest {
            namespace: namespace.to_owned(),
            all_namespaces,
            start_revision: 1,
            ..WatchRequest::default()
        };
        let message = shop.watch(request).await.message().await;
        let named: Vec<_> = message.events.iter().map(|e| e.namespace.clone()).collect();
        assert_eq!(named, expected);
    }
}

#[tokio::test]
async fn bad_requests_are_refused_with_their_field() {
    let shop = Shop::open();
    let refused = [
        (
            WatchRequest {
                namespace: "a".to_owned(),
                all_namespaces: true,
                ..WatchRequest::default()
            },
            "EXCLUSIVE_FIELDS",
        ),
        (
            WatchRequest {
                progress_interval_ms: 99,
                ..WatchRequest::default()
            },
            "OUT_OF_RANGE",
        ),
        (
            WatchRequest {
                filters: vec![WatchFilter::default()],
                ..WatchRequest::default()
            },
            "EMPTY_FIELD",
        ),
        (
            WatchRequest {
                filters: vec![by(By::Kind(9))],
                ..WatchRequest::default()
            },
            "MALFORMED",
        ),
        (
            WatchRequest {
                filters: vec![by(By::UserId(String::new()))],
                ..WatchRequest::default()
            },
            "EMPTY_FIELD",
        ),
        (
            WatchRequest {
                filters: vec![by(By::KeyPrefix(String::new())); limits::WATCH_FILTERS + 1],
                ..WatchRequest::default()
            },
            "TOO_MANY",
        ),
    ];
    for (request, expected) in refused {
        let answer = shop.api.watch(Request::new(request)).await;
        let Err(status) = answer else {
            panic!("it should be refused: {expected}");
        };
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason(&status).0, expected);
    }
}

#[tokio::test]
async fn progress_is_told_while_nothing_matches() {
    let shop = Shop::open();
    let request = WatchRequest {
        filters: vec![by(By::KeyPrefix("wanted".to_owned()))],
        progress_interval_ms: 200,
        ..WatchRequest::default()
    };
    let mut stream = shop.watch(request).await;
    assert_eq!(stream.message().await.progress_revision, 0);
    shop.put("other", "v").await;
    let began = Instant::now();
    let message = stream.message().await;
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert!(message.events.is_empty());
    assert_eq!(message.progress_revision, 1);
    assert!(message.log_time_ms > 0);
}

#[tokio::test]
async fn messages_are_bounded_and_may_end_within_a_revision_only_in_words() {
    let shop = Shop::open();
    let size = limits::WATCH_RESPONSE_BYTES / 3;
    for nth in 1..=10 {
        shop.put(&format!("k{nth}"), vec![b'v'; size]).await;
    }
    let mut stream = shop.watch_all(1).await;
    let mut next = 1;
    while next <= 10 {
        let message = stream.message().await;
        let bytes: usize = message.events.iter().map(prost::Message::encoded_len).sum();
        assert!(bytes < limits::WATCH_RESPONSE_BYTES + 2 * size, "{bytes}");
        for event in &message.events {
            assert_eq!(place(event), (next, 0));
            next += 1;
        }
        assert_eq!(message.progress_revision, next - 1);
    }
}

#[tokio::test]
async fn a_start_that_is_forgotten_is_compacted() {
    let shop = Shop::open();
    // More bytes than the history keeps.
    let size = limits::VALUE_BYTES;
    let count = limits::EVENT_HISTORY_BYTES / u64::try_from(size).expect("small") + 20;
    for _ in 0..count {
        shop.put("k", vec![0; size]).await;
    }
    let status = shop.watch_all(1).await.end().await;
    assert_eq!(status.code(), Code::OutOfRange);
    let (reason, metadata) = reason(&status);
    assert_eq!(reason, "COMPACTED");
    let oldest: u64 = metadata["oldest_revision"].parse().expect("a number");
    assert!(1 < oldest && oldest <= count);
    let first = shop.watch_all(oldest).await.message().await;
    assert_eq!(place(&first.events[0]), (oldest, 0));
}

#[tokio::test]
async fn a_slow_watcher_is_told_where_to_go_on() {
    let shop = Shop::open();
    let mut slow = shop.watch_all(1).await;
    let mut quick = shop.watch_all(1).await;
    assert!(slow.message().await.events.is_empty());
    assert!(quick.message().await.events.is_empty());
    shop.put("k", "seen").await;
    assert_eq!(slow.events(1).await.len(), 1);
    assert_eq!(quick.events(1).await.len(), 1);
    let size = limits::VALUE_BYTES;
    let count = 2 + limits::WATCH_TAIL_BYTES / size;
    for _ in 0..count {
        shop.put("k", vec![0; size]).await;
        assert_eq!(quick.events(1).await.len(), 1);
    }
    let status = slow.end().await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    let (reason, metadata) = reason(&status);
    assert_eq!(reason, "WATCHER_TOO_SLOW");
    assert_eq!(metadata["resume_revision"], "2");
    assert_eq!(metadata["oldest_revision"], "2");
    // There it goes on, through the history, without a gap.
    let events = shop.watch_all(2).await.events(count).await;
    let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
    let expected: Vec<_> = (2..).take(count).collect();
    assert_eq!(revisions, expected);
}

#[tokio::test]
async fn an_installed_snapshot_is_caught_up_with_and_is_no_slowness() {
    let (shop, other) = (Shop::open(), Shop::open());
    let mut stream = shop.watch_all(1).await;
    assert!(stream.message().await.events.is_empty());
    for shop in [&shop, &other] {
        shop.put("k1", "v").await;
    }
    assert_eq!(stream.events(1).await.len(), 1);
    for nth in 2..=20 {
        other.put(&format!("k{nth}"), "v").await;
    }
    shop.node.install(&other.node);
    shop.put("k21", "v").await;
    let events = stream.events(20).await;
    let names: Vec<_> = events.iter().map(name).collect();
    let expected: Vec<_> = (2..=21).map(|nth| format!("k{nth}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_node_without_a_leader_sends_its_watchers_elsewhere() {
    let shop = Shop::open();
    let mut stream = shop.watch_all(0).await;
    stream.message().await;
    shop.node.isolate(true);
    let status = stream.end().await;
    assert_eq!(reason(&status).0, "NO_LEADER");
}

#[tokio::test]
async fn a_drain_ends_watches_at_once_and_waits_for_them() {
    let shop = Shop::open();
    let mut stream = shop.watch_all(0).await;
    stream.message().await;
    let mut finish = Box::pin(shop.api.finish());
    assert!((&mut finish).now_or_never().is_none());
    let status = stream.end().await;
    assert_eq!(reason(&status).0, "DRAINING");
    tokio::time::timeout(PATIENCE, finish)
        .await
        .expect("nothing is left");
}

#[tokio::test]
async fn watchers_beyond_the_limit_are_refused_until_one_leaves() {
    let shop = Shop::open();
    let mut streams = Vec::new();
    for _ in 0..limits::WATCHERS {
        streams.push(shop.watch_all(0).await);
    }
    let refused = shop.api.watch(Request::new(WatchRequest::default())).await;
    let Err(status) = refused else {
        panic!("there are too many");
    };
    assert_eq!(reason(&status).0, "WATCHERS_LIMIT");
    streams.pop();
    shop.watch_all(0).await.message().await;
}
