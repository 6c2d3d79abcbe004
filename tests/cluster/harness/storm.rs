//! Stories that clients live through while leaders are killed, and the proof that the kills hit requests under way.
//!
//! A kill says something only of what was under way when it came. So each request of a story is an attempt with little
//! patience, repeated until it is answered, a write under the same request id. An attempt that began before a kill and ended
//! behind it without an answer, a write's with nobody knowing whether it was applied, counts as hit. A storm that did not
//! hit what it was to hit fails its test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use trolley::client::{Client, Error, Outcome, Reply};

use super::{Cluster, PATIENCE, Random, eventually};

/// Stories that are lived at the same time.
const TELLERS: u64 = 8;

/// A leader that hangs is missed later, so that an attempt which it takes along ends without an answer.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// A storm that has not hit all that it was to hit goes on for so many times the kills that were asked for.
const PERSEVERANCE: u64 = 4;

/// Stories of one test, and what the kills did to their requests.
#[derive(Default)]
pub struct Storm {
    begun: AtomicU64,
    ended: AtomicU64,
    kills: AtomicU64,
    is_over: AtomicBool,
    requests: Mutex<BTreeMap<&'static str, Requests>>,
}

/// Requests of one kind.
#[derive(Default)]
struct Requests {
    under_way: u64,
    /// Those that a kill hit.
    hit: u64,
    /// Those among them that were applied although their callers were told nothing.
    applied: u64,
}

impl Storm {
    /// Has stories lived and kills a leader at a random moment among them, over and over: so often, and then until each of
    /// these kinds of requests was hit. A story is given the storm, which its requests go through, a client for them, and
    /// its number. Gives what the stories gave, once all nodes are back.
    pub async fn rage<T, F>(
        cluster: &mut Cluster,
        kills: u64,
        kinds: &[&str],
        live: impl Fn(Arc<Self>, Client, u64) -> F + Clone + Send + 'static,
    ) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let storm = Arc::new(Self::default());
        let mut random = Random::seeded();
        let client = cluster.client().timeout(IMPATIENCE);
        let mut told = Vec::new();
        for nth in 0..kills * PERSEVERANCE {
            if nth >= kills && storm.has_hit(kinds) {
                break;
            }
            storm.is_over.store(false, Ordering::Relaxed);
            let mut tellers = JoinSet::new();
            for _ in 0..TELLERS {
                tellers.spawn(Arc::clone(&storm).tell(client.clone(), live.clone()));
            }
            storm.strike(cluster, &mut random, kinds).await;
            for stories in tellers.join_all().await {
                told.extend(stories);
            }
            for id in cluster.others(0) {
                if !cluster.node(id).is_running() {
                    cluster.node(id).start();
                    cluster.wait_until_caught_up(id).await;
                }
            }
        }
        client.close().await;
        println!("{} stories; {}", told.len(), storm.account());
        assert!(storm.has_hit(kinds), "not all of {kinds:?} were hit");
        told
    }

    /// Repeats one write, which must have a request id, until a node answers it or refuses it for good.
    pub async fn ask<T, F>(
        &self,
        kind: &'static str,
        attempt: impl Fn() -> F,
    ) -> Result<Reply<T>, Error>
    where
        F: Future<Output = Result<Reply<T>, Error>>,
    {
        let is_hit = |error: &Error| error.outcome() == Outcome::Unknown;
        self.repeat(kind, attempt, is_hit).await
    }

    /// Repeats one read until a node answers it or refuses it for good.
    pub async fn read<T, F>(
        &self,
        kind: &'static str,
        attempt: impl Fn() -> F,
    ) -> Result<Reply<T>, Error>
    where
        F: Future<Output = Result<Reply<T>, Error>>,
    {
        self.repeat(kind, attempt, |_| true).await
    }

    async fn repeat<T, F>(
        &self,
        kind: &'static str,
        attempt: impl Fn() -> F,
        may_be_hit: impl Fn(&Error) -> bool,
    ) -> Result<Reply<T>, Error>
    where
        F: Future<Output = Result<Reply<T>, Error>>,
    {
        let begun = Instant::now();
        let mut is_hit = false;
        self.note(kind, |it| it.under_way += 1);
        let answer = loop {
            let before = self.kills.load(Ordering::Relaxed);
            match attempt().await {
                Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                    let was_killed = self.kills.load(Ordering::Relaxed) > before;
                    is_hit |= was_killed && may_be_hit(&error);
                }
                answer => break answer,
            }
        };
        let is_applied = is_hit && answer.as_ref().is_ok_and(|reply| reply.replayed);
        self.note(kind, |it| {
            it.under_way -= 1;
            it.hit += u64::from(is_hit);
            it.applied += u64::from(is_applied);
        });
        answer
    }

    /// One story after the other, until the storm is over.
    async fn tell<T, F: Future<Output = T>>(
        self: Arc<Self>,
        client: Client,
        story: impl Fn(Arc<Self>, Client, u64) -> F,
    ) -> Vec<T> {
        let mut told = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            told.push(story(Arc::clone(&self), client.clone(), number).await);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    /// Kills the leader at a random moment of the stories, at which one of a kind is under way that was not hit yet; and
    /// lets the stories come to their ends.
    async fn strike(&self, cluster: &mut Cluster, random: &mut Random, kinds: &[&str]) {
        let leader = cluster.wait_for_leader().await;
        let enough = self.ended.load(Ordering::Relaxed) + 1 + random.below(2 * TELLERS);
        eventually("a moment to kill the leader", async || {
            self.ended.load(Ordering::Relaxed) >= enough && self.has_aim(kinds)
        })
        .await;
        // It hangs before it dies: a leader whose process has ended is replaced before anybody's patience is at an end, and
        // then nothing would tell which requests it took along.
        cluster.node(leader).pause();
        self.kills.fetch_add(1, Ordering::Relaxed);
        self.is_over.store(true, Ordering::Relaxed);
        cluster.wait_for_leader_beside(leader).await;
        cluster.node(leader).kill();
    }

    fn note(&self, kind: &'static str, change: impl FnOnce(&mut Requests)) {
        let mut requests = self.requests.lock().expect("nobody panics under it");
        change(requests.entry(kind).or_default());
    }

    fn has_aim(&self, kinds: &[&str]) -> bool {
        if self.has_hit(kinds) {
            return true;
        }
        let requests = self.requests.lock().expect("nobody panics under it");
        let mut kinds = kinds.iter().filter_map(|kind| requests.get(kind));
        kinds.any(|it| it.hit == 0 && it.under_way > 0)
    }

    fn has_hit(&self, kinds: &[&str]) -> bool {
        let requests = self.requests.lock().expect("nobody panics under it");
        let hits = |kind| requests.get(kind).is_some_and(|it: &Requests| it.hit > 0);
        kinds.iter().all(|kind| hits(*kind))
    }

    fn account(&self) -> String {
        let requests = self.requests.lock().expect("nobody panics under it");
        let hits = requests.iter().filter(|(_, it)| it.hit > 0);
        let hits: Vec<_> = hits
            .map(|(kind, it)| format!("{} {kind} ({} applied)", it.hit, it.applied))
            .collect();
        format!("the kills hit {}", hits.join(", "))
    }
}
