//! Watchers who follow a cluster through whatever happens to it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use trolley::client::{CartOwner, Client, Watched};
use trolley::proto::v1::cart_event::Owner;
use trolley::proto::v1::event::Record;
use trolley::proto::v1::watch_service_client::WatchServiceClient;
use trolley::proto::v1::{Cart, Event, EventType, KeyValue, Session, WatchRequest, WatchResponse};
use trolley::types::{NodeId, Revision, SessionToken};

use crate::harness::{Cluster, DEADLINE, Random, eventually};

/// What a store holds.
#[derive(Debug, Default, Clone, PartialEq)]
struct Holdings {
    keys: BTreeMap<String, KeyValue>,
    sessions: BTreeMap<Vec<u8>, Session>,
    /// By user, or by the hash of a session's token.
    carts: BTreeMap<Vec<u8>, Cart>,
}

impl Holdings {
    /// Applies an event, which must fit what is there.
    fn apply(&mut self, event: Event) {
        let event_type = event.r#type();
        let place = (event.revision, event.position);
        match event.record.expect("an event is of a record") {
            Record::Key(event) => set(&mut self.keys, event.key, event.item, event_type, place),
            Record::Session(event) => {
                let token = event.token_hash.to_vec();
                set(&mut self.sessions, token, event.session, event_type, place);
            }
            Record::Cart(event) => {
                let owner = match event.owner.expect("a cart has an owner") {
                    Owner::UserId(user) => user.into_bytes(),
                    Owner::TokenHash(token) => token.to_vec(),
                };
                set(&mut self.carts, owner, event.cart, event_type, place);
            }
            Record::User(event) => {
                assert_eq!(event_type, EventType::Revoked);
                self.revoke(&event.user_id, &event.spared_token_hash);
            }
        }
    }

    /// Ends all sessions of a user, and their carts, but for one.
    fn revoke(&mut self, user: &str, spared: &[u8]) {
        let carts = &mut self.carts;
        self.sessions.retain(|token, session| {
            let stays = session.user_id != user || token == spared;
            if !stays {
                carts.remove(token);
            }
            stays
        });
    }
}

fn set<K: Ord + std::fmt::Debug, V>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: Option<V>,
    event_type: EventType,
    place: (u64, u32),
) {
    let name = format!("{place:?} {event_type:?} {key:?}");
    let is_end = value.is_none();
    let before = match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
    match event_type {
        // What expired may be replaced before it is swept.
        EventType::Created => assert!(!is_end, "{name}: holds nothing"),
        EventType::Updated => assert!(!is_end && before.is_some(), "{name}: of what is not there"),
        EventType::Deleted | EventType::Expired | EventType::Revoked => {
            assert!(is_end && before.is_some(), "{name}: of what is not there");
        }
        EventType::Unspecified => panic!("{name}"),
    }
}

/// A consumer with a stream of its own, until it is told to stop.
struct Consumer {
    held: watch::Receiver<Holdings>,
    tasks: JoinSet<Vec<Event>>,
    stop: CancellationToken,
}

