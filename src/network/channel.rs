//! The connections to other nodes, made on first use and shared by everyone who dials.
//!
//! Invariant: one [`Pool`] per process. openraft asks for a new client for every vote and every transfer, and a
//! connection for each would cost a handshake at the worst moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::Error;
use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::peer_service_client::PeerServiceClient;
use crate::proto::internal::raft_service_client::RaftServiceClient;
use crate::transport::Connector;

/// What a connection carries. Each lane has its own, so that none waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes, transfers and the peer service: small and urgent.
    Control,
    /// Log entries.
    Log,
    /// Snapshots.
    Snapshot,
}

/// How a connection is made and watched.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Longest time for a TCP handshake.
    pub connect: Duration,
    /// Time between two HTTP/2 pings, sent while idle too, so that a connection whose peer vanished is given up
    /// even when TCP has nothing to retransmit.
    pub ping_interval: Duration,
    /// Longest time for the answer to a ping; the connection is dropped after it.
    pub ping_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(500),
            ping_interval: Duration::from_secs(1),
            ping_timeout: Duration::from_millis(1500),
        }
    }
}

/// Every connection that this node opened. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pool {
    timing: Timing,
    channels: Arc<Mutex<HashMap<(String, Lane), Channel>>>,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            channels: Arc::default(),
        }
    }

    /// The connection to `address` for `lane`. It is made when it is first used, and again whenever it broke.
    pub(super) fn channel(&self, address: &str, lane: Lane) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address.to_owned(), lane);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        // Members that moved leave their old addresses behind. Whoever still uses one of the connections that go
        // here keeps it.
        if channels.len() >= limits::PEER_CONNECTIONS {
            channels.clear();
        }
        let channel = self
            .endpoint(address)?
            .connect_with_connector_lazy(Connector::new());
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| Error::Address(address.to_owned()))?;
        Ok(endpoint
            .connect_timeout(self.timing.connect)
            .http2_keep_alive_interval(self.timing.ping_interval)
            .keep_alive_timeout(self.timing.ping_timeout)
            .keep_alive_while_idle(true)
            .http2_max_header_list_size(limits::HTTP2_HEADER_BYTES))
    }

    /// A Raft client with the message limits of peers.
    pub(super) fn raft(
        &self,
        address: &str,
        lane: Lane,
    ) -> Result<RaftServiceClient<Channel>, Error> {
        Ok(RaftServiceClient::new(self.channel(address, lane)?)
            .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
            .max_encoding_message_size(limits::PEER_MESSAGE_BYTES))
    }

    /// A client of the peer service.
    pub(super) fn peer(&self, address: &str) -> Result<PeerServiceClient<Channel>, Error> {
        Ok(
            PeerServiceClient::new(self.channel(address, Lane::Control)?)
                .max_decoding_message_size(limits::PEER_MESSAGE_BYTES)
                .max_encoding_message_size(limits::PEER_MESSAGE_BYTES),
        )
    }

    /// Asks whoever listens at `address` who it is. The only call without an envelope, because it is made before
    /// there is a cluster.
    pub async fn hello(
        &self,
        address: &str,
        request: pb::HelloRequest,
        deadline: Duration,
    ) -> Result<pb::HelloResponse, Error> {
        let mut client = self.peer(address)?;
        within(deadline, client.hello(request)).await
    }
}

/// One unary call, given up after `deadline`.
pub(super) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error::Timeout(deadline)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_an_error() {
        let pool = Pool::new(Timing::default());
        let error = pool
            .channel("not an address", Lane::Log)
            .expect_err("no uri");
        assert!(matches!(error, Error::Address(_)), "{error}");
    }

    #[tokio::test]
    async fn connections_are_shared_and_bounded() {
        let pool = Pool::new(Timing::default());
        for port in 0..10_000_u16 {
            pool.channel(&format!("host:{port}"), Lane::Log)
                .expect("an address");
            pool.channel(&format!("host:{port}"), Lane::Log)
                .expect("an address");
        }
        let open = pool.channels.lock().expect("no panic").len();
        assert!(open <= limits::PEER_CONNECTIONS, "{open}");
    }
}
