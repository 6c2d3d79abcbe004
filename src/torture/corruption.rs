//! The corruption matrix: one file of one node is damaged in one way, and the node is started. What does it do?
//!
//! A cluster of three is filled, and killed. For every kind of file that a follower of it has and every [`Way`] all data become what
//! they were, one file is damaged, and the node is started: first alone, so that nobody repairs what is missing before it is
//! looked at; then with its peers. Both times it must hold what was written up to the revision that it has come to, no more and no less:
//! what was overwritten or deleted before is a violation as well as what nobody wrote.
//!
//! The data of all three are put back, and not only of the one: a node that is put back alone has forgotten what it has told the others
//! since, and Raft does not hold then. Tables that a state and its snapshot share on a disk are apart in the copies, so that one
//! kind is damaged at a time.
//!
//! Two endings must not be: that it serves what was not written, and that it starts with less than it had. [`mod@judge`] decides.

pub mod files;
pub mod judge;
mod story;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::files::Kind;
use self::judge::{Ending, Seen};
use self::story::{Content, Story, difference};
use super::cluster::view::View;
use super::cluster::{Cluster, Layout, copy};
use super::faults::damage::Way;
use crate::client::{self, Client, ClientConfig};
use crate::proto::v1::NodeStatus;

/// The node that is damaged, and how many there are.
const NODES: u64 = 3;
/// How long nodes may take to be at one place.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a damaged one may take to start, or to catch up.
const START: Duration = Duration::from_secs(20);
/// The same of a call to it.
const CALL: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// What is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `trolley` under test.
    pub binary: PathBuf,
    /// Where everything goes.
    pub folder: PathBuf,
}

/// One damage, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The kind of the file.
    pub kind: Kind,
    /// The file, below the data directory.
    pub file: String,
    /// What was done to it.
    pub way: Way,
    /// What the node did.
    pub ending: Ending,
    /// Its exit code, if it ended.
    pub code: Option<i32>,
    /// What it said, or what was found.
    pub said: String,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matrix {
    /// In order.
    pub cells: Vec<Cell>,
    /// It was broken off, or a kind of file was not there.
    pub gaps: Vec<String>,
}

impl Matrix {
    /// How many ended like this.
    #[must_use]
    pub fn count(&self, ending: Ending) -> usize {
        self.cells.iter().filter(|it| it.ending == ending).count()
    }

    /// Nothing that must not be, and nothing left out.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.cells.iter().all(|cell| !cell.ending.is_bad()) && self.gaps.is_empty()
    }
}

/// It came to no end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Files, processes, ports.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The client.
    #[error("filling the cluster: {0}")]
    Client(#[from] client::Error),
    /// An address that cannot be one.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// A call to a node that nothing was done to.
    #[error("{0}")]
    Call(String),
    /// Damage would prove nothing.
    #[error("a node that nothing was done to does not hold what was written: {0}")]
    Differs(String),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call(status.message().to_owned())
    }
}

struct Bench {
    cluster: Cluster,
    views: Vec<View>,
    /// The one that is damaged.
    victim: u64,
    story: Story,
    /// What it said of itself before it was killed.
    before: NodeStatus,
    undamaged: PathBuf,
}

/// Carries it out. `progress` is told of each cell.
pub async fn run(
    settings: &Settings,
    stop: &CancellationToken,
    progress: impl Fn(usize, usize, &Cell),
) -> Result<Matrix, Error> {
    let mut bench = Bench::open(settings).await?;
    let found = files::found(&bench.pristine(bench.victim))?;
    let mut matrix = Matrix::default();
    for kind in Kind::ALL {
        if !found.contains_key(&kind) {
            let gap = format!("there is no file of the kind {}", kind.name());
            matrix.gaps.push(gap);
        }
    }
    let total = found.len() * Way::ALL.len();
    for (kind, file) in &found {
        for way in Way::ALL {
            if stop.is_cancelled() {
                matrix.gaps.push("it was broken off".to_owned());
                return Ok(matrix);
            }
            let cell = bench.cell(*kind, file, way).await?;
            progress(matrix.cells.len() + 1, total, &cell);
            matrix.cells.push(cell);
        }
    }
    Ok(matrix)
}

