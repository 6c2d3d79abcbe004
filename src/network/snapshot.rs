//! Sending a snapshot: offer it, send what the receiver lacks in checksummed chunks, have it installed.
//!
//! Invariants:
//! - A transfer that broke goes on where the receiver's files end, because each attempt begins with an offer and the
//!   receiver's answer says what it holds.
//! - Each file is checked before anything of it is sent. The receiver would refuse what rotted here and ask for it again, for
//!   ever, and a node that has met damage is to stop.
//!
//! Nothing here knows what the files mean.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use super::channel::within;
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::raft_service_client::RaftServiceClient;

/// A complete snapshot on disk. Cloning is cheap, and a clone keeps the files from being deleted.
pub trait SnapshotFiles: Clone + Send + Sync + 'static {
    /// The directory of the files.
    fn path(&self) -> &Path;
    /// What is in it.
    fn manifest(&self) -> &pb::SnapshotManifest;
    /// Checks that a file is what the manifest says. An [`io::ErrorKind::InvalidData`] names the file. Blocks on the disk.
    fn check(&self, file: &pb::SnapshotFile) -> io::Result<()>;
}

/// A snapshot that is being received. Every method but `held` may block on the disk.
pub trait SnapshotSink: Send + 'static {
    /// What it becomes.
    type Data: SnapshotFiles;
    /// Bytes held of each of the manifest's files, in its order.
    fn held(&self) -> Vec<u64>;
    /// Writes a part of a file. `data` is empty for a file that is.
    fn write(&mut self, file: u32, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes it durable and verifies sizes and checksums.
    fn finish(self) -> io::Result<Self::Data>;
}

/// Where snapshots are received.
pub trait SnapshotStore: Send + Sync + 'static {
    /// A snapshot that is being received.
    type Sink: SnapshotSink;
    /// Takes up what is there of the same manifest and discards the rest. An [`io::ErrorKind::InvalidInput`] blames
    /// the manifest. May block on the disk.
    fn begin(&self, manifest: pb::SnapshotManifest) -> io::Result<Self::Sink>;
}

/// Chunks that are read ahead of the connection.
const READ_AHEAD: usize = 2;

/// One attempt to bring a snapshot to one peer.
pub(super) struct Transfer<S> {
    client: RaftServiceClient<Channel>,
    offer: pb::SnapshotOffer,
    snapshot: S,
    /// Longest time for an answer, and without progress.
    deadline: Duration,
}

impl<S: SnapshotFiles> Transfer<S> {
    pub(super) fn new(
        client: RaftServiceClient<Channel>,
        envelope: pb::Envelope,
        vote: pb::Vote,
        snapshot: &S,
        deadline: Duration,
    ) -> Self {
        let offer = pb::SnapshotOffer {
            envelope: Some(envelope),
            vote: Some(vote),
            manifest: Some(snapshot.manifest().clone()),
        };
        Self {
            client,
            offer,
            snapshot: snapshot.clone(),
            deadline,
        }
    }

    /// Offers, sends what is lacking, installs, and answers the receiver's vote: a higher one if it refused. Safe to call
    /// again after an error.
    pub(super) async fn run(&mut self) -> Result<pb::Vote, SendError> {
        let progress = within(
            self.deadline,
            self.client.offer_snapshot(self.offer.clone()),
        )
        .await?;
        if let Some(higher) = progress.higher_vote {
            return Ok(higher);
        }
        let parts = self.missing(&progress.held);
        if !parts.is_empty() {
            self.send(progress.transfer, parts).await?;
        }
        self.installed().await
    }

    /// Asks until the receiver has verified and installed it: each answer comes in time, the last one when it is done.
    async fn installed(&mut self) -> Result<pb::Vote, SendError> {
        loop {
            let answer = within(
                self.deadline,
                self.client.install_snapshot(self.offer.clone()),
            );
            let answer = answer.await?;
            if !answer.under_way {
                return Ok(answer.vote.ok_or_else(|| super::message::lacking("vote"))?);
            }
        }
    }

