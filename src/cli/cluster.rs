//! `trolley cluster`.

use std::time::Duration;

use clap::Subcommand;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::arguments::{Target, duration};
use super::failure::Failure;
use super::output::{one_line, show, table};
use crate::client::{Cluster, Error};
use crate::proto::v1;
use crate::types::{NodeId, Room};

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// What every node says of itself
    Status,
    /// The members
    Members,
    /// Move leadership to another node
    TransferLeader {
        /// The node that should lead [default: the follower whose log is most complete]
        #[arg(value_parser = node_id)]
        node_id: Option<NodeId>,
    },
    /// Make a new node a voting member
    ///
    /// Start it first, with an id that no node ever had and an empty data directory: `trolley serve --join --node-id 4 --data-dir
    /// /var/lib/trolley --initial-cluster 1=A:7400,2=B:7400,3=C:7400,4=D:7400`. It gets the state and the log from the leader, and
    /// votes when it has nearly all of them. If this is interrupted, run it again.
    AddMember {
        /// The new node's id
        #[arg(value_parser = node_id)]
        node_id: NodeId,
        /// Where clients and the other nodes reach it
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// How long to wait until it has the log
        #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "10m")]
        wait: Duration,
    },
    /// Take a node out of the cluster for good
    ///
    /// Its process, if it runs, ends by itself with exit code 6. Its id is not used again.
    RemoveMember {
        /// The node
        #[arg(value_parser = node_id)]
        node_id: NodeId,
    },
    /// Build a snapshot and purge the log behind it
    Snapshot {
        /// The node that should [default: any]
        #[arg(value_parser = node_id)]
        node_id: Option<NodeId>,
    },
}

fn node_id(text: &str) -> Result<NodeId, String> {
    let id = text.parse().map_err(|_| "expected a number".to_owned())?;
    NodeId::new(id).map_err(|invalid| invalid.to_string())
}

impl Verb {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        let client = target.connect()?;
        let cluster = client.cluster();
        match self {
            Self::Status => {
                let status = cluster.status().await?;
                let cluster_id = status.header.unwrap_or_default().cluster_id;
                let json = || {
                    let nodes: Vec<_> = status.nodes.iter().map(node_json).collect();
                    json!({ "nodes": nodes, "cluster_id": cluster_id })
                };
                show(target.form(), json, || {
                    format!("cluster {cluster_id}\n{}", status_table(&status.nodes))
                })?;
            }
            Self::Members => {
                let members = cluster.members().await?.members;
                show_members(target, &members)?;
            }
            Self::TransferLeader { node_id } => {
                let done = cluster.transfer_leader(node_id).await?;
                let header = done.header.unwrap_or_default();
                let leader = header.leader_id;
                let json =
                    || json!({ "leader_id": leader, "leader_address": header.leader_address });
                show(target.form(), json, || match leader {
                    0 => "leadership was transferred".to_owned(),
                    leader => format!("node {leader} leads"),
                })?;
            }
            Self::AddMember {
                node_id,
                address,
                wait,
            } => {
                let added = add(&cluster, node_id, &address, wait).await?;
                show_members(target, &added.members)?;
            }
            Self::RemoveMember { node_id } => {
                let removed = cluster.remove_member(node_id).await?;
                show_members(target, &removed.members)?;
            }
            Self::Snapshot { node_id } => {
                let done = cluster.snapshot(node_id).await?;
                let index = done.snapshot_index;
                let node = done.header.unwrap_or_default().node_id;
                let json = || json!({ "node_id": node, "snapshot_index": index });
                show(target.form(), json, || {
                    format!("node {node} has a snapshot of the log up to index {index}")
                })?;
            }
        }
        Ok(())
    }
}

/// Adds a node, and goes on until it votes.
async fn add(
    cluster: &Cluster<'_>,
    id: NodeId,
    address: &str,
    wait: Duration,
) -> Result<v1::AddMemberResponse, Error> {
    let deadline = Instant::now() + wait;
    // Hidden by itself where standard error is no terminal.
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let added = loop {
        match cluster.add_member(id, address).await {
            Err(Error::Rejected(rejected))
                if rejected.reason == "MEMBER_BEHIND" && Instant::now() < deadline =>
            {
                spinner.set_message(rejected.message.clone());
            }
            settled => break settled,
        }
    };
    spinner.finish_and_clear();
    added
}

fn show_members(target: &Target, members: &[v1::Member]) -> Result<(), Failure> {
    let json = || json!({ "members": members.iter().map(member_json).collect::<Vec<_>>() });
    show(target.form(), json, || member_table(members))
}

fn role(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Unspecified => "unknown",
        v1::Role::Leader => "leader",
        v1::Role::Follower => "follower",
        v1::Role::Candidate => "candidate",
        v1::Role::Learner => "learner",
    }
}

fn disk_room(room: v1::DiskRoom) -> &'static str {
    Option::<Room>::from(room).map_or("unknown", Room::as_str)
}

