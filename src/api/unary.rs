//! One call, one answer: what every unary method of sessions, carts and keys does.

use futures::FutureExt as _;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::forward::{self, Method};
use super::parse::{self, Origin, Parsed, Read, Write};
use super::weight::{echo_weight, weight};
use super::{Api, Backend, Error, Refused, encode, read};
use crate::limits;
use crate::node::{self, Outcome};
use crate::proto::Held as _;
use crate::proto::v1::{self, operation, outcome};
use crate::raft::Reply;
use crate::state::Command;
use crate::transport::{Place, Places, take_place};

/// A method of the data services: one of the exchange stream's operations on its own.
pub(crate) trait DataMethod: Method {
    /// A write that reaches a follower is forwarded; reads are served where they arrive. A read that touches may turn
    /// out to be a write.
    fn writes(&self) -> bool;

    /// As an operation.
    fn into_operation(self) -> operation::Request;

    /// This method's response, if it is one, with its header.
    fn finish(
        response: outcome::Response,
        header: v1::ResponseHeader,
    ) -> Option<<Self as Method>::Response>;
}

macro_rules! data_methods {
    ($($kind:ident $service:literal / $method:literal: $request:ident -> $response:ident as $variant:ident;)*) => {$(
        impl Method for v1::$request {
            type Response = v1::$response;
            const PATH: &'static str = concat!("/trolley.v1.", $service, "/", $method);
        }
        impl DataMethod for v1::$request {
            fn writes(&self) -> bool {
                data_methods!(@ $kind self)
            }

            fn into_operation(self) -> operation::Request {
                operation::Request::$variant(self.into())
            }

            fn finish(
                response: outcome::Response,
                header: v1::ResponseHeader,
            ) -> Option<v1::$response> {
                match response {
                    outcome::Response::$variant(held) => {
                        let mut response: v1::$response = held.out();
                        response.header = Some(Box::new(header));
                        Some(response)
                    }
                    _ => None,
                }
            }
        }
    )*};
    (@ write $message:ident) => { true };
    (@ read $message:ident) => { false };
    (@ touch $message:ident) => { $message.touch };
}

data_methods! {
    write "SessionService" / "Create": CreateSessionRequest -> CreateSessionResponse as CreateSession;
    touch "SessionService" / "Get": GetSessionRequest -> GetSessionResponse as GetSession;
    write "SessionService" / "Update": UpdateSessionRequest -> UpdateSessionResponse as UpdateSession;
    write "SessionService" / "Touch": TouchSessionRequest -> TouchSessionResponse as TouchSession;
    write "SessionService" / "Destroy": DestroySessionRequest -> DestroySessionResponse as DestroySession;
    write "SessionService" / "Save": SaveSessionRequest -> SaveSessionResponse as SaveSession;
    write "SessionService" / "Rotate": RotateSessionRequest -> RotateSessionResponse as RotateSession;
    read "SessionService" / "List": ListSessionsRequest -> ListSessionsResponse as ListSessions;
    write "SessionService" / "End": EndSessionRequest -> EndSessionResponse as EndSession;
    write "SessionService" / "RevokeAll": RevokeAllSessionsRequest -> RevokeAllSessionsResponse as RevokeAllSessions;
    read "NamespaceService" / "Get": GetNamespaceRequest -> GetNamespaceResponse as GetNamespace;
    write "NamespaceService" / "Set": SetNamespaceRequest -> SetNamespaceResponse as SetNamespace;
    write "CartService" / "Add": AddCartLineRequest -> AddCartLineResponse as AddCartLine;
    write "CartService" / "SetQuantity": SetCartLineQuantityRequest -> SetCartLineQuantityResponse as SetCartLineQuantity;
    write "CartService" / "Remove": RemoveCartLineRequest -> RemoveCartLineResponse as RemoveCartLine;
    write "CartService" / "Clear": ClearCartRequest -> ClearCartResponse as ClearCart;
    read "CartService" / "Get": GetCartRequest -> GetCartResponse as GetCart;
    write "CartService" / "Update": UpdateCartRequest -> UpdateCartResponse as UpdateCart;
    write "CartService" / "Merge": MergeCartsRequest -> MergeCartsResponse as MergeCarts;
    write "CartService" / "Freeze": FreezeCartRequest -> FreezeCartResponse as FreezeCart;
    write "CartService" / "Release": ReleaseCartRequest -> ReleaseCartResponse as ReleaseCart;
    write "CartService" / "CompleteOrder": CompleteOrderRequest -> CompleteOrderResponse as CompleteOrder;
    read "KvService" / "Get": GetKeyRequest -> GetKeyResponse as GetKey;
    write "KvService" / "Put": PutKeyRequest -> PutKeyResponse as PutKey;
    write "KvService" / "Delete": DeleteKeyRequest -> DeleteKeyResponse as DeleteKey;
    read "KvService" / "List": ListKeysRequest -> ListKeysResponse as ListKeys;
    write "KvService" / "Increment": IncrementKeyRequest -> IncrementKeyResponse as IncrementKey;
    write "LeaseService" / "Grant": GrantLeaseRequest -> GrantLeaseResponse as GrantLease;
    write "LeaseService" / "KeepAlive": KeepLeaseAliveRequest -> KeepLeaseAliveResponse as KeepLeaseAlive;
    write "LeaseService" / "Revoke": RevokeLeaseRequest -> RevokeLeaseResponse as RevokeLease;
    read "LeaseService" / "Get": GetLeaseRequest -> GetLeaseResponse as GetLease;
    write "TxnService" / "Txn": TxnRequest -> TxnResponse as Txn;
}

