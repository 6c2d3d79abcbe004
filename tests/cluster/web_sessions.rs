//! The store for `tower-sessions` on real nodes: what its trait asks for, what Trolley adds, and a shop in axum.

use std::sync::Arc;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tokio::task::JoinSet;
use tower_sessions::session::{Id, Record};
use tower_sessions::session_store::ExpiredDeletion as _;
use tower_sessions::{Expiry, Session, SessionStore};
use trolley::client::Client;
use trolley::tower_sessions::TrolleyStore;

use crate::harness::{Cluster, eventually};

#[path = "../../examples/shop.rs"]
mod shop;

mod browser;

fn in_an_hour() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::hours(1)
}

fn record(entries: &[(&str, Value)], expiry_date: OffsetDateTime) -> Record {
    let entries = entries.iter().cloned();
    Record {
        id: Id::default(),
        data: entries
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        expiry_date,
    }
}

fn theme(theme: &str) -> Record {
    record(&[("theme", json!(theme))], in_an_hour())
}

async fn load(store: &TrolleyStore, id: &Id) -> Option<Record> {
    store.load(id).await.expect("a leader answers")
}

async fn create(store: &TrolleyStore, record: &mut Record) {
    store.create(record).await.expect("it can be created");
}

async fn save(store: &TrolleyStore, record: &Record) {
    store.save(record).await.expect("no failure of the request");
}

