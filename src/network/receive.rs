//! Receiving a snapshot: one at a time, resumed when its sender comes back, replaced when another is offered.
//!
//! Invariants:
//! - The disk is touched in blocking tasks only, each of which holds the transfer's lock. A caller that gave up
//!   leaves its task running, and whoever comes next waits for it there.
//! - A chunk is written only if its checksum is right and its transfer is the newest.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use xxhash_rust::xxh3::xxh3_64;

use super::envelope::{Gate, bad_message};
use super::{SnapshotSink, SnapshotStore};
use crate::limits;
use crate::proto::internal as pb;

/// Longest wait for the next chunk.
const CHUNK_PATIENCE: Duration = Duration::from_secs(10);

/// A transfer's lock and what it guards.
type Shared<S> = Arc<Mutex<State<S>>>;
type DataOf<S> = <<S as SnapshotStore>::Sink as SnapshotSink>::Data;

/// Where snapshots arrive. Cloning shares it.
pub(super) struct Incoming<S: SnapshotStore> {
    store: Arc<S>,
    slot: Arc<Mutex<Slot<S>>>,
}

impl<S: SnapshotStore> Clone for Incoming<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            slot: self.slot.clone(),
        }
    }
}

/// The newest transfer.
struct Slot<S: SnapshotStore> {
    /// Counts offers, so that chunks of an older transfer are recognised.
    transfer: u64,
    current: Option<Transfer<S>>,
    /// Stops the stream of this transfer when the next one begins.
    stop: CancellationToken,
}

struct Transfer<S: SnapshotStore> {
    manifest: Arc<pb::SnapshotManifest>,
    state: Shared<S>,
}

impl<S: SnapshotStore> Clone for Transfer<S> {
    fn clone(&self) -> Self {
        Self {
            manifest: self.manifest.clone(),
            state: self.state.clone(),
        }
    }
}

enum State<S: SnapshotStore> {
    Receiving(S::Sink),
    /// Verified. Kept until it is installed, in case the sender gave up waiting and asks again.
    Complete(DataOf<S>),
    /// It failed and has to be offered anew.
    Spent,
}

impl<S: SnapshotStore> Incoming<S> {
    pub(super) fn new(store: S) -> Self {
        let empty = Slot {
            transfer: 0,
            current: None,
            stop: CancellationToken::new(),
        };
        Self {
            store: Arc::new(store),
            slot: Arc::new(Mutex::new(empty)),
        }
    }

    /// Takes up the transfer of this manifest, or begins it in place of any other.
    pub(super) async fn offer(
        &self,
        manifest: pb::SnapshotManifest,
    ) -> Result<pb::SnapshotProgress, Status> {
        let older = {
            let mut slot = lock(&self.slot);
            slot.stop.cancel();
            slot.current.take()
        };
        let store = self.store.clone();
        let manifest = Arc::new(manifest);
        let wanted = manifest.clone();
        let (state, held) = blocking(move || resume(&*store, older, &wanted)).await?;
        let mut slot = lock(&self.slot);
        slot.transfer += 1;
        slot.stop = CancellationToken::new();
        slot.current = Some(Transfer { manifest, state });
        Ok(pb::SnapshotProgress {
            held,
            transfer: slot.transfer,
            higher_vote: None,
        })
    }

    /// Writes the chunks of one stream until it ends.
    pub(super) async fn receive(
        &self,
        gate: &Gate,
        mut chunks: Streaming<pb::SnapshotChunk>,
    ) -> Result<pb::SnapshotProgress, Status> {
        let Some(first) = next_chunk(&mut chunks).await? else {
            return Err(bad_message("a snapshot stream without a chunk"));
        };
        gate.check(first.envelope.as_ref())?;
        let (number, transfer, stop) = self.current(first.transfer)?;
        let mut chunk = Some(first);
        while let Some(received) = chunk.take() {
            check_chunk(&received)?;
            let state = transfer.state.clone();
            blocking(move || write(&state, &received)).await?;
            chunk = tokio::select! {
                () = stop.cancelled() => return Err(replaced()),
                next = next_chunk(&mut chunks) => next?,
            };
        }
        let state = transfer.state.clone();
        let held = blocking(move || Ok(held(&lock(&state)))).await?;
        Ok(pb::SnapshotProgress {
            held,
            transfer: number,
            higher_vote: None,
        })
    }

