//! TCP as gRPC uses it here, on both sides of every connection.

mod coalesce;
mod connect;

pub use coalesce::Coalescing;
pub use connect::Connector;
