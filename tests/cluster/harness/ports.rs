//! Ports for nodes that are killed and started again.
//!
//! A port that the system hands out for `:0` may go to any outgoing connection while its node is down. So these
//! come from below the range that Linux draws from (32768 and up), where nobody lands by chance.
//! Another test process may try the same port at the same time: each starts elsewhere, by its pid.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static DRAWN: AtomicU16 = AtomicU16::new(0);

/// A port where nobody listens, and that this process has not given out before.
pub fn unused() -> u16 {
    let pid = std::process::id().wrapping_mul(61) % u32::from(COUNT);
    let start = u16::try_from(pid).expect("it is less than a u16");
    for _ in 0..COUNT {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(drawn)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("every port from {FIRST} to {} is in use", FIRST + COUNT);
}

/// The first of so many such ports in a row.
pub fn unused_in_a_row(count: u16) -> u16 {
    let mut first = unused();
    let mut last = first;
    while last - first + 1 < count {
        let next = unused();
        if next != last + 1 {
            first = next;
        }
        last = next;
    }
    first
}
