//! Settings of the client's namespace.

use super::builder::{in_txn, pick, read_options, write_options};
use super::call::Options;
use super::{Client, Consistency, Error, Reply};
use crate::proto::v1;
use crate::proto::v1::operation::Request;
use crate::types::Revision;

/// Requests about the namespace itself.
#[derive(Debug)]
pub struct Namespaces<'a> {
    pub(super) client: &'a Client,
}

impl<'a> Namespaces<'a> {
    /// Reads the settings: as they were set, and with every default filled in.
    pub fn get(&self) -> GetNamespace<'a> {
        GetNamespace {
            client: self.client,
            options: Options::default(),
            consistency: None,
        }
    }

    /// Changes settings. Each part that is given takes the place of the stored one.
    pub fn set(&self, settings: v1::NamespaceSettings) -> SetNamespace<'a> {
        let request = v1::SetNamespaceRequest {
            namespace: self.client.namespace_field(),
            settings: Some(settings),
            ..Default::default()
        };
        SetNamespace {
            client: self.client,
            options: Options::default(),
            request,
        }
    }
}

/// See [`Namespaces::get`].
#[must_use]
pub struct GetNamespace<'a> {
    client: &'a Client,
    options: Options,
    consistency: Option<Consistency>,
}

impl GetNamespace<'_> {
    read_options!();

    /// Sends the request.
    pub async fn send(self) -> Result<Reply<v1::GetNamespaceResponse>, Error> {
        let request = Request::GetNamespace(v1::GetNamespaceRequest {
            namespace: self.client.namespace_field(),
            read: self.client.read_options(self.consistency),
        });
        self.client
            .call(request, self.options, pick!(GetNamespace))
            .await
    }
}

/// See [`Namespaces::set`].
#[must_use]
pub struct SetNamespace<'a> {
    client: &'a Client,
    options: Options,
    request: v1::SetNamespaceRequest,
}

in_txn!(SetNamespace);

impl SetNamespace<'_> {
    write_options!();

    /// Only if the settings are at this revision; 0: only if nothing was ever set.
    pub fn if_revision(mut self, revision: Revision) -> Self {
        self.request.if_revision = Some(revision.get());
        self
    }

    /// Sends the request. The answer is the settings' new revision.
    pub async fn send(self) -> Result<Reply<Revision>, Error> {
        let request = Request::SetNamespace(self.request.into());
        let reply = self
            .client
            .call(request, self.options, pick!(SetNamespace))
            .await?;
        Ok(reply.map(|set| Revision::new(set.mod_revision)))
    }
}
