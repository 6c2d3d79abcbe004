//! The data services' methods, all alike.

use tonic::{Request, Response, Status};

use super::{Api, Backend};
use crate::proto::v1::cart_service_server::CartService;
use crate::proto::v1::kv_service_server::KvService;
use crate::proto::v1::namespace_service_server::NamespaceService;
use crate::proto::v1::session_service_server::SessionService;
use crate::proto::v1::{
    AddCartLineRequest, AddCartLineResponse, ClearCartRequest, ClearCartResponse,
    CreateSessionRequest, CreateSessionResponse, DeleteKeyRequest, DeleteKeyResponse,
    DestroySessionRequest, DestroySessionResponse, EndSessionRequest, EndSessionResponse,
    GetCartRequest, GetCartResponse, GetKeyRequest, GetKeyResponse, GetNamespaceRequest,
    GetNamespaceResponse, GetSessionRequest, GetSessionResponse, ListKeysRequest, ListKeysResponse,
    ListSessionsRequest, ListSessionsResponse, PutKeyRequest, PutKeyResponse,
    RemoveCartLineRequest, RemoveCartLineResponse, RevokeAllSessionsRequest,
    RevokeAllSessionsResponse, RotateSessionRequest, RotateSessionResponse, SaveSessionRequest,
    SaveSessionResponse, SetCartLineQuantityRequest, SetCartLineQuantityResponse,
    SetNamespaceRequest, SetNamespaceResponse, TouchSessionRequest, TouchSessionResponse,
    UpdateSessionRequest, UpdateSessionResponse,
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
    save: SaveSessionRequest -> SaveSessionResponse;
    rotate: RotateSessionRequest -> RotateSessionResponse;
    list: ListSessionsRequest -> ListSessionsResponse;
    end: EndSessionRequest -> EndSessionResponse;
    revoke_all: RevokeAllSessionsRequest -> RevokeAllSessionsResponse;
});

service!(NamespaceService {
    get: GetNamespaceRequest -> GetNamespaceResponse;
    set: SetNamespaceRequest -> SetNamespaceResponse;
});

service!(CartService {
    add: AddCartLineRequest -> AddCartLineResponse;
    set_quantity: SetCartLineQuantityRequest -> SetCartLineQuantityResponse;
    remove: RemoveCartLineRequest -> RemoveCartLineResponse;
    clear: ClearCartRequest -> ClearCartResponse;
    get: GetCartRequest -> GetCartResponse;
});

service!(KvService {
    get: GetKeyRequest -> GetKeyResponse;
    put: PutKeyRequest -> PutKeyResponse;
    delete: DeleteKeyRequest -> DeleteKeyResponse;
    list: ListKeysRequest -> ListKeysResponse;
});
