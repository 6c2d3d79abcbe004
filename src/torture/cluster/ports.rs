//! Ports for nodes that are killed and started again.
//!
//! A port that the system hands out for `:0` may go to any outgoing connection while its node is down. So these come from
//! below the range that Linux draws from (32768 and up). Another process may try the same port at the same time: each
//! starts elsewhere, by its pid.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static DRAWN: AtomicU16 = AtomicU16::new(0);

/// A port of loopback where nobody listens, and that this process has not given out before; `None` if there is none left.
#[must_use]
pub fn unused() -> Option<u16> {
    let pid = std::process::id().wrapping_mul(61) % u32::from(COUNT);
    let start = u16::try_from(pid).unwrap_or(0);
    (0..COUNT).find_map(|_| {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(drawn)) % COUNT;
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        is_free.then_some(port)
    })
}

/// The same as an address.
pub(super) fn unused_address() -> Option<String> {
    unused().map(|port| format!("127.0.0.1:{port}"))
}
