//! One run, from the first node's start to the last node's end, and what was noted of it.
//!
//! 1. Nodes start.
//! 2. Rounds: clients work, phases of faults come and go, an observer looks on. Then clients stop, everything is mended, each node is
//!    read, watchers follow to the end. What was noted is a [`Record`].
//! 3. Nodes are asked to stop; logs and data are looked through. That belongs to the last round's record.
//!
//! A run of hours has many rounds over the same processes and data, and each is judged for itself. So the memory that it takes is that of
//! one round, [`ROUND`], however long it lasts.

mod clients;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::clients::Clients;
use super::audit::{Auditor, scan};
use super::cluster::view::View;
use super::cluster::{Cluster, Layout};
use super::faults::chronicle::Chronicle;
use super::faults::nemesis::Nemesis;
use super::faults::plan::{PHASE, Phase, plan};
use super::faults::toolbox::Toolbox;
use super::faults::{Death, Kind, Proof};
use super::history;
use super::observer;
use super::record::{About, Audit, Record, Sample};
use super::tape::Stopwatch;
use super::workloads::Context;
use super::workloads::sessions::Card;
use crate::client::{self, Client, ClientConfig};

/// How long the first leader, or the end of all clients, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long faults come in one round.
pub const ROUND: Duration = Duration::from_secs(900);
/// How often kinds that did not take effect are tried again.
const SECOND_TRIES: u64 = 2;
/// Small logs and frequent snapshots, so that a run of a minute has all that a node of a month has. Whoever missed a snapshot and half a
/// second of writes needs the next one, on a slow machine too; who missed less gets the log.
const FLAGS: [&str; 10] = [
    "--log-buffer-bytes",
    "64KiB",
    "--snapshot-log-bytes",
    "1MiB",
    "--snapshot-interval",
    "5s",
    "--snapshot-keep-entries",
    "50",
    "--drain-timeout",
    "5s",
];

/// A kind of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Keys that are read, written, compared and deleted
    Registers,
    /// Adds to carts, sent again and again under their request ids
    Carts,
    /// Transfers between accounts
    Bank,
    /// Transactions that append to lists
    Lists,
    /// Logins and logouts
    Sessions,
    /// Keys that live as long as a lease, or for a time of their own
    Leases,
    /// Locks, and what they protect
    Locks,
    /// Watchers of the registers
    Watch,
}

impl Workload {
    /// As it is typed and written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Carts => "carts",
            Self::Bank => "bank",
            Self::Lists => "lists",
            Self::Sessions => "sessions",
            Self::Leases => "leases",
            Self::Locks => "locks",
            Self::Watch => "watch",
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `trolley` under test.
    pub binary: PathBuf,
    /// Where everything goes.
    pub folder: PathBuf,
    /// Repeats the plan.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u64,
    /// How long faults come.
    pub duration: Duration,
    /// Its name.
    pub profile: String,
    /// Which kinds.
    pub faults: Vec<Kind>,
    /// Which clients.
    pub workloads: Vec<Workload>,
}

/// What is going on.
#[derive(Debug, Clone)]
pub enum Progress {
    /// Nodes are started.
    Starting,
    /// A phase of so many begins: these faults.
    Phase(usize, usize, String),
    /// Nodes are read.
    Auditing,
}

/// A run came to no end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Files, processes, ports.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The client.
    #[error("{what}: {source}")]
    Client {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: client::Error,
    },
    /// An address that cannot be one.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// The nodes did not come up, before anything was done to them.
    #[error("no node leads after {PATIENCE:?}; see the logs in {0}")]
    NoLeader(PathBuf),
    /// The recorder's notes contradict each other.
    #[error(transparent)]
    History(#[from] history::Error),
    /// A task of this program failed.
    #[error("a task failed: {0}")]
    Task(String),
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, source }
}

fn client_error(what: &'static str) -> impl FnOnce(client::Error) -> Error {
    move |source| Error::Client { what, source }
}

/// A run under way.
pub struct Run<'a> {
    settings: &'a Settings,
    cluster: Arc<Mutex<Cluster>>,
    views: Vec<(u64, View)>,
    endpoints: Vec<String>,
    nemesis: Option<Nemesis>,
    /// Kinds that cannot be carried out here.
    skipped: Vec<(Kind, String)>,
    /// The phases of each round that is to come, the next one last.
    rounds: Vec<Vec<Phase>>,
    round: u32,
    /// Sessions of all rounds, as far as they are kept: their tokens may be in no file.
    cards: Vec<Card>,
}

/// What a round leaves for the last one to finish.
struct Noted {
    clients: Clients,
    samples: Vec<Sample>,
    chronicle: Chronicle,
    audit: Audit,
    elapsed_ms: u64,
    was_interrupted: bool,
}

