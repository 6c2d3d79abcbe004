//! Wall clocks that differ by an hour, stand still, and jump, while leaders die.
//!
//! A process cannot be given a wall clock of its own, so these nodes share the test's process: each has a data
//! directory, a socket, threads and a clock of its own. One that is stopped loses all of them at once: it is as if its machine had
//! been restarted, but where a test says that the machine stays up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use trolley::client::Client;
use trolley::clock::Clock;
use trolley::config::{NodeConfig, ServeArgs};
use trolley::proto::v1::{NodeStatus, Role};
use trolley::{process, server};

use crate::harness::{Random, connect, eventually, unused_port};

const HOUR_MS: u64 = 3_600_000;
const IDLE_TTL: Duration = Duration::from_secs(12);

/// What `trolley serve` is given.
#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    args: ServeArgs,
}

/// A node within this process.
struct Node {
    address: String,
    data: PathBuf,
    arguments: Vec<String>,
    /// What its wall clock shows. It moves only when the test moves it.
    hand: Arc<AtomicU64>,
    /// Of which kind that is: whether the node's machine is restarted with it.
    clock: fn(Arc<AtomicU64>) -> Clock,
    threads: Option<Runtime>,
}

impl Node {
    fn all(folder: &Path, clock: fn(Arc<AtomicU64>) -> Clock, hands: [u64; 3]) -> Vec<Self> {
        let addresses = hands.map(|_| format!("127.0.0.1:{}", unused_port()));
        let members: Vec<_> = (1..)
            .zip(&addresses)
            .map(|(id, address)| format!("{id}={address}"))
            .collect();
        (1..)
            .zip(addresses.iter().zip(hands))
            .map(|(id, (address, hand)): (u64, _)| Self {
                address: address.clone(),
                data: folder.join(format!("node-{id}")),
                arguments: vec![
                    format!("--node-id={id}"),
                    format!("--listen={address}"),
                    format!("--advertise={address}"),
                    format!("--initial-cluster={}", members.join(",")),
                ],
                hand: Arc::new(AtomicU64::new(hand)),
                clock,
                threads: None,
            })
            .collect()
    }

    fn start(&mut self) {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let data = format!("--data-dir={}", self.data.display());
        let words = ["trolley", &data].map(str::to_owned);
        let words = words.into_iter().chain(self.arguments.iter().cloned());
        let config = NodeConfig::try_from(Serve::parse_from(words).args).expect("valid flags");
        let clock = (self.clock)(Arc::clone(&self.hand));
        let address = self.address.clone();
        threads.spawn(async move {
            let listener = process::listen(&address).await.expect("the port is free");
            let ended = server::run(listener, config, clock, std::future::pending()).await;
            panic!("the node at {address} ended: {ended:?}");
        });
        self.threads = Some(threads);
    }

    /// Drops whatever the node was doing, without a farewell.
    async fn kill(&mut self) {
        let threads = self.threads.take().expect("it runs");
        let dropped =
            tokio::task::spawn_blocking(|| threads.shutdown_timeout(Duration::from_secs(30)));
        dropped.await.expect("threads end");
    }
}

/// The nodes that answer.
async fn status(client: &Client) -> Vec<NodeStatus> {
    let client = client.clone().timeout(Duration::from_secs(3));
    let status = client.cluster().status().await;
    let nodes = status.map(|status| status.nodes).unwrap_or_default();
    let answered = nodes.into_iter().filter(|node| node.error.is_empty());
    answered.collect()
}

/// The index of the node that leads, once all three answer.
async fn leader(client: &Client) -> usize {
    leader_of(client, 3).await
}

/// The same, once so many answer.
async fn leader_of(client: &Client, running: usize) -> usize {
    let mut found = None;
    eventually("a leader of the nodes that run", async || {
        let nodes = status(client).await;
        let leading = nodes.iter().filter(|node| node.role() == Role::Leader);
        let newest = leading.max_by_key(|node| node.term);
        found = newest.map(|node| usize::try_from(node.node_id - 1).expect("a small id"));
        found.is_some() && nodes.len() == running
    })
    .await;
    found.expect("it was just found")
}

