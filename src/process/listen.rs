//! The socket.

use std::io;

use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why nobody can be listened to on an address, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", advice(source))]
pub struct ListenError {
    /// The address.
    pub address: String,
    /// What the system said.
    pub source: io::Error,
}

/// Listens on `HOST:PORT`, on the first of the host's addresses that can be bound.
pub async fn listen(address: &str) -> Result<TcpListener, ListenError> {
    let failed = |source| ListenError {
        address: address.to_owned(),
        source,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for candidate in lookup_host(address).await.map_err(failed)? {
        let bound = (|| {
            let socket = if candidate.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            // A restarted node must not wait for the sockets of its former life to time out.
            socket.set_reuseaddr(true)?;
            socket.bind(candidate)?;
            socket.listen(BACKLOG)
        })();
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn advice(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there; stop it or choose another --listen".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; choose another --listen".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "it takes more rights; choose a port from 1024".to_owned()
        }
        _ => source.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_said_to_be() {
        let first = listen("127.0.0.1:0").await.expect("some port is free");
        let address = first.local_addr().expect("it is bound").to_string();
        let error = listen(&address).await.expect_err("it is taken");
        assert!(error.to_string().contains(&address), "{error}");
        assert!(
            error.to_string().contains("another process listens there"),
            "{error}"
        );
    }
}
