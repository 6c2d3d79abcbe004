//! Damage after the fact, on a node that was stopped or killed: it must not start, and must say what is damaged. The
//! mark is exact then.

use std::path::PathBuf;

use super::*;
use crate::storage::high_water::HighWater;

/// A stopped node's data directory with write-ahead log and table files, a purge and a truncation behind it.
async fn stopped() -> (tempfile::TempDir, Vec<pb::Entry>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    fill(&mut log, 0).await;
    log.purge(log_id(1, 9)).await.expect("queued");
    close(db, log).await;
    // Opening moves what was logged into table files; what follows stays in the write-ahead log.
    let db = open(dir.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    fill(&mut log, 200).await;
    log.save_vote(&vote(2)).await.expect("saved");
    let entries = read_all(&mut log).await;
    close(db, log).await;
    (dir, entries)
}

/// The same, started twice since then on a disk without room for tables: so there are several write-ahead logs.
async fn stopped_on_a_full_disk() -> (tempfile::TempDir, Vec<pb::Entry>) {
    let (dir, mut entries) = stopped().await;
    let tables = files(dir.path(), "sst");
    for first in [400, 600] {
        let config = LogConfig {
            opening_bytes: u64::MAX,
            ..LogConfig::default()
        };
        let db = LogDb::open(dir.path(), node(1), config).expect("it opens on what there is");
        let mut log = db.log(ShardId::ZERO).expect("whole");
        assert_eq!(read_all(&mut log).await, entries);
        fill(&mut log, first).await;
        entries = read_all(&mut log).await;
        close(db, log).await;
    }
    assert_eq!(files(dir.path(), "sst"), tables, "none was written");
    assert_eq!(files(dir.path(), "log").len(), 3);
    (dir, entries)
}

/// A start on a full disk leaves write-ahead logs behind each other, and the next with room makes tables of them.
#[tokio::test]
async fn starts_without_room_lose_nothing() {
    let (dir, entries) = stopped_on_a_full_disk().await;
    assert_eq!(start(dir.path()).await.expect("it opens"), entries);
    assert!(files(dir.path(), "log").is_empty());
    assert_eq!(start(dir.path()).await.expect("it opens"), entries);
}

#[tokio::test]
async fn a_flipped_byte_refuses_to_start_after_a_full_disk_as_well() {
    let (original, _) = stopped_on_a_full_disk().await;
    for file in files(original.path(), "log") {
        let length = file.metadata().expect("readable").len();
        for place in [0, 6, length / 2, length - 1] {
            let (dir, copy) = copied(original.path(), &file);
            let mut content = std::fs::read(&copy).expect("readable");
            content[usize::try_from(place).expect("small")] ^= 0x10;
            std::fs::write(&copy, content).expect("writable");
            let started = start(dir.path()).await;
            assert!(started.is_err(), "byte {place} of {}", copy.display());
        }
    }
}

async fn fill(log: &mut LogStore, first: u64) {
    for start in (first..first + 200).step_by(10) {
        let entries = (start..start + 10).map(|index| entry(1, index, 300));
        append(log, entries.collect()).await.expect("durable");
    }
}

/// Opens a directory and reads all of its log.
async fn start(data_dir: &Path) -> Result<Vec<pb::Entry>, Error> {
    let db = open(data_dir, node(1))?;
    let log = db.log(ShardId::ZERO);
    let mut log = match log {
        Ok(log) => log,
        Err(error) => {
            db.shutdown().await;
            return Err(error);
        }
    };
    let entries = read_all(&mut log).await;
    close(db, log).await;
    Ok(entries)
}

fn files(data_dir: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data_dir.join("log")).expect("readable");
    let mut files: Vec<_> = files
        .map(|file| file.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0))
        .collect();
    files.sort();
    files
}

/// A copy of a directory and one file of it, by name.
fn copied(original: &Path, file: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy(original, dir.path());
    let name = file.file_name().expect("a file has a name");
    let file = dir.path().join("log").join(name);
    (dir, file)
}

#[tokio::test]
async fn a_flipped_byte_refuses_to_start() {
    let (original, entries) = stopped().await;
    let seed = fresh_seed();
    let mut random = Random(seed);
    let mut flips = 0;
    for extension in ["log", "sst"] {
        for file in files(original.path(), extension) {
            let length = file.metadata().expect("readable").len();
            let mut places: Vec<u64> = (0..12).map(|_| random.below(length)).collect();
            places.extend([0, 4, 6, length / 2, length - 1]);
            for place in places {
                let (dir, copy) = copied(original.path(), &file);
                let mut bytes = std::fs::read(&copy).expect("readable");
                let at = usize::try_from(place).expect("small");
                bytes[at] ^= 1 << random.below(8);
                std::fs::write(&copy, bytes).expect("writable");
                flips += 1;
                match start(dir.path()).await {
                    Err(Error::Corrupt { .. }) => {}
                    Err(other) => panic!("seed {seed}, {}@{place}: {other}", copy.display()),
                    // A table file has bytes that nothing depends on: names of its options, statistics.
                    Ok(found) if extension == "sst" && found == entries => {}
                    Ok(_) => panic!("seed {seed}: {}@{place} was not noticed", copy.display()),
                }
            }
        }
    }
    assert!(flips > 40, "only {flips} files and places");
}

