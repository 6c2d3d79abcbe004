//! The lease service's requests.

use super::{Echo, Origin, Query, Read, Write, identity, read_mode};
use crate::api::Error;
use crate::proto::v1;
use crate::state::{Command, LeaseOperation, Operation};
use crate::types::{Invalid, LeaseId, Namespace, Ttl};

pub(super) fn grant(r: v1::GrantLeaseRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let ttl = Ttl::parse("ttl_ms", r.ttl_ms)?.ok_or(Invalid::Empty { field: "ttl_ms" })?;
    let operation = Operation::Lease(LeaseOperation::Grant { ttl });
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::LeaseGrant,
    })
}

pub(super) fn keep_alive(r: v1::KeepLeaseAliveRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let lease = LeaseId::parse(r.lease_id)?;
    let operation = Operation::Lease(LeaseOperation::KeepAlive { lease });
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::LeaseKeepAlive,
    })
}

pub(super) fn revoke(r: v1::RevokeLeaseRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    let lease = LeaseId::parse(r.lease_id)?;
    let operation = Operation::Lease(LeaseOperation::Revoke { lease });
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::LeaseRevoke,
    })
}

pub(super) fn get(r: v1::GetLeaseRequest) -> Result<Read, Error> {
    Ok(Read {
        mode: read_mode(r.read)?,
        query: Query::Lease {
            namespace: Namespace::parse(r.namespace)?,
            lease: LeaseId::parse(r.lease_id)?,
        },
    })
}
