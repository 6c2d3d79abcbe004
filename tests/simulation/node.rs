//! One node: the real node, openraft and state over a simulated disk and network, on a runtime of its own.
//!
//! A crash drops the runtime, and with it every task wherever it stands. A pause is a runtime that is not run; when it
//! goes on, its monotonic clock has moved on meanwhile. That clock may also run slower than those of others, and what waits
//! for it with it: nothing that a node promises may depend on how fast it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use trolley::clock::{Clock, LogClock};
use trolley::config::{Snapshots, Timers};
use trolley::network::{Error as NetworkError, LeaderContact, is_current};
use trolley::node::{
    Base, Error, LeaderHint, MembershipError, Node, Outcome, Parts, Raft, ReadMode, Unconfirmed,
    drop_overtaken, election_timers, raft_config,
};
use trolley::proto::internal as pb;
use trolley::raft::{LogId, Member, TypeConfig, Vote};
use trolley::state::{Fault, MemoryStore, Store as _};
use trolley::types::{ClusterId, InstanceId, LogTime, NodeId, Revision, Room, StateVersion};

use crate::asks::{Answer, Ask};
use crate::bugs::Bug;
use crate::disk::Disk;
use crate::log::SimLog;
use crate::machine::SimMachine;
use crate::network::{Delivery, Request, Response, SimDialer, answer, call};
use crate::world::World;

/// Raft's timers: shorter than the defaults, so that a second holds more.
const TIMERS: Timers = Timers {
    heartbeat: Duration::from_millis(100),
    election_min: Duration::from_millis(300),
    election_max: Duration::from_millis(600),
};
/// Few entries stay behind a snapshot, so that whoever falls behind needs it.
const SNAPSHOTS: Snapshots = Snapshots {
    log_bytes: u64::MAX,
    interval: Duration::from_secs(3600),
    keep_entries: 5,
};
/// The rules that programs know which come later.
pub const NEXT: StateVersion = StateVersion::new(StateVersion::NEWEST.get() + 1);
/// Turns of the scheduler in a step, in which nothing waits for time.
const TURNS: u32 = 16;
/// How long a node works on what a client asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where wall clocks begin, in Unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// See the module.
pub struct SimNode {
    pub id: u64,
    pub disk: Arc<Mutex<Disk>>,
    world: Arc<World>,
    /// Who makes the cluster; nobody where it is there already.
    founders: u64,
    hand: Arc<AtomicU64>,
    /// How far its wall clock is off.
    pub skew_ms: i64,
    /// So many times slower than the others' its monotonic clock runs.
    pub slowness: u64,
    /// What its program knows from its next start on.
    pub program: StateVersion,
    life: Option<Life>,
    pub is_paused: bool,
    /// It will never run again.
    is_gone: bool,
    /// The last term in which it led.
    led: u64,
}

/// From a start to a crash.
struct Life {
    raft: Raft<SimMachine>,
    node: Node<SimBase>,
    contact: LeaderContact,
    machine: SimMachine,
    began: Instant,
    /// Since then, by its own clock.
    elapsed: Duration,
    /// How far it was run, by the simulation's.
    run_ms: u64,
    _tasks: TaskTracker,
    runtime: Runtime,
}

impl Life {
    /// Its clock, when the simulation has gone on to this time.
    fn go_on(&mut self, until_ms: u64, slowness: u64) -> Instant {
        let passed = Duration::from_micros((until_ms - self.run_ms) * 1000 / slowness);
        self.run_ms = until_ms;
        self.elapsed += passed;
        self.now()
    }

    fn now(&self) -> Instant {
        self.began + self.elapsed
    }
}

fn member(id: u64) -> Member {
    Member {
        address: format!("node-{id}:1"),
        instance: InstanceId::new([u8::try_from(id).expect("few nodes"); 16]),
    }
}