impl<'a> Run<'a> {
    /// Starts the nodes.
    pub async fn open(settings: &'a Settings, progress: &impl Fn(Progress)) -> Result<Self, Error> {
        progress(Progress::Starting);
        let toolbox = Toolbox::find(&settings.faults, &settings.folder, settings.nodes);
        let toolbox = toolbox.map_err(io_error("preparing the faults"))?;
        let layout = Layout {
            binary: settings.binary.clone(),
            folder: settings.folder.clone(),
            nodes: settings.nodes,
            flags: FLAGS.map(str::to_owned).to_vec(),
            places: toolbox.places(),
            environment: toolbox.environment(),
        };
        let lacks = |kind: &Kind| Some((*kind, toolbox.lacks(*kind)?));
        let skipped: Vec<_> = settings.faults.iter().filter_map(lacks).collect();
        let kinds = settings.faults.iter().copied();
        let kinds: Vec<_> = kinds
            .filter(|kind| !skipped.iter().any(|(it, _)| it == kind))
            .collect();
        let phases = plan(settings.seed, &kinds, settings.duration);
        let in_round = (ROUND.as_millis() / PHASE.as_millis()).max(1);
        let in_round = usize::try_from(in_round).unwrap_or(usize::MAX);
        let mut rounds: Vec<_> = phases.chunks(in_round).map(<[Phase]>::to_vec).collect();
        if rounds.is_empty() {
            rounds.push(Vec::new());
        }
        rounds.reverse();
        let cluster = Cluster::open(&layout).await;
        let mut cluster = cluster.map_err(io_error("preparing the nodes"))?;
        for id in 1..=settings.nodes {
            cluster.start(id).map_err(io_error("starting a node"))?;
        }
        let mut views = Vec::new();
        for node in cluster.nodes() {
            views.push((
                node.id(),
                View::of(node.listening(), Duration::from_secs(5))?,
            ));
        }
        let mut run = Self {
            settings,
            endpoints: cluster.endpoints(),
            cluster: Arc::new(Mutex::new(cluster)),
            views,
            nemesis: None,
            skipped,
            rounds,
            round: 0,
            cards: Vec::new(),
        };
        run.wait_for_leader().await?;
        let nemesis = Nemesis::over(Arc::clone(&run.cluster), run.admin()?, toolbox);
        run.nemesis = Some(nemesis.await?);
        Ok(run)
    }

    /// Whether there is more than one round.
    #[must_use]
    pub fn has_rounds(&self) -> bool {
        self.rounds.len() > 1
    }

    /// The next round; `None` once there is none left. When `stop` is cancelled it ends early, with all that belongs to the end.
    pub async fn next(
        &mut self,
        stop: &CancellationToken,
        progress: &impl Fn(Progress),
    ) -> Result<Option<Record>, Error> {
        let Some(phases) = self.rounds.pop() else {
            return Ok(None);
        };
        self.round += 1;
        let mut noted = self.work(&phases, stop, progress).await?;
        let is_stuck = !noted.chronicle.stuck_us.is_empty();
        if stop.is_cancelled() || is_stuck {
            self.rounds.clear();
        }
        if self.rounds.is_empty() {
            self.end(&mut noted).await?;
        }
        self.record(noted).map(Some)
    }

