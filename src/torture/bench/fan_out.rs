//! Many watchers of the same keys at one node, and how far they are behind who writes them.
//!
//! Each client puts a key again when its last put has come to every watcher, so that what is measured is what can be
//! delivered, not how a backlog grows. A value begins with the time at which its put was sent; a watcher notes how long ago that
//! was, so the lag holds the write itself. The watchers are there before the first put and are waited for after the last:
//! one that was told of more or fewer puts than were acknowledged fails the run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::report::as_float;
use super::{Error, MAX_MICROS, Phase, Plan, cpu_time};
use crate::client::{self, Client, Watched};
use crate::proto::v1::{Event, Role, event::Record};
use crate::types::NodeId;

/// Where the run's keys are.
const PREFIX: &str = "fan-out/";
/// Each watcher has a histogram of its own, and they are many.
const DIGITS: u8 = 2;
/// A time stands at a value's beginning.
const STAMP_BYTES: usize = size_of::<u64>();
/// After the last put, for the last watcher.
const PATIENCE: Duration = Duration::from_secs(60);

/// The figures of one run. Times are microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct FanOut {
    /// Watchers, each of whom is told everything.
    pub watchers: u32,
    /// Clients that write.
    pub clients: usize,
    /// Measured time.
    pub seconds: f64,
    /// Events that arrived a second, at all watchers together.
    pub events_per_second: f64,
    /// Of those, at one watcher on average: what is written a second.
    pub events_per_second_and_watcher: f64,
    /// From a put's being sent to its event's arrival, median.
    pub lag_p50_us: u64,
    /// 99th percentile.
    pub lag_p99_us: u64,
    /// The longest.
    pub lag_max_us: u64,
    /// CPU time of all servers together for one event; absent when no server was named.
    pub server_cpu_us_per_event: Option<f64>,
}

/// What all tasks of a run share.
struct Run {
    phase: Phase,
    begun: Instant,
    value_bytes: usize,
    keys: u64,
    watchers: u32,
    /// An event that arrived is worth a permit, and a put costs as many as there are watchers. Closed when the run is over, or has
    /// failed.
    arrived: Semaphore,
}

impl Run {
    fn stamped(&self) -> Bytes {
        let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut value = now.to_be_bytes().to_vec();
        value.resize(self.value_bytes.max(STAMP_BYTES), b'v');
        value.into()
    }

    /// How long ago a put was sent.
    fn lag(&self, event: &Event) -> Option<Duration> {
        let Some(Record::Key(key)) = &event.record else {
            return None;
        };
        let stamp = key.item.as_ref()?.value.first_chunk::<STAMP_BYTES>()?;
        let sent = Duration::from_micros(u64::from_be_bytes(*stamp));
        self.begun.elapsed().checked_sub(sent)
    }

    fn is_measuring(&self) -> bool {
        self.phase.measuring.load(Ordering::Relaxed) && !self.phase.over.load(Ordering::Relaxed)
    }
}

/// What one watcher saw.
struct Seen {
    lag: Histogram<u64>,
    events: u64,
}

/// What one client wrote.
#[derive(Default)]
struct Written {
    puts: u64,
    last_revision: u64,
}

type Events = BoxStream<'static, Result<Watched, client::Error>>;

/// Runs a plan with so many watchers. Both they and the plan's clients share the client library's instances in turn.
pub async fn run(
    plan: &Plan,
    clients: &[Client],
    watchers: u32,
    value_bytes: usize,
    keys: u64,
) -> Result<FanOut, Error> {
    let run = Arc::new(Run {
        phase: Phase::default(),
        begun: Instant::now(),
        value_bytes,
        keys: keys.max(1),
        watchers,
        arrived: Semaphore::new(plan.clients.saturating_mul(each(watchers))),
    });
    let (goal, goals) = watch::channel(None);
    let node = watched_node(clients).await?;
    let mut watching = JoinSet::new();
    for client in clients.iter().cycle().take(each(watchers)) {
        let events = join(client, node).await?;
        let (run, goals) = (Arc::clone(&run), goals.clone());
        watching.spawn(async move {
            let seen = follow(events, &run, goals).await;
            if seen.is_err() {
                run.arrived.close();
            }
            seen
        });
    }
    let mut writing = JoinSet::new();
    for (worker, client) in clients.iter().cycle().take(plan.clients).enumerate() {
        writing.spawn(write(client.clone(), worker, Arc::clone(&run)));
    }

    tokio::time::sleep(plan.warm_up).await;
    let cpu_before = cpu_time(&plan.server_pids)?;
    let begun = Instant::now();
    run.phase.measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(plan.duration).await;
    run.phase.over.store(true, Ordering::Relaxed);
    run.arrived.close();
    let elapsed = begun.elapsed();
    let cpu = cpu_time(&plan.server_pids)?.saturating_sub(cpu_before);

    let mut written = Written::default();
    while let Some(client) = writing.join_next().await {
        let client = client??;
        written.puts += client.puts;
        written.last_revision = written.last_revision.max(client.last_revision);
    }
    goal.send_replace(Some(written.last_revision));
    let collected = tokio::time::timeout(PATIENCE, collect(watching, written.puts)).await;
    let lag = collected.map_err(|_| Error::Watch("the watchers never arrived".to_owned()))??;
    if lag.is_empty() {
        return Err(Error::Nothing("no event arrived in time".to_owned()));
    }
    let events = as_float(lag.len());
    Ok(FanOut {
        watchers,
        clients: plan.clients,
        seconds: elapsed.as_secs_f64(),
        events_per_second: events / elapsed.as_secs_f64(),
        events_per_second_and_watcher: events / elapsed.as_secs_f64() / f64::from(watchers.max(1)),
        lag_p50_us: lag.value_at_quantile(0.5),
        lag_p99_us: lag.value_at_quantile(0.99),
        lag_max_us: lag.max(),
        server_cpu_us_per_event: (!plan.server_pids.is_empty())
            .then_some(cpu.as_secs_f64() * 1e6 / events),
    })
}

