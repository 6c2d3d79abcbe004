//! The namespace service's requests.

use super::{Echo, Origin, Query, Read, Write, identity, read_mode, revision};
use crate::api::Error;
use crate::proto::v1;
use crate::state::{Command, NamespaceOperation, Settings};
use crate::types::Namespace;

pub(super) fn get(r: v1::GetNamespaceRequest) -> Result<Read, Error> {
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::Namespace {
            namespace: Namespace::parse(r.namespace)?,
        },
    })
}

pub(super) fn set(r: v1::SetNamespaceRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let operation = NamespaceOperation::Set {
        settings: Settings::parse(r.settings)?,
        if_revision: revision(r.if_revision),
    };
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::NamespaceSet,
    })
}