/// Each test has its own, so that nothing is remembered of another process's loads.
fn store(client: &Client) -> TrolleyStore {
    TrolleyStore::new(client.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_does_what_its_trait_asks_for() {
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    creation_and_collision(&store(&client)).await;
    saves(&store(&client), &store(&client)).await;
    ends(&store(&client), &store(&client)).await;
    expiry(&client).await;
    other_programs(&client).await;
    client.close().await;
}

async fn creation_and_collision(store: &TrolleyStore) {
    let mut first = record(
        &[
            ("theme", json!("dark")),
            ("", json!([1, {"two": null}])),
            ("$expiry", json!(1.5)),
        ],
        in_an_hour(),
    );
    create(store, &mut first).await;
    assert_eq!(load(store, &first.id).await.as_ref(), Some(&first));

    let mut second = theme("light");
    second.id = first.id;
    create(store, &mut second).await;
    assert_ne!(second.id, first.id, "the collision was resolved");
    assert_eq!(load(store, &first.id).await.as_ref(), Some(&first));
    assert_eq!(load(store, &second.id).await, Some(second));
    assert_eq!(load(store, &Id::default()).await, None);
}

async fn saves(store: &TrolleyStore, other: &TrolleyStore) {
    // A save of what was never created.
    let mut record = theme("dark");
    save(store, &record).await;
    assert_eq!(load(other, &record.id).await.as_ref(), Some(&record));
    // By the process that made it, and by one that knows nothing of it.
    for store in [store, other] {
        record.data.remove("theme");
        record.data.insert("lang".to_owned(), json!("de"));
        record.expiry_date += Duration::hours(1);
        save(store, &record).await;
        assert_eq!(load(store, &record.id).await.as_ref(), Some(&record));
        record.data.insert("theme".to_owned(), json!("light"));
        save(store, &record).await;
        assert_eq!(load(other, &record.id).await.as_ref(), Some(&record));
    }
}

async fn ends(store: &TrolleyStore, other: &TrolleyStore) {
    let mut record = theme("dark");
    create(store, &mut record).await;
    let loaded = load(other, &record.id).await.expect("it was created");
    store.delete(&record.id).await.expect("it is there");
    assert_eq!(load(other, &record.id).await, None);
    // Whoever saves it late, with or without having loaded it, by whichever way, brings nothing back.
    let third = TrolleyStore::clone(store);
    for late in [store, other, &third] {
        save(late, &loaded).await;
        save(late, &record).await;
        assert_eq!(load(late, &record.id).await, None);
    }
    let mut again = record.clone();
    create(store, &mut again).await;
    assert_ne!(again.id, record.id, "the id is used up");
    assert_eq!(load(store, &record.id).await, None);
    store
        .delete(&record.id)
        .await
        .expect("as often as one likes");
    store.delete(&Id::default()).await.expect("even of none");
    store
        .delete_expired()
        .await
        .expect("there is nothing to do");
}

async fn expiry(client: &Client) {
    let store = &store(client);
    let soon = || OffsetDateTime::now_utc() + Duration::seconds(1);
    let past = OffsetDateTime::now_utc() - Duration::seconds(1);
    let mut stillborn = theme("dark");
    stillborn.expiry_date = past;
    create(store, &mut stillborn).await;
    assert_eq!(load(store, &stillborn.id).await, None);

    let mut short = theme("dark");
    short.expiry_date = soon();
    create(store, &mut short).await;
    let mut shorter = theme("dark");
    create(store, &mut shorter).await;
    shorter.expiry_date = soon();
    save(store, &shorter).await;
    for record in [short, shorter] {
        let gone = async || load(store, &record.id).await.is_none();
        eventually("the end of a session", gone).await;
        assert!(
            OffsetDateTime::now_utc() >= record.expiry_date,
            "it ended too early"
        );
    }

    // A term that a save makes longer, as of somebody who wants to be remembered.
    let mut longer = theme("dark");
    longer.expiry_date = OffsetDateTime::now_utc() + Duration::minutes(1);
    create(store, &mut longer).await;
    longer.expiry_date += Duration::days(30);
    save(store, &longer).await;
    assert_eq!(load(store, &longer.id).await.as_ref(), Some(&longer));
    let session = client.sessions().get(&TrolleyStore::token(&longer.id));
    let session = session.send().await.expect("it lives").value;
    for deadline in [session.idle_deadline_ms, session.absolute_deadline_ms] {
        let nanos = i128::from(deadline) * 1_000_000;
        let deadline = OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("in range");
        assert!((deadline - longer.expiry_date).abs() < Duration::minutes(10));
    }
    longer.expiry_date = past;
    save(store, &longer).await;
    assert_eq!(load(store, &longer.id).await, None);
    // As long as nothing lives.
    let mut eternal = theme("dark");
    eternal.expiry_date = OffsetDateTime::now_utc() + Duration::days(365 * 1000);
    create(store, &mut eternal).await;
    assert_eq!(load(store, &eternal.id).await, Some(eternal));
}

/// The fields have their own names, and what is not the store's stays.
async fn other_programs(client: &Client) {
    let store = store(client);
    let mut record = theme("dark");
    create(&store, &mut record).await;
    let token = TrolleyStore::token(&record.id);
    let update = client.sessions().update(&token);
    let update = update.set("blob", vec![0xFF]).set("lang", "\"de\"");
    update.send().await.expect("it lives");
    let loaded = load(&store, &record.id).await.expect("it lives");
    assert_eq!(loaded.data["lang"], "de");
    assert_eq!(loaded.data.len(), 2);
    save(&store, &theme_of(&loaded, "light")).await;
    let session = client.sessions().get(&token).send().await;
    let fields = session.expect("it lives").value.fields;
    assert_eq!(fields["theme"], "\"light\"");
    assert_eq!(fields["lang"], "\"de\"");
    assert_eq!(fields["blob"], vec![0xFF]);
}

fn theme_of(record: &Record, theme: &str) -> Record {
    let mut record = record.clone();
    record.data.insert("theme".to_owned(), json!(theme));
    record
}

fn session(store: &TrolleyStore, id: Id) -> Session {
    let expiry = Expiry::OnInactivity(Duration::hours(1));
    Session::new(Some(id), Arc::new(store.clone()), Some(expiry))
}

async fn set(session: &Session, name: &str, value: u64) {
    session.insert(name, value).await.expect("it can be loaded");
}

async fn saved(session: &Session) {
    session.save().await.expect("it can be saved");
}

async fn data(store: &TrolleyStore, id: &Id) -> Vec<(String, u64)> {
    let record = load(store, id).await.expect("it lives");
    let entries = record.data.into_iter();
    let number = |value: Value| value.as_u64().expect("a number");
    let mut entries: Vec<_> = entries.map(|(name, value)| (name, number(value))).collect();
    entries.sort_unstable();
    entries
}

fn entries(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    let expected = expected.iter();
    expected
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

/// Two requests of one browser at the same time, in one process and in two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_keep_each_others_changes() {
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let here = store(&client);
    for there in [here.clone(), store(&client)] {
        let mut begun = record(
            &[("a", json!(1)), ("b", json!(1)), ("n", json!(1))],
            in_an_hour(),
        );
        create(&here, &mut begun).await;
        let id = begun.id;
        let (one, two) = (session(&here, id), session(&there, id));
        set(&one, "a", 2).await;
        set(&two, "b", 2).await;
        saved(&one).await;
        saved(&two).await;
        let expected = entries(&[("a", 2), ("b", 2), ("n", 1)]);
        assert_eq!(data(&here, &id).await, expected);
        // The same request saves again, and takes back what it did. Meanwhile another one counts.
        let theirs = there.clone();
        let mut meanwhile = JoinSet::new();
        meanwhile.spawn(async move {
            let third = session(&theirs, id);
            set(&third, "n", 2).await;
            saved(&third).await;
        });
        meanwhile.join_all().await;
        let after = session(&there, id);
        set(&after, "a", 3).await;
        saved(&after).await;
        set(&after, "a", 2).await;
        after.remove::<u64>("b").await.expect("it is a number");
        saved(&after).await;
        assert_eq!(data(&here, &id).await, entries(&[("a", 2), ("n", 2)]));
    }
    client.close().await;
}

/// The layer has the connection's task, and the handler one of its own, as programs do whose handlers go on when the client is gone.
async fn choose(store: &TrolleyStore, id: Id, theme: u64) {
    let session = session(store, id);
    let mut handler = JoinSet::new();
    let inner = session.clone();
    handler.spawn(async move { set(&inner, "theme", theme).await });
    handler.join_all().await;
    saved(&session).await;
}

/// Requests one after the other, through one process and another: what was said to be saved is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_is_not_taken_for_an_earlier_one() {
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let (here, there) = (store(&client), store(&client));
    let mut begun = record(&[("theme", json!(1))], in_an_hour());
    create(&here, &mut begun).await;
    // Memory is used again, so that some of these records come where others were.
    for turn in 0..20 {
        choose(&here, begun.id, 2).await;
        choose(&there, begun.id, 1).await;
        choose(&here, begun.id, 2).await;
        assert_eq!(
            data(&there, &begun.id).await,
            entries(&[("theme", 2)]),
            "{turn}"
        );
        choose(&there, begun.id, 1).await;
    }
    client.close().await;
}

/// Logged out in one tab, while a request of another tab is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_wins_over_requests_that_are_under_way() {
    let cluster = Cluster::start(1, &[]).await;
    let client = cluster.client();
    let (here, there) = (store(&client), store(&client));
    let mut begun = record(&[("a", json!(1))], in_an_hour());
    create(&here, &mut begun).await;
    let (slow, fast) = (session(&here, begun.id), session(&there, begun.id));
    set(&slow, "a", 2).await;
    fast.flush().await.expect("it can be deleted");
    saved(&slow).await;
    // One that never looked at what it writes.
    let blind = session(&there, begun.id);
    blind.clear().await;
    saved(&blind).await;
    assert_eq!(load(&here, &begun.id).await, None);

    // A new cookie at login ends the old one.
    let mut guest = record(&[("a", json!(1))], in_an_hour());
    create(&here, &mut guest).await;
    let login = session(&here, guest.id);
    login.cycle_id().await.expect("the old one can be deleted");
    saved(&login).await;
    let id = login.id().expect("it was saved");
    assert_ne!(id, guest.id);
    assert_eq!(data(&there, &id).await, entries(&[("a", 1)]));
    assert_eq!(load(&there, &guest.id).await, None);
    client.close().await;
}

