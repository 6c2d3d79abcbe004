//! One run, from the first node's start to the last node's end: what was noted of it.
//!
//! 1. Nodes start; accounts are opened.
//! 2. Clients work, phases of faults come and go, an observer looks on.
//! 3. Clients stop; everything is mended; each node is read; watchers follow to the end.
//! 4. Nodes are asked to stop; logs and data are looked through.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::audit::{Auditor, scan};
use super::cluster::view::View;
use super::cluster::{Cluster, Layout};
use super::faults::chronicle::Chronicle;
use super::faults::disks::Disks;
use super::faults::nemesis::Nemesis;
use super::faults::plan::{Phase, plan};
use super::faults::toolbox::Toolbox;
use super::faults::{Death, Kind, Proof};
use super::history::{self, History};
use super::observer;
use super::record::{About, Audit, Record};
use super::tape::Stopwatch;
use super::workloads::registers::Registers;
use super::workloads::sessions::Sessions;
use super::workloads::watchers::Watchers;
use super::workloads::{Context, bank, carts, lists, probes};
use crate::client::{self, Client, ClientConfig};

/// How long the first leader, or the end of all clients, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often kinds that did not take effect are tried again.
const SECOND_TRIES: u64 = 2;
/// Small logs and frequent snapshots, so that a run of a minute has all that a node of a month has.
const FLAGS: [&str; 8] = [
    "--snapshot-log-bytes",
    "1MiB",
    "--snapshot-interval",
    "5s",
    "--snapshot-keep-entries",
    "200",
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

/// The clients' notes.
struct Notes {
    registers: Option<Arc<Registers>>,
    carts: Option<Arc<super::tape::Tape<carts::Add, carts::Added>>>,
    bank: Option<Arc<super::tape::Tape<bank::Banking, Vec<i64>>>>,
    lists: Option<Arc<lists::Lists>>,
    sessions: Option<Arc<Sessions>>,
    watchers: Option<Watchers>,
    probes: Arc<super::tape::Tape<u64, ()>>,
}

/// A run under way.
struct Run<'a> {
    settings: &'a Settings,
    cluster: Arc<Mutex<Cluster>>,
    views: Vec<(u64, View)>,
    endpoints: Vec<String>,
    stopwatch: Stopwatch,
    /// Clients.
    working: JoinSet<()>,
    /// Watchers, who stop later.
    watching: JoinSet<()>,
    samples: observer::Samples,
}

/// Carries it out. When `stop` is cancelled it ends early, with all that belongs to the end.
pub async fn run(
    settings: &Settings,
    stop: &CancellationToken,
    progress: impl Fn(Progress),
) -> Result<Record, Error> {
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
    let skipped: Vec<(Kind, String)> = settings
        .faults
        .iter()
        .filter_map(|kind| Some((*kind, toolbox.lacks(*kind)?)))
        .collect();
    let mut run = Run::open(settings, &layout).await?;
    let notes = run.start_clients().await?;
    let quiet = CancellationToken::new();
    let mut looking = JoinSet::new();
    looking.spawn(observer::observe(
        Arc::clone(&run.cluster),
        run.stopwatch,
        Arc::clone(&run.samples),
        quiet.clone(),
    ));
    let kinds: Vec<Kind> = settings
        .faults
        .iter()
        .copied()
        .filter(|kind| !skipped.iter().any(|(it, _)| it == kind))
        .collect();
    let (mut chronicle, disks) = run.harm(&kinds, toolbox, stop, &progress).await?;
    progress(Progress::Auditing);
    let cards = notes.1.sessions.as_ref().map(|it| it.cards());
    let cards = cards.unwrap_or_default();
    notes.0.stop.cancel();
    run.join_clients().await?;
    let mut audit = run.audit(&notes.1, &cards).await;
    run.join_watchers(&notes.1, &audit).await;
    quiet.cancel();
    while looking.join_next().await.is_some() {}
    run.stop_nodes(&mut chronicle).await?;
    let cluster = run.cluster.lock().await;
    let logs: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|it| it.log().to_owned())
        .collect();
    let data: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|it| it.data().to_owned())
        .collect();
    drop(cluster);
    scan(&logs, &data, &cards, &mut audit).map_err(io_error("looking through files"))?;
    drop(disks);
    let mut record = run.record(&notes.1, chronicle, audit, &skipped)?;
    record.about.was_interrupted = stop.is_cancelled();
    Ok(record)
}

