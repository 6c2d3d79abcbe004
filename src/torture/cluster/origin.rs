//! Which process a connection on this machine comes from.
//!
//! Every node dials its peers at the one address that the membership has for each, so the address does not tell links apart.
//! The kernel does: `/proc/net/tcp` names the socket behind a port, and `/proc/<pid>/fd` who holds it. That needs no
//! rights beyond those over one's own processes.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The socket that was bound to `from` and connected to `to`.
fn inode(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (in_hex(from)?, in_hex(to)?);
    table.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_it = words.next()? == from && words.next()? == to;
        is_it.then(|| words.nth(6)?.parse().ok()).flatten()
    })
}

/// As the kernel prints it: the address's bytes in the machine's order, the port as a number.
fn in_hex(address: SocketAddr) -> Option<String> {
    match address.ip() {
        IpAddr::V4(ip) => {
            let ip = u32::from_ne_bytes(ip.octets());
            Some(format!("{ip:08X}:{:04X}", address.port()))
        }
        IpAddr::V6(_) => None,
    }
}

fn holds(pid: u32, inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    files.is_ok_and(|files| {
        let mut links = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| link.as_os_str() == name.as_str())
    })
}

/// Which of these processes dialled from `from` to `to`; `None` for another one, or one that is gone.
pub(super) fn dialler(from: SocketAddr, to: SocketAddr, processes: &[(u64, u32)]) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = inode(&table, from, to)?;
    let mut holders = processes.iter().filter(|(_, pid)| holds(*pid, inode));
    holders.next().map(|(node, _)| *node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_this_process_is_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        let outward = std::net::TcpStream::connect(to).expect("it listens");
        let (inward, from) = listener.accept().expect("somebody has connected");
        let me = std::process::id();
        assert_eq!(dialler(from, to, &[(1, 1), (7, me)]), Some(7));
        assert_eq!(dialler(from, to, &[(1, 1)]), None);
        // The other end of the same connection is not the dialler's.
        assert_eq!(dialler(from, from, &[(7, me)]), None);
        drop((inward, outward));
    }

    #[test]
    fn the_kernels_table_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:2EE0 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 20 4 30 10 -1";
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        if cfg!(target_endian = "little") {
            assert_eq!(inode(table, at(0x2ee0), at(0xc001)), Some(4242));
            assert_eq!(inode(table, at(0xc001), at(0x2ee0)), None);
        }
    }
}
