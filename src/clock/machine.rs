//! The clock of the machine: it goes on while processes come and go and while the machine sleeps, and nobody sets it.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use xxhash_rust::xxh3::xxh3_128;

/// Which start of which machine a time belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId([u8; BootId::BYTES]);

impl BootId {
    /// Length of an encoded id.
    pub const BYTES: usize = 16;

    /// As it was stored.
    #[must_use]
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// To be stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Of the machine that this process is on; `None` where the kernel does not say.
    fn current() -> Option<Self> {
        static CURRENT: OnceLock<Option<BootId>> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
            // A container may have a clock of its own, which it gets and loses with its time namespace.
            let namespace = fs::read_link("/proc/self/ns/time").unwrap_or_default();
            let whole = [&boot[..], namespace.as_os_str().as_encoded_bytes()].concat();
            Some(Self(xxh3_128(&whole).to_be_bytes()))
        })
    }
}

/// A moment on the clock of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineTime {
    /// Since which start.
    pub boot: BootId,
    /// How long ago that was, in milliseconds.
    pub millis: u64,
}

impl MachineTime {
    /// Now; `None` where the kernel does not say which start of the machine this is.
    #[must_use]
    pub fn now() -> Option<Self> {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).ok()?;
        let millis = u64::try_from(now.tv_nsec).ok()? / 1_000_000;
        Some(Self {
            boot: BootId::current()?,
            millis: seconds * 1_000 + millis,
        })
    }

    /// The time that has passed since an earlier moment; `None` if that was not one of the same start.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        let passed = self.millis.checked_sub(earlier.millis)?;
        (self.boot == earlier.boot).then(|| Duration::from_millis(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_and_says_which_start_it_counts_from() {
        let before = MachineTime::now().expect("the kernel says so");
        let after = MachineTime::now().expect("the kernel says so");
        assert!(after.since(before).is_some());
        assert_eq!(after.boot, before.boot);
    }

    #[test]
    fn another_start_and_a_later_moment_say_nothing() {
        let at = |boot: u8, millis| MachineTime {
            boot: BootId::new([boot; BootId::BYTES]),
            millis,
        };
        assert_eq!(at(1, 50).since(at(1, 20)), Some(Duration::from_millis(30)));
        assert_eq!(at(1, 50).since(at(1, 50)), Some(Duration::ZERO));
        assert_eq!(at(1, 50).since(at(1, 51)), None);
        assert_eq!(at(2, 50).since(at(1, 20)), None);
    }
}
