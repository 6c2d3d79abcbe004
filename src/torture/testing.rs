//! What tests of more than one module here need.

use super::record::{About, Record};

/// A record of a run in which nothing happened.
pub(super) fn empty_record() -> Record {
    Record::of(About::default())
}
