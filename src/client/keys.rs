//! Plain keys.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};

use super::builder::{in_txn, millis, pick, read_options, write_options};
use super::call::Options;
use super::{Client, Consistency, Error, InTxn, Reply};
use crate::proto::v1;
use crate::proto::v1::operation::Request;
use crate::types::Revision;

/// Requests about keys.
#[derive(Debug)]
pub struct Keys<'a> {
    pub(super) client: &'a Client,
}

impl<'a> Keys<'a> {
    /// Reads a key.
    pub fn get(&self, key: impl Into<String>) -> GetKey<'a> {
        GetKey {
            client: self.client,
            options: Options::default(),
            consistency: None,
            key: key.into(),
        }
    }

    /// Writes a key.
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> PutKey<'a> {
        let request = v1::PutKeyRequest {
            namespace: self.client.namespace_field(),
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        PutKey {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Deletes a key.
    pub fn delete(&self, key: impl Into<String>) -> DeleteKey<'a> {
        let request = v1::DeleteKeyRequest {
            namespace: self.client.namespace_field(),
            key: key.into(),
            ..Default::default()
        };
        DeleteKey {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Adds to a counter; what is negative is taken away.
    pub fn increment(&self, key: impl Into<String>, delta: i64) -> IncrementKey<'a> {
        let request = v1::IncrementKeyRequest {
            namespace: self.client.namespace_field(),
            key: key.into(),
            delta,
            ..Default::default()
        };
        IncrementKey {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Lists keys in byte order.
    pub fn list(&self) -> ListKeys<'a> {
        ListKeys {
            client: self.client,
            options: Options::default(),
            consistency: None,
            request: v1::ListKeysRequest::default(),
        }
    }
}

/// See [`Keys::get`].
#[must_use]
pub struct GetKey<'a> {
    client: &'a Client,
    options: Options,
    consistency: Option<Consistency>,
    key: String,
}

impl InTxn for GetKey<'_> {
    fn into_request(self) -> Request {
        Request::GetKey(v1::GetKeyRequest {
            namespace: self.client.namespace_field(),
            read: self.consistency.and_then(Consistency::to_options),
            key: self.key,
        })
    }
}

impl GetKey<'_> {
    read_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::KeyValue>, Error> {
        let request = Request::GetKey(v1::GetKeyRequest {
            namespace: self.client.namespace_field(),
            read: self.client.read_options(self.consistency),
            key: self.key,
        });
        let reply = self
            .client
            .call(request, self.options, pick!(GetKey))
            .await?;
        Ok(reply.map(|get| get.item.unwrap_or_default()))
    }
}

/// See [`Keys::put`].
#[must_use]
pub struct PutKey<'a> {
    client: &'a Client,
    options: Options,
    request: v1::PutKeyRequest,
}

in_txn!(PutKey);

impl PutKey<'_> {
    write_options!();

    /// How long the key lives; until it is deleted without.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.request.ttl_ms = millis(ttl);
        self
    }

    /// Only if the key is at this revision.
    pub fn if_revision(mut self, revision: Revision) -> Self {
        self.request.if_revision = Some(revision.get());
        self
    }

    /// The key dies with this lease.
    pub fn lease(mut self, lease_id: u64) -> Self {
        self.request.lease_id = lease_id;
        self
    }

    /// Only if there is no such key.
    pub fn if_absent(mut self) -> Self {
        self.request.if_absent = true;
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::PutKeyResponse>, Error> {
        let request = Request::PutKey(self.request);
        self.client.call(request, self.options, pick!(PutKey)).await
    }
}

/// See [`Keys::delete`].
#[must_use]
pub struct DeleteKey<'a> {
    client: &'a Client,
    options: Options,
    request: v1::DeleteKeyRequest,
}

in_txn!(DeleteKey);

impl DeleteKey<'_> {
    write_options!();

    /// Only if the key is at this revision.
    pub fn if_revision(mut self, revision: Revision) -> Self {
        self.request.if_revision = Some(revision.get());
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<()>, Error> {
        let request = Request::DeleteKey(self.request);
        let reply = self
            .client
            .call(request, self.options, pick!(DeleteKey))
            .await?;
        Ok(reply.map(|_| ()))
    }
}

/// See [`Keys::increment`].
#[must_use]
pub struct IncrementKey<'a> {
    client: &'a Client,
    options: Options,
    request: v1::IncrementKeyRequest,
}

in_txn!(IncrementKey);

impl IncrementKey<'_> {
    write_options!();

    /// The sum must not be below; else the reason is `COUNTER_BELOW_MIN`.
    pub fn min(mut self, min: i64) -> Self {
        self.request.min = Some(min);
        self
    }

    /// The sum must not be above; else the reason is `COUNTER_ABOVE_MAX`.
    pub fn max(mut self, max: i64) -> Self {
        self.request.max = Some(max);
        self
    }

    /// What a counter that is not there counts from; 0 without.
    pub fn initial(mut self, initial: i64) -> Self {
        self.request.initial = initial;
        self
    }

    /// How long a counter that is not there will live; until it is deleted without.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.request.ttl_ms = millis(ttl);
        self
    }

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::IncrementKeyResponse>, Error> {
        let request = Request::IncrementKey(self.request);
        self.client
            .call(request, self.options, pick!(IncrementKey))
            .await
    }
}

/// See [`Keys::list`].
#[must_use]
#[derive(Clone)]
pub struct ListKeys<'a> {
    client: &'a Client,
    options: Options,
    consistency: Option<Consistency>,
    request: v1::ListKeysRequest,
}

impl<'a> ListKeys<'a> {
    read_options!();

    /// Only keys that begin so.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// Keys in one page.
    pub fn limit(mut self, limit: u32) -> Self {
        self.request.limit = limit;
        self
    }

    /// Where the previous page ended.
    pub fn cursor(mut self, cursor: impl Into<String>) -> Self {
        self.request.cursor = cursor.into();
        self
    }

    /// Sends the request, for one page.
    pub async fn send(mut self) -> Result<Reply<v1::ListKeysResponse>, Error> {
        self.request.namespace = self.client.namespace_field();
        self.request.read = self.client.read_options(self.consistency);
        let request = Request::ListKeys(self.request);
        self.client
            .call(request, self.options, pick!(ListKeys))
            .await
    }

    /// This page and all that follow. Each page is a read of its own: what changes in between may or may not be seen.
    pub fn pages(self) -> impl Stream<Item = Result<Reply<v1::ListKeysResponse>, Error>> + use<'a> {
        stream::try_unfold(Some(self), |list| async move {
            let Some(list) = list else {
                return Ok(None);
            };
            let page = list.clone().send().await?;
            let next = page.next_cursor.clone();
            let rest = (!next.is_empty()).then(|| list.cursor(next));
            Ok(Some((page, rest)))
        })
    }
}
