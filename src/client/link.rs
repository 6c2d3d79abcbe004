//! A connection for calls of their own.
//!
//! What tonic's `Channel` is for streams, without its queue and its tasks: who calls hands the request to HTTP/2 itself, and is
//! woken by the answer. For thousands of small calls a second that halves what the client spends on them.
//!
//! Invariants:
//! 1. A request is handed to one connection, once. An error that is a [`tonic::ConnectError`] was raised before that.
//! 2. However many calls wait for a connection, one is made at a time, and they share how that ended. Whoever
//!    comes afterwards begins anew.
//! 3. A connection that answers no ping within [`Settings::ping`] is dropped, and its calls fail.
//!
//! Not for streams: a request's body is sent whole before the answer is awaited.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use h2::client::SendRequest;
use h2::{Ping, PingPong, Reason, RecvStream};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::ConnectError;
use tonic::body::Body;
use tower::Service;

use crate::limits;
use crate::transport::{Connector, root_cause};

type BoxError = Box<dyn StdError + Send + Sync>;

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Longest time for it.
    pub connect: Duration,
    /// Time between a connection's pings, and for each answer.
    pub ping: Duration,
    /// What an answer may be ahead of its reader.
    pub stream_window: u32,
    /// All answers together.
    pub connection_window: u32,
}

/// A connection to one node: made when it is first used, and again whenever it broke. Cloning shares it.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    authority: Authority,
    settings: Settings,
    state: Mutex<State>,
}

enum State {
    Closed,
    Connecting(Connecting),
    Open(Sender),
}

type Connecting = Shared<BoxFuture<'static, Result<Sender, Refused>>>;

#[derive(Clone)]
struct Sender {
    requests: SendRequest<Bytes>,
    driver: Driver,
}

/// The task of a connection, for as long as somebody uses that. Tells connections apart.
type Driver = Arc<JoinSet<()>>;

/// Why there is no connection, for all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Refused(Arc<str>);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.authority).finish()
    }
}

impl Link {
    /// A link to a node, not connected yet.
    pub fn new(node: Authority, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            authority: node,
            settings,
            state: Mutex::new(State::Closed),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is assigned whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if need be a new one.
    async fn sender(&self) -> Result<Sender, ConnectError> {
        let connecting = match &mut *self.state() {
            State::Open(sender) => return Ok(sender.clone()),
            State::Connecting(connecting) => connecting.clone(),
            closed @ State::Closed => {
                let connecting = self.connect();
                *closed = State::Connecting(connecting.clone());
                connecting
            }
        };
        let connected = connecting.clone().await;
        let mut state = self.state();
        if let State::Connecting(current) = &*state
            && current.ptr_eq(&connecting)
        {
            *state = match &connected {
                Ok(sender) => State::Open(sender.clone()),
                Err(_) => State::Closed,
            };
        }
        connected.map_err(|refused| ConnectError(refused.into()))
    }

    /// A connection on which requests can be sent, as far as anybody knows.
    async fn usable(&self) -> Result<Sender, ConnectError> {
        loop {
            let mut sender = self.sender().await?;
            match poll_fn(|cx| sender.requests.poll_ready(cx)).await {
                Ok(()) => return Ok(sender),
                Err(_) => self.forget(&sender.driver),
            }
        }
    }

    /// That connection takes no more requests. It may still answer some.
    fn forget(&self, broken: &Driver) {
        let mut state = self.state();
        if matches!(&*state, State::Open(sender) if Arc::ptr_eq(&sender.driver, broken)) {
            *state = State::Closed;
        }
    }

    fn connect(&self) -> Connecting {
        let Inner {
            authority,
            settings,
            ..
        } = &*self.0;
        let (authority, settings) = (authority.clone(), *settings);
        let connecting = async move {
            let made = timeout(settings.connect, connect(authority, settings)).await;
            let made = made.unwrap_or_else(|_| Err("no connection within the time for it".into()));
            made.map_err(|error| Refused(root_cause(&*error).into()))
        };
        connecting.boxed().shared()
    }

    async fn call(self, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let (mut parts, body) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.0.authority.clone());
        parts.uri = Uri::from_parts(uri)?;
        let Sender {
            mut requests,
            driver,
        } = self.usable().await?;
        let request = Request::from_parts(parts, ());
        // The last thing that it does is to queue the headers. Where it fails, it was before that, and nothing was sent.
        let (answer, mut stream) = requests
            .send_request(request, false)
            .map_err(|error| ConnectError(error.into()))?;
        let mut body = pin!(body);
        // One behind, for the last one says that it is the last.
        let mut held = None;
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            if let Ok(data) = frame?.into_data()
                && let Some(before) = held.replace(data)
            {
                stream.send_data(before, false)?;
            }
        }
        stream.send_data(held.unwrap_or_default(), true)?;
        let answer = answer.await?;
        Ok(answer.map(|stream| Answer {
            stream,
            data_ended: false,
            _driver: driver,
        }))
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // A call waits for its connection itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().call(request).boxed()
    }
}

/// Connects, with a task that drives the connection.
async fn connect(authority: Authority, settings: Settings) -> Result<Sender, BoxError> {
    let address = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority)
        .path_and_query("/")
        .build()?;
    let stream = Connector::new().call(address).await?.into_inner();
    let (requests, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(limits::HTTP2_HEADER_BYTES)
        .handshake(stream)
        .await?;
    let pings = connection.ping_pong();
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Its calls hear of either end from the connection itself.
        tokio::select! {
            biased;
            _ended = connection => {}
            () = silence(pings, settings.ping) => {}
        }
    });
    Ok(Sender {
        requests,
        driver: Arc::new(driver),
    })
}

/// Returns when a ping was not answered in time.
async fn silence(pings: Option<PingPong>, period: Duration) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        sleep(period).await;
        let pong = timeout(period, pings.ping(Ping::opaque())).await;
        if !matches!(pong, Ok(Ok(_))) {
            return;
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    stream: RecvStream,
    data_ended: bool,
    /// Until the answer was read, even if no more requests go that way.
    _driver: Driver,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if !this.data_ended {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    this.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // A server that has said everything may close what it does not want to hear.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.data_ended = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
