//! What clients ask of nodes, and what they are told.

use bytes::Bytes;
use trolley::node::ReadMode;
use trolley::proto::internal as pb;
use trolley::state::query::{self, CartRead};
use trolley::state::{CartOwner, Command, Fault, Store};
use trolley::types::{Key, Namespace, Revision, TokenHash, UserId};

/// What is asked.
#[derive(Clone)]
pub enum Ask {
    Propose(Box<Command>),
    Read(ReadMode, Query),
    /// Make this node a voter.
    Add(u64),
    /// Take this node out.
    Remove(u64),
}

/// What is looked at.
#[derive(Debug, Clone)]
pub enum Query {
    Key(Key),
    Cart(UserId),
    Session(TokenHash),
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Value and mod revision.
    Key(Option<(Bytes, u64)>),
    /// Pieces in all lines.
    Cart(u64),
    /// Whether it lives.
    Session(bool),
}

/// What a client is told.
#[derive(Debug, Clone)]
pub enum Answer {
    Reply(Box<pb::Reply>),
    /// It was certainly not applied. Who leads, if that is why.
    Refused(Option<u64>),
    /// It may have been applied.
    Unknown,
    Seen(Revision, Seen),
    /// The members are what was asked for.
    Changed,
    /// There was another node of this id.
    IdUsed,
}

impl Ask {
    pub fn describe(&self) -> String {
        match self {
            Self::Propose(command) => format!("propose {:?}", command.identity),
            Self::Read(mode, query) => format!("read {mode:?} {query:?}"),
            Self::Add(id) => format!("add {id}"),
            Self::Remove(id) => format!("remove {id}"),
        }
    }
}

impl Answer {
    pub fn describe(&self) -> String {
        match self {
            Self::Reply(reply) => format!("replied at {}", reply.revision),
            other => format!("{other:?}"),
        }
    }
}

impl Query {
    /// Looks.
    pub fn look(&self, store: &impl Store) -> Result<Seen, Fault> {
        let namespace = Namespace::default();
        Ok(match self {
            Self::Key(key) => {
                let found = query::key(store, &namespace, key)?;
                Seen::Key(found.map(|it| (query::key_value(&it), it.mod_revision)))
            }
            Self::Cart(user) => {
                let owner = CartOwner::User(user.clone());
                let found = query::cart(store, &namespace, &owner)?;
                let CartRead::Cart(cart) = found else {
                    return Ok(Seen::Cart(0));
                };
                let pieces = cart.lines.iter().map(|line| u64::from(line.quantity));
                Seen::Cart(pieces.sum())
            }
            Self::Session(token) => {
                Seen::Session(query::session(store, &namespace, token)?.is_some())
            }
        })
    }
}
