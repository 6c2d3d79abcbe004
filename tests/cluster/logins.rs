//! Logins and log-outs through the death of the leader: all of it or nothing, and no way back.

use std::sync::Arc;
use std::time::Duration;

use trolley::client::{CartOwner, Client};

use crate::harness::{Cluster, Storm, eventually};

/// How often the leader is killed.
const KILLS: u64 = 3;

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

/// A guest with two mugs in the cart logs in. The old token and the new one.
async fn log_in(storm: &Storm, client: &Client, user: &str) -> (String, String) {
    let id = |verb: &str| format!("{user}/{verb}");
    let create = storm.ask("create", || {
        let create = client.sessions().create().field("theme", "dark");
        create.request_id(id("create")).send()
    });
    let guest = create.await.expect("it can be created").value.token;
    let owner = CartOwner::Session(guest.clone());
    let add = storm.ask("add", || {
        let add = client.carts().add(&owner, "mug", 2);
        add.request_id(id("add")).send()
    });
    add.await.expect("it can be added");
    let rotate = storm.ask("rotate", || {
        let rotate = client.sessions().rotate(&guest).user(user);
        rotate.set("step", "done").request_id(id("rotate")).send()
    });
    let rotated = rotate.await.expect("a guest may log in").value;
    assert_eq!(rotated.user_id, user);
    let cart = rotated.cart.as_ref().expect("there was a cart");
    assert_eq!((cart.taken_lines, cart.dropped_lines), (1, 0));
    (guest, rotated.token.clone())
}

/// Each login happened once and whole, whatever the leader died of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_whole_through_the_death_of_the_leader() {
    let mut cluster = Cluster::start(3, &[]).await;
    let story = |storm: Arc<Storm>, client: Client, number| async move {
        let user = format!("user-{number}");
        let (old, new) = log_in(&storm, &client, &user).await;
        (user, old, new)
    };
    let logins = Storm::rage(&mut cluster, KILLS, &["rotate"], story).await;
    let client = cluster.client();
    for (user, old, new) in logins {
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
    // Longer than an election takes on a machine that is busy.
    let ttl = Duration::from_secs(10);
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
