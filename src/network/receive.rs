//! Receiving a snapshot: one at a time, resumed when its sender comes back, replaced when another is offered.
//!
//! The last step, to verify and install what came, may take minutes. It is asked for again and again until it has ended,
//! and each question is answered soon, whatever its answer.
//!
//! Invariants:
//! - The disk is touched in blocking tasks only. A caller may give up at any time: its task goes on to the end, and whoever
//!   comes next finds what it did. So the newest transfer is never out of its slot, and offers take turns.
//! - A transfer is installed once, in a task of its own. Nothing else works in its directory meanwhile, and what was
//!   received is gone, or installed, when it ends.
//! - A chunk is written only if its checksum is right and its transfer is the newest.
//! - After a failure a transfer is spent: the next offer looks at the disk anew.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Status, Streaming};
use xxhash_rust::xxh3::xxh3_64;

use super::envelope::{Gate, bad_message};
use super::{SnapshotSink, SnapshotStore};
use crate::limits;
use crate::proto::internal as pb;

/// Longest wait for the next chunk.
const CHUNK_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for the end of an installation before its sender is told that it goes on. Far below a sender's own patience.
const INSTALL_PATIENCE: Duration = Duration::from_secs(5);
/// The transfer of a snapshot that brings nothing new. Others are counted from 1.
const NOTHING_NEW: u64 = 0;

/// A transfer's lock and what it guards.
type Shared<S> = Arc<Mutex<State<S>>>;
type DataOf<S> = <<S as SnapshotStore>::Sink as SnapshotSink>::Data;
/// How an installation ended, once it has.
type Ending = watch::Receiver<Option<Result<(), Status>>>;

/// Where snapshots arrive. Cloning shares it.
pub(super) struct Incoming<S: SnapshotStore> {
    store: Arc<S>,
    slot: Arc<Mutex<Slot<S>>>,
    /// Held while an offer is taken up.
    turn: Arc<Mutex<()>>,
}

impl<S: SnapshotStore> Clone for Incoming<S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            slot: self.slot.clone(),
            turn: self.turn.clone(),
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
    /// Of its installation, if that was asked for.
    ending: Option<Ending>,
}

impl<S: SnapshotStore> Clone for Transfer<S> {
    fn clone(&self) -> Self {
        Self {
            manifest: self.manifest.clone(),
            state: self.state.clone(),
            ending: self.ending.clone(),
        }
    }
}

enum State<S: SnapshotStore> {
    Receiving(S::Sink),
    /// Whoever installs it has taken it.
    Taken,
    /// It failed and has to be offered anew.
    Spent,
}

/// What a sender is told that asked for an installation.
pub(super) enum Installation {
    Done,
    /// It goes on. Ask again.
    UnderWay,
}

impl<S: SnapshotStore> Transfer<S> {
    fn is_installing(&self) -> bool {
        self.ending.as_ref().is_some_and(is_open)
    }

    /// What is held of each file, if this goes on. Waits for whatever still writes.
    fn held(&self) -> Option<Vec<u64>> {
        if self.is_installing() {
            return Some(whole(&self.manifest));
        }
        match &*lock(&self.state) {
            State::Receiving(sink) => Some(sink.held()),
            State::Taken | State::Spent => None,
        }
    }
}

impl<S: SnapshotStore> Incoming<S> {
    pub(super) fn new(store: S) -> Self {
        let empty = Slot {
            transfer: NOTHING_NEW,
            current: None,
            stop: CancellationToken::new(),
        };
        Self {
            store: Arc::new(store),
            slot: Arc::new(Mutex::new(empty)),
            turn: Arc::default(),
        }
    }

    /// Takes up the transfer of this manifest, or begins it in place of any other.
    pub(super) async fn offer(
        &self,
        manifest: pb::SnapshotManifest,
    ) -> Result<pb::SnapshotProgress, Status> {
        self.end_of_another(&manifest).await;
        let incoming = self.clone();
        blocking(move || incoming.take_up(manifest)).await
    }

    /// Waits while another snapshot is installed.
    async fn end_of_another(&self, manifest: &pb::SnapshotManifest) {
        let another = lock(&self.slot).current.clone();
        let another = another.filter(|transfer| *transfer.manifest != *manifest);
        if let Some(mut ending) = another.and_then(|transfer| transfer.ending) {
            // If nobody is left to tell how it ended, it has ended too.
            ending.wait_for(Option::is_some).await.ok();
        }
    }

