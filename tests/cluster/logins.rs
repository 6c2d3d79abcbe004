//! Logins and log-outs through the death of the leader: all of it or nothing, and no way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use trolley::client::{CartOwner, Client, Error};

use crate::harness::{Cluster, Random, eventually};

/// How often the leader is killed.
const KILLS: usize = 3;

async fn is_there(client: &Client, token: &str) -> bool {
    match client.sessions().get(token).send().await {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => panic!("a read failed: {error}"),
    }
}

async fn quantity(client: &Client, owner: &CartOwner) -> u32 {
    let cart = client.carts().get(owner).send().await;
    let cart = cart.expect("a cart can be read");
    cart.lines.iter().map(|line| line.quantity).sum()
}

/// One customer after the other: a guest with two mugs in the cart logs in.
async fn log_in(client: &Client, user: &str) -> Result<(String, String), Error> {
    let guest = client
        .sessions()
        .create()
        .field("theme", "dark")
        .send()
        .await?;
    let owner = CartOwner::Session(guest.token.clone());
    client.carts().add(&owner, "mug", 2).send().await?;
    let rotate = client.sessions().rotate(&guest.token).user(user);
    let rotated = rotate.set("step", "done").send().await?;
    assert_eq!(rotated.user_id, user);
    let cart = rotated.cart.as_ref().expect("there was a cart");
    assert_eq!((cart.taken_lines, cart.dropped_lines), (1, 0));
    Ok((guest.token.clone(), rotated.token.clone()))
}

/// Each login happened once and whole, whatever the leader died of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_whole_through_the_death_of_the_leader() {
    let mut cluster = Cluster::start(3, &[]).await;
    let mut random = Random::seeded();
    let client = cluster.client();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let (client, stop, done) = (client.clone(), Arc::clone(&stop), Arc::clone(&done));
        tasks.spawn(async move {
            let mut logins = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let user = format!("user-{task}-{}", logins.len());
                let tokens = log_in(&client, &user).await;
                logins.push((user, tokens.expect("retries outlast an election")));
                done.fetch_add(1, Ordering::Relaxed);
            }
            logins
        });
    }
    for _ in 0..KILLS {
        let goal = done.load(Ordering::Relaxed) + 5 + random.below(20);
        eventually("more logins", async || done.load(Ordering::Relaxed) >= goal).await;
        let leader = cluster.wait_for_leader().await;
        cluster.node(leader).kill();
        cluster.wait_for_leader_beside(leader).await;
        cluster.node(leader).start();
        cluster.wait_until_caught_up(leader).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(logins) = tasks.join_next().await {
        for (user, (old, new)) in logins.expect("no task panics") {
            assert!(
                !is_there(&client, &old).await,
                "the old token of {user} lives"
            );
            let session = client.sessions().get(&new).send().await.expect("it lives");
            assert_eq!(session.user_id, user);
            assert_eq!(session.fields.len(), 2);
            assert_eq!(quantity(&client, &CartOwner::User(user.clone())).await, 2);
            let listed = client.sessions().list(&user).current(&new).send().await;
            let listed = listed.expect("a listing can be read");
            assert_eq!(listed.sessions.len(), 1);
            assert!(listed.sessions[0].current);
        }
    }
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// An acknowledged revocation holds on the next leader, and late writes of those that were logged out change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_logged_out_stays_out() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let mut tokens = Vec::new();
    for device in 0..150 {
        let create = client.sessions().create().user("ann");
        let made = create.client("device", format!("{device}")).send().await;
        tokens.push(made.expect("a session can be created").token.clone());
    }
    let kept = tokens.pop().expect("some were made");
    let revoked = client
        .sessions()
        .revoke_all("ann")
        .except(&kept)
        .send()
        .await;
    assert_eq!(revoked.expect("it can be done").value, 149);
    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    cluster.wait_for_leader_beside(leader).await;
    for token in &tokens {
        assert!(!is_there(&client, token).await);
        let late = client.sessions().update(token).set("a", "b").send().await;
        let late = late.expect_err("it was logged out");
        assert_eq!(late.reason(), Some("SESSION_NOT_FOUND"));
    }
    let again = client.sessions().create().token(&tokens[0]).send().await;
    let again = again.expect_err("a token is good for one session");
    assert_eq!(again.reason(), Some("SESSION_ENDED"));
    assert!(is_there(&client, &kept).await);
    let listed = client.sessions().list("ann").send().await;
    assert_eq!(listed.expect("a listing can be read").sessions.len(), 1);
    cluster.node(leader).start();
    cluster.wait_for_agreement().await;
    client.close().await;
}

/// Touching reads keep a session alive, through a change of leaders, and cost a write only now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_read_with_touches_lives_on() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.client();
    let ttl = Duration::from_secs(4);
    let made = client.sessions().create().idle_ttl(ttl).send().await;
    let made = made.expect("a session can be created").value;
    let first_deadline = made.session.idle_deadline_ms;
    let leader = cluster.wait_for_leader().await;
    cluster.node(leader).kill();
    let mut last = None;
    eventually("a life beyond the first deadline", async || {
        let read = client.sessions().get(&made.token).touch().send().await;
        let read = read.expect("it was seen a moment ago").value;
        let beyond = read.last_seen_ms > first_deadline;
        last = Some(read);
        beyond
    })
    .await;
    let last = last.expect("it was read");
    assert_eq!(last.mod_revision, made.session.mod_revision);
    cluster.node(leader).start();
    cluster.wait_for_agreement().await;
    client.close().await;
}
