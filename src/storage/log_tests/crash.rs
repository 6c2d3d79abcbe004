//! Power cuts: no acknowledged write may be lost, and with the fsync switched off the same test must say that some
//! were.
//!
//! The disk is modelled at the level of bytes. The log runs over real files, and at each fsync of the write-ahead log
//! the model notes how long it is. A power cut copies the directory, with every write-ahead log cut back to a random
//! length between what was synced and what was written, and sometimes with zeros or noise in place of bytes that were
//! not synced. Then the real log opens on the copy.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::storage::commit::{Change, Durability, RocksSink, Sink};
use crate::storage::wire;

/// What was acknowledged when the power went.
#[derive(Debug, Clone, Default)]
struct Acknowledged {
    vote: u64,
    /// The whole log, by index.
    entries: Vec<pb::Entry>,
    purged: Option<u64>,
}

/// One power cut: the disk as it was found, and what may not be missing.
struct PowerCut {
    disk: tempfile::TempDir,
    acknowledged: Acknowledged,
}

struct Disk {
    random: Random,
    data_dir: PathBuf,
    /// Synced bytes of each write-ahead log.
    synced: HashMap<PathBuf, u64>,
    acknowledged: Acknowledged,
    cuts: Vec<PowerCut>,
}

type Shared = Arc<Mutex<Disk>>;

impl Disk {
    fn wals(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.data_dir.join("log")).expect("readable");
        files
            .map(|file| file.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect()
    }

    fn note_synced(&mut self) {
        for path in self.wals() {
            if let Ok(metadata) = path.metadata() {
                self.synced.insert(path, metadata.len());
            }
        }
    }

    /// Takes the disk as it might be found if the power went now.
    fn cut_power(&mut self) {
        let disk = tempfile::tempdir().expect("a temporary directory");
        copy(&self.data_dir, disk.path());
        for path in self.wals() {
            let live = path.metadata().map_or(0, |metadata| metadata.len());
            let synced = self.synced.get(&path).copied().unwrap_or(0).min(live);
            let name = path.file_name().expect("a file has a name");
            self.tear(&disk.path().join("log").join(name), synced, live);
        }
        self.cuts.push(PowerCut {
            disk,
            acknowledged: self.acknowledged.clone(),
        });
    }

    fn tear(&mut self, path: &Path, synced: u64, live: u64) {
        let mut bytes = std::fs::read(path).expect("readable");
        let span = live - synced;
        let length = synced + self.random.below(span + 1);
        bytes.truncate(usize::try_from(length).expect("small"));
        let torn = usize::try_from(synced).expect("small");
        if length > synced && self.random.below(2) == 0 {
            // Later pages reached the disk and this one did not.
            let from = torn + self.pick(bytes.len() - torn);
            let to = (from + 1 + self.pick(4096)).min(bytes.len());
            let noise = self.random.below(2) == 0;
            for byte in &mut bytes[from..to] {
                *byte = if noise {
                    self.random.next().to_le_bytes()[0]
                } else {
                    0
                };
            }
        }
        std::fs::write(path, bytes).expect("writable");
    }

    fn pick(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("small")
    }
}

/// Writes first and syncs second, so that the power can go in between.
struct Unreliable {
    inner: RocksSink,
    disk: Shared,
}

impl Sink for Unreliable {
    fn write(&mut self, changes: &[Change], durability: Durability) -> Result<(), Error> {
        self.inner.write(changes, Durability::UnsafeUnsynced)?;
        let mut disk = self.disk.lock().expect("not poisoned");
        if disk.random.below(12) == 0 {
            disk.cut_power();
        }
        if durability == Durability::Synced {
            self.inner.db.flush_wal(true).expect("synced");
            disk.note_synced();
        }
        Ok(())
    }

    fn synced(&mut self, group: u64) -> Result<(), Error> {
        self.inner.synced(group)
    }

    fn reclaim(&mut self, entries: &RangeInclusive<wire::Key>) -> Result<(), Error> {
        self.inner.reclaim(entries)
    }
}

