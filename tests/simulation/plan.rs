//! What goes wrong, and when: drawn from the seed, one fault after another, some at the same time.
//!
//! One wall clock is wrong at a time: what log time promises holds while one node of any majority has the time, and there may be no
//! more than two nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use trolley::types::NodeId;

use crate::disk::SYNC_MS;
use crate::network::Weather;
use crate::node::{NEXT, SimNode};
use crate::world::World;

/// A fault that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Cut,
    Storm,
    Down(u64),
    Paused(u64),
    SlowSync(u64),
    SlowTime(u64),
    WrongClock(u64),
}

/// How a network is cut.
#[derive(Debug)]
enum Cut {
    /// These hear none of the others.
    Apart(BTreeSet<u64>),
    /// Nobody hears this one, which hears all.
    Mute(u64),
    /// This one hears nobody, and is heard.
    Deaf(u64),
    /// Two halves that only this one reaches.
    Bridge(u64),
}

/// See the module.
pub struct Plan {
    world: Arc<World>,
    /// Programs are replaced by ones that know newer rules.
    upgrades: bool,
    next_at: u64,
    /// What lasts, and until when.
    running: Vec<(u64, Fault)>,
}

impl Plan {
    pub fn new(world: Arc<World>, begin_at: u64, upgrades: bool) -> Self {
        Self {
            world,
            upgrades,
            next_at: begin_at,
            running: Vec::new(),
        }
    }

    /// Ends what is over, and begins what is due.
    pub fn act(&mut self, nodes: &mut [SimNode]) {
        let now = self.world.trace.now();
        let over: Vec<Fault> = self
            .running
            .extract_if(.., |(until, _)| *until <= now)
            .map(|(_, fault)| fault)
            .collect();
        for fault in over {
            self.end(fault, nodes);
        }
        if now >= self.next_at {
            self.next_at = now + self.world.draw(100..1200);
            self.begin(nodes);
        }
    }

    /// Ends everything.
    pub fn heal(&mut self, nodes: &mut [SimNode]) {
        self.world.trace.note(format_args!("heals"));
        for (_, fault) in std::mem::take(&mut self.running) {
            self.end(fault, nodes);
        }
    }

    fn end(&mut self, fault: Fault, nodes: &mut [SimNode]) {
        self.world.trace.note(format_args!("{fault:?} is over"));
        let node = |nodes: &mut [SimNode], id: u64, then: fn(&mut SimNode)| {
            nodes.iter_mut().filter(|node| node.id == id).for_each(then);
        };
        match fault {
            Fault::Cut => self.world.net.set_cut(BTreeSet::new()),
            Fault::Storm => self.world.net.set_weather(Weather::default()),
            Fault::Down(id) => node(nodes, id, SimNode::start),
            Fault::Paused(id) => node(nodes, id, SimNode::resume),
            Fault::SlowSync(id) => node(nodes, id, |node| {
                node.disk.lock().expect("no panic").sync_ms = SYNC_MS;
            }),
            Fault::SlowTime(id) => node(nodes, id, |node| node.slowness = 1),
            Fault::WrongClock(id) => node(nodes, id, |node| node.skew_ms = 0),
        }
    }

    fn lasts(&mut self, fault: Fault, most_ms: u64) {
        let until = self.world.trace.now() + self.world.draw(50..most_ms);
        self.running.retain(|(_, running)| *running != fault);
        self.running.push((until, fault));
    }

    fn tell(&mut self, kind: &'static str, detail: impl fmt::Debug) {
        self.world.ledger.count(kind);
        self.world
            .trace
            .note(format_args!("fault: {kind} {detail:?}"));
    }