#[tokio::test]
async fn zeros_over_part_of_the_log_refuse_to_start() {
    let (original, _) = stopped().await;
    let file = files(original.path(), "log").pop().expect("one is open");
    let length = file.metadata().expect("readable").len();
    for start_at in [0, 100, length / 3, length - 4096, length - 40] {
        let (dir, copy) = copied(original.path(), &file);
        let mut bytes = std::fs::read(&copy).expect("readable");
        let from = usize::try_from(start_at).expect("small");
        let to = (from + 1024).min(bytes.len());
        bytes[from..to].fill(0);
        std::fs::write(&copy, bytes).expect("writable");
        let found = start(dir.path()).await;
        assert!(
            matches!(found, Err(Error::Corrupt { .. })),
            "at {start_at}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_log_that_was_cut_short_refuses_to_start() {
    let (original, _) = stopped().await;
    let file = files(original.path(), "log").pop().expect("one is open");
    let length = file.metadata().expect("readable").len();
    for cut in [1, 20, 500, length / 2, length] {
        let (dir, copy) = copied(original.path(), &file);
        let file = std::fs::OpenOptions::new().write(true).open(&copy);
        let file = file.expect("writable");
        file.set_len(length - cut).expect("cut");
        let found = start(dir.path()).await;
        assert!(
            matches!(found, Err(Error::Corrupt { .. })),
            "by {cut}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_file_refuses_to_start() {
    let (original, _) = stopped().await;
    let log = original.path().join("log");
    let mut missing = files(original.path(), "log");
    missing.extend(files(original.path(), "sst"));
    missing.push(log.join("CURRENT"));
    assert!(missing.len() >= 3);
    for file in missing {
        let (dir, copy) = copied(original.path(), &file);
        std::fs::remove_file(&copy).expect("removed");
        let found = start(dir.path()).await;
        assert!(found.is_err(), "{} was not missed", copy.display());
        assert!(start(dir.path()).await.is_err(), "nor the second time");
    }
    let (dir, _) = copied(original.path(), &log.join("CURRENT"));
    std::fs::remove_file(dir.path().join("HIGH_WATER")).expect("removed");
    assert!(start(dir.path()).await.is_err());
}

#[tokio::test]
async fn an_undamaged_copy_starts() {
    let (original, entries) = stopped().await;
    assert_eq!(start(original.path()).await.expect("opens"), entries);
}

/// What a power cut leaves of a group that was being written: every way of being torn starts, without it.
#[tokio::test]
async fn a_torn_tail_starts() {
    let (original, entries) = stopped().await;
    let file = files(original.path(), "log").pop().expect("one is open");
    let seed = fresh_seed();
    let mut random = Random(seed);
    let whole = std::fs::read(&file).expect("readable");
    // The next group's beginning: an earlier group's bytes, so that its header is in order, with its end missing.
    let tails: [Vec<u8>; 4] = [
        vec![0; 5000],
        (0..3000).map(|_| random.next().to_le_bytes()[0]).collect(),
        whole[..300].to_vec(),
        [&whole[..100], &[0; 4000]].concat(),
    ];
    for (number, tail) in tails.iter().enumerate() {
        let (dir, copy) = copied(original.path(), &file);
        std::fs::write(&copy, [&whole[..], tail].concat()).expect("writable");
        let found = start(dir.path()).await;
        let found = found.unwrap_or_else(|e| panic!("seed {seed}, tail {number}: {e}"));
        assert_eq!(found, entries, "seed {seed}, tail {number}");
        assert_eq!(start(dir.path()).await.expect("and again"), entries);
    }
}

/// A data directory as [`stopped`] leaves it, and a write-ahead log of its that has become tables since then: its name and what
/// was in it.
async fn stopped_with_an_earlier_log() -> (tempfile::TempDir, Vec<pb::Entry>, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = open(dir.path(), node(1)).expect("new");
    let mut log = db.log(ShardId::ZERO).expect("empty");
    fill(&mut log, 0).await;
    close(db, log).await;
    let earlier = files(dir.path(), "log").pop().expect("one is open");
    let bytes = std::fs::read(&earlier).expect("readable");
    let db = open(dir.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    fill(&mut log, 200).await;
    let entries = read_all(&mut log).await;
    close(db, log).await;
    assert!(!earlier.exists(), "it became tables");
    (dir, entries, earlier, bytes)
}

/// A file that is used again has records of its earlier life behind its own.
#[tokio::test]
async fn what_a_file_held_before_is_cut_off() {
    let (original, entries, _, earlier) = stopped_with_an_earlier_log().await;
    let file = files(original.path(), "log").pop().expect("one is open");
    let own = std::fs::read(&file).expect("readable");
    let seed = fresh_seed();
    let mut random = Random(seed);
    for round in 0..24 {
        let skip = usize::try_from(random.below(earlier.len() as u64)).expect("small");
        let whole = [&own[..], &earlier[skip..]].concat();
        let (dir, copy) = copied(original.path(), &file);
        std::fs::write(&copy, &whole).expect("writable");
        let found = start(dir.path()).await;
        let found = found.unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
        assert_eq!(found, entries, "seed {seed}, round {round}");

        let (dir, copy) = copied(original.path(), &file);
        let mut bytes = whole;
        let at = usize::try_from(random.below(own.len() as u64)).expect("small");
        match round % 3 {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at..own.len()].fill(0),
            // As if its end had never been written.
            _ => {
                let instead = earlier.iter().cycle().skip(at);
                for (byte, earlier) in bytes[at..own.len()].iter_mut().zip(instead) {
                    *byte = *earlier;
                }
            }
        }
        std::fs::write(&copy, bytes).expect("writable");
        let found = start(dir.path()).await;
        assert!(
            matches!(found, Err(Error::Corrupt { .. })),
            "seed {seed}, round {round}, byte {at}: {:?}",
            found.map(|entries| entries.len())
        );
    }
}

/// The same in the middle of the log: after a crash that came before a file was closed.
#[tokio::test]
async fn what_a_file_in_the_middle_held_before_is_cut_off() {
    let (_dir, _, _, earlier) = stopped_with_an_earlier_log().await;
    let (original, entries) = stopped_on_a_full_disk().await;
    for file in files(original.path(), "log") {
        let (dir, copy) = copied(original.path(), &file);
        let own = std::fs::read(&copy).expect("readable");
        std::fs::write(&copy, [&own[..], &earlier[1000..]].concat()).expect("writable");
        let found = start(dir.path()).await;
        assert_eq!(found.expect("it opens"), entries, "{}", file.display());
    }
}

/// Zeros or remnants in place of a file's last records, or a file that ends before them, are damage if a later file goes on.
#[tokio::test]
async fn what_a_file_in_the_middle_lost_is_missed() {
    let (_dir, _, _, earlier) = stopped_with_an_earlier_log().await;
    let (original, _) = stopped_on_a_full_disk().await;
    for file in files(original.path(), "log") {
        let own = std::fs::read(&file).expect("readable");
        for length in [0, own.len() / 2, own.len() - 40] {
            let zeros = vec![0; own.len() - length];
            for instead in [&zeros[..], &earlier, &[]] {
                let (dir, copy) = copied(original.path(), &file);
                let bytes = [&own[..length], instead].concat();
                std::fs::write(&copy, &bytes).expect("writable");
                let found = start(dir.path()).await;
                assert!(
                    matches!(found, Err(Error::Corrupt { .. } | Error::Database { .. })),
                    "{} from byte {length}, {} instead: {:?}",
                    file.display(),
                    instead.len(),
                    found.map(|entries| entries.len())
                );
            }
        }
    }
}

/// The power went when a file was renamed and written over, and it has its old name and some of the new pages.
#[tokio::test]
async fn a_file_that_is_not_needed_any_more_may_be_damaged() {
    let (original, entries, file, earlier) = stopped_with_an_earlier_log().await;
    for (from, to) in [(0, 4096), (8192, 12288), (0, earlier.len())] {
        let (dir, copy) = copied(original.path(), &file);
        let mut bytes = earlier.clone();
        bytes[from..to].fill(0x5a);
        std::fs::write(&copy, bytes).expect("writable");
        let found = start(dir.path()).await;
        assert_eq!(found.expect("it opens"), entries, "{from} to {to}");
    }
}

/// A write-ahead log with one record, which is torn: whether it was acknowledged is what the mark says.
#[tokio::test]
async fn the_only_record_of_a_log_may_be_torn() {
    let (original, entries) = stopped().await;
    let db = open(original.path(), node(1)).expect("opens");
    let mut log = db.log(ShardId::ZERO).expect("whole");
    log.save_vote(&vote(9)).await.expect("saved");
    close(db, log).await;
    let file = files(original.path(), "log").pop().expect("one is open");
    let whole = std::fs::read(&file).expect("readable");
    for at in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        let (dir, copy) = copied(original.path(), &file);
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        std::fs::write(&copy, &bytes).expect("writable");
        let found = start(dir.path()).await;
        assert!(
            matches!(found, Err(Error::Corrupt { .. })),
            "byte {at}: {found:?}"
        );
        assert_eq!(
            std::fs::read(&copy).expect("readable"),
            bytes,
            "what is damaged stays as it is"
        );

        let (mark, group) = HighWater::open(dir.path())
            .expect("opens")
            .expect("is there");
        mark.advance(group - 1).expect("written");
        drop(mark);
        assert_eq!(start(dir.path()).await.expect("it opens"), entries);
    }
}
