//! What every answer has beside its body.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::call::REVISION;
use super::tag::Tag;
use crate::client::Reply;

const NODE: HeaderName = HeaderName::from_static("x-trolley-node");
const REPLAYED: HeaderName = HeaderName::from_static("x-trolley-replayed");
/// Room for these and for what every answer of the front gets on its way out.
const HEADERS: usize = 20;

/// Room for most carts.
const BODY_BYTES: usize = 1024;

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
            headers: HeaderMap::with_capacity(HEADERS),
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

    /// With the record's entity tag.
    pub fn tagged(mut self, tag: impl Into<Tag>) -> Self {
        let tag = HeaderValue::from_str(&tag.into().to_string());
        self.headers
            .insert(ETAG, tag.expect("digits in quotes are visible ASCII"));
        self
    }

    /// The same, and no body if the caller has seen that already.
    pub fn unless_seen(self, seen: &[Tag], tag: impl Into<Tag>) -> Self {
        let tag = tag.into();
        let mut answer = self.tagged(tag);
        if seen.contains(&tag) {
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
    fn into_response(mut self) -> Response {
        let body = self.body.map_or_else(Body::empty, |body| {
            let json = HeaderValue::from_static("application/json");
            self.headers.insert(CONTENT_TYPE, json);
            // Written once, where it stays.
            let mut bytes = Vec::with_capacity(BODY_BYTES);
            serde_json::to_writer(&mut bytes, &body)
                .expect("views are derived, and the keys of their maps are texts");
            Body::from(bytes)
        });
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
