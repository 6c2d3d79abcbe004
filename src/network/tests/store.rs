//! A log and a state machine in memory, as little of both as openraft asks for. The state is a sum over the applied
//! commands; a snapshot is a directory of files, so that its transfer is as real as it can be.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use openraft::alias::SnapshotOf;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder};
use tempfile::TempDir;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_128;

use crate::network::{SnapshotFiles, SnapshotSink, SnapshotStore};
use crate::proto::internal as pb;
use crate::raft::{Entry, LogId, Replies, SnapshotMeta, StoredMembership, TypeConfig, Vote};

/// How an append fails.
struct Break {
    reached: oneshot::Sender<()>,
    told: oneshot::Receiver<()>,
}

/// The log of one node.
#[derive(Clone, Default)]
pub(super) struct MemoryLog(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
    breaks: Option<Break>,
}

impl MemoryLog {
    /// The next append says that it was reached, and fails when it is told to.
    pub(super) fn break_next(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (reached, is_reached) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        self.lock().breaks = Some(Break { reached, told });
        (is_reached, tell)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().expect("no panic")
    }
}

impl RaftLogReader<TypeConfig> for MemoryLog {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if let (Bound::Included(start), Bound::Excluded(end)) = bounds
            && start >= end
        {
            return Ok(Vec::new());
        }
        Ok(self
            .lock()
            .entries
            .range(bounds)
            .map(|(_, e)| e.clone())
            .collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.lock();
        let last = log.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState {
            last_purged_log_id: log.purged,
            last_log_id: last.or(log.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let breaks = self.lock().breaks.take();
        if let Some(breaks) = breaks {
            breaks.reached.send(()).expect("the test waits");
            breaks.told.await.expect("told");
            return Err(io::Error::other("broken for a test"));
        }
        let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry));
        self.lock().entries.extend(entries);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |last| last.index + 1);
        self.lock().entries.split_off(&first);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut log = self.lock();
        log.purged = Some(upto);
        log.entries = log.entries.split_off(&(upto.index + 1));
        Ok(())
    }
}

/// What a state machine amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) last_applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    /// Over the bytes of every command, in order.
    pub(super) digest: u128,
}

/// The state machine of one node.
#[derive(Clone)]
pub(super) struct MemoryMachine {
    state: Arc<Mutex<State>>,
    snapshot: Arc<Mutex<Option<SnapshotOf<TypeConfig, Files>>>>,
    cluster: Bytes,
    /// Size of the file that pads a snapshot.
    padding: usize,
}

