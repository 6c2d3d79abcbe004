//! Which commands need room: the one place that decides what a full store refuses.
//!
//! A command *grows* the store if it may add a record or make one larger. Everything else goes on when disks are full:
//! what deletes, and what rewrites a record in place, because a session that may not be touched, a lease that may not
//! be kept alive or a payment that may not complete its order would be lost to the shortage. Such a write takes a little
//! of the disk as well, in the log and as the newer version of its record. Snapshots and compactions give that
//! back, and the reserve that full nodes live on, see [`crate::node`], is there for it.
//!
//! It is decided before the proposal, so by the command alone: what is stored may change until it is applied. Every
//! match is exhaustive, so that a new operation has to say what it is.

use super::{
    CartAction, CartOperation, KeyOperation, LeaseOperation, NamespaceOperation, Operation,
    SessionOperation, Step, Txn,
};

impl Operation {
    /// Whether it may make the store larger.
    #[must_use]
    pub fn grows(&self) -> bool {
        match self {
            Self::Session(operation) => session(operation),
            Self::Namespace(operation) => namespace(operation),
            Self::Cart(operation) => cart(operation),
            Self::Key(operation) => key(operation),
            Self::Lease(operation) => lease(*operation),
            Self::Txn(it) => txn(it),
            // The one sweeps, the other is a number.
            Self::Tick { .. } | Self::RaiseVersion(_) => false,
        }
    }
}

fn session(operation: &SessionOperation) -> bool {
    match operation {
        SessionOperation::Create { .. }
        | SessionOperation::Save { .. }
        // A login: the old session stays as a tombstone beside the new one.
        | SessionOperation::Rotate(_) => true,
        SessionOperation::Update { set, .. } => !set.is_empty(),
        SessionOperation::Touch { .. }
        | SessionOperation::Destroy { .. }
        | SessionOperation::End { .. }
        | SessionOperation::RevokeAll { .. } => false,
    }
}

fn namespace(operation: &NamespaceOperation) -> bool {
    match operation {
        // One small record. Shorter lives and lower limits are how an operator makes room.
        NamespaceOperation::Set { .. } => false,
    }
}

fn cart(operation: &CartOperation) -> bool {
    match operation {
        // A freeze writes down what was frozen.
        CartOperation::Add { .. } | CartOperation::Freeze { .. } => true,
        CartOperation::Update { actions, .. } => actions.iter().any(cart_action),
        CartOperation::SetQuantity { .. }
        | CartOperation::Remove { .. }
        | CartOperation::Clear { .. }
        // Lines move from one cart to another.
        | CartOperation::Merge { .. }
        | CartOperation::Release { .. }
        // The order's id takes the place of what was bought.
        | CartOperation::CompleteOrder { .. } => false,
    }
}

fn cart_action(action: &CartAction) -> bool {
    match action {
        CartAction::Add { .. } | CartAction::AddCouponCode(_) => true,
        CartAction::SetNote(note) => !note.as_str().is_empty(),
        CartAction::SetAttributes(map)
        | CartAction::SetShippingAddress(map)
        | CartAction::SetBillingAddress(map) => !map.as_map().is_empty(),
        CartAction::SetQuantity { .. }
        | CartAction::Remove { .. }
        | CartAction::Move { .. }
        | CartAction::Clear
        | CartAction::RemoveCouponCode(_)
        | CartAction::RemoveAttributes(_) => false,
    }
}

fn key(operation: &KeyOperation) -> bool {
    match operation {
        // A counter that is not there begins.
        KeyOperation::Put { .. } | KeyOperation::Increment(_) => true,
        KeyOperation::Delete { .. } => false,
    }
}

fn lease(operation: LeaseOperation) -> bool {
    match operation {
        LeaseOperation::Grant { .. } => true,
        LeaseOperation::KeepAlive { .. } | LeaseOperation::Revoke { .. } => false,
    }
}

/// Which branch is taken is only known when it is applied.
fn txn(txn: &Txn) -> bool {
    let steps = [true, false]
        .into_iter()
        .flat_map(|succeeded| txn.branch(succeeded));
    steps.into_iter().any(|step| match step {
        Step::Write(operation) => operation.grows(),
        Step::Get(_) => false,
    })
}
