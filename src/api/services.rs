//! The data services' methods, all alike.

use tonic::{Request, Response, Status};

use super::{Api, Backend};
use crate::proto::v1::cart_service_server::CartService;
use crate::proto::v1::kv_service_server::KvService;
use crate::proto::v1::lease_service_server::LeaseService;
use crate::proto::v1::session_service_server::SessionService;
use crate::proto::v1::txn_service_server::TxnService;
use crate::proto::v1::{
    AddCartLineRequest, AddCartLineResponse, ClearCartRequest, ClearCartResponse,
    CreateSessionRequest, CreateSessionResponse, DeleteKeyRequest, DeleteKeyResponse,
    DestroySessionRequest, DestroySessionResponse, GetCartRequest, GetCartResponse, GetKeyRequest,
    GetKeyResponse, GetSessionRequest, GetSessionResponse, ListKeysRequest, ListKeysResponse,
    PutKeyRequest, PutKeyResponse, RemoveCartLineRequest, RemoveCartLineResponse,
    SetCartLineQuantityRequest, SetCartLineQuantityResponse, TouchSessionRequest,
    TouchSessionResponse, UpdateSessionRequest, UpdateSessionResponse,
};
use crate::proto::v1::{
    CompleteOrderRequest, CompleteOrderResponse, FreezeCartRequest, FreezeCartResponse,
    MergeCartsRequest, MergeCartsResponse, ReleaseCartRequest, ReleaseCartResponse,
    UpdateCartRequest, UpdateCartResponse,
};
use crate::proto::v1::{
    GetLeaseRequest, GetLeaseResponse, GrantLeaseRequest, GrantLeaseResponse, IncrementKeyRequest,
    IncrementKeyResponse, KeepLeaseAliveRequest, KeepLeaseAliveResponse, RevokeLeaseRequest,
    RevokeLeaseResponse, TxnRequest, TxnResponse,
};

macro_rules! service {
    ($service:ident { $($method:ident: $request:ident -> $response:ident;)* }) => {
        #[tonic::async_trait]
        impl<B: Backend> $service for Api<B> {$(
            async fn $method(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                self.unary(request).await
            }
        )*}
    };
}

service!(SessionService {
    create: CreateSessionRequest -> CreateSessionResponse;
    get: GetSessionRequest -> GetSessionResponse;
    update: UpdateSessionRequest -> UpdateSessionResponse;
    touch: TouchSessionRequest -> TouchSessionResponse;
    destroy: DestroySessionRequest -> DestroySessionResponse;
});

service!(CartService {
    add: AddCartLineRequest -> AddCartLineResponse;
    set_quantity: SetCartLineQuantityRequest -> SetCartLineQuantityResponse;
    remove: RemoveCartLineRequest -> RemoveCartLineResponse;
    clear: ClearCartRequest -> ClearCartResponse;
    get: GetCartRequest -> GetCartResponse;
    update: UpdateCartRequest -> UpdateCartResponse;
    merge: MergeCartsRequest -> MergeCartsResponse;
    freeze: FreezeCartRequest -> FreezeCartResponse;
    release: ReleaseCartRequest -> ReleaseCartResponse;
    complete_order: CompleteOrderRequest -> CompleteOrderResponse;
});

service!(KvService {
    get: GetKeyRequest -> GetKeyResponse;
    put: PutKeyRequest -> PutKeyResponse;
    delete: DeleteKeyRequest -> DeleteKeyResponse;
    list: ListKeysRequest -> ListKeysResponse;
    increment: IncrementKeyRequest -> IncrementKeyResponse;
});

service!(LeaseService {
    grant: GrantLeaseRequest -> GrantLeaseResponse;
    keep_alive: KeepLeaseAliveRequest -> KeepLeaseAliveResponse;
    revoke: RevokeLeaseRequest -> RevokeLeaseResponse;
    get: GetLeaseRequest -> GetLeaseResponse;
});

service!(TxnService {
    txn: TxnRequest -> TxnResponse;
});
