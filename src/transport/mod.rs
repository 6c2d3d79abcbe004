//! TCP as gRPC uses it here, on both sides of every connection.

mod coalesce;
mod connect;
mod places;

use std::error::Error;

pub use coalesce::Coalescing;
pub use connect::Connector;
pub use places::{Place, Places, keep_place, take_place};

/// Whether a call failed because no connection was made, so that nobody has seen it.
#[must_use]
pub fn never_connected(status: &tonic::Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a status says, or what its code means where it says nothing.
#[must_use]
pub fn said(status: &tonic::Status) -> String {
    let said = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    said.to_owned()
}

/// What an error comes from: tonic's own words for it are "transport error".
#[must_use]
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}
