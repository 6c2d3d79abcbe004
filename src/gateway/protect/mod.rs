//! What a gateway does not let happen to itself: bounded work, bounded memory, bounded rates.
//!
//! [`Rates`] bounds how often a caller calls, [`Admission`] how much is under way, and `front` asks both before a request
//! reaches its route; of what all share, [`Shares`] lets nobody hold more than a part. Times and sizes are bounded where bytes are
//! read and written: headers in `serve`, bodies in `routes`, answers in `wire`.

mod admission;
mod headers;
mod party;
mod rates;
mod shares;

pub use self::admission::{Admission, Class, Shed};
pub use self::headers::secure;
pub use self::party::{Party, network};
pub use self::rates::Rates;
pub use self::shares::{Share, Shares};