impl Consumer {
    fn start(client: &Client) -> Self {
        let (sender, held) = watch::channel(Holdings::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(consume(client.clone(), sender, stop.clone()));
        Self { held, tasks, stop }
    }

    fn held(&self) -> Holdings {
        self.held.borrow().clone()
    }

    /// All that it was told, in the order in which it came.
    async fn stop(mut self) -> Vec<Event> {
        self.stop.cancel();
        let events = self.tasks.join_next().await.expect("one task");
        events.expect("every event fitted")
    }
}

async fn consume(
    client: Client,
    held: watch::Sender<Holdings>,
    stop: CancellationToken,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut stream = client.watch().from(Revision::new(1)).stream();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return events,
            next = stream.try_next() => next,
        };
        match next {
            Ok(Some(Watched::Event(event))) => {
                held.send_modify(|held| held.apply((*event).clone()));
                events.push(*event);
            }
            Ok(Some(Watched::Progress { .. })) => {}
            Ok(None) => panic!("the stream ended"),
            // No node could be watched for a while: the stream goes on.
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// What one shopper knows of itself.
struct Shopper {
    client: Client,
    random: Random,
    user: String,
    nth: u64,
    tokens: Vec<String>,
}

impl Shopper {
    /// One operation. Any of them may be refused: a session may have expired, a key may be gone.
    async fn act(&mut self) {
        let client = self.client.clone();
        let nth = self.nth;
        let key = format!("key-{}", (nth + self.random.below(30)) % 60);
        let user = CartOwner::User(self.user.clone());
        let session = self.some_token();
        let done = match self.random.below(14) {
            0..=2 => drop_reply(client.keys().put(key, format!("{nth}")).send().await),
            3 => {
                let ttl = Duration::from_millis(200 + self.random.below(1500));
                drop_reply(client.keys().put(key, "soon gone").ttl(ttl).send().await)
            }
            4 => drop_reply(client.keys().delete(key).send().await),
            5 => {
                let ttl = Duration::from_millis(500 + self.random.below(60_000));
                let create = client.sessions().create().user(self.user.clone());
                let created = create.field("n", format!("{nth}")).idle_ttl(ttl);
                created.send().await.map(|created| {
                    self.tokens.push(created.token.clone());
                })
            }
            6 => drop_reply(
                client
                    .sessions()
                    .update(&session)
                    .set("n", format!("{nth}"))
                    .send()
                    .await,
            ),
            7 => drop_reply(client.sessions().touch(&session).send().await),
            8 if nth.is_multiple_of(3) => {
                drop_reply(client.sessions().destroy(&session).send().await)
            }
            8 | 9 => {
                let owner = CartOwner::Session(session);
                drop_reply(client.carts().add(&owner, "mug", 1).send().await)
            }
            12 => {
                let rotate = client.sessions().rotate(&session);
                let rotated = rotate.user(self.user.clone()).send().await;
                rotated.map(|rotated| self.tokens.push(rotated.token.clone()))
            }
            13 if nth.is_multiple_of(3) => {
                let revoke = client.sessions().revoke_all(self.user.clone());
                let except = if nth.is_multiple_of(2) {
                    revoke.except(session)
                } else {
                    revoke
                };
                drop_reply(except.send().await)
            }
            10 if nth.is_multiple_of(5) => drop_reply(client.carts().clear(&user).send().await),
            _ => {
                let sku = format!("sku-{}", self.random.below(5));
                drop_reply(client.carts().add(&user, sku, 1).send().await)
            }
        };
        self.nth += 1;
        if let Err(error) = done {
            let is_refusal = error.is_not_found() || error.is_conflict();
            assert!(is_refusal, "an operation outlives any election: {error}");
        }
    }

    fn some_token(&mut self) -> String {
        if self.tokens.is_empty() {
            return "bm8tc3VjaC1zZXNzaW9uLXRva2Vu".to_owned();
        }
        let recent = self.tokens.len().min(4);
        let back = usize::try_from(self.random.below(recent as u64)).expect("at most 3");
        self.tokens[self.tokens.len() - 1 - back].clone()
    }
}

fn drop_reply<T, E>(reply: Result<T, E>) -> Result<(), E> {
    reply.map(drop)
}

/// Shoppers at work.
struct Bustle {
    done: watch::Receiver<u64>,
    tasks: JoinSet<Vec<String>>,
    stop: CancellationToken,
}

const SHOPPERS: u64 = 8;

impl Bustle {
    fn start(client: &Client, random: &mut Random) -> Self {
        let (count, done) = watch::channel(0);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for nth in 0..SHOPPERS {
            let mut shopper = Shopper {
                client: client.clone(),
                random: random.fork(),
                user: format!("user-{nth}"),
                nth: nth * 7,
                tokens: Vec::new(),
            };
            let (count, stop) = (count.clone(), stop.clone());
            tasks.spawn(async move {
                while !stop.is_cancelled() {
                    shopper.act().await;
                    count.send_modify(|count| *count += 1);
                }
                shopper.tokens
            });
        }
        Self { done, tasks, stop }
    }

    /// Waits until so many more operations are done.
    async fn wait_for(&mut self, more: u64) {
        let enough = *self.done.borrow() + more;
        let reached = timeout(DEADLINE, self.done.wait_for(|done| *done >= enough)).await;
        let reached = reached.expect("the shoppers get nothing done");
        reached.expect("the shoppers live");
    }

    /// The tokens of all sessions that were created.
    async fn stop(mut self) -> Vec<String> {
        self.stop.cancel();
        let mut tokens = Vec::new();
        while let Some(shopper) = self.tasks.join_next().await {
            tokens.extend(shopper.expect("no operation failed"));
        }
        tokens
    }
}

/// What the store says that it holds.
async fn read(client: &Client, tokens: &[String]) -> Holdings {
    let mut held = Holdings::default();
    let mut pages = std::pin::pin!(client.keys().list().pages());
    while let Some(page) = pages.try_next().await.expect("keys can be listed") {
        let items = page.items.iter().cloned();
        held.keys.extend(items.map(|item| (item.key.clone(), item)));
    }
    for nth in 0..SHOPPERS {
        let user = format!("user-{nth}");
        let owner = CartOwner::User(user.clone());
        let cart = client.carts().get(&owner).send().await;
        let cart = cart.expect("a user's cart can be read").value;
        if cart.create_revision > 0 {
            held.carts.insert(user.into_bytes(), cart);
        }
    }
    for token in tokens {
        let session = match client.sessions().get(token).send().await {
            Ok(session) => session.value,
            Err(error) if error.is_not_found() => continue,
            Err(error) => panic!("a session cannot be read: {error}"),
        };
        let token_hash = SessionToken::parse(token).expect("the store's own");
        let hash = token_hash.hash().as_bytes().to_vec();
        held.sessions.insert(hash.clone(), session);
        let owner = CartOwner::Session(token.clone());
        let cart = client.carts().get(&owner).send().await;
        let cart = cart.expect("the session was there just now").value;
        if cart.create_revision > 0 {
            held.carts.insert(hash, cart);
        }
    }
    held
}

impl Holdings {
    /// Where it differs from another one.
    fn differences(&self, other: &Self) -> Vec<String> {
        fn between<K: Ord + std::fmt::Debug, V: PartialEq>(
            one: &BTreeMap<K, V>,
            other: &BTreeMap<K, V>,
        ) -> Vec<String> {
            let keys = one.keys().chain(other.keys());
            keys.filter(|key| one.get(key) != other.get(key))
                .map(|key| format!("{key:?}"))
                .collect()
        }
        let mut all = between(&self.keys, &other.keys);
        all.extend(between(&self.sessions, &other.sessions));
        all.extend(between(&self.carts, &other.carts));
        all
    }
}

/// A watch at one node, without the client library's help.
async fn watch_at(cluster: &mut Cluster, id: u64, start_revision: u64) -> Streaming<WatchResponse> {
    let address = format!("http://{}", cluster.node(id).address());
    let node = WatchServiceClient::connect(address).await;
    let request = WatchRequest {
        start_revision,
        ..WatchRequest::default()
    };
    let answer = node.expect("the node listens").watch(request).await;
    answer
        .expect("the node lets itself be watched")
        .into_inner()
}

/// Reads a stream up to a revision, or to its end.
async fn read_until(
    stream: &mut Streaming<WatchResponse>,
    revision: u64,
) -> (Vec<Event>, Option<Status>) {
    let mut events = Vec::new();
    loop {
        let message = timeout(DEADLINE, stream.message()).await;
        match message.expect("the node says something now and then") {
            Ok(message) => {
                let message = message.expect("a watch ends with a status");
                events.extend(message.events);
                if message.progress_revision >= revision {
                    return (events, None);
                }
            }
            Err(status) => return (events, Some(status)),
        }
    }
}

fn places(events: &[Event]) -> Vec<(u64, u32)> {
    let places = events.iter().map(|event| (event.revision, event.position));
    places.collect()
}

/// Leaders die, every node sleeps for a while, and one misses so much that it gets a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_rebuilds_the_store_through_kills_pauses_and_snapshots() {
    let mut random = Random::seeded();
    let mut cluster = Cluster::start(3, &["--snapshot-keep-entries", "1"]).await;
    let (client, watching) = (cluster.client(), cluster.client());
    let consumer = Consumer::start(&watching);
    let mut bustle = Bustle::start(&client, &mut random);

    for _ in 0..2 {
        bustle.wait_for(150).await;
        let leader = cluster.wait_for_leader().await;
        cluster.node(leader).kill();
        cluster.wait_for_leader_beside(leader).await;
        bustle.wait_for(150).await;
        cluster.node(leader).start();
        cluster.wait_until_caught_up(leader).await;
    }
    for id in 1..=3 {
        cluster.node(id).pause();
        bustle.wait_for(100).await;
        cluster.node(id).resume();
        cluster.wait_until_caught_up(id).await;
    }
    let away = miss_a_snapshot(&mut cluster, &client, &mut bustle).await;

    let tokens = bustle.stop().await;
    eventually("a consumer who holds what the store holds", async || {
        let differences = read(&client, &tokens).await.differences(&consumer.held());
        if !differences.is_empty() {
            println!("they differ in {differences:?}");
        }
        differences.is_empty()
    })
    .await;
    let held = consumer.held();
    println!(
        "rebuilt {} keys, {} sessions, {} carts",
        held.keys.len(),
        held.sessions.len(),
        held.carts.len()
    );
    let revision = cluster.wait_for_agreement().await[0].revision;
    let told = consumer.stop().await;
    let ascending = places(&told).windows(2).all(|pair| pair[0] < pair[1]);
    assert!(ascending, "out of order, or twice");
    // Any node tells the same, also the one that has most of it from a snapshot.
    for id in 1..=3 {
        let mut stream = watch_at(&mut cluster, id, 1).await;
        let (mut events, status) = read_until(&mut stream, revision).await;
        assert!(status.is_none(), "{status:?}");
        // What has expired since then is news.
        events.truncate(told.len());
        assert!(
            events == told,
            "node {id}, away was {away}, tells otherwise"
        );
    }
    client.close().await;
    watching.close().await;
}

/// Kills a follower until the others have forgotten what it would need of the log. Gives its id.
async fn miss_a_snapshot(cluster: &mut Cluster, client: &Client, bustle: &mut Bustle) -> u64 {
    let leader = cluster.wait_for_leader().await;
    let away = cluster.others(leader)[0];
    let last = |nodes: Vec<trolley::proto::v1::NodeStatus>| {
        let node = nodes.into_iter().find(|node| node.node_id == away);
        node.expect("it answers")
    };
    let before = last(cluster.status().await).last_log_index;
    cluster.node(away).kill();
    eventually("a purged log", async || {
        bustle.wait_for(100).await;
        for id in cluster.others(away) {
            let node = NodeId::new(id).expect("node ids begin at 1");
            let taken = client.cluster().snapshot(Some(node)).await;
            taken.expect("a node that runs takes a snapshot");
        }
        let nodes = cluster.status().await;
        nodes.len() == 2 && nodes.iter().all(|node| node.purged_index > before)
    })
    .await;
    cluster.node(away).start();
    cluster.wait_until_caught_up(away).await;
    let snapshot = last(cluster.status().await).snapshot_index;
    assert!(snapshot > before, "it was meant to come through a snapshot");
    away
}

const MEBIBYTE: usize = 1 << 20;

/// It is told, goes on at another node, and has been told of everything once. Writers notice nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_told_where_to_go_on() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let mut slow = watch_at(&mut cluster, 1, 1).await;
    let put = client.keys().put("k", "first").send().await;
    put.expect("three nodes take a write");
    let (mut events, status) = read_until(&mut slow, 1).await;
    assert!(status.is_none(), "{status:?}");
    // More than a node keeps in memory, and all that the connection may hold.
    let mut last = 0;
    for _ in 0..24 {
        let put = client.keys().put("k", vec![b'v'; MEBIBYTE]).send().await;
        last = put.expect("three nodes take a write").mod_revision;
    }
    cluster.wait_until_caught_up(1).await;

