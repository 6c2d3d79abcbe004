//! Cart services that existing shops call, over the same carts as the cart service's own.
//!
//! The Online Boutique and the OpenTelemetry demo speak the same messages under two package names, so one
//! implementation serves both. Each call is one of the cart service's, about a user's cart: a follower forwards it, and
//! its retries are recognised, as those of any other unary call.
//!
//! These programs know two kinds of failure. What is wrong with a request stays `INVALID_ARGUMENT`; whatever else fails is
//! `FAILED_PRECONDITION` to them, and keeps its reason and outcome in the details.

use std::collections::BTreeMap;

use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use super::unary::DataMethod;
use super::{Api, Backend, Error};
use crate::proto::hipstershop::cart_service_server::CartService as HipsterShop;
use crate::proto::oteldemo::cart_service_server::CartService as OtelDemo;
// The messages are the same: see the build script.
use crate::proto::hipstershop::{
    AddItemRequest, Cart, CartItem, Empty, EmptyCartRequest, GetCartRequest,
};
use crate::proto::v1;
use crate::types::Invalid;

/// Metadata of a call that is to be applied once, however often it is repeated.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Metadata of a caller whose carts are in another namespace than the default one.
pub const NAMESPACE_METADATA: &str = "trolley-namespace";

macro_rules! serve {
    ($($service:ident),*) => {$(
        #[tonic::async_trait]
        impl<B: Backend> $service for Api<B> {
            async fn add_item(
                &self,
                request: Request<AddItemRequest>,
            ) -> Result<Response<Empty>, Status> {
                self.of_shop(request, add_line, |_, _| Empty {}).await
            }

            async fn get_cart(
                &self,
                request: Request<GetCartRequest>,
            ) -> Result<Response<Cart>, Status> {
                self.of_shop(request, get_cart, |user_id, got| Cart {
                    user_id,
                    items: items(got.cart.unwrap_or_default()),
                })
                .await
            }

            async fn empty_cart(
                &self,
                request: Request<EmptyCartRequest>,
            ) -> Result<Response<Empty>, Status> {
                self.of_shop(request, clear, |_, _| Empty {}).await
            }
        }
    )*};
}

serve!(HipsterShop, OtelDemo);

/// What a call's metadata says.
struct Call {
    namespace: String,
    request_id: String,
}

impl<B: Backend> Api<B> {
    /// Serves a shop's call as one of the cart service's. The answer repeats the user's id.
    async fn of_shop<R: OfUser, M: DataMethod, A>(
        &self,
        request: Request<R>,
        translate: impl FnOnce(Call, R) -> Result<M, Invalid>,
        answer: impl FnOnce(String, M::Response) -> A,
    ) -> Result<Response<A>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let user = message.user().to_owned();
        let translated = call(&metadata).and_then(|call| translate(call, message));
        let translated = translated.map_err(|invalid| Status::from(Error::Invalid(invalid)))?;
        let request = Request::from_parts(metadata, extensions, translated);
        let response = self.unary(request).await.map_err(for_shops)?;
        Ok(response.map(|response| answer(user, response)))
    }
}

/// A request about one user's cart.
trait OfUser {
    fn user(&self) -> &str;
}

macro_rules! of_user {
    ($($request:ident),*) => {$(
        impl OfUser for $request {
            fn user(&self) -> &str {
                &self.user_id
            }
        }
    )*};
}

of_user!(AddItemRequest, GetCartRequest, EmptyCartRequest);

fn call(metadata: &MetadataMap) -> Result<Call, Invalid> {
    let request_id = text(metadata, IDEMPOTENCY_KEY)?;
    // An empty key cannot be what was meant, and without one a retry would count twice.
    if request_id.is_some_and(str::is_empty) {
        return Err(Invalid::Empty {
            field: IDEMPOTENCY_KEY,
        });
    }
    Ok(Call {
        namespace: text(metadata, NAMESPACE_METADATA)?
            .unwrap_or_default()
            .to_owned(),
        request_id: request_id.unwrap_or_default().to_owned(),
    })
}

fn text<'m>(metadata: &'m MetadataMap, name: &'static str) -> Result<Option<&'m str>, Invalid> {
    let value = metadata.get(name).map(|value| value.to_str());
    value.transpose().map_err(|_| Invalid::Malformed {
        field: name,
        expected: "visible ASCII characters",
    })
}

fn owner(user_id: String) -> Result<Option<v1::CartOwner>, Invalid> {
    if user_id.is_empty() {
        return Err(Invalid::Empty { field: "user_id" });
    }
    Ok(Some(v1::CartOwner {
        owner: Some(v1::cart_owner::Owner::UserId(user_id)),
    }))
}

fn add_line(call: Call, request: AddItemRequest) -> Result<v1::AddCartLineRequest, Invalid> {
    let owner = owner(request.user_id)?;
    let item = request.item.ok_or(Invalid::Empty { field: "item" })?;
    if item.product_id.is_empty() {
        return Err(Invalid::Empty {
            field: "product_id",
        });
    }
    Ok(v1::AddCartLineRequest {
        namespace: call.namespace,
        request_id: call.request_id,
        owner,
        sku: item.product_id,
        quantity: item.quantity.into(),
        ..v1::AddCartLineRequest::default()
    })
}

fn get_cart(call: Call, request: GetCartRequest) -> Result<v1::GetCartRequest, Invalid> {
    Ok(v1::GetCartRequest {
        namespace: call.namespace,
        owner: owner(request.user_id)?,
        ..v1::GetCartRequest::default()
    })
}

fn clear(call: Call, request: EmptyCartRequest) -> Result<v1::ClearCartRequest, Invalid> {
    Ok(v1::ClearCartRequest {
        namespace: call.namespace,
        request_id: call.request_id,
        owner: owner(request.user_id)?,
        ..v1::ClearCartRequest::default()
    })
}

/// A cart as shops know it: lines that differ in their attributes only are one item.
fn items(cart: v1::Cart) -> Vec<CartItem> {
    let mut items: Vec<CartItem> = Vec::with_capacity(cart.lines.len());
    let mut places = BTreeMap::new();
    for line in cart.lines {
        // A whole cart of full lines is far from the bound.
        let quantity = i32::try_from(line.quantity).unwrap_or(i32::MAX);
        let place = *places.entry(line.sku.clone()).or_insert(items.len());
        if let Some(item) = items.get_mut(place) {
            item.quantity = item.quantity.saturating_add(quantity);
        } else {
            items.push(CartItem {
                product_id: line.sku,
                quantity,
            });
        }
    }
    items
}

/// A failure as shops know it.
fn for_shops(status: Status) -> Status {
    if status.code() == Code::InvalidArgument {
        return status;
    }
    let details = status.get_error_details();
    Status::with_error_details(Code::FailedPrecondition, status.message(), details)
}

#[cfg(test)]
mod tests;
