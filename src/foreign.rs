//! For tests of whatever decodes bytes of others: bytes that nearly mean something, and what decoding them takes.

use proptest::prelude::*;

/// Changes that damage or malice would make.
#[derive(Debug, Clone)]
enum Bend {
    Flip(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    /// A length or a number that is larger than anything there is.
    Swell(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    /// A part again.
    Repeat(prop::sample::Index, prop::sample::Index, u8),
}

fn bend() -> impl Strategy<Value = Bend> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1_u8..).prop_map(|(at, flip)| Bend::Flip(at, flip)),
        at().prop_map(Bend::Truncate),
        at().prop_map(Bend::Swell),
        (at(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, new)| Bend::Insert(at, new)),
        (at(), at(), 1_u8..20).prop_map(|(from, to, times)| Bend::Repeat(from, to, times)),
    ]
}

impl Bend {
    fn apply(self, bytes: &mut Vec<u8>) {
        // One more place than there are bytes, and so one even if there are none.
        let place = |at: prop::sample::Index, bytes: &[u8]| at.index(bytes.len() + 1);
        match self {
            Self::Flip(at, flip) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= flip;
                }
            }
            Self::Truncate(at) => bytes.truncate(place(at, bytes)),
            Self::Swell(at) => {
                let at = place(at, bytes);
                let end = bytes.len().min(at + 1);
                bytes.splice(at..end, [0xff, 0xff, 0xff, 0xff, 0x0f]);
            }
            Self::Insert(at, new) => {
                let at = place(at, bytes);
                bytes.splice(at..at, new);
            }
            Self::Repeat(from, to, times) => {
                let (from, to) = (place(from, bytes), place(to, bytes));
                let part = bytes[from.min(to)..from.max(to)].repeat(times.into());
                bytes.splice(from..from, part);
            }
        }
    }
}

/// One of the samples after a few changes, or bytes that were never anything.
pub(crate) fn bent(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bent = (
        prop::sample::select(samples),
        prop::collection::vec(bend(), 1..5),
    );
    let bent = bent.prop_map(|(mut bytes, bends)| {
        for bend in bends {
            bend.apply(&mut bytes);
        }
        bytes
    });
    prop_oneof![9 => bent, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// What `work` returned, and how many bytes this thread allocated for it.
pub(crate) fn spent<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let allocated = tikv_jemalloc_ctl::thread::allocatedp::read().expect("jemalloc counts");
    let before = allocated.get();
    let worked = work();
    let bytes = allocated.get().wrapping_sub(before);
    (worked, usize::try_from(bytes).expect("it fits into memory"))
}

#[test]
fn what_is_allocated_is_counted() {
    let (kept, bytes) = spent(|| vec![0_u8; 1 << 20]);
    assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    drop(kept);
    let ((), bytes) = spent(|| ());
    assert_eq!(bytes, 0);
}
