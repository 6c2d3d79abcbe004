//! Why the API could not do what a request asked for: the one error of this module, from which
//! [`super::status`] makes what the caller sees.

use crate::node;
use crate::state::{Fault, Rejection};
use crate::types::{Invalid, Revision};

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field that no type accepts.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A cursor that no page of this listing ended with.
    #[error("the cursor is not one that this listing returned; start again with an empty one")]
    BadCursor,
    /// A creation over `Exchange`, or in a transaction, that leaves the drawing of the token to the server.
    #[error(
        "token must not be empty over Exchange or in a transaction: the client draws it itself, so that a retry brings the same one"
    )]
    TokenRequired,
    /// A valid command was refused, or a valid read found nothing.
    #[error("{0}")]
    Rejected(Rejection),
    /// Others changed the fields of a session that a save changes, too.
    #[error(
        "others have changed fields of this save since they were loaded: {}; load the session again",
        named(fields)
    )]
    SaveConflict {
        /// Their names.
        fields: Vec<String>,
        /// The session's mod revision.
        actual: Revision,
    },
    /// One action of a valid command was refused, and with it all of them.
    #[error("action {action}: {rejection}")]
    RejectedAction {
        /// Which, counted from 0.
        action: u32,
        /// Why.
        rejection: Rejection,
    },
    /// Something in a transaction is not valid or was refused, and nothing of the transaction was done.
    #[error("{branch}[{index}]: {source}; nothing of the transaction was done")]
    InTxn {
        /// The list that it stands in, as the API calls it.
        branch: &'static str,
        /// Its place there, from 0.
        index: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The node could not serve the request.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// The leader could not be dialled, so the request never left this node.
    #[error("the leader at {address} cannot be reached from this node; nothing was sent to it")]
    LeaderUnreachable {
        /// Where it was expected.
        address: String,
    },
    /// The request went to the leader and no answer came back.
    #[error("the connection to the leader at {address} failed while the request was under way")]
    ForwardInterrupted {
        /// Where it was sent.
        address: String,
    },
    /// The system has no randomness to draw a token from.
    #[error("no session token could be drawn: the system's random source failed")]
    NoRandomness(#[source] getrandom::Error),
    /// A reply that does not belong to the command, or that this version does not know.
    #[error("the stored reply does not fit the request: {0}")]
    ForeignReply(&'static str),
}

/// A failure, and the revision of the state in which it was found: whoever heard of it has seen that state.
#[derive(Debug)]
pub(crate) struct Refused {
    pub error: Error,
    /// 0 where no state was looked at.
    pub revision: Revision,
}

impl Refused {
    /// What a look at the state led to.
    pub fn at(revision: Revision, error: impl Into<Error>) -> Self {
        Self {
            error: error.into(),
            revision,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::at(Revision::default(), error)
    }
}

impl From<node::Error> for Refused {
    fn from(error: node::Error) -> Self {
        Self::at(Revision::default(), error)
    }
}

/// The first few of these names; the metadata has more.
fn named(fields: &[String]) -> String {
    const NAMED: usize = 4;
    let first: Vec<_> = fields
        .iter()
        .take(NAMED)
        .map(|it| format!("{it:?}"))
        .collect();
    let first = first.join(", ");
    match fields.len().saturating_sub(NAMED) {
        0 => first,
        others => format!("{first} and {others} more"),
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Node(fault.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_that_conflicts_says_with_which_fields() {
        let said = |names: &[&str]| {
            let fields = names.iter().map(ToString::to_string).collect();
            let actual = Revision::new(9);
            Error::SaveConflict { fields, actual }.to_string()
        };
        assert!(said(&["theme", "a\"b"]).contains(r#": "theme", "a\"b";"#));
        let many = said(&["a", "b", "c", "d", "e", "f"]);
        assert!(many.contains(r#""d" and 2 more"#), "{many}");
    }
}
