//! What can be asked of leases, and its form in the log.

use crate::proto::internal as pb;
use crate::proto::internal::command::Operation as Wire;
use crate::state::command_wire::given_ttl;
use crate::types::{Invalid, LeaseId, Ttl};

/// What a command does with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields say what the messages of the same names document"
)]
pub enum LeaseOperation {
    Grant { ttl: Ttl },
    KeepAlive { lease: LeaseId },
    Revoke { lease: LeaseId },
}

impl From<&LeaseOperation> for Wire {
    fn from(operation: &LeaseOperation) -> Self {
        match *operation {
            LeaseOperation::Grant { ttl } => Self::LeaseGrant(pb::LeaseGrant {
                ttl: ttl.as_millis(),
            }),
            LeaseOperation::KeepAlive { lease } => {
                Self::LeaseKeepAlive(pb::LeaseKeepAlive { lease: lease.get() })
            }
            LeaseOperation::Revoke { lease } => {
                Self::LeaseRevoke(pb::LeaseRevoke { lease: lease.get() })
            }
        }
    }
}

impl TryFrom<pb::LeaseGrant> for LeaseOperation {
    type Error = Invalid;

    fn try_from(it: pb::LeaseGrant) -> Result<Self, Invalid> {
        let ttl = given_ttl("ttl", it.ttl)?;
        Ok(Self::Grant { ttl })
    }
}

impl TryFrom<pb::LeaseKeepAlive> for LeaseOperation {
    type Error = Invalid;

    fn try_from(it: pb::LeaseKeepAlive) -> Result<Self, Invalid> {
        let lease = LeaseId::parse(it.lease)?;
        Ok(Self::KeepAlive { lease })
    }
}

impl TryFrom<pb::LeaseRevoke> for LeaseOperation {
    type Error = Invalid;

    fn try_from(it: pb::LeaseRevoke) -> Result<Self, Invalid> {
        let lease = LeaseId::parse(it.lease)?;
        Ok(Self::Revoke { lease })
    }
}
