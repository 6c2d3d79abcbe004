//! After everything was mended and the clients have stopped: what each node holds, and what all of them have written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aho_corasick::AhoCorasick;
use futures::future::try_join_all;
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::cluster::view::View;
use super::history::{Call, Outcome};
use super::record::{Audit, NodeAudit};
use super::tape::Stopwatch;
use super::workloads::carts::{CARTS, owner};
use super::workloads::registers::{PREFIX, Registers};
use super::workloads::sessions::Card;
use crate::proto::v1::NodeStatus;
use crate::types::SessionToken;

/// How long the nodes may take to come to one place, and to be read.
const PATIENCE: Duration = Duration::from_secs(60);
/// Reads under way at one node.
const AT_ONCE: usize = 32;
/// What a node says when it has installed a snapshot that it received.
pub const INSTALLED: &str = "a received snapshot is the state now";
/// Sessions that are looked for on every node: the newest.
const SESSIONS: usize = 600;

/// What is to be read.
pub struct Auditor {
    /// Of each node, by id.
    pub views: Vec<(u64, View)>,
    /// The run's.
    pub stopwatch: Stopwatch,
    /// Where reads of registers are noted.
    pub registers: Option<Arc<Registers>>,
    /// The sessions.
    pub cards: Vec<Card>,
}

