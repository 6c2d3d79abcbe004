//! A write that reached a follower: the same message goes to the leader, once, so that any client can talk to any
//! node.
//!
//! One generic function serves every method: the message is sent again under the method's path with what is left
//! of the deadline and with [`NO_FORWARD`], so that two nodes which disagree on the leader cannot send it in circles.
//! The leader's own status comes back unchanged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::{Error, status};
use crate::limits;
use crate::node::{self, LeaderHint, Outcome};
use crate::transport::{Connector, never_connected};

/// Metadata of a caller that wants to be told the leader instead of being forwarded.
pub const NO_FORWARD: &str = "trolley-no-forward";

/// Addresses that channels are kept for. More than any cluster has; a list that grew past it is started anew.
const POOLED: usize = 32;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A method that can be sent on as it came.
pub(crate) trait Method: prost::Message + Clone + Default + 'static {
    /// What it answers.
    type Response: prost::Message + Default + Send + Sync + 'static;
    /// `/package.Service/Method`.
    const PATH: &'static str;
}

/// The caller allows forwarding.
pub(crate) fn is_allowed(metadata: &MetadataMap) -> bool {
    !metadata.contains_key(NO_FORWARD)
}

/// Channels to those that lead or led.
#[derive(Clone, Default)]
pub(crate) struct Leaders {
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Leaders {
    /// Sends `message` to the leader and returns what it answered.
    pub async fn forward<M: Method>(
        &self,
        leader: &LeaderHint,
        message: M,
        deadline: Instant,
    ) -> Result<M::Response, Status> {
        let unreachable = || Error::LeaderUnreachable {
            address: leader.address.clone(),
        };
        let channel = self.channel(&leader.address).ok_or_else(unreachable)?;
        let mut client = Grpc::new(channel).max_decoding_message_size(limits::PEER_MESSAGE_BYTES);
        // Room in the channel's queue: what fails up to here was certainly not sent.
        match timeout_at(deadline, client.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(unreachable().into()),
            Err(_) => return Err(deadline_passed(Outcome::NotApplied)),
        }
        let call = client.unary(
            request(message, deadline),
            PathAndQuery::from_static(M::PATH),
            ProstCodec::<M, M::Response>::default(),
        );
        match timeout_at(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(relay(&status, &leader.address)),
            Err(_) => Err(deadline_passed(Outcome::Unknown)),
        }
    }

    /// The channel to an address; `None` if the address is none.
    fn channel(&self, address: &str) -> Option<Channel> {
        // The map is whole at any time, so a panic elsewhere does not spoil it.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .ok()?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .connect_with_connector_lazy(Connector::new());
        if channels.len() >= POOLED {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }
}

fn request<M>(message: M, deadline: Instant) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request
        .metadata_mut()
        .insert(NO_FORWARD, tonic::metadata::MetadataValue::from_static("1"));
    request
}

fn deadline_passed(outcome: Outcome) -> Status {
    Error::Node(node::Error::Deadline { outcome }).into()
}

/// A status that the leader's API made is passed on; one that the transport made says only that the answer is
/// unknown, or, where dialling failed, that nothing was sent.
fn relay(status: &Status, address: &str) -> Status {
    let own = status
        .get_details_error_info()
        .is_some_and(|info| info.domain == status::DOMAIN);
    if own {
        return Status::with_details(
            status.code(),
            status.message(),
            status.details().to_vec().into(),
        );
    }
    let address = address.to_owned();
    if never_connected(status) {
        Error::LeaderUnreachable { address }.into()
    } else {
        Error::ForwardInterrupted { address }.into()
    }
}
