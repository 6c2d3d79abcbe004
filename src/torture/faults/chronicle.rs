//! What was done to a cluster and what was seen of it, in order.

use serde::{Deserialize, Serialize};

use super::{Death, Episode, Transition};

/// What was done, and what was seen.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Chronicle {
    /// Faults, in the order in which they ended.
    pub episodes: Vec<Episode>,
    /// What changed, in order.
    pub transitions: Vec<Transition>,
    /// Nodes that ended by themselves.
    pub deaths: Vec<Death>,
    /// Times at which the nodes did not follow one leader again, although everything had been mended long before.
    pub stuck_us: Vec<u64>,
}