impl MemoryMachine {
    pub(super) fn new(cluster: [u8; 16], padding: usize) -> Self {
        Self {
            state: Arc::default(),
            snapshot: Arc::default(),
            cluster: Bytes::copy_from_slice(&cluster),
            padding,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().expect("no panic").clone()
    }
}

impl RaftStateMachine<TypeConfig> for MemoryMachine {
    type SnapshotData = Files;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let state = self.state();
        Ok((state.last_applied, state.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut state = self.state.lock().expect("no panic");
            state.last_applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(proposal) => {
                    let mut bytes = state.digest.to_be_bytes().to_vec();
                    bytes.extend_from_slice(&proposal.encode());
                    state.digest = xxh3_128(&bytes);
                }
                EntryPayload::Membership(membership) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            if let Some(responder) = responder {
                responder.send(Replies::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, files: Files) -> io::Result<()> {
        let digest = fs::read(files.path().join("digest"))?;
        let digest = digest.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        *self.state.lock().expect("no panic") = State {
            last_applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            digest: u128::from_be_bytes(digest),
        };
        *self.snapshot.lock().expect("no panic") = Some(SnapshotOf::<TypeConfig, Files> {
            meta: meta.clone(),
            snapshot: files,
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Files>>> {
        Ok(self.snapshot.lock().expect("no panic").clone())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for MemoryMachine {
    type SnapshotData = Files;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Files>> {
        let state = self.state();
        let padding: Vec<u8> = (0..=250).cycle().take(self.padding).collect();
        let contents = [
            ("digest", state.digest.to_be_bytes().to_vec()),
            ("empty", Vec::new()),
            ("padding", padding),
        ];
        let dir = TempDir::new()?;
        let mut files = Vec::new();
        for (name, content) in contents {
            fs::write(dir.path().join(name), &content)?;
            files.push(pb::SnapshotFile {
                name: name.to_owned(),
                size: content.len() as u64,
                checksum: checksum(&content),
            });
        }
        let manifest = pb::SnapshotManifest {
            format: 1,
            cluster_id: self.cluster.clone(),
            shard_id: 0,
            last_log_id: state.last_applied.map(Into::into),
            membership: Some((&state.membership).into()),
            revision: 0,
            files,
        };
        let snapshot = SnapshotOf::<TypeConfig, Files> {
            meta: SnapshotMeta {
                last_log_id: state.last_applied,
                last_membership: state.membership,
            },
            snapshot: Files {
                dir: Arc::new(dir),
                manifest,
            },
        };
        *self.snapshot.lock().expect("no panic") = Some(snapshot.clone());
        Ok(snapshot)
    }
}

fn checksum(content: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&xxh3_128(content).to_be_bytes())
}

/// A snapshot in a directory of its own.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: Arc<TempDir>,
    manifest: pb::SnapshotManifest,
}

impl SnapshotFiles for Files {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn manifest(&self) -> &pb::SnapshotManifest {
        &self.manifest
    }

    fn check(&self, file: &pb::SnapshotFile) -> io::Result<()> {
        if checksum(&fs::read(self.path().join(&file.name))?) == file.checksum {
            return Ok(());
        }
        let name = file.name.clone();
        Err(io::Error::new(io::ErrorKind::InvalidData, name))
    }
}

/// The files of a manifest that came so far.
type Kept = Option<(pb::SnapshotManifest, Arc<TempDir>)>;

/// Receives snapshots and counts what it is sent.
#[derive(Clone, Default)]
pub(super) struct Inbox {
    partial: Arc<Mutex<Kept>>,
    /// Bytes written, repetitions included.
    pub(super) written: Arc<AtomicU64>,
    /// Transfers begun anew.
    pub(super) begun: Arc<AtomicU64>,
    /// Verifications begun.
    pub(super) finished: Arc<AtomicU64>,
    /// Holds up verifications while it is closed.
    pub(super) gate: Arc<Gate>,
    /// The next transfer to be begun fails at its first write, and at every later one.
    pub(super) breaks: Arc<AtomicBool>,
}

/// What a disk waits for.
#[derive(Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn close(&self) {
        *self.closed.lock().expect("no panic") = true;
    }

    pub(super) fn open(&self) {
        *self.closed.lock().expect("no panic") = false;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.closed.lock().expect("no panic");
        let waiting = self.opened.wait_while(closed, |closed| *closed);
        drop(waiting.expect("no panic"));
    }
}

impl Inbox {
    /// How many hold the files of the newest transfer, this inbox being one of them.
    pub(super) fn holders(&self) -> usize {
        let partial = self.partial.lock().expect("no panic");
        let held = partial.as_ref().map(|(_, dir)| Arc::strong_count(dir));
        held.unwrap_or(0)
    }
}

impl SnapshotStore for Inbox {
    type Sink = Partial;

    fn begin(&self, manifest: pb::SnapshotManifest) -> io::Result<Partial> {
        let mut partial = self.partial.lock().expect("no panic");
        let dir = match partial.take() {
            Some((of, dir)) if of == manifest => dir,
            _ => Arc::new(TempDir::new()?),
        };
        *partial = Some((manifest.clone(), dir.clone()));
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok(Partial {
            dir,
            manifest,
            is_broken: self.breaks.swap(false, Ordering::Relaxed),
            inbox: self.clone(),
        })
    }
}

/// A snapshot on its way in.
pub(super) struct Partial {
    dir: Arc<TempDir>,
    manifest: pb::SnapshotManifest,
    is_broken: bool,
    inbox: Inbox,
}

impl Partial {
    fn path(&self, file: &pb::SnapshotFile) -> PathBuf {
        self.dir.path().join(&file.name)
    }
}

impl SnapshotSink for Partial {
    type Data = Files;

    fn held(&self) -> Vec<u64> {
        let length = |file| fs::metadata(self.path(file)).map_or(0, |found| found.len());
        self.manifest.files.iter().map(length).collect()
    }

    fn write(&mut self, file: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("broken for a test"));
        }
        let file = self
            .manifest
            .files
            .get(file as usize)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let path = self.path(file);
        let opened = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        opened.write_all_at(data, offset)?;
        self.inbox
            .written
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn finish(self) -> io::Result<Files> {
        self.inbox.finished.fetch_add(1, Ordering::Relaxed);
        self.inbox.gate.pass();
        for file in &self.manifest.files {
            if checksum(&fs::read(self.path(file))?) != file.checksum {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(Files {
            dir: self.dir,
            manifest: self.manifest,
        })
    }
}