async fn log_time(client: &Client) -> u64 {
    let nodes = status(client).await;
    nodes.iter().map(|node| node.log_time_ms).max().unwrap_or(0)
}

/// Three nodes that have a leader, and a client of theirs.
async fn running(
    folder: &Path,
    clock: fn(Arc<AtomicU64>) -> Clock,
    hands: [u64; 3],
) -> (Vec<Node>, Client) {
    let mut nodes = Node::all(folder, clock, hands);
    for node in &mut nodes {
        node.start();
    }
    let endpoints: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
    let client = connect(&endpoints);
    leader(&client).await;
    (nodes, client)
}

/// Ends what [`running`] began.
async fn end(mut nodes: Vec<Node>, client: Client) {
    client.close().await;
    for node in nodes.iter_mut().filter(|node| node.threads.is_some()) {
        node.kill().await;
    }
}

/// A session whose end the test waits for.
struct Watched {
    token: String,
    created: Instant,
    /// As its creator was told.
    deadline_ms: u64,
}

impl Watched {
    async fn create(client: &Client) -> Self {
        // Taken before the store knows of it: nothing may be shorter than the TTL from here.
        let created = Instant::now();
        let session = client.sessions().create().idle_ttl(IDLE_TTL).send().await;
        let session = session.expect("a session can be created").value;
        Self {
            token: session.token.clone(),
            created,
            deadline_ms: session.session.idle_deadline_ms,
        }
    }

    /// Reads it, and checks that it is there if and only if its deadline has not come, in log time; that it did not end
    /// before its TTL was over by a clock that never jumps; and that its deadline is what it was.
    async fn is_there(&self, client: &Client) -> bool {
        let before = log_time(client).await;
        let read = client.sessions().get(&self.token).send().await;
        let lived = self.created.elapsed();
        let deadline = self.deadline_ms;
        match read {
            Ok(session) => {
                assert!(before < deadline, "read at {before}, due {deadline}");
                assert_eq!(session.idle_deadline_ms, deadline, "the deadline moved");
                true
            }
            Err(error) => {
                assert!(error.is_not_found(), "{error}");
                let after = log_time(client).await;
                assert!(after >= deadline, "gone by {after}, due {deadline}");
                assert!(
                    lived >= IDLE_TTL,
                    "it ended after {lived:?} of {IDLE_TTL:?}"
                );
                false
            }
        }
    }