    let (more, status) = read_until(&mut slow, last).await;
    events.extend(more);
    let status = status.expect("it has been too slow");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().expect("a reason");
    assert_eq!(info.reason, "WATCHER_TOO_SLOW");
    let resume = info.metadata["resume_revision"].parse();
    let resume: u64 = resume.expect("a number");
    assert_eq!(resume, events.last().expect("the first").revision + 1);
    cluster.wait_until_caught_up(2).await;
    let mut quick = watch_at(&mut cluster, 2, resume).await;
    let (rest, status) = read_until(&mut quick, last).await;
    assert!(status.is_none(), "{status:?}");
    events.extend(rest);
    let expected: Vec<_> = (1..=last).map(|revision| (revision, 0)).collect();
    assert_eq!(places(&events), expected);
    client.close().await;
}

/// What is no longer kept ends a watch for good, with the revision from which there is everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_before_the_history_is_compacted() {
    let mut cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    // The history is bounded in bytes, among others.
    let mut last = 0;
    for _ in 0..280 {
        let put = client.keys().put("k", vec![b'v'; MEBIBYTE]).send().await;
        last = put.expect("one node takes a write").mod_revision;
    }
    for _ in 0..2 {
        let mut stream = client.watch().from(Revision::new(1)).stream();
        let refused = stream.try_next().await.expect_err("it is long forgotten");
        let refused = refused.rejected().expect("by the node").clone();
        assert_eq!(refused.reason, "COMPACTED", "{refused}");
        let oldest = refused.metadata["oldest_revision"].parse();
        let oldest: u64 = oldest.expect("a number");
        assert!(1 < oldest && oldest < last, "{oldest}");
        let ended = stream.try_next().await.expect("no other error");
        assert!(ended.is_none(), "{ended:?}");

        let mut stream = client.watch().from(Revision::new(oldest)).stream();
        let first = stream.try_next().await.expect("that is kept");
        let Some(Watched::Event(first)) = first else {
            panic!("no event: {first:?}");
        };
        assert_eq!(first.revision, oldest);
        drop(stream);
        // It is the same after a restart.
        cluster.node(1).kill();
        cluster.node(1).start();
        cluster.wait_for_leader().await;
    }
    client.close().await;
}