impl Bench {
    async fn open(settings: &Settings) -> Result<Self, Error> {
        let layout = Layout {
            binary: settings.binary.clone(),
            folder: settings.folder.clone(),
            nodes: NODES,
            flags: ["--min-free-disk", "8MiB"].map(str::to_owned).to_vec(),
            places: Vec::new(),
            environment: Vec::new(),
        };
        let mut cluster = Cluster::open(&layout).await?;
        for id in 1..=NODES {
            cluster.start(id)?;
        }
        let views = cluster.nodes().iter();
        let views = views.map(|node| View::of(node.listening(), CALL));
        let mut bench = Self {
            views: views.collect::<Result<_, _>>()?,
            victim: 0,
            story: Story::default(),
            before: NodeStatus::default(),
            undamaged: settings.folder.join("undamaged"),
            cluster,
        };
        bench.fill().await?;
        Ok(bench)
    }

    /// What a node had when nothing was damaged.
    fn pristine(&self, id: u64) -> PathBuf {
        self.undamaged.join(format!("node-{id}"))
    }

    async fn kill_all(&mut self) -> io::Result<()> {
        for id in 1..=NODES {
            self.cluster.kill(id).await?;
        }
        // Whoever had ended before is no news any more.
        self.cluster.ended();
        Ok(())
    }

    fn view(&self, id: u64) -> &View {
        &self.views[usize::try_from(id - 1).unwrap_or(0)]
    }

    /// Something in every kind of file: the state in tables and snapshots, the log in tables and behind them.
    async fn fill(&mut self) -> Result<(), Error> {
        let config = ClientConfig::new(self.cluster.endpoints())?.timeout(PATIENCE);
        let client = Client::connect(config)?;
        self.story.write(&client).await?;
        self.victim = self.follower().await?;
        self.view(self.victim).snapshot().await?;
        self.story.write(&client).await?;
        self.level(&client).await?;
        // Opening the log writes what it finds in write-ahead logs to a table.
        self.cluster.stop(self.victim).await?;
        self.cluster.start(self.victim)?;
        self.level(&client).await?;
        self.view(self.victim).snapshot().await?;
        self.story.write(&client).await?;
        self.level(&client).await?;
        client.close().await;
        let status = self.view(self.victim).status().await;
        self.before = status.ok_or_else(|| Error::Call("no status".to_owned()))?;
        let content = self.read(self.victim).await?;
        if let Some(wrong) = difference(&content, &self.story.at(self.before.revision)) {
            return Err(Error::Differs(wrong));
        }
        self.kill_all().await?;
        for id in 1..=NODES {
            copy(self.cluster.node(id).data(), &self.pristine(id))?;
        }
        Ok(())
    }

