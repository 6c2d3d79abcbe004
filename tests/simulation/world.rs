//! What every part of a simulation shares: its seed's random numbers, the trace, the ledger, the network and
//! the roster of nodes.

use std::sync::{Arc, Mutex};

use xxhash_rust::xxh3::xxh3_64;

use crate::bugs::Bug;
use crate::ledger::Ledger;
use crate::network::Net;
use crate::roster::Roster;
use crate::trace::Trace;

/// See the module.
pub struct World {
    pub trace: Trace,
    pub ledger: Ledger,
    pub net: Net,
    pub roster: Roster,
    pub bug: Option<Bug>,
    seed: u64,
    random: Mutex<fastrand::Rng>,
}

impl World {
    /// A world without nodes.
    pub fn new(seed: u64, bug: Option<Bug>, is_told: bool) -> Arc<Self> {
        Arc::new(Self {
            trace: Trace::new(is_told),
            ledger: Ledger::default(),
            net: Net::default(),
            roster: Roster::default(),
            bug,
            seed,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        })
    }

    /// Random numbers for one part of a node, which no other part draws from.
    pub fn random_of(&self, node: u64, part: u64) -> Mutex<fastrand::Rng> {
        let place = xxh3_64(
            &[self.seed, node, part, self.trace.now()]
                .map(u64::to_be_bytes)
                .concat(),
        );
        Mutex::new(fastrand::Rng::with_seed(place))
    }

    /// A number of the range.
    pub fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.random
            .lock()
            .expect("drawing does not panic")
            .u64(range)
    }

    /// A place among so many.
    pub fn pick(&self, count: usize) -> usize {
        let count = u64::try_from(count).expect("few things");
        usize::try_from(self.draw(0..count)).expect("it is less than the count")
    }

    /// True so many times in a hundred.
    pub fn chance(&self, percent: u64) -> bool {
        self.draw(0..100) < percent
    }

    /// Whether this bug was put in.
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}