    async fn wait_for_its_end(&self, client: &Client) {
        eventually("the end of a session", async || {
            !self.is_there(client).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wall_clocks_that_differ_and_jump_end_no_session_early_and_none_late() {
    let mut random = Random::seeded();
    let folder = TempDir::with_prefix("trolley-clocks-").expect("a temporary folder can be made");
    let started = Instant::now();
    let today = Clock::System.now().as_millis();
    let (mut nodes, client) = running(
        folder.path(),
        Clock::Manual,
        [today - HOUR_MS, today, today + HOUR_MS],
    )
    .await;
    // Log time begins with the first entry that has a stamp.
    let probe = Watched::create(&client).await;
    let first = log_time(&client).await;
    assert!(probe.is_there(&client).await);

    for _ in 0..3 {
        let session = Watched::create(&client).await;
        for node in &nodes {
            let shown = today + random.below(3) * HOUR_MS - HOUR_MS;
            node.hand.store(shown, Ordering::Relaxed);
        }
        let dying = leader(&client).await;
        nodes[dying].kill().await;
        eventually("another leader", async || {
            let nodes = status(&client).await;
            let mut leading = nodes.iter().filter(|node| node.role() == Role::Leader);
            leading.any(|node| node.node_id != dying as u64 + 1)
        })
        .await;
        session.wait_for_its_end(&client).await;
        nodes[dying].start();
        leader(&client).await;
    }

    // Time stood still for nobody and jumped for nobody; an hour is far more than this took.
    let (reached, elapsed) = (log_time(&client).await, started.elapsed());
    let elapsed = u64::try_from(elapsed.as_millis()).expect("minutes");
    assert!(
        reached >= first,
        "log time went back from {first} to {reached}"
    );
    assert!(
        reached - first <= elapsed + HOUR_MS / 2,
        "log time jumped from {first} to {reached}"
    );

    // After everybody was down, the first leader asks its wall clock, and is not sent back by it.
    let session = Watched::create(&client).await;
    for node in &mut nodes {
        node.kill().await;
        node.hand.store(today - HOUR_MS, Ordering::Relaxed);
    }
    for node in &mut nodes {
        node.start();
    }
    leader(&client).await;
    assert!(log_time(&client).await >= reached);
    session.wait_for_its_end(&client).await;

    end(nodes, client).await;
}

/// Whoever leads after everybody was down, time that passed meanwhile is what the earliest wall clock of the electing
/// majority says: one that is an hour ahead is not believed, though its node leads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_clock_ends_nothing_early_even_after_everybody_was_down() {
    let folder = TempDir::with_prefix("trolley-clocks-").expect("a temporary folder can be made");
    let started = Instant::now();
    let today = Clock::System.now().as_millis();
    let elapsed = || u64::try_from(started.elapsed().as_millis()).expect("minutes");
    let (mut nodes, client) = running(folder.path(), Clock::Manual, [today; 3]).await;

    let mut away = 0;
    for (fast, right) in [(0, 1), (1, 2), (2, 0)] {
        let session = Watched::create(&client).await;
        let before = log_time(&client).await;
        for node in nodes.iter_mut().filter(|node| node.threads.is_some()) {
            node.kill().await;
        }
        // For a minute, as far as a clock that is right can tell.
        away += 60_000;
        let now = today + elapsed() + away;
        nodes[fast].hand.store(now + HOUR_MS, Ordering::Relaxed);
        nodes[right].hand.store(now, Ordering::Relaxed);
        nodes[fast].start();
        nodes[right].start();
        let leading = leader_of(&client, 2).await;
        // Later on the other one was not there when the session was created.
        assert!(away == 60_000 || leading == fast, "{leading} leads");
        // It moves on with the first entry that has a stamp.
        let put = client.keys().put("k", "v").send().await;
        put.expect("two nodes take a write");
        let after = log_time(&client).await;
        assert!(
            (before + 30_000..before + HOUR_MS / 2).contains(&after),
            "log time went from {before} to {after} under node {leading}; node {fast} is an hour ahead"
        );
        let gone = client.sessions().get(&session.token).send().await;
        let gone = gone.expect_err("the minute is longer than its TTL");
        assert!(gone.is_not_found(), "{gone}");
    }

    end(nodes, client).await;
}

/// Where only processes were restarted, and be it all of them, log time passes as fast as time, whatever wall clocks show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_processes_go_on_by_the_clock_of_their_machine() {
    /// Three clocks are read, each in whole milliseconds.
    const ROUNDING: Duration = Duration::from_millis(5);
    let folder = TempDir::with_prefix("trolley-clocks-").expect("a temporary folder can be made");
    let today = Clock::System.now().as_millis();
    let (mut nodes, client) = running(folder.path(), Clock::Skewed, [today; 3]).await;

    // A log time, and between which two moments it was that.
    let stamped = async || {
        let before = Instant::now();
        let put = client.keys().put("k", "v").send().await;
        put.expect("the cluster takes a write");
        let time = Duration::from_millis(log_time(&client).await);
        (time, before, Instant::now())
    };
    // Each node writes down what it knows once a second, with the next write.
    let started = Instant::now();
    eventually("writes for longer than that", async || {
        stamped().await;
        started.elapsed() > Duration::from_millis(2_500)
    })
    .await;
    for shown in [today - HOUR_MS, today, today + HOUR_MS, today] {
        let (earlier, began, ended) = stamped().await;
        for node in &mut nodes {
            node.kill().await;
            node.hand.store(shown, Ordering::Relaxed);
        }
        for node in &mut nodes {
            node.start();
        }
        leader(&client).await;
        let (later, begins, ends) = stamped().await;
        let passed = later.saturating_sub(earlier);
        let (least, most) = (begins - ended, ends - began);
        assert!(
            passed + ROUNDING >= least && passed <= most + ROUNDING,
            "log time passed by {passed:?}, in {least:?} to {most:?}, with wall clocks at {shown} of {today}"
        );
    }

    end(nodes, client).await;
}
