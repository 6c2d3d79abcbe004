//! What tests of more than one module here need.

use super::faults::chronicle::Chronicle;
use super::history::History;
use super::record::{About, Audit, Record};

/// A record of a run in which nothing happened.
pub(super) fn empty_record() -> Record {
    Record {
        about: About::default(),
        history: History::new(Vec::new()).expect("nothing contradicts nothing"),
        order: Vec::new(),
        looks: Vec::new(),
        adds: Vec::new(),
        bankings: Vec::new(),
        listings: Vec::new(),
        sessions: Vec::new(),
        feeds: Vec::new(),
        probes: Vec::new(),
        samples: Vec::new(),
        chronicle: Chronicle::default(),
        audit: Audit::default(),
    }
}
