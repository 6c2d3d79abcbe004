//! Leases.

use std::time::Duration;

use super::builder::{in_txn, millis, pick, read_options, write_options};
use super::call::Options;
use super::{Client, Consistency, Error, Reply};
use crate::proto::v1;
use crate::proto::v1::operation::Request;

/// Requests about leases. A key that is put with a lease dies with it, see [`super::PutKey::lease`].
#[derive(Debug)]
pub struct Leases<'a> {
    pub(super) client: &'a Client,
}

impl<'a> Leases<'a> {
    /// A new lease, which ends after this time unless it is kept alive.
    pub fn grant(&self, ttl: Duration) -> GrantLease<'a> {
        let request = v1::GrantLeaseRequest {
            namespace: self.client.namespace_field(),
            ttl_ms: millis(ttl),
            ..Default::default()
        };
        GrantLease {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Gives a lease its whole TTL again.
    pub fn keep_alive(&self, lease_id: u64) -> KeepLeaseAlive<'a> {
        let request = v1::KeepLeaseAliveRequest {
            namespace: self.client.namespace_field(),
            lease_id,
            ..Default::default()
        };
        KeepLeaseAlive {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Ends a lease, and its keys with it.
    pub fn revoke(&self, lease_id: u64) -> RevokeLease<'a> {
        let request = v1::RevokeLeaseRequest {
            namespace: self.client.namespace_field(),
            lease_id,
            ..Default::default()
        };
        RevokeLease {
            client: self.client,
            options: Options::default(),
            request,
        }
    }

    /// Reads a lease: how long it lives, and which keys die with it.
    pub fn get(&self, lease_id: u64) -> GetLease<'a> {
        GetLease {
            client: self.client,
            options: Options::default(),
            consistency: None,
            lease_id,
        }
    }
}

/// See [`Leases::grant`].
#[must_use]
pub struct GrantLease<'a> {
    client: &'a Client,
    options: Options,
    request: v1::GrantLeaseRequest,
}

impl GrantLease<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::GrantLeaseResponse>, Error> {
        let request = Request::GrantLease(self.request);
        self.client
            .call(request, self.options, pick!(GrantLease))
            .await
    }
}

/// See [`Leases::keep_alive`].
#[must_use]
pub struct KeepLeaseAlive<'a> {
    client: &'a Client,
    options: Options,
    request: v1::KeepLeaseAliveRequest,
}

in_txn!(KeepLeaseAlive);

impl KeepLeaseAlive<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::KeepLeaseAliveResponse>, Error> {
        let request = Request::KeepLeaseAlive(self.request);
        self.client
            .call(request, self.options, pick!(KeepLeaseAlive))
            .await
    }
}

/// See [`Leases::revoke`].
#[must_use]
pub struct RevokeLease<'a> {
    client: &'a Client,
    options: Options,
    request: v1::RevokeLeaseRequest,
}

in_txn!(RevokeLease);

impl RevokeLease<'_> {
    write_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::RevokeLeaseResponse>, Error> {
        let request = Request::RevokeLease(self.request);
        self.client
            .call(request, self.options, pick!(RevokeLease))
            .await
    }
}

/// See [`Leases::get`].
#[must_use]
pub struct GetLease<'a> {
    client: &'a Client,
    options: Options,
    consistency: Option<Consistency>,
    lease_id: u64,
}

impl GetLease<'_> {
    read_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::GetLeaseResponse>, Error> {
        let request = Request::GetLease(v1::GetLeaseRequest {
            namespace: self.client.namespace_field(),
            read: self.client.read_options(self.consistency),
            lease_id: self.lease_id,
        });
        self.client
            .call(request, self.options, pick!(GetLease))
            .await
    }
}