    /// Blocks on the disk.
    fn take_up(&self, manifest: pb::SnapshotManifest) -> io::Result<pb::SnapshotProgress> {
        let _turn = lock(&self.turn);
        let older = {
            let slot = lock(&self.slot);
            slot.stop.cancel();
            slot.current.clone()
        };
        let (transfer, held) = match older {
            Some(older) if *older.manifest == manifest => match older.held() {
                Some(held) => (older, held),
                None => self.begin(manifest)?,
            },
            Some(older) if older.is_installing() => {
                return Err(io::Error::other("another snapshot is being installed"));
            }
            older => {
                // Waits for a chunk that is still being written.
                drop(older.as_ref().map(|older| lock(&older.state)));
                self.begin(manifest)?
            }
        };
        let mut slot = lock(&self.slot);
        slot.transfer += 1;
        slot.stop = CancellationToken::new();
        slot.current = Some(transfer);
        Ok(pb::SnapshotProgress {
            held,
            transfer: slot.transfer,
            higher_vote: None,
        })
    }

    fn begin(&self, manifest: pb::SnapshotManifest) -> io::Result<(Transfer<S>, Vec<u64>)> {
        let sink = self.store.begin(manifest.clone())?;
        let held = sink.held();
        let transfer = Transfer {
            manifest: Arc::new(manifest),
            state: Arc::new(Mutex::new(State::Receiving(sink))),
            ending: None,
        };
        Ok((transfer, held))
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
        if first.transfer == NOTHING_NEW {
            return Ok(pb::SnapshotProgress::default());
        }
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
        let held = blocking(move || Ok(transfer.held())).await?;
        Ok(pb::SnapshotProgress {
            held: held.unwrap_or_default(),
            transfer: number,
            higher_vote: None,
        })
    }

    /// Verifies the snapshot of this manifest and has it installed, in one of `tasks`, whether or not anybody waits for it. The
    /// first who asks begins it, and whoever asks again is told of the same. After `shutdown` nobody waits for the disk.
    pub(super) async fn install<F>(
        &self,
        manifest: &pb::SnapshotManifest,
        (tasks, shutdown): (&TaskTracker, &CancellationToken),
        install: impl FnOnce(DataOf<S>) -> F + Send + 'static,
    ) -> Result<Installation, Status>
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let mut ending = self.installing(manifest, (tasks, shutdown), install)?;
        let ended = ending.wait_for(Option::is_some);
        match tokio::time::timeout(INSTALL_PATIENCE, ended).await {
            Ok(Ok(ended)) => {
                let ended = ended.clone().expect("that is what was waited for");
                ended.map(|()| Installation::Done)
            }
            Ok(Err(_)) => Err(Status::unavailable("the installation broke off")),
            Err(_) => Ok(Installation::UnderWay),
        }
    }

    fn installing<F>(
        &self,
        manifest: &pb::SnapshotManifest,
        (tasks, shutdown): (&TaskTracker, &CancellationToken),
        install: impl FnOnce(DataOf<S>) -> F + Send + 'static,
    ) -> Result<Ending, Status>
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let mut slot = lock(&self.slot);
        let current = slot.current.as_mut();
        let transfer = current
            .filter(|transfer| *transfer.manifest == *manifest)
            .ok_or_else(replaced)?;
        if let Some(ending) = &transfer.ending {
            return Ok(ending.clone());
        }
        let (tell, ending) = watch::channel(None);
        transfer.ending = Some(ending.clone());
        let state = transfer.state.clone();
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            let finished = tokio::select! {
                () = shutdown.cancelled() => Err(Status::unavailable("shutting down")),
                finished = blocking(move || finish(&state)) => finished,
            };
            let ended = match finished {
                Ok(data) => install(data).await,
                Err(status) => Err(status),
            };
            tell.send_replace(Some(ended));
        });
        Ok(ending)
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

/// What the sender of a snapshot is told that brings nothing new: it has nothing to send, and asks for the installation.
pub(super) fn nothing_new(manifest: &pb::SnapshotManifest) -> pb::SnapshotProgress {
    pb::SnapshotProgress {
        held: whole(manifest),
        transfer: NOTHING_NEW,
        higher_vote: None,
    }
}

fn whole(manifest: &pb::SnapshotManifest) -> Vec<u64> {
    manifest.files.iter().map(|file| file.size).collect()
}

fn is_open(ending: &Ending) -> bool {
    ending.has_changed().is_ok() && ending.borrow().is_none()
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

fn write<S: SnapshotStore>(state: &Mutex<State<S>>, chunk: &pb::SnapshotChunk) -> io::Result<()> {
    let mut state = lock(state);
    let written = match &mut *state {
        State::Receiving(sink) => sink.write(chunk.file, chunk.offset, &chunk.data),
        // A straggler: the files are whole already.
        State::Taken => Ok(()),
        State::Spent => Err(io::Error::other("the transfer failed before")),
    };
    if written.is_err() {
        *state = State::Spent;
    }
    written
}

/// The lock is let go of first, so that nobody waits for it while every byte is summed.
fn finish<S: SnapshotStore>(state: &Mutex<State<S>>) -> io::Result<DataOf<S>> {
    let taken = std::mem::replace(&mut *lock(state), State::Taken);
    match taken {
        State::Receiving(sink) => sink.finish(),
        State::Taken | State::Spent => Err(io::Error::other("the transfer failed before")),
    }
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
