//! What a gateway does not let happen to itself: bounded work, bounded memory, bounded rates.
//!
//! [`Rates`] bounds how often a caller calls, [`Admission`] how much is under way, and `front` asks both before a request
//! reaches its route. Times and sizes are bounded where bytes are read: headers in `serve`, bodies in `routes`.

mod admission;
mod headers;
mod party;
mod rates;

pub use self::admission::{Admission, Class};
pub use self::headers::secure;
pub use self::party::{Party, network};
pub use self::rates::Rates;