    /// What the receiver lacks. How much is held does not tell an empty file that is there from one that is not: it is always sent.
    fn missing(&self, held: &[u64]) -> Vec<Part> {
        let mut parts = Vec::new();
        for (index, file) in self.snapshot.manifest().files.iter().enumerate() {
            let have = held.get(index).copied().unwrap_or(0);
            if have < file.size || file.size == 0 {
                parts.push(Part {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    file: file.clone(),
                    offset: have.min(file.size),
                });
            }
        }
        parts
    }

    async fn send(&mut self, transfer: u64, parts: Vec<Part>) -> Result<(), SendError> {
        let (chunks, body) = mpsc::channel(READ_AHEAD);
        let moved = Notify::new();
        let head = pb::SnapshotChunk {
            envelope: self.offer.envelope.clone(),
            transfer,
            ..pb::SnapshotChunk::default()
        };
        let reading = read_parts(&self.snapshot, parts, head, chunks, &moved);
        let mut client = self.client.clone();
        let answer = client.send_snapshot(ReceiverStream::new(body));
        tokio::pin!(reading, answer);
        let mut chunks_left = true;
        let deadline = self.deadline;
        loop {
            tokio::select! {
                answered = &mut answer => {
                    answered.map_err(Error::from)?;
                    return Ok(());
                }
                read = &mut reading, if chunks_left => {
                    read.map_err(SendError::Read)?;
                    chunks_left = false;
                }
                () = moved.notified() => {}
                () = tokio::time::sleep(deadline) => return Err(Error::Timeout(deadline).into()),
            }
        }
    }
}

/// Why a transfer ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// This node cannot read its own snapshot.
    #[error("reading the snapshot: {0}")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Peer(#[from] Error),
}

impl SendError {
    /// Whether another attempt in the same call may go better.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Peer(Error::Broken(_) | Error::Timeout(_) | Error::Unreachable(_))
        )
    }
}

/// The rest of one file, yet to be sent.
#[derive(Debug)]
struct Part {
    /// Of the file, in the manifest.
    index: u32,
    file: pb::SnapshotFile,
    offset: u64,
}

/// Reads all parts into `chunks`, which is closed at the end: the receiver waits for that. A peer that stops
/// reading fills the channel, so that no more than [`READ_AHEAD`] chunks are in memory.
async fn read_parts<S: SnapshotFiles>(
    snapshot: &S,
    parts: Vec<Part>,
    head: pb::SnapshotChunk,
    chunks: mpsc::Sender<pb::SnapshotChunk>,
    moved: &Notify,
) -> io::Result<()> {
    let mut next = head;
    for part in parts {
        let (path, end) = (snapshot.path().join(&part.file.name), part.file.size);
        check(snapshot.clone(), part.file).await?;
        let mut offset = part.offset;
        loop {
            let data = read_chunk(path.clone(), offset, end).await?;
            let read = data.len() as u64;
            next.file = part.index;
            next.offset = offset;
            next.checksum = xxh3_64(&data);
            next.data = data;
            if chunks.send(std::mem::take(&mut next)).await.is_err() {
                // The call ended; its answer says why.
                return Ok(());
            }
            moved.notify_one();
            offset = offset.saturating_add(read);
            if offset >= end {
                break;
            }
        }
    }
    Ok(())
}

async fn check(snapshot: impl SnapshotFiles, file: pb::SnapshotFile) -> io::Result<()> {
    let checking = tokio::task::spawn_blocking(move || snapshot.check(&file));
    checking.await.map_err(io::Error::other)?
}

async fn read_chunk(path: PathBuf, offset: u64, end: u64) -> io::Result<Bytes> {
    let chunk = limits::SNAPSHOT_CHUNK_BYTES;
    let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(chunk);
    let reading = tokio::task::spawn_blocking(move || {
        let mut data = vec![0; left.min(chunk)];
        std::fs::File::open(path)?.read_exact_at(&mut data, offset)?;
        Ok(Bytes::from(data))
    });
    reading.await.map_err(io::Error::other)?
}
