//! A write every ten milliseconds, whatever became of those before it: who comes first after a fault shows how long it took.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Context;
use crate::client::Error;
use crate::torture::tape::{Entry, Outcome, Tape};

/// Between two probes.
pub const INTERVAL: Duration = Duration::from_millis(10);
/// Longer than any outage that a run makes on purpose.
const PATIENCE: Duration = Duration::from_secs(15);
/// Probes under way; those of a longer outage are left out.
const UNDER_WAY: usize = 2_000;
const KEYS: u64 = 16;

/// Probes, by number.
pub type Probes = Entry<u64, ()>;

/// Starts them.
pub fn start(context: &Context, tasks: &mut JoinSet<()>) -> Result<Arc<Tape<u64, ()>>, Error> {
    let tape: Arc<Tape<u64, ()>> = Arc::new(Tape::new(context.stopwatch));
    let client = context.client(0, PATIENCE)?;
    let (context, notes) = (context.clone(), Arc::clone(&tape));
    tasks.spawn(async move {
        let mut probes = JoinSet::new();
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for number in 0.. {
            tokio::select! {
                () = context.stop.cancelled() => break,
                _ = interval.tick() => {}
            }
            while probes.try_join_next().is_some() {}
            if probes.len() >= UNDER_WAY {
                continue;
            }
            let (client, notes) = (client.clone(), Arc::clone(&notes));
            probes.spawn(async move {
                let open = notes.begin(0, number);
                let put = client.keys().put(format!("probes/{}", number % KEYS), "x");
                notes.end(open, Outcome::of(put.send().await, drop));
            });
        }
        // They all have their time.
        while probes.join_next().await.is_some() {}
        client.close().await;
    });
    Ok(tape)
}
