//! What the builders of requests have in common.

use std::time::Duration;

/// What every write's builder can be told.
macro_rules! write_options {
    () => {
        /// How long the call may take in all, retries included.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }

        /// A request id of the caller's own: a later call with the same id and request, from whichever process, returns the
        /// first reply. The call is then a unary one.
        pub fn request_id(mut self, id: impl Into<String>) -> Self {
            self.options.identity = crate::client::call::Identity::Named(id.into());
            self
        }

        /// Sends the write without an identity, as a plain call from another language has none, which spares every node a
        /// record and its end. It is not sent again once a node may have seen it: an answer that is lost is an error whose
        /// outcome is unknown. The call is a unary one.
        pub fn at_most_once(mut self) -> Self {
            self.options.identity = crate::client::call::Identity::Absent;
            self
        }
    };
}
pub(super) use write_options;

/// What every read's builder can be told.
macro_rules! read_options {
    () => {
        /// How long the call may take in all, retries included.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }

        /// How fresh the answer must be.
        pub fn consistency(mut self, consistency: super::Consistency) -> Self {
            self.consistency = Some(consistency);
            self
        }
    };
}
pub(super) use read_options;

/// Lets a write's builder stand in a transaction.
macro_rules! in_txn {
    ($builder:ident as $variant:ident) => {
        impl crate::client::InTxn for $builder<'_> {
            fn into_request(mut self) -> crate::proto::v1::operation::Request {
                if let crate::client::call::Identity::Named(id) = self.options.identity {
                    self.request.request_id = id;
                }
                crate::proto::v1::operation::Request::$variant(self.request.into())
            }
        }
    };
    ($builder:ident) => {
        crate::client::builder::in_txn!($builder as $builder);
    };
}
pub(super) use in_txn;

/// The response of one kind, out of the outcome of any.
macro_rules! pick {
    ($variant:ident) => {
        |response| match response {
            crate::proto::v1::outcome::Response::$variant(message) => {
                Some(crate::proto::Held::out(message))
            }
            _ => None,
        }
    };
}
pub(super) use pick;

/// A number of milliseconds for a message, where 0 is "nothing said": what is shorter than one is one. The node refuses
/// what is too long.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX)
        .max(1)
}
