//! The clients of one round, and what they have noted.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Workload;
use crate::client::{CartOwner, Client, Error};
use crate::torture::cluster::view::View;
use crate::torture::history;
use crate::torture::record::Record;
use crate::torture::tape::Tape;
use crate::torture::workloads::registers::Registers;
use crate::torture::workloads::sessions::{Card, Sessions};
use crate::torture::workloads::watchers::Watchers;
use crate::torture::workloads::{Context, bank, carts, leases, lists, locks, probes, registers};

/// How long the end of all clients may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Keys of the round before that are deleted at once.
const AT_ONCE: usize = 32;

/// Clients at work.
pub(super) struct Clients {
    context: Context,
    registers: Option<Arc<Registers>>,
    carts: Option<Arc<Tape<carts::Add, carts::Added>>>,
    bank: Option<Arc<Tape<bank::Banking, Vec<i64>>>>,
    lists: Option<Arc<lists::Lists>>,
    sessions: Option<Arc<Sessions>>,
    leases: Option<Arc<leases::Leases>>,
    locks: Option<Arc<locks::Locks>>,
    watchers: Option<Watchers>,
    probes: Arc<Tape<u64, ()>>,
    working: JoinSet<()>,
    /// They stop later.
    watching: JoinSet<()>,
}

/// What a round finds: empty carts, accounts with what they have at first, and none of the keys of the round before. The revision
/// from which on everything is of this round.
pub(super) async fn make_room(admin: &Client, view: &View) -> Result<u64, Error> {
    // Nobody is doing harm; a node that does not answer is found out by the clients.
    let keys = view.keys().await.unwrap_or_default();
    let is_old = |key: &&String| {
        [
            registers::PREFIX,
            lists::PREFIX,
            leases::PREFIX,
            locks::PREFIX,
        ]
        .iter()
        .any(|prefix| key.starts_with(prefix))
    };
    let old = keys.keys().filter(is_old).cloned();
    let deleted = stream::iter(old).map(|key| async move { admin.keys().delete(key).send().await });
    let deleted: Vec<_> = deleted.buffer_unordered(AT_ONCE).collect().await;
    for done in deleted {
        done.map(drop).or_else(unless_gone)?;
    }
    for cart in 0..carts::CARTS {
        let owner = CartOwner::User(carts::owner(cart));
        let cleared = admin.carts().clear(&owner).send().await;
        cleared.map(drop).or_else(unless_gone)?;
    }
    bank::open(admin).await?;
    Ok(admin.revision().get())
}

fn unless_gone(error: Error) -> Result<(), Error> {
    if error.is_not_found() {
        Ok(())
    } else {
        Err(error)
    }
}

impl Clients {
    /// Starts them.
    pub fn start(context: Context, workloads: &[Workload]) -> Result<Self, Error> {
        let (mut working, mut watching) = (JoinSet::new(), JoinSet::new());
        let tasks = &mut working;
        let runs = |workload| workloads.contains(&workload);
        let registers = runs(Workload::Registers).then(|| Registers::start(&context, tasks));
        let registers = registers.transpose()?;
        let carts = runs(Workload::Carts).then(|| carts::start(&context, tasks));
        let carts = carts.transpose()?;
        let bank = runs(Workload::Bank).then(|| bank::start(&context, tasks));
        let bank = bank.transpose()?;
        let lists = runs(Workload::Lists).then(|| lists::start(&context, tasks));
        let lists = lists.transpose()?;
        let sessions = runs(Workload::Sessions).then(|| Sessions::start(&context, tasks));
        let sessions = sessions.transpose()?;
        let leases = runs(Workload::Leases).then(|| leases::start(&context, tasks));
        let leases = leases.transpose()?;
        let locks = runs(Workload::Locks).then(|| locks::start(&context, tasks));
        let locks = locks.transpose()?;
        let watchers = runs(Workload::Watch).then(|| Watchers::start(&context, &mut watching));
        Ok(Self {
            registers,
            carts,
            bank,
            lists,
            sessions,
            leases,
            locks,
            watchers: watchers.transpose()?,
            probes: probes::start(&context, tasks)?,
            working,
            watching,
            context,
        })
    }

    /// The registers, if they are worked on.
    pub fn registers(&self) -> Option<Arc<Registers>> {
        self.registers.clone()
    }

    /// Sessions that were made.
    pub fn cards(&self) -> Vec<Card> {
        let sessions = self.sessions.as_ref();
        sessions.map(|it| it.cards()).unwrap_or_default()
    }

    /// Waits until a probe that is sent from now on is acknowledged, as long as that may take in the worst case: whether it was is
    /// judged by what was noted.
    pub async fn until_served(&self) {
        let (begun, since_us) = (Instant::now(), self.context.stopwatch.at_us());
        while begun.elapsed() < PATIENCE && !self.probes.is_answered_since(since_us) {
            sleep(probes::INTERVAL).await;
        }
    }

    /// Has all but the watchers stop. Each has the time that its calls may take.
    pub async fn stop(&mut self) -> Result<(), String> {
        self.context.stop.cancel();
        let joined = async {
            while let Some(ended) = self.working.join_next().await {
                ended.map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        match timeout(PATIENCE, joined).await {
            Ok(result) => result,
            Err(_) => Err("clients do not come to an end".to_owned()),
        }
    }

    /// Has the watchers follow to this revision, as far as they come.
    pub async fn stop_watchers(&mut self, revision: u64) {
        if let Some(watchers) = &self.watchers {
            watchers.finish(revision);
        }
        let joined = async { while self.watching.join_next().await.is_some() {} };
        if timeout(PATIENCE, joined).await.is_err() {
            self.watching.shutdown().await;
        }
    }

    /// Their notes become a part of the record.
    pub fn give(self, record: &mut Record) -> Result<(), history::Error> {
        if let Some(registers) = &self.registers {
            record.history = registers.recorder.history()?;
            record.order = registers.order.take();
            record.looks = registers.looks.take();
        }
        if let Some(carts) = &self.carts {
            record.adds = carts.take();
        }
        if let Some(bank) = &self.bank {
            record.bankings = bank.take();
        }
        if let Some(lists) = &self.lists {
            record.listings = lists.take();
        }
        if let Some(sessions) = &self.sessions {
            record.sessions = sessions.tape.take();
        }
        if let Some(leases) = &self.leases {
            record.leases = leases.take();
        }
        if let Some(locks) = &self.locks {
            record.locks = locks.take();
        }
        if let Some(watchers) = &self.watchers {
            record.feeds = watchers.feeds();
        }
        record.probes = self.probes.take();
        Ok(())
    }
}
