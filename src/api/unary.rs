//! One call, one answer: what every unary method of sessions, carts and keys does.

use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::forward::{self, Method};
use super::parse::{self, Origin, Parsed, Read, Write};
use super::{Api, Backend, Error, encode, read};
use crate::node::{self, Outcome};
use crate::proto::v1::{self, operation, outcome};

/// A method of the data services: one of the exchange stream's operations on its own.
pub(crate) trait DataMethod: Method {
    /// A write that reaches a follower is forwarded; reads are served where they arrive.
    const WRITES: bool;

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
            const WRITES: bool = data_methods!(@ $kind);

            fn into_operation(self) -> operation::Request {
                operation::Request::$variant(self)
            }

            fn finish(
                response: outcome::Response,
                header: v1::ResponseHeader,
            ) -> Option<v1::$response> {
                match response {
                    outcome::Response::$variant(mut response) => {
                        response.header = Some(header);
                        Some(response)
                    }
                    _ => None,
                }
            }
        }
    )*};
    (@ write) => { true };
    (@ read) => { false };
}

data_methods! {
    write "SessionService" / "Create": CreateSessionRequest -> CreateSessionResponse as CreateSession;
    read "SessionService" / "Get": GetSessionRequest -> GetSessionResponse as GetSession;
    write "SessionService" / "Update": UpdateSessionRequest -> UpdateSessionResponse as UpdateSession;
    write "SessionService" / "Touch": TouchSessionRequest -> TouchSessionResponse as TouchSession;
    write "SessionService" / "Destroy": DestroySessionRequest -> DestroySessionResponse as DestroySession;
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

impl<B: Backend> Api<B> {
    /// Serves one call.
    pub(crate) async fn unary<M: DataMethod>(
        &self,
        request: Request<M>,
    ) -> Result<Response<<M as Method>::Response>, Status> {
        let _under_way = self.under_way.token();
        let deadline = super::deadline::of(request.metadata());
        let may_forward = M::WRITES && forward::is_allowed(request.metadata());
        let message = request.into_inner();
        // Kept only where it may be needed: the leader finds out too late that it leads no more.
        let spare = may_forward.then(|| message.clone());
        match (self.answer(message, deadline).await, spare) {
            (Ok(answer), _) => self.finish_unary::<M>(answer).map(Response::new),
            (Err(Error::Node(node::Error::NotLeader(leader))), Some(message)) => {
                let forwarded = self.leaders.forward(&leader, message, deadline).await;
                forwarded.map(Response::new)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn answer<M: DataMethod>(
        &self,
        message: M,
        deadline: Instant,
    ) -> Result<encode::Answer, Error> {
        match parse::operation(message.into_operation(), Origin::Unary)? {
            Parsed::Write(Write { command, echo }) => {
                let reply = timeout_at(deadline, self.node.propose(command)).await;
                let reply = reply.unwrap_or(Err(node::Error::Deadline {
                    outcome: Outcome::Unknown,
                }))?;
                encode::write(echo, reply)
            }
            Parsed::Read(Read { mode, query }) => {
                self.node.read_barrier(mode, deadline).await?;
                read::now(&self.node, &query)
            }
        }
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
