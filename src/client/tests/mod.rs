//! The client against nodes that fail by script.

mod failover;
mod fake;
mod link;
mod load;
mod outcomes;
mod slow;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::fake::{Fake, Step, Store};
use super::{Client, ClientConfig};

/// For what must happen, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a condition.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Nodes 1 to `count` of one cluster, and what they store. Node 1 leads.
async fn cluster(count: u64) -> (Vec<Fake>, Arc<Store>) {
    let store = Arc::new(Store::default());
    let mut fakes = Vec::new();
    for id in 1..=count {
        fakes.push(Fake::start(id, &store).await);
    }
    let members: Vec<_> = fakes.iter().collect();
    for fake in &fakes {
        fake.set_members(&members);
    }
    elect(&fakes, 1, 0);
    (fakes, store)
}

/// All nodes take `fakes[leader]` for the leader; the others refuse.
fn elect(fakes: &[Fake], term: u64, leader: usize) {
    for (place, fake) in fakes.iter().enumerate() {
        if place == leader {
            fake.script(|_, _| Step::Serve);
        } else {
            let refusal = fake.not_leader(&fakes[leader]);
            fake.script(move |_, _| Step::Fail(refusal.clone()));
        }
        fake.announce(term, Some(&fakes[leader]));
    }
}

fn config(fakes: &[Fake]) -> ClientConfig {
    ClientConfig::new(fakes.iter().map(|fake| &fake.address))
        .expect("the addresses are well formed")
        .attempt_timeout(Duration::from_millis(200))
        .timeout(PATIENCE)
}

fn connect(fakes: &[Fake]) -> Client {
    Client::connect(config(fakes)).expect("the system has randomness")
}

/// An address where nobody listens.
async fn dead_endpoint() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    address.to_string()
}

/// The future of a call is moved several times before it is polled first.
#[tokio::test]
async fn a_call_is_small_to_move() {
    const LARGEST: usize = 1024;
    let config = ClientConfig::new(["127.0.0.1:1"]).expect("it is an address");
    let client = Client::connect(config).expect("nobody is asked yet");
    let sizes = [
        (
            "put",
            size_of_val(&client.keys().put("key", "value").send()),
        ),
        ("get", size_of_val(&client.keys().get("key").send())),
        (
            "update",
            size_of_val(&client.sessions().update("token").send()),
        ),
        ("read", size_of_val(&client.sessions().get("token").send())),
        ("txn", size_of_val(&client.txn().send())),
    ];
    for (call, size) in sizes {
        assert!(size <= LARGEST, "{call} takes {size} bytes");
    }
}