/// Room for a call's answer, if that is large.
struct Room<'a> {
    connection: Option<Places>,
    node: &'a Places,
    place: Option<Place>,
}

impl Room<'_> {
    /// Takes a place if one is free.
    fn try_take(&mut self) {
        self.place = take_place(self.connection.as_ref(), self.node).now_or_never();
    }

    /// Waits for a place. Nothing was proposed yet.
    async fn take(&mut self, deadline: Instant) -> Result<(), node::Error> {
        let taken = take_place(self.connection.as_ref(), self.node);
        let late = |_| node::Error::Deadline {
            outcome: Outcome::NotApplied,
        };
        self.place = Some(timeout_at(deadline, taken).await.map_err(late)?);
        Ok(())
    }

    /// A response that keeps the place until it has left.
    fn into_response<T>(self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        if let Some(place) = self.place {
            response.extensions_mut().insert(place);
        }
        response
    }
}

impl<B: Backend> Api<B> {
    /// Serves one call.
    pub(crate) async fn unary<M: DataMethod>(
        &self,
        request: Request<M>,
    ) -> Result<Response<<M as Method>::Response>, Status> {
        let _under_way = self.under_way.token();
        let deadline = super::deadline::of(request.metadata());
        let is_allowed = forward::is_allowed(request.metadata());
        let mut room = Room {
            connection: request.extensions().get::<Places>().cloned(),
            node: &self.places,
            place: None,
        };
        let message = request.into_inner();
        let may_forward = is_allowed && message.writes();
        // Kept only where it may be needed: the leader finds out too late that it leads no more.
        let spare = may_forward.then(|| message.clone());
        let answer = match (self.answer(message, &mut room, deadline).await, spare) {
            (Ok(answer), _) => self.finish_unary::<M>(answer)?,
            (
                Err(Refused {
                    error: Error::Node(node::Error::NotLeader(leader)),
                    ..
                }),
                Some(message),
            ) => self.leaders.forward(&leader, message, deadline).await?,
            (Err(refused), _) => return Err(refused.into()),
        };
        Ok(room.into_response(answer))
    }

    async fn answer<M: DataMethod>(
        &self,
        message: M,
        room: &mut Room<'_>,
        deadline: Instant,
    ) -> Result<encode::Answer, Refused> {
        match parse::operation(message.into_operation(), Origin::Unary)? {
            Parsed::Write(Write { command, echo }) => {
                // Replies are kept for replays, so none of them is large by what is stored.
                if echo_weight(&echo) > limits::LARGE_ANSWER_BYTES {
                    room.take(deadline).await?;
                }
                let reply = self.propose(command, deadline).await?;
                encode::write(echo, reply)
            }
            Parsed::Read(Read { mode, query }) => {
                self.node.read_barrier(mode, deadline).await?;
                let answer = read::now(&self.node, &query)?;
                let now = self.node.log_now();
                let touch = read::owed_touch(&query, &answer.response, now);
                let is_large = weight(&answer.response) > limits::LARGE_ANSWER_BYTES;
                if is_large {
                    room.try_take();
                }
                if touch.is_none() && is_large == room.place.is_some() {
                    return Ok(answer);
                }
                // It is read again, and nobody keeps it meanwhile.
                drop(answer);
                if is_large && room.place.is_none() {
                    room.take(deadline).await?;
                }
                if let Some(touch) = touch {
                    read::check_touch(&self.propose(touch, deadline).await?)?;
                }
                read::now(&self.node, &query)
            }
        }
    }

    async fn propose(&self, command: Command, deadline: Instant) -> Result<Reply, Error> {
        let reply = timeout_at(deadline, self.node.propose(command)).await;
        let reply = reply.unwrap_or(Err(node::Error::Deadline {
            outcome: Outcome::Unknown,
        }))?;
        Ok(reply)
    }

    fn finish_unary<M: DataMethod>(
        &self,
        answer: encode::Answer,
    ) -> Result<<M as Method>::Response, Status> {
        let header = encode::header(&self.node.leadership(), answer.revision, answer.replayed);
        let response = M::finish(answer.response, header);
        response.ok_or_else(|| Error::ForeignReply("it answers another method").into())
    }
}