    /// The verified snapshot of this manifest. It can be asked for again until [`Incoming::installed`].
    pub(super) async fn complete(
        &self,
        manifest: &pb::SnapshotManifest,
    ) -> Result<DataOf<S>, Status> {
        let current = lock(&self.slot).current.clone();
        match current {
            Some(transfer) if *transfer.manifest == *manifest => {
                blocking(move || finish(&transfer.state)).await
            }
            _ => Err(replaced()),
        }
    }

    /// Forgets the transfer of this manifest.
    pub(super) fn installed(&self, manifest: &pb::SnapshotManifest) {
        let mut slot = lock(&self.slot);
        if slot
            .current
            .as_ref()
            .is_some_and(|transfer| *transfer.manifest == *manifest)
        {
            slot.current = None;
        }
    }

    fn current(&self, number: u64) -> Result<(u64, Transfer<S>, CancellationToken), Status> {
        let slot = lock(&self.slot);
        match &slot.current {
            Some(transfer) if slot.transfer == number => {
                Ok((number, transfer.clone(), slot.stop.clone()))
            }
            _ => Err(replaced()),
        }
    }
}

/// The sender of an older transfer offers again and sees where it stands.
fn replaced() -> Status {
    Status::aborted("this transfer is not the newest")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn next_chunk(
    chunks: &mut Streaming<pb::SnapshotChunk>,
) -> Result<Option<pb::SnapshotChunk>, Status> {
    match tokio::time::timeout(CHUNK_PATIENCE, chunks.message()).await {
        Ok(chunk) => chunk,
        Err(_) => Err(Status::deadline_exceeded("no chunk came in time")),
    }
}

fn check_chunk(chunk: &pb::SnapshotChunk) -> Result<(), Status> {
    if chunk.data.len() > limits::SNAPSHOT_CHUNK_BYTES {
        return Err(bad_message("a snapshot chunk beyond the limit"));
    }
    if xxh3_64(&chunk.data) != chunk.checksum {
        return Err(Status::data_loss("a snapshot chunk was damaged on its way"));
    }
    Ok(())
}

fn resume<S: SnapshotStore>(
    store: &S,
    older: Option<Transfer<S>>,
    manifest: &Arc<pb::SnapshotManifest>,
) -> io::Result<(Shared<S>, Vec<u64>)> {
    if let Some(older) = older {
        // Waits for whatever still works on it.
        let state = lock(&older.state);
        if older.manifest == *manifest && !matches!(*state, State::Spent) {
            let held = match &*state {
                State::Complete(_) => manifest.files.iter().map(|file| file.size).collect(),
                state @ (State::Receiving(_) | State::Spent) => held(state),
            };
            drop(state);
            return Ok((older.state, held));
        }
    }
    let sink = store.begin(manifest.as_ref().clone())?;
    let state = State::Receiving(sink);
    let held = held(&state);
    Ok((Arc::new(Mutex::new(state)), held))
}

fn held<S: SnapshotStore>(state: &State<S>) -> Vec<u64> {
    match state {
        State::Receiving(sink) => sink.held(),
        State::Complete(_) | State::Spent => Vec::new(),
    }
}

fn write<S: SnapshotStore>(state: &Mutex<State<S>>, chunk: &pb::SnapshotChunk) -> io::Result<()> {
    match &mut *lock(state) {
        State::Receiving(sink) => sink.write(chunk.file, chunk.offset, &chunk.data),
        // A straggler: the files are whole already.
        State::Complete(_) => Ok(()),
        State::Spent => Err(io::Error::other("the transfer failed before")),
    }
}

fn finish<S: SnapshotStore>(state: &Mutex<State<S>>) -> io::Result<DataOf<S>> {
    let mut state = lock(state);
    let data = match std::mem::replace(&mut *state, State::Spent) {
        State::Receiving(sink) => sink.finish()?,
        State::Complete(data) => data,
        State::Spent => return Err(io::Error::other("the transfer failed before")),
    };
    *state = State::Complete(data.clone());
    Ok(data)
}

/// Runs disk work where it may block. A manifest or chunk that cannot be is the sender's fault, a full disk is
/// ours.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let result = match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => Err(io::Error::other(panicked)),
    };
    result.map_err(|error| {
        tracing::warn!(%error, "receiving a snapshot failed");
        match error.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => bad_message(error),
            io::ErrorKind::StorageFull => Status::resource_exhausted(error.to_string()),
            _ => Status::unavailable(format!("receiving the snapshot: {error}")),
        }
    })
}