impl Auditor {
    /// Reads everything from each node, once they are all at one place.
    pub async fn audit(&self) -> Audit {
        let mut audit = Audit {
            at_us: self.stopwatch.at_us(),
            ..Audit::default()
        };
        let begun = Instant::now();
        loop {
            match self.read_all().await {
                Ok(nodes) => {
                    audit.nodes = nodes;
                    break;
                }
                Err(problem) if begun.elapsed() > PATIENCE => {
                    audit.problems.push(problem);
                    return audit;
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        if let Some(registers) = &self.registers {
            for (node, view) in &self.views {
                self.read_registers(*node, view, registers, &mut audit)
                    .await;
            }
        }
        audit
    }

    async fn read_all(&self) -> Result<Vec<NodeAudit>, String> {
        let statuses = self.statuses().await?;
        let places: BTreeSet<_> = statuses
            .iter()
            .map(|it| (it.applied_index, it.revision))
            .collect();
        if places.len() != 1 {
            return Err(format!("the nodes are not at one place: {places:?}"));
        }
        let mut nodes = Vec::new();
        for ((id, view), status) in self.views.iter().zip(statuses) {
            let contents = self.read(view).await;
            let (keys, carts, sessions) =
                contents.map_err(|status| format!("node {id}: {}", status.message()))?;
            nodes.push(NodeAudit {
                node: *id,
                applied_index: status.applied_index,
                revision: status.revision,
                digest: status.digest,
                keys,
                carts,
                sessions,
            });
        }
        // Calls that clients have given up may still have been on their way.
        for (node, status) in nodes.iter().zip(self.statuses().await?) {
            if (node.revision, &node.digest) != (status.revision, &status.digest) {
                return Err(format!(
                    "node {} was written to while it was read",
                    node.node
                ));
            }
        }
        Ok(nodes)
    }

    async fn statuses(&self) -> Result<Vec<NodeStatus>, String> {
        let statuses = self.views.iter().map(|(id, view)| async move {
            let status = view.status().await;
            status.ok_or_else(|| format!("node {id} does not say how it is"))
        });
        try_join_all(statuses).await
    }

    async fn read(&self, view: &View) -> Result<Contents, Status> {
        let keys = view.keys().await?;
        let mut carts = BTreeMap::new();
        for cart in 0..CARTS {
            carts.insert(owner(cart), view.cart(&owner(cart)).await?);
        }
        let lasting = self.cards.iter().rev().filter(|card| card.lasts);
        let sessions = stream::iter(lasting.take(SESSIONS).cloned())
            .map(|card| async move {
                let is_there = view.session(&card.token, true).await?;
                Ok::<_, Status>((card.label, is_there))
            })
            .buffer_unordered(AT_ONCE);
        let sessions: Vec<_> = sessions.collect().await;
        let sessions = sessions.into_iter().collect::<Result<_, _>>()?;
        Ok((keys, carts, sessions))
    }

    /// Linearizable reads of every register at this node become a part of the history.
    async fn read_registers(
        &self,
        node: u64,
        view: &View,
        registers: &Registers,
        audit: &mut Audit,
    ) {
        let Ok(process) = u32::try_from(1_000 + node) else {
            return;
        };
        let history = registers.recorder.history();
        let keys: Vec<String> = match &history {
            Ok(history) => history.by_key().keys().cloned().collect(),
            Err(_) => Vec::new(),
        };
        let reads = stream::iter(keys).map(|key| async move {
            debug_assert!(key.starts_with(PREFIX), "{key}");
            let begun = Instant::now();
            loop {
                let ticket = registers.recorder.invoke(process, &key, Call::Get);
                let outcome = match view.key(&key).await {
                    Ok(Some((value, revision))) => Outcome::Found {
                        value,
                        revision: Some(revision),
                    },
                    Ok(None) => Outcome::Absent,
                    Err(_) => Outcome::Unknown,
                };
                let is_answered = outcome != Outcome::Unknown;
                registers.recorder.complete(ticket, outcome);
                if is_answered || begun.elapsed() > PATIENCE {
                    return is_answered;
                }
            }
        });
        let answered: Vec<bool> = reads.buffer_unordered(AT_ONCE).collect().await;
        if answered.contains(&false) {
            let problem = format!("not every register could be read at node {node}");
            audit.problems.push(problem);
        }
    }
}

type Contents = (
    BTreeMap<String, (String, u64)>,
    BTreeMap<String, BTreeMap<String, u64>>,
    BTreeMap<String, bool>,
);

/// The shapes of a secret in a file: as a cookie holds it, decoded as the store has it in memory, and as a log line would show that.
fn shapes(token: &str) -> [Vec<u8>; 3] {
    let decoded = SessionToken::parse(token).map(|token| token.expose_bytes().to_vec());
    // What the store drew is well formed; what is not has one shape.
    let decoded = decoded.unwrap_or_else(|_| token.as_bytes().to_vec());
    let hex = hex::encode(&decoded).into_bytes();
    [token.as_bytes().to_vec(), decoded, hex]
}

/// Looks through logs for panics, and through logs and data for tokens.
pub fn scan(
    logs: &[PathBuf],
    data: &[PathBuf],
    cards: &[Card],
    audit: &mut Audit,
) -> io::Result<()> {
    let shapes: Vec<_> = cards.iter().flat_map(|card| shapes(&card.token)).collect();
    let of_each = shapes.len() / cards.len().max(1);
    let tokens = AhoCorasick::new(&shapes).map_err(io::Error::other)?;
    audit.scanned_tokens = cards.len() as u64;
    let mut files = Vec::new();
    for folder in data {
        list(folder, &mut files)?;
    }
    for file in logs {
        let text = fs::read(file)?;
        if count(&text, b"panicked at") > 0 {
            audit.files.push(format!("{}: a panic", file.display()));
        }
        audit.installed_snapshots += count(&text, INSTALLED.as_bytes());
    }
    for file in logs.iter().chain(&files) {
        let text = fs::read(file)?;
        audit.scanned_bytes += text.len() as u64;
        if let Some(found) = tokens.find(&text) {
            let card = &cards[found.pattern().as_usize() / of_each];
            let what = format!("{}: the token of {}", file.display(), card.label);
            audit.files.push(what);
        }
    }
    Ok(())
}

fn count(text: &[u8], what: &[u8]) -> u64 {
    let windows = text.windows(what.len());
    windows.filter(|window| *window == what).count() as u64
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_every_shape() {
        let drawn = SessionToken::draw(7).expect("the system has randomness");
        let cards: Vec<_> = [SessionToken::draw(7).expect("randomness"), drawn.clone()]
            .iter()
            .map(|token| Card {
                label: format!("session-{}", token.hash() == drawn.hash()),
                token: token.expose(),
                lasts: true,
            })
            .collect();
        let forms = [
            drawn.expose().into_bytes(),
            drawn.expose_bytes().to_vec(),
            hex::encode(drawn.expose_bytes()).into_bytes(),
        ];
        for form in forms {
            let folder = tempfile::tempdir().expect("a folder");
            let text = [b"\x00before ", &form[..], b" behind"].concat();
            fs::write(folder.path().join("file"), text).expect("a file");
            let mut audit = Audit::default();
            scan(&[], &[folder.path().to_owned()], &cards, &mut audit).expect("it can be read");
            assert_eq!(audit.files.len(), 1, "{form:?}");
            assert!(audit.files[0].contains("session-true"), "{audit:?}");
            assert_eq!(audit.scanned_tokens, 2);
        }
    }

    #[test]
    fn panics_and_tokens_are_found_wherever_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, data) = (folder.path().join("log"), folder.path().join("data"));
        fs::create_dir(&data).expect("a folder");
        fs::write(data.join("file"), b"\x00\xffsecret-token\xff").expect("a file");
        let said = format!(
            "INFO {INSTALLED} index=7\nthread 'main' panicked at src\nINFO {INSTALLED} index=9"
        );
        fs::write(&log, said).expect("a file");
        let card = |token: &str| Card {
            label: "session-1".to_owned(),
            token: token.to_owned(),
            lasts: true,
        };
        let (logs, places) = ([log], [data]);
        let mut audit = Audit::default();
        let cards = [card("another"), card("secret-token")];
        scan(&logs, &places, &cards, &mut audit).expect("files can be read");
        assert_eq!(audit.files.len(), 2, "{audit:?}");
        assert_eq!(audit.installed_snapshots, 2);
        assert!(audit.files[1].contains("session-1") && !audit.files[1].contains("secret"));
        let mut clean = Audit::default();
        scan(&[], &places, &cards[..1], &mut clean).expect("files can be read");
        assert!(clean.files.is_empty() && clean.scanned_bytes == 15);
    }
}