    /// Somebody who does not lead.
    async fn follower(&self) -> Result<u64, Error> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let header = self.view(1).header().await;
            if let Some(leader) = header.map(|it| it.leader_id).filter(|it| *it != 0) {
                return Ok(leader % NODES + 1);
            }
            sleep(POLL).await;
        }
        Err(Error::Call("nobody leads".to_owned()))
    }

    /// Until all nodes have applied the same, and all that the client was told.
    async fn level(&self, client: &Client) -> Result<(), Error> {
        let told = client.revision().get();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let mut places = Vec::new();
            for id in 1..=NODES {
                let status = self.view(id).status().await;
                let status = status.filter(|it| it.revision >= told);
                places.push(status.map(|it| (it.applied_index, it.digest)));
            }
            if places[0].is_some() && places.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(());
            }
            sleep(POLL).await;
        }
        Err(Error::Call("the nodes do not come to one place".to_owned()))
    }

    /// Everything, as this node has it.
    async fn read(&self, id: u64) -> Result<Content, Status> {
        let view = self.view(id);
        let mut content = Content {
            keys: view.keys().await?,
            ..Content::default()
        };
        for user in story::users() {
            let cart = view.cart(&user).await?;
            content.carts.insert(user, cart);
        }
        for (number, token) in self.story.tokens() {
            if view.session(token, true).await? {
                content.sessions.insert(number);
            }
        }
        Ok(content)
    }

    async fn cell(&mut self, kind: Kind, file: &Path, way: Way) -> Result<Cell, Error> {
        self.kill_all().await?;
        for id in 1..=NODES {
            let data = self.cluster.node(id).data();
            std::fs::remove_dir_all(data)?;
            copy(&self.pristine(id), data)?;
        }
        way.apply(&self.cluster.node(self.victim).data().join(file))?;
        let log_before = self.log().len();
        self.cluster.start(self.victim)?;
        let mut seen = Seen {
            file: file.to_owned(),
            ..Seen::default()
        };
        self.alone(&mut seen).await;
        if seen.code.is_none() {
            for id in 1..=NODES {
                self.cluster.start(id)?;
            }
            self.together(&mut seen).await;
        }
        self.log()
            .get(log_before..)
            .unwrap_or_default()
            .clone_into(&mut seen.log);
        let (ending, said) = judge::judge(&seen);
        Ok(Cell {
            kind,
            file: file.display().to_string(),
            way,
            ending,
            code: seen.code,
            said,
        })
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.cluster.node(self.victim).log());
        String::from_utf8_lossy(&log.unwrap_or_default()).into_owned()
    }

    /// What it has by itself.
    async fn alone(&mut self, seen: &mut Seen) {
        let begun = Instant::now();
        while begun.elapsed() < START {
            if self.has_ended(seen) {
                return;
            }
            let status = self.view(self.victim).status().await;
            if let Some(status) = status {
                seen.has_served = true;
                if status.last_log_index < self.before.last_log_index {
                    seen.lost = Some(format!(
                        "its log ends at {} instead of {}",
                        status.last_log_index, self.before.last_log_index
                    ));
                }
                // What it had not known to be committed it need not have applied: it may be at an earlier revision, and hold what was
                // there then.
                let content = self.read(self.victim).await;
                let after = self.view(self.victim).status().await;
                if after.is_some_and(|it| it.revision != status.revision) {
                    continue;
                }
                match content {
                    Ok(content) => {
                        seen.wrong = difference(&content, &self.story.at(status.revision));
                    }
                    Err(_) => {
                        self.has_ended(seen);
                    }
                }
                return;
            }
            sleep(POLL).await;
        }
    }

    /// What it has once it has caught up.
    async fn together(&mut self, seen: &mut Seen) {
        let begun = Instant::now();
        let other = self.victim % NODES + 1;
        while begun.elapsed() < START {
            if self.has_ended(seen) {
                return;
            }
            let own = self.view(self.victim).status().await;
            let others = self.view(other).status().await;
            // The last that was written is committed again once somebody leads.
            if let (Some(own), Some(others)) = (own, others)
                && own.applied_index == others.applied_index
                && own.revision >= self.before.revision
            {
                seen.has_served = true;
                match self.read(self.victim).await {
                    Ok(content) => {
                        let wrong = difference(&content, &self.story.at(own.revision));
                        let differs =
                            (own.digest != others.digest).then(|| "its digest".to_owned());
                        seen.wrong = seen.wrong.take().or(wrong).or(differs);
                        seen.has_caught_up = true;
                    }
                    Err(_) => sleep(POLL).await,
                }
                // It may have met what is damaged just now.
                sleep(POLL * 5).await;
                self.has_ended(seen);
                if seen.has_caught_up || seen.code.is_some() {
                    return;
                }
            }
            sleep(POLL).await;
        }
    }

    fn has_ended(&mut self, seen: &mut Seen) -> bool {
        let ended = self.cluster.ended();
        if let Some((_, status)) = ended.iter().find(|(id, _)| *id == self.victim) {
            seen.code = Some(status.code().unwrap_or(-1));
        }
        seen.code.is_some()
    }
}
