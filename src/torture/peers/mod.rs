//! Load generators for the systems that Trolley is measured beside.
//!
//! They are as fast as we could make them without tuning the systems themselves: a comparison against a slow client
//! would flatter us.

pub mod etcd;
pub mod redis;

/// The key of a client's step: every client walks over all keys from a place of its own.
#[must_use]
pub fn key(worker: usize, step: u64, keys: u64) -> String {
    let start = (worker as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let number = start.wrapping_add(step) % keys.max(1);
    // Without the machinery of formatting, which costs as much as a fortieth of a read.
    let mut text = *b"bench-00000000";
    let mut left = number;
    for digit in text[6..].iter_mut().rev() {
        *digit += u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
    }
    match left {
        0 => String::from_utf8_lossy(&text).into_owned(),
        _ => format!("bench-{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbers_of_eight_digits() {
        for number in [0, 9, 10_203_040, 99_999_999, 100_000_000, 12_345_678_901] {
            assert_eq!(key(0, number, u64::MAX), format!("bench-{number:08}"));
        }
        assert_eq!(key(0, 12, 10), "bench-00000002");
    }
}