fn each(watchers: u32) -> usize {
    usize::try_from(watchers).expect("a pointer has 32 bits or more")
}

/// A follower, if there is one: a leader has enough to do.
async fn watched_node(clients: &[Client]) -> Result<NodeId, Error> {
    let client = clients.first().expect("a run has a client");
    let failed = |error: client::Error| Error::Watch(error.to_string());
    let nodes = client.cluster().status().await.map_err(failed)?.nodes;
    let follower = nodes.iter().find(|node| node.role() == Role::Follower);
    let node = follower.or(nodes.first()).map_or(0, |node| node.node_id);
    NodeId::new(node).map_err(|error| Error::Watch(error.to_string()))
}

/// Begins to watch, and waits until the node has said from where.
async fn join(client: &Client, node: NodeId) -> Result<Events, Error> {
    let mut events = client.watch().key_prefix(PREFIX).at(node).stream();
    match events.try_next().await {
        Ok(Some(Watched::Progress { .. })) => Ok(events),
        Ok(other) => Err(Error::Watch(format!("it began with {other:?}"))),
        Err(error) => Err(Error::Watch(error.to_string())),
    }
}

async fn follow(
    mut events: Events,
    run: &Run,
    goal: watch::Receiver<Option<u64>>,
) -> Result<Seen, Error> {
    let mut seen = Seen {
        lag: Histogram::new_with_max(MAX_MICROS, DIGITS)
            .expect("the bounds are constants within its range"),
        events: 0,
    };
    loop {
        let next = match events.try_next().await {
            Ok(next) => next.ok_or_else(|| Error::Watch("it ended".to_owned()))?,
            // The stream goes on by itself.
            Err(error) if error.is_retryable() => continue,
            Err(error) => return Err(Error::Watch(error.to_string())),
        };
        match next {
            Watched::Event(event) => {
                seen.events += 1;
                run.arrived.add_permits(1);
                if let Some(lag) = run.lag(&event).filter(|_| run.is_measuring()) {
                    let lag = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
                    seen.lag.saturating_record(lag);
                }
            }
            Watched::Progress { revision, .. } => {
                if goal.borrow().is_some_and(|goal| goal <= revision.get()) {
                    return Ok(seen);
                }
            }
        }
    }
}

async fn write(client: Client, worker: usize, run: Arc<Run>) -> Result<Written, Error> {
    let mut written = Written::default();
    while let Ok(arrived) = run.arrived.acquire_many(run.watchers).await {
        arrived.forget();
        let key = format!("{PREFIX}{worker}/{}", written.puts % run.keys);
        let put = client.keys().put(key, run.stamped()).send().await;
        // Whether it was applied would have to be known, to know what the watchers should be told.
        let put = put.map_err(|error| Error::Nothing(error.to_string()))?;
        written.puts += 1;
        written.last_revision = put.mod_revision;
    }
    Ok(written)
}

/// Waits for the watchers, each of whom must have been told of every put.
async fn collect(
    mut watching: JoinSet<Result<Seen, Error>>,
    puts: u64,
) -> Result<Histogram<u64>, Error> {
    let mut lag = Histogram::new_with_max(MAX_MICROS, DIGITS)
        .expect("the bounds are constants within its range");
    while let Some(seen) = watching.join_next().await {
        let seen = seen??;
        if seen.events != puts {
            let told = seen.events;
            let complaint = format!("one was told of {told} puts, of {puts}");
            return Err(Error::Watch(complaint));
        }
        lag.add(&seen.lag).expect("all have the same bounds");
    }
    Ok(lag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{KeyEvent, KeyValue};

    fn run_of(value_bytes: usize) -> Run {
        Run {
            phase: Phase::default(),
            begun: Instant::now(),
            value_bytes,
            keys: 1,
            watchers: 1,
            arrived: Semaphore::new(0),
        }
    }

    fn event(value: Bytes) -> Event {
        Event {
            record: Some(Record::Key(KeyEvent {
                item: Some(KeyValue {
                    value,
                    ..KeyValue::default()
                }),
                ..KeyEvent::default()
            })),
            ..Event::default()
        }
    }

    #[test]
    fn a_lag_is_counted_from_when_the_put_was_sent() {
        let run = run_of(256);
        let value = run.stamped();
        assert_eq!(value.len(), 256);
        let told = event(value);
        let first = run.lag(&told).expect("it is stamped");
        let second = run.lag(&told).expect("it is stamped");
        assert!(first <= second && second <= run.begun.elapsed());
        assert_eq!(run_of(0).stamped().len(), STAMP_BYTES);
        assert_eq!(run.lag(&event(Bytes::from_static(b"short"))), None);
    }

    #[tokio::test]
    async fn a_watcher_that_missed_one_fails_the_run() {
        for (told, is_fine) in [(7, true), (6, false), (8, false)] {
            let mut watching = JoinSet::new();
            watching.spawn(async move {
                let lag = Histogram::new_with_max(MAX_MICROS, DIGITS).expect("in range");
                Ok(Seen { lag, events: told })
            });
            assert_eq!(collect(watching, 7).await.is_ok(), is_fine, "{told}");
        }
    }
}
