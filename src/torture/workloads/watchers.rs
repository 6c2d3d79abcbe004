//! Consumers of the watch stream that break off now and then, and go on elsewhere from where they were.
//!
//! They do by hand what is written for users of the API: ask for the last progress + 1, drop what came before. After the
//! writers have stopped, they follow until a given revision.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Context, registers};
use crate::client::{Client, Error, Watched};
use crate::proto::v1::{self, event::Record};
use crate::types::{NodeId, Revision};

const CONSUMERS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a consumer follows one stream.
const ONE_STREAM_MS: std::ops::Range<u64> = 500..4_000;
const PROGRESS: Duration = Duration::from_millis(200);

/// An event as a consumer took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Of the store.
    pub revision: u64,
    /// Among the events of that revision.
    pub position: u32,
    /// The key.
    pub key: String,
    /// What it holds from then on, if it is there.
    pub value: Option<String>,
}

/// What one consumer was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Events, as they came.
    pub events: Vec<Told>,
    /// Everything up to here came.
    pub progress: u64,
    /// How often it went on with another stream.
    pub resumed: u64,
    /// Why it ended early, if it did.
    pub ended: Option<String>,
}

/// Consumers at work.
#[derive(Debug)]
pub struct Watchers {
    feeds: Vec<Arc<Mutex<Feed>>>,
    goal: watch::Sender<Option<u64>>,
}

impl Watchers {
    /// Starts the consumers. They go on until [`Self::finish`].
    pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Self, Error> {
        let goal = watch::Sender::new(None);
        let mut feeds = Vec::new();
        for number in 0..context.count(CONSUMERS) {
            let consumer = Consumer {
                client: context.client(number, PATIENCE)?,
                // One of them asks for a node; it is given another one while that is away.
                at: (number == 0).then(|| NodeId::new(1).ok()).flatten(),
                feed: Arc::new(Mutex::new(Feed {
                    progress: context.begins_at,
                    ..Feed::default()
                })),
                goal: goal.subscribe(),
                random: context.random("watchers", number),
            };
            feeds.push(Arc::clone(&consumer.feed));
            tasks.spawn(consumer.run());
        }
        Ok(Self { feeds, goal })
    }

    /// Nothing is written any more: they follow until this revision.
    pub fn finish(&self, revision: u64) {
        self.goal.send_replace(Some(revision));
    }

    /// What they were told.
    #[must_use]
    pub fn feeds(&self) -> Vec<Feed> {
        let feeds = self.feeds.iter();
        feeds.map(|feed| lock(feed).clone()).collect()
    }
}

fn lock(feed: &Mutex<Feed>) -> std::sync::MutexGuard<'_, Feed> {
    feed.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Consumer {
    client: Client,
    at: Option<NodeId>,
    feed: Arc<Mutex<Feed>>,
    goal: watch::Receiver<Option<u64>>,
    random: Rng,
}

impl Consumer {
    async fn run(mut self) {
        while !self.has_arrived() {
            let one_stream = Duration::from_millis(self.random.u64(ONE_STREAM_MS));
            if let Err(error) = self.follow(Instant::now() + one_stream).await {
                lock(&self.feed).ended = Some(error.to_string());
                break;
            }
            lock(&self.feed).resumed += 1;
        }
        self.client.close().await;
    }

    fn has_arrived(&self) -> bool {
        let goal = *self.goal.borrow();
        goal.is_some_and(|goal| lock(&self.feed).progress >= goal)
    }

    async fn follow(&mut self, until: Instant) -> Result<(), Error> {
        let start = lock(&self.feed).progress + 1;
        let mut watch = self
            .client
            .watch()
            .key_prefix(registers::PREFIX)
            .progress_interval(PROGRESS)
            .from(Revision::new(start));
        if let Some(node) = self.at {
            watch = watch.at(node);
        }
        let mut stream = watch.stream();
        while !self.has_arrived() {
            let next = tokio::select! {
                next = stream.next() => next,
                () = tokio::time::sleep_until(until) => return Ok(()),
            };
            match next {
                None => return Ok(()),
                Some(Ok(Watched::Event(event))) => self.take(*event),
                Some(Ok(Watched::Progress { revision, .. })) => {
                    let mut feed = lock(&self.feed);
                    feed.progress = feed.progress.max(revision.get());
                }
                // No node could be watched for a while.
                Some(Err(error)) if error.is_retryable() => {}
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Drops what came before: a stream that was broken off in the middle of a revision brings it again from its beginning.
    fn take(&self, event: v1::Event) {
        let mut feed = lock(&self.feed);
        let place = (event.revision, event.position);
        let last = feed.events.last().map(|it| (it.revision, it.position));
        let is_again = place.0 > feed.progress && last.is_some_and(|last| place <= last);
        let Some(Record::Key(key)) = event.record else {
            return;
        };
        if !is_again {
            feed.events.push(Told {
                revision: place.0,
                position: place.1,
                key: key.key,
                value: key
                    .item
                    .map(|item| String::from_utf8_lossy(&item.value).into_owned()),
            });
        }
    }
}