impl SimNode {
    /// A node that was never started: one of so many that found a cluster, or of none.
    pub fn new(world: Arc<World>, id: u64, founders: u64) -> Self {
        let disk = Disk::new(world.bug);
        Self {
            id,
            disk: Arc::new(Mutex::new(disk)),
            world,
            founders,
            hand: Arc::default(),
            skew_ms: 0,
            slowness: 1,
            program: StateVersion::FIRST,
            life: None,
            is_paused: false,
            is_gone: false,
            led: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Whether its disk has this entry for good.
    pub fn holds(&self, id: LogId) -> bool {
        self.disk.lock().expect("no panic").holds(id)
    }

    fn set_clock(&self) {
        let now = EPOCH_MS + self.world.trace.now();
        self.hand
            .store(now.saturating_add_signed(self.skew_ms), Ordering::Relaxed);
    }

    /// Whether it runs, or comes back.
    pub fn is_present(&self) -> bool {
        !self.is_gone
    }

    /// Starts it with what its disk has.
    pub fn start(&mut self) {
        if self.is_gone {
            return;
        }
        let (id, world) = (self.id, &self.world);
        world.trace.note(format_args!("n{id} starts"));
        self.set_clock();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
        let (vote, last) = {
            let disk = self.disk.lock().expect("no panic");
            (disk.log.vote, disk.log.last())
        };
        world.ledger.starts(id, vote);
        let founds = id == 1 && last.is_none() && self.founders > 0;
        let members = founds.then(|| (1..=self.founders).map(|id| (id, member(id))).collect());
        let run_ms = world.trace.now();
        let booting = boot(
            Arc::clone(world),
            id,
            self.program,
            Arc::clone(&self.disk),
            Arc::clone(&self.hand),
            members,
        );
        match runtime.block_on(booting) {
            Ok(booted) => {
                self.life = Some(Life {
                    raft: booted.raft,
                    node: booted.node,
                    contact: booted.contact,
                    machine: booted.machine,
                    began: booted.began,
                    elapsed: Duration::ZERO,
                    run_ms,
                    _tasks: booted.tasks,
                    runtime,
                });
            }
            Err(reason) => world
                .ledger
                .fail("restart", format!("node {id} does not start: {reason}")),
        }
    }

    /// Runs it up to the end of this step.
    pub fn step(&mut self, until_ms: u64) {
        self.set_clock();
        if self.is_paused {
            return;
        }
        let Some(life) = &mut self.life else {
            return;
        };
        let until = life.go_on(until_ms, self.slowness);
        life.runtime.block_on(async {
            // Its clock may stand still in this step, and what has arrived is to be seen to all the same.
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep_until(until).await;
        });
        let now = life.node.leadership();
        if now.is_leader() && now.term != self.led {
            self.led = now.term;
            self.world.ledger.leads(self.id, now.term);
        }
    }

    /// Goes on after a pause.
    pub fn resume(&mut self) {
        self.is_paused = false;
        let Some(life) = &mut self.life else {
            return;
        };
        let now = life.go_on(self.world.trace.now(), 1);
        life.runtime.block_on(async {
            let behind = now.saturating_duration_since(Instant::now());
            tokio::time::advance(behind).await;
        });
    }

    /// Stops it where it stands; of what was not synced the disk keeps a part.
    pub fn crash(&mut self) {
        self.is_paused = false;
        if self.life.take().is_none() {
            return;
        }
        self.world.net.hang_up(self.id);
        let mut disk = self.disk.lock().expect("no panic");
        let unsynced = disk.unsynced();
        let most = u64::try_from(unsynced).expect("few changes");
        let kept = usize::try_from(self.world.draw(0..most + 1)).expect("it was one");
        let id = self.id;
        self.world
            .trace
            .note(format_args!("n{id} crashes, keeps {kept} of {unsynced}"));
        disk.crash(kept);
    }

    /// Ends it for good. Nobody reads its disk again; that it had synced what it acknowledged stays true.
    pub fn end(&mut self) {
        self.crash();
        self.is_gone = true;
        let id = self.id;
        self.world.trace.note(format_args!("n{id} is gone"));
    }

    /// A bug: it is started again with an empty disk, as the node that it was.
    pub fn empty(&mut self) {
        self.crash();
        *self.disk.lock().expect("no panic") = Disk::new(self.world.bug);
        self.start();
    }

    /// Another node's connections broke.
    pub fn lose(&self, other: u64) {
        if let Some(life) = &self.life {
            life.contact.lost(other);
        }
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        let life = self.life.as_ref();
        life.is_some_and(|life| life.node.leadership().is_leader())
    }

    /// The term that it is in.
    pub fn term(&self) -> u64 {
        let life = self.life.as_ref();
        life.map_or(0, |life| life.node.leadership().term)
    }

    /// Whether it knows a leader.
    pub fn knows_leader(&self) -> bool {
        let life = self.life.as_ref();
        life.is_some_and(|life| life.node.leadership().leader.is_some())
    }

    /// Takes a snapshot, and purges.
    pub fn take_snapshot(&self) {
        self.trigger(|raft| async move { raft.trigger().snapshot().await.is_ok() });
    }

    /// Hands leadership over, if that node will do.
    pub fn transfer(&self, to: NodeId) {
        if let Some(life) = &self.life {
            let node = life.node.clone();
            let deadline = life.now() + PATIENCE;
            life.runtime.spawn(async move {
                // Whether it comes to that is not asked here.
                drop(node.transfer_leader(Some(to), deadline).await);
            });
        }
    }

    /// Takes a snapshot if one is due without anybody asking, as the real node does.
    pub fn look(&self) {
        let has_gap = |life: &Life| life.node.has_gap();
        if !self.is_paused && self.life.as_ref().is_some_and(has_gap) {
            self.world.ledger.count("gap");
            self.take_snapshot();
        }
    }

    fn trigger<F>(&self, what: impl FnOnce(Raft<SimMachine>) -> F)
    where
        F: Future<Output = bool>,
    {
        if let Some(life) = &self.life
            && !life.runtime.block_on(what(life.raft.clone()))
        {
            let id = self.id;
            self.world.trace.note(format_args!("n{id} is not running"));
        }
    }

    /// How far it has applied, and every record that it has.
    pub fn state(&self) -> Option<(u64, MemoryStore)> {
        let live = self.life.as_ref()?.machine.live.lock().expect("no panic");
        let index = live.applied.last.map_or(0, |id| id.index);
        Some((index, live.applied.store.clone()))
    }

    /// The rules that its state follows.
    pub fn follows(&self) -> Option<StateVersion> {
        let live = self.life.as_ref()?.machine.live.lock().expect("no panic");
        Some(StateVersion::new(live.applied.store.header().version))
    }

    /// Who votes, by what it has applied.
    pub fn voters(&self) -> Option<BTreeSet<u64>> {
        let live = self.life.as_ref()?.machine.live.lock().expect("no panic");
        Some(live.applied.membership.membership().voter_ids().collect())
    }

    /// How far it has applied.
    pub fn applied(&self) -> u64 {
        let life = self.life.as_ref();
        life.map_or(0, |life| life.machine.published.borrow().log_index)
    }
}

/// What a boot comes to.
struct Booted {
    raft: Raft<SimMachine>,
    node: Node<SimBase>,
    contact: LeaderContact,
    machine: SimMachine,
    began: Instant,
    tasks: TaskTracker,
}

async fn boot(
    world: Arc<World>,
    id: u64,
    program: StateVersion,
    disk: Arc<Mutex<Disk>>,
    hand: Arc<AtomicU64>,
    founding: Option<BTreeMap<u64, Member>>,
) -> Result<Booted, String> {
    let began = Instant::now();
    let log = SimLog::new(Arc::clone(&world), id, Arc::clone(&disk));
    let machine = SimMachine::open(Arc::clone(&world), id, program, disk);
    let tasks = TaskTracker::new();
    tasks.spawn(log.clone().sync());
    let log_clock = Arc::new(LogClock::new(Clock::Manual(hand)));
    let contact = LeaderContact::new(Arc::clone(&log_clock));
    let config = openraft::Config {
        // The real one waits until there are thousands, of which a run has not one.
        purge_batch_size: 1,
        ..raft_config(TIMERS, SNAPSHOTS)
    };
    let config = Arc::new(config.validate().map_err(|e| e.to_string())?);
    let dialer = SimDialer {
        world: Arc::clone(&world),
        node: id,
        clock: Arc::clone(&log_clock),
    };
    let (mut held, mut applied) = (log.clone(), machine.clone());
    let dropped = drop_overtaken(&mut held, &mut applied).await;
    dropped.map_err(|error| error.to_string())?;
    let raft = Raft::new(id, config, dialer, log, machine.clone());
    let raft = raft.await.map_err(|fatal| fatal.to_string())?;
    let node = Node::start(Parts {
        raft: raft.clone(),
        base: SimBase {
            world: Arc::clone(&world),
            id,
            program,
            machine: machine.clone(),
        },
        applied: machine.published.subscribe(),
        log_clock,
        contact: contact.clone(),
        cluster: ClusterId::new([7; 16]),
        id: NodeId::new(id).map_err(|e| e.to_string())?,
        timers: election_timers(TIMERS),
    });
    let server = Server {
        world: Arc::clone(&world),
        raft: raft.clone(),
        node: node.clone(),
        contact: contact.clone(),
        log: held,
    };
    let inbox = world.net.listen(id);
    tasks.spawn(serve(server, inbox, tasks.clone()));
    let watched = node.clone();
    tasks.spawn(async move {
        let reason = watched.stopped().await;
        let detail = format!("node {id} stopped: {reason}");
        world.ledger.fail("node stopped", detail);
    });
    if let Some(members) = founding {
        let raft = raft.clone();
        tasks.spawn(async move {
            // A founder that comes back may find that it had founded already.
            drop(raft.initialize(members).await);
        });
    }
    Ok(Booted {
        raft,
        node,
        contact,
        machine,
        began,
        tasks,
    })
}

/// What the real node stands on here.
struct SimBase {
    world: Arc<World>,
    id: u64,
    program: StateVersion,
    machine: SimMachine,
}

impl Base for SimBase {
    type Machine = SimMachine;
    type View<'a> = MemoryStore;

    fn view<T>(
        &self,
        look: impl FnOnce(&MemoryStore) -> Result<T, Fault>,
    ) -> Result<(Revision, T), Fault> {
        let live = self.machine.live.lock().expect("no panic");
        let seen = look(&live.applied.store)?;
        let revision = live.applied.store.header().revision;
        Ok((Revision::new(revision), seen))
    }

    fn header(&self) -> pb::StateHeader {
        let live = self.machine.live.lock().expect("no panic");
        live.applied.store.header()
    }

    fn next_deadline(&self) -> Option<LogTime> {
        let live = self.machine.live.lock().expect("no panic");
        live.horizon.next_deadline()
    }

    fn highest_node_id(&self) -> u64 {
        let live = self.machine.live.lock().expect("no panic");
        live.applied.highest_id
    }

    fn instance(&self) -> InstanceId {
        member(self.id).instance
    }

    fn newest_state_version(&self) -> StateVersion {
        self.program
    }

    /// Disks are never full here.
    fn room_of(&self, _: u64, _: u64) -> Option<Room> {
        None
    }

    async fn greet(
        &self,
        address: &str,
        _: pb::HelloRequest,
        patience: Duration,
    ) -> Result<pb::HelloResponse, NetworkError> {
        let node = node_at(address).ok_or_else(|| NetworkError::Address(address.to_owned()))?;
        match call(&self.world, self.id, node, Request::Hello, patience).await {
            Some(Response::Hello(answer)) => Ok(*answer),
            _ => Err(NetworkError::Timeout(patience)),
        }
    }

    async fn ask_read_index(&self, leader: &LeaderHint) -> Result<u64, Unconfirmed> {
        let leader = leader.node.get();
        match call(&self.world, self.id, leader, Request::ReadIndex, PATIENCE).await {
            Some(Response::ReadIndex(Some(index))) => Ok(index),
            Some(_) => Err(Unconfirmed::NoLeader),
            None => Err(Unconfirmed::Late),
        }
    }

    async fn ask_vote(&self, node: u64) -> Option<Vote> {
        if self.world.has(Bug::LeaseReads) {
            return Some(Vote::new(0, 0));
        }
        match call(&self.world, self.id, node, Request::HeldVote, PATIENCE).await {
            Some(Response::HeldVote(vote)) => vote,
            _ => None,
        }
    }

    async fn is_gone(&self, node: u64) -> bool {
        let net = &self.world.net;
        net.is_open(self.id, node) && net.is_open(node, self.id) && !net.listens(node)
    }

    async fn broken(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self) {}
}

/// What others reach.
#[derive(Clone)]
struct Server {
    world: Arc<World>,
    raft: Raft<SimMachine>,
    node: Node<SimBase>,
    contact: LeaderContact,
    log: SimLog,
}

async fn serve(server: Server, mut inbox: mpsc::Receiver<Delivery>, tasks: TaskTracker) {
    while let Some(delivery) = inbox.recv().await {
        let server = server.clone();
        tasks.spawn(async move {
            let response = server.handle(delivery.from, delivery.request).await;
            if let Some(response) = response {
                answer(&server.world, delivery.number, response);
            }
        });
    }
}

impl Server {
    /// `None` where openraft has stopped: then nobody answers.
    async fn handle(&self, from: u64, request: Request) -> Option<Response> {
        let raft = &self.raft;
        Some(match request {
            Request::Append(rpc, time) | Request::Stream(rpc, time) => {
                self.append(from, rpc, time).await?
            }
            Request::Vote(rpc) => {
                let panics = self.world.has(Bug::PanickingVote) && self.world.chance(10);
                assert!(!panics, "a planted panic");
                Response::Vote(raft.vote(rpc).await.ok()?, self.contact.testify())
            }
            Request::PreVote(rpc) => {
                Response::Vote(raft.pre_vote(rpc).await.ok()?, self.contact.testify())
            }
            Request::Transfer(rpc) => {
                Response::Transfer(raft.handle_transfer_leader(rpc).await.ok()?)
            }
            Request::Snapshot(vote, snapshot) => {
                let snapshot = openraft::Snapshot {
                    meta: snapshot.meta.clone(),
                    snapshot,
                };
                Response::Snapshot(raft.install_full_snapshot(vote, snapshot).await.ok()?)
            }
            Request::ReadIndex => {
                let index = self.node.read_index().await.ok();
                Response::ReadIndex(index.map(|id| id.index))
            }
            Request::HeldVote => Response::HeldVote(self.log.vote()),
            Request::Hello => {
                let mut answer = self.node.introduction();
                if self.world.has(Bug::UnaskedVersions) {
                    answer.newest_state_version = NEXT.get();
                }
                Response::Hello(Box::new(answer))
            }
            Request::Client(ask) => Response::Client(self.client(ask).await),
        })
    }

    async fn append(
        &self,
        from: u64,
        rpc: AppendEntriesRequest<TypeConfig>,
        time: u64,
    ) -> Option<Response> {
        if is_current(&self.raft.server_metrics(), &rpc) {
            self.contact.heard(from);
        }
        let response = self.raft.append_entries(rpc).await.ok()?;
        if response.is_success() && !self.world.has(Bug::WallClockStamps) {
            self.contact.told_time(time);
        }
        Some(Response::Append(response))
    }

    async fn client(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Propose(command) => {
                let proposed = tokio::time::timeout(PATIENCE, self.node.propose(*command));
                match proposed.await {
                    Ok(Ok(reply)) => Answer::Reply(Box::new(reply.reply)),
                    Ok(Err(error)) => refusal(&error),
                    Err(_) => Answer::Unknown,
                }
            }
            Ask::Read(mode, query) => {
                let mode = self.mode(mode);
                let deadline = Instant::now() + PATIENCE;
                if let Err(error) = self.node.read_barrier(mode, deadline).await {
                    return refusal(&error);
                }
                match self.node.view(|store| query.look(store)) {
                    Ok((revision, seen)) => Answer::Seen(revision, seen),
                    Err(error) => refusal(&error),
                }
            }
            Ask::Add(id) => {
                let deadline = Instant::now() + PATIENCE;
                let address = member(id).address;
                changed(self.node.add_member(node_id(id), &address, deadline).await)
            }
            Ask::Remove(id) => {
                let deadline = Instant::now() + PATIENCE;
                changed(self.node.remove_member(node_id(id), deadline).await)
            }
        }
    }

    /// The mode that was asked for, unless a bug says otherwise.
    fn mode(&self, asked: ReadMode) -> ReadMode {
        let leads = self.node.leadership().is_leader();
        let lies = self.world.has(if leads {
            Bug::LeaderReads
        } else {
            Bug::FollowerReads
        });
        match asked {
            ReadMode::Linearizable if lies => ReadMode::Stale,
            asked => asked,
        }
    }
}

fn node_id(id: u64) -> NodeId {
    NodeId::new(id).expect("ids begin with 1")
}

/// Whose address it is, see [`member`].
fn node_at(address: &str) -> Option<u64> {
    let name = address.strip_prefix("node-")?;
    name.split_once(':')?.0.parse().ok()
}

fn changed(outcome: Result<(), Error>) -> Answer {
    match outcome {
        Ok(()) => Answer::Changed,
        Err(Error::Membership(MembershipError::IdUsed { .. })) => Answer::IdUsed,
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &Error) -> Answer {
    let leader = match error {
        Error::NotLeader(leader) => Some(leader.node.get()),
        _ => None,
    };
    match error.outcome() {
        Outcome::NotApplied => Answer::Refused(leader),
        Outcome::Unknown => Answer::Unknown,
    }
}