impl<'a> Run<'a> {
    async fn open(settings: &'a Settings, layout: &Layout) -> Result<Self, Error> {
        let cluster = Cluster::open(layout).await;
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
        let run = Self {
            settings,
            endpoints: cluster.endpoints(),
            cluster: Arc::new(Mutex::new(cluster)),
            views,
            stopwatch: Stopwatch::start(),
            working: JoinSet::new(),
            watching: JoinSet::new(),
            samples: observer::Samples::default(),
        };
        run.wait_for_leader().await?;
        Ok(run)
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

    async fn start_clients(&mut self) -> Result<(Context, Notes), Error> {
        let context = Context {
            endpoints: self.endpoints.clone(),
            stopwatch: self.stopwatch,
            stop: CancellationToken::new(),
            seed: self.settings.seed,
            clients: 4,
        };
        let runs = |workload| self.settings.workloads.contains(&workload);
        let failed = || client_error("starting clients");
        let admin = self.admin()?;
        bank::open(&admin)
            .await
            .map_err(client_error("opening accounts"))?;
        admin.close().await;
        let tasks = &mut self.working;
        let notes = Notes {
            registers: runs(Workload::Registers)
                .then(|| Registers::start(&context, tasks))
                .transpose()
                .map_err(failed())?,
            carts: runs(Workload::Carts)
                .then(|| carts::start(&context, tasks))
                .transpose()
                .map_err(failed())?,
            bank: runs(Workload::Bank)
                .then(|| bank::start(&context, tasks))
                .transpose()
                .map_err(failed())?,
            lists: runs(Workload::Lists)
                .then(|| lists::start(&context, tasks))
                .transpose()
                .map_err(failed())?,
            sessions: runs(Workload::Sessions)
                .then(|| Sessions::start(&context, tasks))
                .transpose()
                .map_err(failed())?,
            watchers: runs(Workload::Watch)
                .then(|| Watchers::start(&context, &mut self.watching))
                .transpose()
                .map_err(failed())?,
            probes: probes::start(&context, tasks).map_err(failed())?,
        };
        Ok((context, notes))
    }

    async fn harm(
        &self,
        kinds: &[Kind],
        toolbox: Toolbox,
        stop: &CancellationToken,
        progress: &impl Fn(Progress),
    ) -> Result<(Chronicle, Option<Disks>), Error> {
        let admin = self.admin()?;
        let nemesis = Nemesis::over(
            Arc::clone(&self.cluster),
            admin.clone(),
            toolbox,
            self.stopwatch,
        );
        let mut nemesis = nemesis.await?;
        let failed = || io_error("doing harm");
        let phases = plan(self.settings.seed, kinds, self.settings.duration);
        let total = phases.len();
        let tell = |number: usize, phase: &Phase| {
            let names: Vec<_> = phase.iter().map(|planned| planned.kind.name()).collect();
            progress(Progress::Phase(number, total, names.join(" + ")));
        };
        nemesis
            .carry_out(&phases, stop, tell)
            .await
            .map_err(failed())?;
        // What was to be tried and was not seen to take effect is tried again, beside something that does no harm to it.
        for again in 1..=SECOND_TRIES {
            if stop.is_cancelled() {
                break;
            }
            let mut unproven: Vec<Kind> = unproven(&phases, nemesis.chronicle());
            if unproven.is_empty() {
                break;
            }
            let short = Duration::from_secs(6) * u32::try_from(unproven.len()).unwrap_or(1);
            unproven.push(Kind::Latency);
            let phases = plan(self.settings.seed.wrapping_add(again), &unproven, short);
            nemesis
                .carry_out(&phases, stop, tell)
                .await
                .map_err(failed())?;
        }
        admin.close().await;
        nemesis.finish().await.map_err(failed())
    }

    /// Each has the time that its calls may take.
    async fn join_clients(&mut self) -> Result<(), Error> {
        let joined = async {
            while let Some(ended) = self.working.join_next().await {
                ended.map_err(|error| Error::Task(error.to_string()))?;
            }
            Ok(())
        };
        match timeout(PATIENCE, joined).await {
            Ok(result) => result,
            Err(_) => Err(Error::Task("clients do not come to an end".to_owned())),
        }
    }

    async fn audit(&self, notes: &Notes, cards: &[super::workloads::sessions::Card]) -> Audit {
        let auditor = Auditor {
            views: self.views.clone(),
            stopwatch: self.stopwatch,
            registers: notes.registers.clone(),
            cards: cards.to_vec(),
        };
        auditor.audit().await
    }

    async fn join_watchers(&mut self, notes: &Notes, audit: &Audit) {
        let revision = audit.nodes.iter().map(|node| node.revision).max();
        if let Some(watchers) = &notes.watchers {
            watchers.finish(revision.unwrap_or(0));
        }
        let joined = async { while self.watching.join_next().await.is_some() {} };
        if timeout(PATIENCE, joined).await.is_err() {
            self.watching.shutdown().await;
        }
    }

    async fn stop_nodes(&self, chronicle: &mut Chronicle) -> Result<(), Error> {
        let mut cluster = self.cluster.lock().await;
        for id in 1..=self.settings.nodes {
            let status = cluster
                .stop(id)
                .await
                .map_err(io_error("stopping a node"))?;
            if !status.is_some_and(|status| status.success()) {
                let said = cluster.node(id).log_end();
                chronicle.deaths.push(Death {
                    node: id,
                    at_us: self.stopwatch.at_us(),
                    code: status.and_then(|status| status.code()),
                    is_expected: false,
                    said,
                });
            }
        }
        Ok(())
    }

    fn record(
        self,
        notes: &Notes,
        chronicle: Chronicle,
        audit: Audit,
        skipped: &[(Kind, String)],
    ) -> Result<Record, Error> {
        let history = match &notes.registers {
            Some(registers) => registers.recorder.history()?,
            None => History::new(Vec::new())?,
        };
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let workloads = self
            .settings
            .workloads
            .iter()
            .map(|it| it.name().to_owned());
        let skipped = skipped.iter().map(|(kind, why)| (kind.name(), why.clone()));
        Ok(Record {
            about: About {
                seed: self.settings.seed,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                profile: self.settings.profile.clone(),
                nodes: self.settings.nodes,
                elapsed_ms: self.stopwatch.at_us() / 1000,
                workloads: workloads.collect(),
                skipped: skipped.collect(),
                faults: self.settings.faults.iter().map(|it| it.name()).collect(),
                was_interrupted: false,
            },
            history,
            order: notes
                .registers
                .as_ref()
                .map(|it| it.order.take())
                .unwrap_or_default(),
            looks: notes
                .registers
                .as_ref()
                .map(|it| it.looks.take())
                .unwrap_or_default(),
            adds: notes.carts.as_ref().map(|it| it.take()).unwrap_or_default(),
            bankings: notes.bank.as_ref().map(|it| it.take()).unwrap_or_default(),
            listings: notes.lists.as_ref().map(|it| it.take()).unwrap_or_default(),
            sessions: notes
                .sessions
                .as_ref()
                .map(|it| it.tape.take())
                .unwrap_or_default(),
            feeds: notes
                .watchers
                .as_ref()
                .map(Watchers::feeds)
                .unwrap_or_default(),
            probes: notes.probes.take(),
            samples: samples.clone(),
            chronicle,
            audit,
        })
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