    fn begin(&mut self, nodes: &mut [SimNode]) {
        let mut nodes: Vec<&mut SimNode> = nodes.iter_mut().filter(|it| it.is_present()).collect();
        let ids: Vec<u64> = nodes.iter().map(|node| node.id).collect();
        let place = self.world.pick(ids.len());
        let id = ids[place];
        let leader = nodes.iter().position(|node| node.leads());
        match self.world.draw(0..28) {
            0..=3 => self.cut(&ids),
            4 | 5 => {
                let weather = Weather {
                    loss: self.world.draw(0..40),
                    duplicates: self.world.draw(0..50),
                    delay_ms: self.world.draw(5..200),
                };
                self.tell("storm", weather);
                self.world.net.set_weather(weather);
                self.lasts(Fault::Storm, 3000);
            }
            6..=9 => {
                // A leader's crash is worth more than another's.
                let place = leader.filter(|_| self.world.chance(50)).unwrap_or(place);
                self.crash(nodes[place]);
                let id = nodes[place].id;
                for other in nodes.iter().filter(|other| other.is_up()) {
                    if self.world.net.is_open(id, other.id) {
                        other.lose(id);
                    }
                }
            }
            10 => {
                self.tell("crash of all", ());
                for node in nodes {
                    self.crash(node);
                }
            }
            11 | 12 => {
                let place = leader.filter(|_| self.world.chance(50)).unwrap_or(place);
                let node = &mut *nodes[place];
                if node.is_up() {
                    self.tell("pause", node.id);
                    node.is_paused = true;
                    self.lasts(Fault::Paused(node.id), 3000);
                }
            }
            13 | 21 => {
                if nodes.iter().all(|node| node.skew_ms == 0) {
                    let hour: i64 = 3_600_000;
                    let ahead = self.world.chance(50);
                    nodes[place].skew_ms = if ahead { hour } else { -hour };
                    self.tell("wrong clock", (id, nodes[place].skew_ms));
                    self.lasts(Fault::WrongClock(id), 10_000);
                }
            }
            14 | 15 => {
                self.tell("slow sync", id);
                let most = self.world.draw(51..401);
                nodes[place].disk.lock().expect("no panic").sync_ms = (1, most);
                self.lasts(Fault::SlowSync(id), 3000);
            }
            16..=20 => {
                let place = leader.filter(|_| self.world.chance(50)).unwrap_or(place);
                if nodes[place].is_up() && !nodes[place].is_paused {
                    self.tell("snapshot", nodes[place].id);
                    nodes[place].take_snapshot();
                }
            }
            23 | 24 => {
                let place = leader.filter(|_| self.world.chance(50)).unwrap_or(place);
                let id = nodes[place].id;
                nodes[place].slowness = self.world.draw(2..20);
                self.tell("slow time", (id, nodes[place].slowness));
                self.lasts(Fault::SlowTime(id), 3000);
                // Alone it is harmless: whoever was deposed is told so.
                if self.world.chance(50) {
                    self.sever(&ids, &Cut::Apart(BTreeSet::from([id])));
                }
            }
            25 | 26 => {
                if self.upgrades && nodes[place].program < NEXT && nodes[place].is_up() {
                    self.tell("upgrade", id);
                    nodes[place].program = NEXT;
                    self.crash(nodes[place]);
                }
            }
            _ => {
                let to = NodeId::new(id).expect("ids begin with 1");
                if let Some(leader) = leader.map(|place| &nodes[place])
                    && !leader.is_paused
                {
                    self.tell("transfer", (leader.id, id));
                    leader.transfer(to);
                }
            }
        }
    }

    fn crash(&mut self, node: &mut SimNode) {
        if !node.is_up() {
            return;
        }
        self.tell("crash", node.id);
        node.crash();
        self.running
            .retain(|(_, fault)| *fault != Fault::Paused(node.id));
        self.lasts(Fault::Down(node.id), 2000);
    }

    fn cut(&mut self, ids: &[u64]) {
        let one = ids[self.world.pick(ids.len())];
        let cut = match self.world.draw(0..6) {
            0 => Cut::Mute(one),
            1 => Cut::Deaf(one),
            2 => Cut::Bridge(one),
            _ => {
                let side = ids.iter().filter(|_| self.world.chance(40));
                Cut::Apart(side.copied().collect())
            }
        };
        self.sever(ids, &cut);
    }

    fn sever(&mut self, ids: &[u64], cut: &Cut) {
        self.tell("cut", cut);
        let links = ids
            .iter()
            .flat_map(|from| ids.iter().map(move |to| (*from, *to)));
        let is_cut = |from: u64, to: u64| match cut {
            Cut::Apart(side) => side.contains(&from) != side.contains(&to),
            Cut::Mute(node) => from == *node,
            Cut::Deaf(node) => to == *node,
            Cut::Bridge(node) => from != *node && to != *node && from % 2 != to % 2,
        };
        let cut = links.filter(|(from, to)| from != to && is_cut(*from, *to));
        // Clients reach everybody: whoever is cut off is asked as well.
        self.world.net.set_cut(cut.collect());
        self.lasts(Fault::Cut, 4000);
    }
}
