//! What was written before the damage, change by change: so what a node must hold that has come to some revision.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::{CartOwner, Client, Error, LineRef};
use crate::torture::cluster::view::Stored;

/// New keys of each round.
const KEYS: u32 = 400;
/// New sessions of each round.
const SESSIONS: u32 = 24;
const USERS: u32 = 4;

/// What a node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub keys: BTreeMap<String, Stored>,
    /// Pieces by user and SKU.
    pub carts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Those that are there, by number.
    pub sessions: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Put(String, String),
    Deleted(String),
    /// A user has so many pieces of a SKU.
    Line(String, String, u64),
    Created(usize),
    Destroyed(usize),
}

/// All changes, each with its revision, in order.
#[derive(Debug, Default)]
pub(super) struct Story {
    changes: Vec<(u64, Change)>,
    tokens: Vec<String>,
    rounds: u32,
}

/// Whose carts there are.
pub(super) fn users() -> impl Iterator<Item = String> {
    (0..USERS).map(|number| format!("matrix-user-{number}"))
}

fn key(round: u32, number: u32) -> String {
    format!("matrix/{round}/{number:04}")
}

impl Story {
    /// The next round: something new of everything, and of what the round before has left a quarter is overwritten and a quarter
    /// deleted.
    pub async fn write(&mut self, client: &Client) -> Result<(), Error> {
        let round = self.rounds;
        self.rounds += 1;
        for number in 0..KEYS {
            self.put(client, key(round, number)).await?;
            match (round.checked_sub(1), number % 4) {
                (Some(before), 0) => self.put(client, key(before, number)).await?,
                (Some(before), 1) => self.delete(client, key(before, number)).await?,
                _ => {}
            }
        }
        for user in users() {
            let owner = CartOwner::User(user.clone());
            let sku = format!("sku-{round}");
            let added = client.carts().add(&owner, &sku, 3).send().await?;
            let line = Change::Line(user.clone(), sku, 3);
            self.changes.push((added.revision.get(), line));
            if let Some(before) = round.checked_sub(1) {
                let sku = format!("sku-{before}");
                let line = LineRef::Sku(sku.clone());
                let set = client.carts().set_quantity(&owner, line, 1).send().await?;
                let line = Change::Line(user, sku, 1);
                self.changes.push((set.revision.get(), line));
            }
        }
        let before = self.tokens.len().saturating_sub(SESSIONS as usize)..self.tokens.len();
        for number in before.step_by(2) {
            let destroyed = client.sessions().destroy(&self.tokens[number]);
            let revision = destroyed.send().await?.revision.get();
            self.changes.push((revision, Change::Destroyed(number)));
        }
        for _ in 0..SESSIONS {
            let created = client.sessions().create().field("round", "x").send();
            let created = created.await?;
            let revision = created.revision.get();
            self.changes
                .push((revision, Change::Created(self.tokens.len())));
            self.tokens.push(created.value.token.clone());
        }
        Ok(())
    }

    async fn put(&mut self, client: &Client, key: String) -> Result<(), Error> {
        let value = format!("{key} in round {} ", self.rounds).repeat(12);
        let put = client.keys().put(&key, value.clone()).send().await?;
        self.changes
            .push((put.mod_revision, Change::Put(key, value)));
        Ok(())
    }

    async fn delete(&mut self, client: &Client, key: String) -> Result<(), Error> {
        let deleted = client.keys().delete(&key).send().await?;
        self.changes
            .push((deleted.revision.get(), Change::Deleted(key)));
        Ok(())
    }

    /// All sessions that were ever there, by number.
    pub fn tokens(&self) -> impl Iterator<Item = (usize, &str)> {
        self.tokens.iter().map(String::as_str).enumerate()
    }

    /// What a node holds that has come to this revision.
    pub fn at(&self, revision: u64) -> Content {
        let mut content = Content::default();
        for user in users() {
            content.carts.insert(user, BTreeMap::new());
        }
        let reached = self.changes.partition_point(|(it, _)| *it <= revision);
        for (revision, change) in &self.changes[..reached] {
            match change {
                Change::Put(key, value) => {
                    content.keys.insert(key.clone(), (value.clone(), *revision));
                }
                Change::Deleted(key) => {
                    content.keys.remove(key);
                }
                Change::Line(user, sku, pieces) => {
                    let cart = content.carts.entry(user.clone()).or_default();
                    cart.insert(sku.clone(), *pieces);
                }
                Change::Created(number) => {
                    content.sessions.insert(*number);
                }
                Change::Destroyed(number) => {
                    content.sessions.remove(number);
                }
            }
        }
        content
    }
}

/// What a node holds that it should not, or has not although it should.
pub(super) fn difference(content: &Content, expected: &Content) -> Option<String> {
    let shown = |what: String| Some(what.chars().take(120).collect());
    for (key, stored) in &content.keys {
        if expected.keys.get(key) != Some(stored) {
            return shown(format!("{key} holds {stored:?}"));
        }
    }
    if content.keys.len() != expected.keys.len() {
        let missing = expected.keys.len() - content.keys.len();
        return Some(format!("{missing} keys are missing"));
    }
    for (user, cart) in &content.carts {
        if expected.carts.get(user) != Some(cart) {
            return shown(format!("{user}'s cart holds {cart:?}"));
        }
    }
    let mut sessions = content.sessions.symmetric_difference(&expected.sessions);
    let number = sessions.next()?;
    let is = if content.sessions.contains(number) {
        "is there again"
    } else {
        "is missing"
    };
    Some(format!("session {number} {is}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story() -> Story {
        let put = |value: &str| Change::Put("k".to_owned(), value.to_owned());
        let line = |pieces| Change::Line("matrix-user-0".to_owned(), "sku".to_owned(), pieces);
        Story {
            changes: vec![
                (1, put("old")),
                (2, line(3)),
                (3, Change::Created(0)),
                (5, put("new")),
                (6, line(1)),
                (7, Change::Destroyed(0)),
                (9, Change::Deleted("k".to_owned())),
            ],
            ..Story::default()
        }
    }

    #[test]
    fn what_was_there_before_is_a_difference_now() {
        let story = story();
        assert_eq!(difference(&story.at(4), &story.at(3)), None);
        let then = [
            (4, 5, "k holds (\"old\", 1)"),
            (5, 4, "k holds (\"new\", 5)"),
            (8, 9, "k holds (\"new\", 5)"),
            (9, 8, "1 keys are missing"),
            (5, 6, "matrix-user-0's cart holds {\"sku\": 3}"),
            (6, 7, "session 0 is there again"),
            (7, 6, "session 0 is missing"),
        ];
        for (held, expected, says) in then {
            let told = difference(&story.at(held), &story.at(expected));
            assert_eq!(told.as_deref(), Some(says), "{held} for {expected}");
        }
    }
}