/// What is free, and what that means where it is too little.
fn free(node: &v1::NodeStatus) -> String {
    let bytes = indicatif::HumanBytes(node.disk_free_bytes);
    match Option::from(node.disk_room()) {
        None | Some(Room::Ample) => bytes.to_string(),
        Some(room) => format!("{bytes}: {room}"),
    }
}

/// Its program's, and the state's where the program knows a newer one.
fn version(node: &v1::NodeStatus) -> String {
    let (follows, newest) = (node.state_version, node.newest_state_version);
    if follows == newest {
        node.version.clone()
    } else {
        format!("{}: state {follows} of {newest}", node.version)
    }
}

fn node_json(node: &v1::NodeStatus) -> Value {
    json!({
        "node_id": node.node_id,
        "address": node.address,
        "role": role(node.role()),
        "leader_id": node.leader_id,
        "term": node.term,
        "last_log_index": node.last_log_index,
        "committed_index": node.committed_index,
        "applied_index": node.applied_index,
        "purged_index": node.purged_index,
        "snapshot_index": node.snapshot_index,
        "revision": node.revision,
        "digest": node.digest,
        "log_time_ms": node.log_time_ms,
        "disk_bytes": node.disk_bytes,
        "disk_free_bytes": node.disk_free_bytes,
        "min_free_disk_bytes": node.min_free_disk_bytes,
        "disk_room": disk_room(node.disk_room()),
        "version": node.version,
        "state_version": node.state_version,
        "newest_state_version": node.newest_state_version,
        "error": node.error,
    })
}

/// A row for each node, and below them why some did not answer: that may be long, and would make a column wide.
fn status_table(nodes: &[v1::NodeStatus]) -> String {
    let mut table = table(&[
        "node",
        "address",
        "role",
        "term",
        "log",
        "committed",
        "applied",
        "purged",
        "snapshot",
        "revision",
        "digest",
        "disk",
        "free",
        "version",
    ]);
    let mut lines = Vec::new();
    for node in nodes {
        let id = node.node_id.to_string();
        if !node.error.is_empty() {
            table.add_row([id.as_str(), &node.address, "unreachable"]);
            lines.push(format!("node {id}: {}", one_line(&node.error)));
            continue;
        }
        table.add_row([
            id,
            node.address.clone(),
            role(node.role()).to_owned(),
            node.term.to_string(),
            node.last_log_index.to_string(),
            node.committed_index.to_string(),
            node.applied_index.to_string(),
            node.purged_index.to_string(),
            node.snapshot_index.to_string(),
            node.revision.to_string(),
            node.digest.chars().take(8).collect(),
            indicatif::HumanBytes(node.disk_bytes).to_string(),
            free(node),
            version(node),
        ]);
    }
    lines.insert(0, table.to_string());
    lines.join("\n")
}

fn member_json(member: &v1::Member) -> Value {
    json!({ "node_id": member.node_id, "address": member.address, "voter": member.voter })
}

fn member_table(members: &[v1::Member]) -> String {
    let mut table = table(&["node", "address", "votes"]);
    table.add_rows(members.iter().map(|member| {
        let votes = if member.voter { "yes" } else { "no" };
        [
            member.node_id.to_string(),
            member.address.clone(),
            votes.to_owned(),
        ]
    }));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_node_does_not_answer_stands_below_the_table() {
        let leads = v1::NodeStatus {
            node_id: 1,
            role: v1::Role::Leader.into(),
            ..v1::NodeStatus::default()
        };
        let problem = "no answer, for a reason that takes many words ".repeat(5);
        let silent = v1::NodeStatus {
            node_id: 3,
            address: "10.0.0.3:7400".to_owned(),
            error: problem.clone(),
            ..v1::NodeStatus::default()
        };
        let well = status_table(std::slice::from_ref(&leads));
        let shown = status_table(&[leads, silent]);
        let (table, below) = shown.rsplit_once('\n').expect("a line below the table");
        assert_eq!(below, format!("node 3: {problem}"));
        let row = table.lines().find(|line| line.contains("10.0.0.3:7400"));
        assert!(
            row.is_some_and(|row| row.contains("unreachable")),
            "{table}"
        );
        let width = |table: &str| table.lines().map(|line| line.chars().count()).max();
        assert!(
            width(table) < width(&well).map(|width| width + 30),
            "{table}"
        );
    }

    #[test]
    fn a_program_that_waits_for_others_is_seen() {
        let node = |follows, newest| v1::NodeStatus {
            version: "1.2.3".to_owned(),
            state_version: follows,
            newest_state_version: newest,
            ..v1::NodeStatus::default()
        };
        assert_eq!(version(&node(2, 2)), "1.2.3");
        assert_eq!(version(&node(1, 2)), "1.2.3: state 1 of 2");
        let json = node_json(&node(1, 2));
        assert_eq!(json["state_version"], 1);
        assert_eq!(json["newest_state_version"], 2);
    }
}
