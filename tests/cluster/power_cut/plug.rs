//! Shuts down the ext4 file systems that are named, without writing back what they have not synced: what pulling the plug of
//! their disks would leave. A program of its own, because the crate has no unsafe code.

use std::ffi::{c_int, c_ulong};
use std::fs::File;
use std::os::fd::AsRawFd;

/// `EXT4_IOC_SHUTDOWN`.
const SHUTDOWN: c_ulong = 0x8004_587d;
/// Not even the journal.
const NO_LOG_FLUSH: u32 = 2;

unsafe extern "C" {
    fn ioctl(file: c_int, request: c_ulong, ...) -> c_int;
}

fn main() {
    let names: Vec<_> = std::env::args().skip(1).collect();
    let open = |name: &String| File::open(name).expect("a mounted file system");
    // All are open before the first goes down.
    let places: Vec<_> = names.iter().map(open).collect();
    for (place, name) in places.iter().zip(&names) {
        let how: u32 = NO_LOG_FLUSH;
        // SAFETY: the kernel reads one number from the address, which lives that long.
        let result = unsafe { ioctl(place.as_raw_fd(), SHUTDOWN, &raw const how) };
        assert_eq!(result, 0, "{name}: {}", std::io::Error::last_os_error());
    }
}