/// A guest fills a cart, logs in, goes on shopping and logs out, and the leader dies before each of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_in_axum_survives_the_death_of_leaders() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    // Two web servers, which have nothing in common but the cluster.
    let servers = [browser::serve(shop::router(client.clone())).await, {
        let other = cluster.client();
        browser::serve(shop::router(other)).await
    }];
    let mut browser = browser::Browser::new(servers.iter().map(|server| server.address).collect());

    assert_eq!(
        browser.json("GET", "/").await,
        json!({"user": null, "cart": {}})
    );
    assert!(browser.cookie().is_none(), "nothing to remember");
    browser.json("POST", "/cart/mug").await;
    let guest = browser.cookie().expect("there is a cart to remember");
    kill_leader(&mut cluster).await;
    browser.json("POST", "/cart/tea").await;
    let cart = json!({"mug": 1, "tea": 1});
    assert_eq!(
        browser.json("GET", "/").await,
        json!({"user": null, "cart": cart})
    );

    kill_leader(&mut cluster).await;
    browser.json("POST", "/login/ada").await;
    assert_ne!(browser.cookie().as_ref(), Some(&guest), "a new cookie");
    kill_leader(&mut cluster).await;
    // The browser is impatient, and the add counts once.
    for _ in 0..3 {
        browser
            .json_as("POST", "/cart/mug", Some("one click"))
            .await;
    }
    let cart = json!({"mug": 2, "tea": 1});
    assert_eq!(
        browser.json("GET", "/").await,
        json!({"user": "ada", "cart": cart})
    );

    let mut thief = browser.with_cookie(&guest);
    assert_eq!(
        thief.json("GET", "/").await,
        json!({"user": null, "cart": {}})
    );
    let ada = browser.cookie().expect("she is logged in");
    kill_leader(&mut cluster).await;
    assert_eq!(browser.send("POST", "/logout", None).await.0, 204);
    let mut thief = browser.with_cookie(&ada);
    assert_eq!(
        thief.json("GET", "/").await,
        json!({"user": null, "cart": {}})
    );
    // On another machine.
    let mut elsewhere = browser.with_cookie("");
    elsewhere.json("POST", "/login/ada").await;
    let cart = json!({"mug": 2, "tea": 1});
    assert_eq!(
        elsewhere.json("GET", "/").await,
        json!({"user": "ada", "cart": cart})
    );
    revive(&mut cluster).await;
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// Brings back whoever was killed, and kills the leader. Waits for nothing else: the next request meets the election.
async fn kill_leader(cluster: &mut Cluster) {
    revive(cluster).await;
    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
}

async fn revive(cluster: &mut Cluster) {
    for id in cluster.others(0) {
        if !cluster.node(id).is_running() {
            cluster.node(id).start();
            cluster.wait_until_caught_up(id).await;
        }
    }
}
