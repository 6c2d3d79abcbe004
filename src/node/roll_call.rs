//! Says which of its peers a leader no longer hears, and which it hears again: once each, however long that lasts.
//!
//! openraft tells of every heartbeat that failed, ten a second for each peer, which is why the default log filter leaves that out.
//! Only a leader is answered by everybody, so only a leader calls the roll.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::Node;
use crate::network::Heard;

/// What the last heartbeats to a peer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// The last one was answered.
    Answers,
    /// Too many in a row were not.
    Silent,
    /// Not enough of them to say.
    Open,
}

impl From<Heard> for Sign {
    fn from(heard: Heard) -> Self {
        match (heard.answers, heard.is_fresh()) {
            (false, _) => Self::Silent,
            (true, true) => Self::Answers,
            (true, false) => Self::Open,
        }
    }
}

/// Who was said to be silent.
#[derive(Debug, Default)]
struct Roll(BTreeSet<u64>);

impl Roll {
    /// Notes a peer's sign, and gives it back if it is news.
    fn note(&mut self, peer: u64, sign: Sign) -> Option<Sign> {
        let is_news = match sign {
            Sign::Silent => self.0.insert(peer),
            Sign::Answers => self.0.remove(&peer),
            Sign::Open => false,
        };
        is_news.then_some(sign)
    }
}

/// Tells of peers while this node leads, until told to stop.
pub(super) async fn run(node: Node, stop: CancellationToken) {
    let rooms = node.shared.base.peer_rooms.clone();
    let mut heard = rooms.subscribe();
    let mut leadership = node.leadership_changes();
    let mut roll = Roll::default();
    loop {
        // What comes from here on wakes again.
        heard.mark_unchanged();
        let now = leadership.borrow_and_update().clone();
        if now.is_leader() {
            for (peer, heard) in rooms.in_term(now.term) {
                let address = node.address_of(peer);
                match roll.note(peer, heard.into()) {
                    Some(Sign::Silent) => {
                        tracing::warn!(node = peer, address, "a member does not answer");
                    }
                    Some(Sign::Answers) => {
                        tracing::info!(node = peer, address, "a member answers again");
                    }
                    Some(Sign::Open) | None => {}
                }
            }
        } else {
            roll = Roll::default();
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = heard.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_its_end_are_told_of_once() {
        let mut roll = Roll::default();
        assert_eq!(roll.note(2, Sign::Answers), None, "it always did");
        assert_eq!(roll.note(2, Sign::Open), None);
        assert_eq!(roll.note(2, Sign::Silent), Some(Sign::Silent));
        assert_eq!(roll.note(2, Sign::Silent), None, "it was said");
        assert_eq!(roll.note(3, Sign::Silent), Some(Sign::Silent));
        assert_eq!(roll.note(2, Sign::Open), None, "another term began");
        assert_eq!(roll.note(2, Sign::Answers), Some(Sign::Answers));
        assert_eq!(roll.note(2, Sign::Answers), None);
        assert_eq!(roll.note(3, Sign::Answers), Some(Sign::Answers));
    }
}
