//! Who answers a call.
//!
//! The services of single operations are found by name here; all others, and unknown ones, by tonic's router, which boxes
//! and moves a call several times on its way. A stream pays that once, but a call of its own would each time, a tenth of
//! what it costs the node.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::TryFutureExt as _;
use futures::future::{BoxFuture, Either, MapOk};
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;

use crate::api::{Api, Backend};
use crate::proto::v1::cart_service_server::CartServiceServer;
use crate::proto::v1::kv_service_server::KvServiceServer;
use crate::proto::v1::session_service_server::SessionServiceServer;
use crate::transport::keep_place;

/// Every service on the socket. Cloning shares them.
pub(super) struct Dispatch<B: Backend>(Arc<Services<B>>);

struct Services<B: Backend> {
    session: SessionServiceServer<Api<B>>,
    cart: CartServiceServer<Api<B>>,
    kv: KvServiceServer<Api<B>>,
    others: Routes,
}

impl<B: Backend> Dispatch<B> {
    pub fn new(
        session: SessionServiceServer<Api<B>>,
        cart: CartServiceServer<Api<B>>,
        kv: KvServiceServer<Api<B>>,
        others: Routes,
    ) -> Self {
        Self(Arc::new(Services {
            session,
            cart,
            kv,
            others: others.prepare(),
        }))
    }
}

impl<B: Backend> Clone for Dispatch<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// `package.Service` of `/package.Service/Method`; empty for what is no path of gRPC.
fn service_of(path: &str) -> &str {
    let named = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    named.map_or("", |(service, _)| service)
}

impl<B: Backend> Service<Request<Body>> for Dispatch<B> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = MapOk<
        Either<
            BoxFuture<'static, Result<Response<Body>, Infallible>>,
            <Routes as Service<Request<Body>>>::Future,
        >,
        fn(Response<Body>) -> Response<Body>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // None of them is ever busy: what limits calls is the transport.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let services = &*self.0;
        let answer = match service_of(request.uri().path()) {
            KvServiceServer::<Api<B>>::NAME => Either::Left(services.kv.clone().call(request)),
            CartServiceServer::<Api<B>>::NAME => Either::Left(services.cart.clone().call(request)),
            SessionServiceServer::<Api<B>>::NAME => {
                Either::Left(services.session.clone().call(request))
            }
            _ => Either::Right(services.others.clone().call(request)),
        };
        answer.map_ok(keep_place)
    }
}

#[cfg(test)]
mod tests {
    use super::service_of;

    #[test]
    fn a_path_names_its_service() {
        for (path, service) in [
            ("/trolley.v1.KvService/Get", "trolley.v1.KvService"),
            ("/trolley.v1.KvService/", "trolley.v1.KvService"),
            ("/trolley.v1.KvService", ""),
            ("trolley.v1.KvService/Get", ""),
            ("/", ""),
            ("//", ""),
            ("", ""),
        ] {
            assert_eq!(service_of(path), service, "{path}");
        }
    }
}
