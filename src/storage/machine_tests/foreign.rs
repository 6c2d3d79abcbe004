//! Bytes on a disk that nearly mean something: whatever opens them refuses or takes them, and neither panics nor allocates
//! much more than they are.
//!
//! Checksums keep most damage from the decoders. Here they are given it all the same, since a checksum may be right by chance,
//! or be made by whoever made the damage.

use proptest::prelude::*;

use super::formats::{Fixture, Opener, stored};
use super::*;
use crate::foreign::{bent, spent};
use crate::raft::StoredMembership;
use crate::state::record;
use crate::storage::snapshot::write_contents;
use crate::storage::wire;

/// What opening may allocate for each byte, and beside. The greatest part is what lists of small messages become.
const BYTES_PER_BYTE: usize = 256;
const BYTES_BESIDE: usize = 16 << 10;

/// Gives bytes to the code that opens them on a disk. What it says of them does not matter here.
fn open(opener: Opener, key: &[u8], value: &[u8]) {
    let value = Bytes::copy_from_slice(value);
    match opener {
        Opener::State => open_state(key, value),
        Opener::Log => open_log(&value),
        Opener::Command => drop(Command::decode(value)),
        Opener::Reply => drop(pb::Reply::decode(value)),
        // These are files: see below.
        Opener::Contents | Opener::Mark => {}
    }
}

fn open_state(key: &[u8], value: Bytes) {
    use crate::state::Key as K;
    let Ok(decoded) = K::decode(key) else { return };
    match decoded {
        K::Header => drop(record::decode_header(value)),
        K::RaftApplied => drop(pb::LogId::decode(value)),
        K::RaftMembership => {
            drop(pb::StoredMembership::decode(value).map(StoredMembership::try_from));
        }
        K::Events(_) => {
            let from = Revision::default();
            let seen = chunks_of::unpack(key, value, from, &mut |revision, value| {
                events::decode(revision, value).map(drop)
            });
            drop(seen);
        }
        key => drop(record::decode(&key, value)),
    }
}

/// The message behind its checksum.
fn open_log(value: &Bytes) {
    if let Ok(entry) = pb::Entry::decode(value.clone()) {
        drop(Entry::try_from(entry));
    }
    if let Ok(head) = pb::LogHead::decode(value.clone()) {
        std::hint::black_box(head.vote.map(crate::raft::Vote::from));
    }
    drop(wire::unseal::<pb::StoredNumber>(wire::Key::Group, value));
}

/// A stored record, and bytes that its value may have become.
fn damaged() -> impl Strategy<Value = (Fixture, Vec<u8>)> {
    prop::sample::select(stored()).prop_flat_map(|fixture| {
        let value = fixture.message().to_vec();
        bent(vec![value]).prop_map(move |value| (fixture.clone(), value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_record_is_refused_or_read((fixture, value) in damaged()) {
        let ((), allocated) = spent(|| open(fixture.opener, &fixture.key, &value));
        let bound = BYTES_BESIDE + BYTES_PER_BYTE * value.len();
        prop_assert!(allocated <= bound, "{allocated} bytes for {}", value.len());
    }

    #[test]
    fn a_damaged_key_is_refused_or_read(fixture in prop::sample::select(stored()), bends in any::<u64>()) {
        let mut key = fixture.key.clone();
        // One bit of it.
        if !key.is_empty() {
            let at = usize::try_from(bends % (8 * key.len() as u64)).expect("it is small");
            key[at / 8] ^= 1 << (at % 8);
        }
        open(fixture.opener, &key, &fixture.value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A table of contents with the right checksum, by whomever.
    #[test]
    fn a_foreign_table_of_contents_is_refused_or_read(message in bent(contents())) {
        let Ok(manifest) = pb::SnapshotManifest::decode(&message[..]) else {
            return Ok(());
        };
        let data = tempfile::tempdir().expect("a temporary directory");
        let path = data.path().join("snapshot");
        std::fs::create_dir(&path).expect("created");
        write_contents(&path, &manifest).expect("written");
        let owner = ShardDir::new(data.path(), cluster(), ShardId::ZERO);
        if let Ok(snapshot) = SnapshotDir::open(path, &owner) {
            drop(snapshot.meta());
        }
    }
}

fn contents() -> Vec<Vec<u8>> {
    let mut stored = stored();
    stored.retain(|fixture| fixture.opener == Opener::Contents);
    stored
        .iter()
        .map(|fixture| fixture.message().to_vec())
        .collect()
}