    /// Clients work and harm is done; then everything is mended and read.
    async fn work(
        &mut self,
        phases: &[Phase],
        stop: &CancellationToken,
        progress: &impl Fn(Progress),
    ) -> Result<Noted, Error> {
        let stopwatch = Stopwatch::start();
        let admin = self.admin()?;
        let begins_at = clients::make_room(&admin, &self.views[0].1).await;
        let begins_at = begins_at.map_err(client_error("making room for a round"))?;
        admin.close().await;
        let mut clients = Clients::start(
            Context {
                endpoints: self.endpoints.clone(),
                stopwatch,
                stop: CancellationToken::new(),
                seed: self.settings.seed,
                round: self.round,
                begins_at,
                clients: 4,
            },
            &self.settings.workloads,
        )
        .map_err(client_error("starting clients"))?;
        let quiet = CancellationToken::new();
        let samples = observer::Samples::default();
        let mut looking = JoinSet::new();
        looking.spawn(observer::observe(
            Arc::clone(&self.cluster),
            stopwatch,
            Arc::clone(&samples),
            quiet.clone(),
        ));
        let chronicle = self.harm(phases, stopwatch, stop, progress).await?;
        clients.until_served().await;
        progress(Progress::Auditing);
        clients.stop().await.map_err(Error::Task)?;
        let auditor = Auditor {
            views: self.views.clone(),
            stopwatch,
            registers: clients.registers(),
            cards: clients.cards(),
        };
        let audit = auditor.audit().await;
        let revision = audit.nodes.iter().map(|node| node.revision).max();
        clients.stop_watchers(revision.unwrap_or(0)).await;
        quiet.cancel();
        while looking.join_next().await.is_some() {}
        self.cards.extend(clients.cards());
        let samples = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Noted {
            clients,
            samples,
            chronicle,
            audit,
            elapsed_ms: stopwatch.at_us() / 1000,
            was_interrupted: stop.is_cancelled(),
        })
    }

    async fn harm(
        &mut self,
        phases: &[Phase],
        stopwatch: Stopwatch,
        stop: &CancellationToken,
        progress: &impl Fn(Progress),
    ) -> Result<Chronicle, Error> {
        let Some(nemesis) = &mut self.nemesis else {
            return Ok(Chronicle::default());
        };
        let (round, left, total) = (self.round, self.rounds.len(), phases.len());
        let tell = |number: usize, phase: &Phase| {
            let names: Vec<_> = phase.iter().map(|planned| planned.kind.name()).collect();
            let mut names = names.join(" + ");
            if round > 1 || left > 0 {
                names = format!("round {round}: {names}");
            }
            progress(Progress::Phase(number, total, names));
        };
        let failed = || io_error("doing harm");
        nemesis.begin_round(stopwatch);
        nemesis
            .carry_out(phases, stop, tell)
            .await
            .map_err(failed())?;
        // What was to be tried and was not seen to take effect is tried again, beside something that does no harm to it.
        for again in 1..=SECOND_TRIES {
            let mut unproven: Vec<Kind> = unproven(phases, nemesis.chronicle());
            if unproven.is_empty() || stop.is_cancelled() {
                break;
            }
            let short = PHASE * u32::try_from(unproven.len()).unwrap_or(1);
            unproven.push(Kind::Latency);
            let phases = plan(self.settings.seed.wrapping_add(again), &unproven, short);
            nemesis
                .carry_out(&phases, stop, tell)
                .await
                .map_err(failed())?;
        }
        nemesis.end_round().await.map_err(failed())
    }

    /// The nodes end, and what they have written is looked through.
    async fn end(&mut self, noted: &mut Noted) -> Result<(), Error> {
        let mut disks = None;
        if let Some(nemesis) = self.nemesis.take() {
            disks = nemesis
                .finish()
                .await
                .map_err(io_error("putting tools away"))?;
        }
        self.stop_nodes(&mut noted.chronicle).await?;
        let cluster = self.cluster.lock().await;
        let nodes = cluster.nodes().iter();
        let logs: Vec<_> = nodes.clone().map(|it| it.log().to_owned()).collect();
        let data: Vec<_> = nodes.map(|it| it.data().to_owned()).collect();
        drop(cluster);
        scan(&logs, &data, &self.cards, &mut noted.audit)
            .map_err(io_error("looking through files"))?;
        drop(disks);
        Ok(())
    }

    async fn wait_for_leader(&self) -> Result<(), Error> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let headers = self.views.iter().map(|(_, view)| view.header());
            let headers = futures::future::join_all(headers).await;
            let follows = |it: &Option<crate::proto::v1::ResponseHeader>| {
                it.as_ref().is_some_and(|header| header.leader_id != 0)
            };
            if headers.iter().all(follows) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(Error::NoLeader(self.settings.folder.clone()))
    }

    fn admin(&self) -> Result<Client, Error> {
        let config = ClientConfig::new(&self.endpoints);
        let client = config.and_then(|config| Client::connect(config.timeout(PATIENCE)));
        client.map_err(client_error("connecting"))
    }

    async fn stop_nodes(&self, chronicle: &mut Chronicle) -> Result<(), Error> {
        let mut cluster = self.cluster.lock().await;
        let at_us = chronicle.transitions.last().map_or(0, |it| it.at_us);
        for id in 1..=self.settings.nodes {
            let status = cluster
                .stop(id)
                .await
                .map_err(io_error("stopping a node"))?;
            if !status.is_some_and(|status| status.success()) {
                let said = cluster.node(id).log_end();
                chronicle.deaths.push(Death {
                    node: id,
                    at_us,
                    code: status.and_then(|status| status.code()),
                    is_expected: false,
                    said,
                });
            }
        }
        Ok(())
    }

    fn record(&self, noted: Noted) -> Result<Record, Error> {
        let workloads = self.settings.workloads.iter();
        let skipped = self.skipped.iter();
        let about = About {
            seed: self.settings.seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: self.settings.profile.clone(),
            nodes: self.settings.nodes,
            elapsed_ms: noted.elapsed_ms,
            workloads: workloads.map(|it| it.name().to_owned()).collect(),
            skipped: skipped
                .map(|(kind, why)| (kind.name(), why.clone()))
                .collect(),
            faults: self.settings.faults.iter().map(|it| it.name()).collect(),
            was_interrupted: noted.was_interrupted,
            round: self.round,
            is_followed: !self.rounds.is_empty(),
        };
        let mut record = Record {
            samples: noted.samples,
            chronicle: noted.chronicle,
            audit: noted.audit,
            ..Record::of(about)
        };
        noted.clients.give(&mut record)?;
        Ok(record)
    }
}

/// Kinds that were carried out and took no effect that was seen.
fn unproven(phases: &[Phase], chronicle: &Chronicle) -> Vec<Kind> {
    let planned = phases.iter().flatten().map(|planned| planned.kind);
    let proven = |kind: Kind| {
        let mut episodes = chronicle.episodes.iter().filter(|it| it.kind == kind);
        episodes.any(|it| matches!(it.proof, Proof::Proven(_) | Proof::Skipped(_)))
    };
    let mut kinds: Vec<Kind> = planned.filter(|kind| !proven(*kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}
