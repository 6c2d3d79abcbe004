//! Wall clocks that differ by an hour, stand still, and jump, while leaders die.
//!
//! A process cannot be given a wall clock of its own, so these nodes share the test's process, each with a clock of its own. One that
//! is killed loses all that it has at once: it is as if its machine had been restarted, but where a test says that the machine stays up.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use trolley::client::Client;
use trolley::clock::Clock;
use trolley::proto::v1::Role;

use crate::harness::inside::{end, leader_of, running, status};
use crate::harness::{Random, eventually};

const HOUR_MS: u64 = 3_600_000;
const IDLE_TTL: Duration = Duration::from_secs(12);

/// The index of the node that leads, once all three answer.
async fn leader(client: &Client) -> usize {
    leader_of(client, 3).await
}

async fn log_time(client: &Client) -> u64 {
    let nodes = status(client).await;
    nodes.iter().map(|node| node.log_time_ms).max().unwrap_or(0)
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
        for node in nodes.iter_mut().filter(|node| node.is_running()) {
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
