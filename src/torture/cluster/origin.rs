//! Which process a connection on this machine comes from.
//!
//! Every node dials its peers at the one address that the membership has for each, so the address does not tell links apart.
//! The kernel does: it names the socket between two addresses, see `sock_diag(7)`, and `/proc/<pid>/fd` who holds it. That needs
//! no rights beyond those over one's own processes. The table `/proc/net/tcp` would say the same, but whoever reads it walks over
//! every connection of the machine, and those that have just ended: thousands, while clients look for a leader.

use std::fs;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

/// Question and answer have a type, `SOCK_DIAG_BY_FAMILY`; a refusal has another.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
const INTERNET: u8 = 2;
const TCP: u8 = 6;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// `struct inet_diag_req_v2`: a head, and the addresses.
const QUESTION_BYTES: usize = 8 + ADDRESSES_BYTES;
/// `struct inet_diag_sockid`.
const ADDRESSES_BYTES: usize = 48;
/// In `struct inet_diag_msg`, behind a head and the port of the other end.
const TO_PORT_AT: usize = HEADER_BYTES + 6;
/// In the same, behind a head, the addresses, and four numbers.
const INODE_AT: usize = HEADER_BYTES + 4 + ADDRESSES_BYTES + 16;

/// The socket that was bound to `from` and connected to `to`; 0 for one that has ended.
fn inode(from: SocketAddrV4, to: SocketAddrV4) -> io::Result<Option<u32>> {
    let kernel = socket(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&kernel, &question(from, to), SendFlags::empty())?;
    let mut answer = [0; 512];
    let (length, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
    Ok(told(answer.get(..length).unwrap_or(&answer), to.port()))
}

/// Numbers are in the machine's order, addresses and ports in the network's.
fn question(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + QUESTION_BYTES);
    let length = u32::try_from(HEADER_BYTES + QUESTION_BYTES).expect("a small number");
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&REQUEST.to_ne_bytes());
    // Its number, and the asker's, whom the kernel knows anyway.
    out.extend_from_slice(&[0; 8]);
    // No extensions, a byte of padding, and sockets in every state.
    out.extend_from_slice(&[INTERNET, TCP, 0, 0]);
    out.extend_from_slice(&u32::MAX.to_ne_bytes());
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    for address in [from, to] {
        let mut room = [0; 16];
        room[..4].copy_from_slice(&address.ip().octets());
        out.extend_from_slice(&room);
    }
    // At any interface, and whatever cookie the kernel has given it.
    out.extend_from_slice(&0_u32.to_ne_bytes());
    out.extend_from_slice(&[0xff; 8]);
    out
}

/// The inode in an answer, unless it is a refusal, or about the socket that listens at an address where none is connected.
fn told(answer: &[u8], to_port: u16) -> Option<u32> {
    let kind = answer.get(4..6)?.try_into().ok()?;
    let to = answer.get(TO_PORT_AT..TO_PORT_AT + 2)?.try_into().ok()?;
    let inode = answer.get(INODE_AT..INODE_AT + 4)?.try_into().ok()?;
    let is_it = u16::from_ne_bytes(kind) == BY_FAMILY && u16::from_be_bytes(to) == to_port;
    is_it.then(|| u32::from_ne_bytes(inode))
}

fn holds(pid: u32, inode: u32) -> bool {
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
pub(super) fn dialler(
    from: SocketAddr,
    to: SocketAddr,
    processes: &[(u64, u32)],
) -> io::Result<Option<u64>> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
        return Ok(None);
    };
    let Some(inode) = inode(from, to)? else {
        return Ok(None);
    };
    let mut holders = processes.iter().filter(|(_, pid)| holds(*pid, inode));
    Ok(holders.next().map(|(node, _)| *node))
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
        let ask = |from, processes: &[(u64, u32)]| {
            dialler(from, to, processes).expect("the kernel answers")
        };
        assert_eq!(ask(from, &[(1, 1), (7, me)]), Some(7));
        assert_eq!(ask(from, &[(1, 1)]), None);
        // The other end of the same connection is not the dialler's.
        assert_eq!(ask(to, &[(7, me)]), None);
        drop((inward, outward));
    }

    #[test]
    fn a_connection_that_is_not_there_is_refused() {
        let at = |port| SocketAddrV4::new([127, 0, 0, 1].into(), port);
        let listener = std::net::TcpListener::bind(at(0)).expect("a port");
        let to = listener.local_addr().expect("an address").port();
        assert_eq!(inode(at(1), at(to)).expect("answered"), None);
        assert_eq!(told(&[], to), None);
    }
}
