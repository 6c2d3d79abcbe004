//! The same operations as single gRPC calls.
//!
//! For callers that bring a request id of their own, and to compare the two transports. A write without an id gets one,
//! so that its retries are recognised here, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Reply;
use super::call::{Identity, Journey, Kind};
use super::error::{Error, Rejected};
use super::link::Link;
use super::node::{Cause, Lost};
use super::parts::Parts;
use super::supervisor::Shared;
use crate::limits;
use crate::planted::{self, Bug};
use crate::proto::Held as _;
use crate::proto::v1::ResponseHeader;
use crate::proto::v1::cart_service_client::CartServiceClient;
use crate::proto::v1::kv_service_client::KvServiceClient;
use crate::proto::v1::lease_service_client::LeaseServiceClient;
use crate::proto::v1::namespace_service_client::NamespaceServiceClient;
use crate::proto::v1::operation::Request;
use crate::proto::v1::outcome::Response;
use crate::proto::v1::session_service_client::SessionServiceClient;
use crate::proto::v1::txn_service_client::TxnServiceClient;
use crate::transport::never_connected;
use crate::types::Revision;

/// A listing's page is the largest answer.
const LARGEST_ANSWER: usize = limits::MESSAGE_BYTES + limits::LIST_PAGE_BYTES;

/// Sends a request until it is answered, refused for good, or out of time.
pub(super) async fn call(
    shared: &Arc<Shared>,
    mut request: Request,
    identity: Identity,
    deadline: Instant,
) -> Result<Reply<Response>, Error> {
    let mut kind = Kind::of(&request);
    if kind == Kind::Write {
        match identity {
            Identity::Absent => kind = Kind::UnnamedWrite,
            // An empty one is none.
            Identity::Named(id) if !id.is_empty() => name(&mut request, id),
            Identity::Named(_) | Identity::Drawn => name(&mut request, draw_id()),
        }
    }
    let length = request.encoded_len();
    if length > limits::MESSAGE_BYTES {
        return Err(Rejected::too_large(length, limits::MESSAGE_BYTES).into());
    }
    Parts::of(&request).excess(length)?;
    let mut journey = Journey::new(shared, kind, deadline);
    loop {
        let node = journey.next_node().await?;
        // As the sweeper has it for streams.
        let patience = journey.patience(&node);
        if kind == Kind::Write && planted::has(Bug::NewIdOnRetry) {
            name(&mut request, draw_id());
        }
        let sent = send(node.link(), request.clone(), patience);
        let Ok(answer) = tokio::time::timeout(patience, sent).await else {
            journey.unanswered()?;
            continue;
        };
        match answer {
            Ok((response, header)) => {
                let header = header.unwrap_or_default();
                shared.directory.raise_revision(header.revision);
                return Ok(Reply {
                    value: response,
                    revision: Revision::new(header.revision),
                    replayed: header.replayed,
                    node_id: header.node_id,
                });
            }
            Err(status) if never_connected(&status) => {
                let cause = Cause::Disconnected;
                journey.lost(Lost { sent: false, cause })?;
            }
            Err(status) => {
                let rejected = interpret(status);
                shared.directory.raise_revision(rejected.revision());
                journey.refused(rejected)?;
            }
        }
    }
}

fn draw_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A broken connection is reported under codes that also mean something else, and a timer of the transport that went off
/// before the node's own as a cancellation. No node sends these without a reason.
pub(super) fn interpret(status: tonic::Status) -> Rejected {
    use tonic::Code;
    let is_broken = std::error::Error::source(&status).is_some();
    let mut rejected = Rejected::from(status);
    let says_nothing = match rejected.code {
        Code::Cancelled => true,
        Code::Unknown | Code::Internal => is_broken,
        _ => false,
    };
    if says_nothing && rejected.reason.is_empty() {
        rejected.code = Code::Unavailable;
    }
    rejected
}

macro_rules! calls {
    ($($variant:ident: $service:ident.$method:ident),* $(,)?) => {
        async fn send(
            link: Link,
            request: Request,
            timeout: Duration,
        ) -> Result<(Response, Option<ResponseHeader>), tonic::Status> {
            match request {
                $(Request::$variant(message) => {
                    let mut request = tonic::Request::new(message.out());
                    request.set_timeout(timeout);
                    let mut client = $service::new(link)
                        .max_decoding_message_size(LARGEST_ANSWER);
                    let mut answer = client.$method(request).await?.into_inner();
                    let header = answer.header.take().map(|boxed| *boxed);
                    Ok((Response::$variant(answer.into()), header))
                })*
            }
        }
    };
}

calls! {
    CreateSession: SessionServiceClient.create,
    GetSession: SessionServiceClient.get,
    UpdateSession: SessionServiceClient.update,
    TouchSession: SessionServiceClient.touch,
    DestroySession: SessionServiceClient.destroy,
    RotateSession: SessionServiceClient.rotate,
    SaveSession: SessionServiceClient.save,
    ListSessions: SessionServiceClient.list,
    EndSession: SessionServiceClient.end,
    RevokeAllSessions: SessionServiceClient.revoke_all,
    GetNamespace: NamespaceServiceClient.get,
    SetNamespace: NamespaceServiceClient.set,
    AddCartLine: CartServiceClient.add,
    SetCartLineQuantity: CartServiceClient.set_quantity,
    RemoveCartLine: CartServiceClient.remove,
    ClearCart: CartServiceClient.clear,
    GetCart: CartServiceClient.get,
    UpdateCart: CartServiceClient.update,
    MergeCarts: CartServiceClient.merge,
    FreezeCart: CartServiceClient.freeze,
    ReleaseCart: CartServiceClient.release,
    CompleteOrder: CartServiceClient.complete_order,
    GetKey: KvServiceClient.get,
    PutKey: KvServiceClient.put,
    DeleteKey: KvServiceClient.delete,
    ListKeys: KvServiceClient.list,
    IncrementKey: KvServiceClient.increment,
    GrantLease: LeaseServiceClient.grant,
    KeepLeaseAlive: LeaseServiceClient.keep_alive,
    RevokeLease: LeaseServiceClient.revoke,
    GetLease: LeaseServiceClient.get,
    Txn: TxnServiceClient.txn,
}

macro_rules! names {
    ($($variant:ident),* $(,)?) => {
        /// Gives a write its request id.
        fn name(request: &mut Request, id: String) {
            match request {
                $(Request::$variant(message) => message.request_id = id,)*
                Request::GetSession(_)
                | Request::ListSessions(_)
                | Request::GetNamespace(_)
                | Request::GetCart(_)
                | Request::GetKey(_)
                | Request::ListKeys(_)
                | Request::GetLease(_) => {}
            }
        }
    };
}

names! {
    CreateSession, UpdateSession, TouchSession, DestroySession, AddCartLine, SetCartLineQuantity,
    RotateSession, SaveSession, EndSession, RevokeAllSessions, SetNamespace,
    RemoveCartLine, ClearCart, UpdateCart, MergeCarts, FreezeCart, ReleaseCart, CompleteOrder,
    PutKey, DeleteKey, IncrementKey, GrantLease, KeepLeaseAlive, RevokeLease, Txn,
}
