//! What faults of links do while they last, and what the fronts have counted of them.

use super::{Active, Nemesis};
use crate::torture::cluster::network::{Direction, Effects};
use crate::torture::faults::world::Reason;
use crate::torture::faults::{Kind, Proof};

impl Nemesis {
    /// Remembers what the links had met before.
    pub(super) async fn watch(&self, active: &mut Active) {
        let cluster = self.cluster.lock().await;
        let effects = |direction: &Direction| cluster.network().effects(*direction);
        active.before = active.directions.iter().map(effects).collect();
    }

    /// One of the acts of a fault that goes on acting.
    pub(super) fn go_on(&mut self, reason: Reason) {
        let Some(active) = self.active.get_mut(&reason) else {
            return;
        };
        let Some(link) = active.random.choice(&active.directions).copied() else {
            return;
        };
        match active.planned.kind {
            Kind::Stall => {
                self.world.block(vec![link, (link.1, link.0)], reason);
            }
            Kind::CutConnections => {
                if let Ok(cluster) = self.cluster.try_lock() {
                    for direction in &active.directions {
                        cluster.network().cut(*direction);
                    }
                }
            }
            _ => {}
        }
        if let Ok(cluster) = self.cluster.try_lock() {
            cluster.network().set(self.world.rules());
        }
    }

    /// What a fault of links has done to them.
    pub(super) async fn traces(&self, active: &Active) -> Proof {
        let cluster = self.cluster.lock().await;
        let mut sum = Effects::default();
        for (direction, before) in active.directions.iter().zip(&active.before) {
            let now = cluster.network().effects(*direction);
            sum.held_bytes += now.held_bytes - before.held_bytes;
            sum.delayed_bytes += now.delayed_bytes - before.delayed_bytes;
            sum.cut_connections += now.cut_connections - before.cut_connections;
            sum.overtakings += now.overtakings - before.overtakings;
        }
        let (count, what) = match active.planned.kind {
            Kind::Latency => (sum.delayed_bytes, "bytes were delayed"),
            Kind::Reorder => (sum.overtakings, "messages were overtaken by later ones"),
            Kind::CutConnections => (sum.cut_connections, "connections were cut"),
            _ => (sum.held_bytes, "bytes were not passed on"),
        };
        Proof::of(count > 0, format!("{count} {what}"))
    }
}
