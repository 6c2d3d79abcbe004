//! Values that are valid because they exist: everything from outside is parsed into these once, at the edge.
//!
//! Invariant: no function behind the edge checks again what a type here already promises.
//! Deliberately absent: serialization. `proto` and `state` convert.

mod address;
mod cart;
mod cart_details;
mod counter;
mod disk;
mod id;
mod invalid;
mod name;
mod session;
mod state_version;
mod time;
mod token;

pub use address::{is_dialable, split_address};
pub use cart::{Attributes, Currency, LineId, Money, Quantity, Sku};
pub use cart_details::{HolderId, Note, TextMap};
pub use counter::Bounds;
pub use disk::{DiskSpace, Room};
pub use id::{ClientId, ClusterId, InstanceId, LeaseId, NodeId, Revision, ShardId};
pub use invalid::Invalid;
pub use name::{
    CouponCode, Key, KeyPrefix, Namespace, OrderId, RequestId, UserId, Value, check_field_name,
};
pub use session::{ClientAttributes, SessionHandle};
pub use state_version::StateVersion;
pub use time::{LogTime, Ttl};
pub use token::{SessionToken, TokenHash};
