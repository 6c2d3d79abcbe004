//! What every answer has beside its body.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::call::{Call, REVISION};
use crate::client::Reply;
use crate::types::Revision;

const NODE: HeaderName = HeaderName::from_static("x-trolley-node");
const REPLAYED: HeaderName = HeaderName::from_static("x-trolley-replayed");

/// A body, and what the store said besides.
#[derive(Debug)]
pub struct Answer<T> {
    status: StatusCode,
    headers: HeaderMap,
    /// `None`: nothing, not even an empty object.
    body: Option<T>,
}

impl<T> Answer<T> {
    /// A body made of what the store answered.
    pub fn of<U>(reply: Reply<U>, view: impl FnOnce(U) -> T) -> Self {
        let mut answer = Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: None,
        };
        answer.set(HeaderName::from_static(REVISION), reply.revision.get());
        answer.set(NODE, reply.node_id);
        if reply.replayed {
            answer
                .headers
                .insert(REPLAYED, HeaderValue::from_static("true"));
        }
        answer.body = Some(view(reply.value));
        answer
    }

    /// The record's revision.
    pub fn tagged(mut self, revision: Revision) -> Self {
        let tag = HeaderValue::from_str(&format!("\"{}\"", revision.get()));
        self.headers
            .insert(ETAG, tag.expect("digits in quotes are visible ASCII"));
        self
    }

    /// The record's revision, and no body if the caller has that already.
    pub fn unless_seen(self, call: &Call, revision: Revision) -> Self {
        let mut answer = self.tagged(revision);
        if call.has_seen(revision) {
            answer.status = StatusCode::NOT_MODIFIED;
            answer.body = None;
        }
        answer
    }

    /// Something new is there.
    pub fn created(mut self) -> Self {
        self.status = StatusCode::CREATED;
        self
    }

    fn set(&mut self, name: HeaderName, number: u64) {
        self.headers.insert(name, number.into());
    }
}

impl Answer<()> {
    /// It was done, and there is nothing to say of it.
    pub fn done(reply: Reply<()>) -> Self {
        let mut answer = Self::of(reply, |()| ());
        answer.status = StatusCode::NO_CONTENT;
        answer.body = None;
        answer
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match self.body {
            Some(body) => (self.status, self.headers, Json(body)).into_response(),
            None => (self.status, self.headers).into_response(),
        }
    }
}