/// A random run of a log, with power cuts in it.
async fn run(seed: u64, durability: Durability) -> Vec<PowerCut> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk: Shared = Arc::new(Mutex::new(Disk {
        random: Random(seed),
        data_dir: dir.path().to_owned(),
        synced: HashMap::new(),
        acknowledged: Acknowledged::default(),
        cuts: Vec::new(),
    }));
    let config = LogConfig {
        durability,
        ..LogConfig::default()
    };
    let below = Arc::clone(&disk);
    let db = LogDb::open_with(dir.path(), node(1), config, |inner| {
        let sink = Unreliable { inner, disk: below };
        sink.disk.lock().expect("not poisoned").note_synced();
        sink
    })
    .expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    let mut random = Random(!seed);
    let mut model = Acknowledged::default();
    for step in 1..=120 {
        let next = model.entries.len() as u64;
        match random.below(10) {
            0 => {
                log.save_vote(&vote(step)).await.expect("saved");
                model.vote = step;
            }
            1 if next > model.purged.map_or(0, |purged| purged + 1) + 4 => {
                let kept = next - 1 - random.below(3);
                let last = model.entries[usize::try_from(kept).expect("small")].log_id;
                // The truncation is durable with what is appended behind it; until then the entries that
                // it takes away are not acknowledged any more, so the model forgets them first.
                model
                    .entries
                    .truncate(usize::try_from(kept).expect("small") + 1);
                disk.lock().expect("not poisoned").acknowledged = model.clone();
                log.truncate_after(last.map(Into::into))
                    .await
                    .expect("queued");
                append(&mut log, vec![entry(step, kept + 1, 50)])
                    .await
                    .expect("durable");
                model.entries.push(encoded(&entry(step, kept + 1, 50)));
            }
            2 if next > 20 => {
                let through = next - 10;
                let last = model.entries[usize::try_from(through).expect("small")].log_id;
                model.purged = model.purged.max(Some(through));
                disk.lock().expect("not poisoned").acknowledged = model.clone();
                log.purge(last.expect("an entry has one").into())
                    .await
                    .expect("queued");
            }
            _ => {
                let count = 1 + random.below(6);
                let bytes = usize::try_from(random.below(20_000)).expect("small");
                let entries: Vec<_> = (next..next + count)
                    .map(|index| entry(step, index, bytes))
                    .collect();
                model.entries.extend(entries.iter().map(encoded));
                append(&mut log, entries).await.expect("durable");
            }
        }
        disk.lock().expect("not poisoned").acknowledged = model.clone();
    }
    close(db, log).await;
    let mut disk = disk.lock().expect("not poisoned");
    std::mem::take(&mut disk.cuts)
}

/// Opens what a power cut left and says what is wrong with it.
async fn recover(cut: &PowerCut) -> Result<(), String> {
    let db = open(cut.disk.path(), node(1)).map_err(|e| e.to_string())?;
    let mut log = db.log(ShardId::ZERO).map_err(|e| e.to_string())?;
    let found = inspect(&mut log, &cut.acknowledged).await;
    close(db, log).await;
    found
}

async fn inspect(log: &mut LogStore, acknowledged: &Acknowledged) -> Result<(), String> {
    let voted = log.read_vote().await.map_err(|e| e.to_string())?;
    let voted = voted.map_or(0, |vote| vote.leader_id.term);
    if voted < acknowledged.vote {
        return Err(format!(
            "vote {} is lost, {voted} is there",
            acknowledged.vote
        ));
    }
    let state = log.get_log_state().await.map_err(|e| e.to_string())?;
    let purged = state.last_purged_log_id.map(|id| id.index);
    if purged > acknowledged.purged {
        return Err(format!(
            "{purged:?} was purged, not {:?}",
            acknowledged.purged
        ));
    }
    let found = read_all(log).await;
    let index = |entry: &pb::Entry| entry.log_id.expect("an entry has one").index;
    let first = purged.map_or(0, |purged| purged + 1);
    for expected in acknowledged.entries.iter().filter(|e| index(e) >= first) {
        let place = usize::try_from(index(expected) - first).expect("small");
        if found.get(place) != Some(expected) {
            return Err(format!("entry {} is lost", index(expected)));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let first = fresh_seed();
    let mut cuts = 0;
    for seed in (0..6).map(|round| first.wrapping_add(round)) {
        for cut in run(seed, Durability::Synced).await {
            cuts += 1;
            if let Err(lost) = recover(&cut).await {
                panic!("seed {seed}: {lost}");
            }
        }
    }
    assert!(cuts > 20, "seed {first}: only {cuts} power cuts happened");
}

/// The proof that the test above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fsync_a_power_cut_is_found_to_lose_writes() {
    let seed = fresh_seed();
    let mut lost = 0;
    for cut in run(seed, Durability::UnsafeUnsynced).await {
        lost += usize::from(recover(&cut).await.is_err());
    }
    assert!(lost > 0, "seed {seed}: nothing was lost without fsync");
}
