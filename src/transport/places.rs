//! Places for large answers that were not read yet.
//!
//! HTTP/2 takes an answer over whole and keeps it until the other end has read it, and a client may have a thousand calls under way. So
//! whoever answers with much needs a place first, of the connection and of the node, and has it until the answer has left. A client
//! that does not read waits for itself, and all of them together take what [`limits::LARGE_ANSWERS`] says.
//!
//! Invariant: an answer that waits for its place is not in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

use crate::limits;

/// So many. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// Those of one connection.
    #[must_use]
    pub fn of_connection() -> Self {
        Self(Arc::new(Semaphore::new(
            limits::LARGE_ANSWERS_OF_CONNECTION,
        )))
    }

    /// Those of the node.
    #[must_use]
    pub fn of_node() -> Self {
        Self(Arc::new(Semaphore::new(limits::LARGE_ANSWERS)))
    }

    async fn take(&self) -> OwnedSemaphorePermit {
        let taken = Arc::clone(&self.0).acquire_owned().await;
        taken.expect("it is never closed")
    }
}

/// A place of a connection and of the node, until all clones are dropped.
#[derive(Debug, Clone)]
pub struct Place {
    _permits: Arc<(Option<OwnedSemaphorePermit>, OwnedSemaphorePermit)>,
}

/// Waits for a place. Whoever shares a connection waits for each other before anybody else does.
pub async fn take_place(connection: Option<&Places>, node: &Places) -> Place {
    let of_connection = match connection {
        Some(places) => Some(places.take().await),
        None => None,
    };
    Place {
        _permits: Arc::new((of_connection, node.take().await)),
    }
}

/// An answer that brings a place along keeps it until it has left.
#[must_use]
pub fn keep_place(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Place>() {
        Some(place) => response.map(|body| {
            Body::new(Placed {
                body,
                _place: place,
            })
        }),
        None => response,
    }
}

struct Placed {
    body: Body,
    _place: Place,
}

impl http_body::Body for Placed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_place_is_free_again_when_the_answer_is_gone() {
        let (connection, node) = (Places::of_connection(), Places::of_node());
        let take = || take_place(Some(&connection), &node).now_or_never();
        let mut answers: Vec<_> = std::iter::from_fn(take)
            .map(|place| {
                let mut answer = Response::new(Body::new("much".to_owned()));
                answer.extensions_mut().insert(place);
                keep_place(answer)
            })
            .collect();
        assert_eq!(answers.len(), limits::LARGE_ANSWERS_OF_CONNECTION);
        answers.pop();
        assert!(take().is_some());
        drop(answers);
        // Others have places of their own, and all together those of the node.
        let strangers =
            std::iter::from_fn(|| take_place(Some(&Places::of_connection()), &node).now_or_never());
        assert_eq!(strangers.collect::<Vec<_>>().len(), limits::LARGE_ANSWERS);
    }
}
