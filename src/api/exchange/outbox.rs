//! Outcomes that are ready to be sent, and how large a frame they make.

use crate::api::weight::{BASE_BYTES, text_weight, weight};
use crate::api::{Error, Refused, encode::Answer};
use crate::limits;
use crate::proto::v1::outcome::Response;
use crate::proto::v1::{Failure, Outcome};
use crate::types::Revision;

/// A frame is sent when its outcomes weigh this much.
pub(super) const FULL_BYTES: usize = 512 << 10;
/// What several outcomes of one frame weigh at most, so that it stays below [`limits::MESSAGE_BYTES`]: an outcome may take twice and a
/// half of what it weighs. A larger one has a frame of its own. That may be larger where the request was: the answer to
/// a transaction repeats the sessions that it created.
const LARGEST_BYTES: usize = 2 * FULL_BYTES;

const _: () = {
    assert!(LARGEST_BYTES * 5 / 2 < limits::MESSAGE_BYTES);
    // The largest outcome of a read is a page of a listing: LIST_MAX items with some thirty bytes of framing each.
    let page =
        limits::LIST_PAGE_BYTES + limits::VALUE_BYTES + limits::KEY_BYTES + limits::LIST_MAX * 64;
    assert!(page < limits::MESSAGE_BYTES);
    // So is a page of sessions, each of them with what is said of its client.
    let sessions =
        limits::LIST_MAX * (limits::CLIENT_ATTRIBUTE_BYTES + limits::CLIENT_ATTRIBUTES * 8 + 128);
    assert!(sessions < limits::MESSAGE_BYTES);
};

/// Ready outcomes, in the order in which they became ready, but for those that the frame before has no room for.
#[derive(Default)]
pub(super) struct Outbox {
    /// The next frame.
    outcomes: Vec<Outcome>,
    bytes: usize,
    /// Further ones, and what they weigh. None while the next frame is empty.
    later: Vec<(usize, Outcome)>,
}

impl Outbox {
    /// Adds an operation's outcome.
    pub fn push(&mut self, sequence: u64, result: Result<Answer, Refused>) {
        match result {
            Ok(answer) => {
                let bytes = weight(&answer.response);
                let outcome = Outcome {
                    sequence,
                    revision: answer.revision.get(),
                    replayed: answer.replayed,
                    response: Some(answer.response),
                };
                self.add(BASE_BYTES + bytes, outcome);
            }
            Err(Refused { error, revision }) => {
                self.push_failure(sequence, revision, Failure::from(&error));
            }
        }
    }

    fn push_failure(&mut self, sequence: u64, revision: Revision, failure: Failure) {
        let bytes = failure.message.len() + text_weight(&failure.metadata);
        let outcome = Outcome {
            sequence,
            revision: revision.get(),
            replayed: false,
            response: Some(Response::Failure(failure)),
        };
        self.add(BASE_BYTES + bytes, outcome);
    }

    fn add(&mut self, bytes: usize, outcome: Outcome) {
        let is_too_much =
            self.bytes + bytes > LARGEST_BYTES || self.outcomes.len() >= limits::FRAME_OPERATIONS;
        if is_too_much && !self.outcomes.is_empty() {
            self.later.push((bytes, outcome));
            return;
        }
        self.bytes += bytes;
        self.outcomes.push(outcome);
    }

    /// The same failure for many, without a look at the state.
    pub fn fail_all(&mut self, sequences: impl Iterator<Item = u64>, error: &Error) {
        let failure = Failure::from(error);
        for sequence in sequences {
            self.push_failure(sequence, Revision::default(), failure.clone());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.outcomes.len() + self.later.len()
    }

    /// Nothing more should be added before a frame was taken.
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || !self.later.is_empty()
    }

    /// A frame's worth.
    pub fn take(&mut self) -> Vec<Outcome> {
        self.bytes = 0;
        let taken = std::mem::take(&mut self.outcomes);
        for (bytes, outcome) in std::mem::take(&mut self.later) {
            self.add(bytes, outcome);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::node;
    use crate::proto::v1;

    fn push(outbox: &mut Outbox, sequence: u64, bytes: usize) {
        let item = v1::KeyValue {
            value: vec![7; bytes].into(),
            ..Default::default()
        };
        let answer = Answer {
            revision: Revision::new(1),
            replayed: false,
            response: Response::GetKey(v1::GetKeyResponse {
                header: None,
                item: Some(item),
            }),
        };
        outbox.push(sequence, Ok(answer));
    }

    /// The frames that are sent, by what is in them.
    fn frames(outbox: &mut Outbox) -> Vec<Vec<u64>> {
        let mut frames = Vec::new();
        while !outbox.is_empty() {
            let outcomes = outbox.take();
            frames.push(outcomes.iter().map(|outcome| outcome.sequence).collect());
            let frame = v1::ExchangeResponse {
                header: None,
                outcomes,
            };
            assert!(frame.encoded_len() < limits::MESSAGE_BYTES);
        }
        assert_eq!(outbox.len(), 0);
        frames
    }

    #[test]
    fn what_is_large_has_a_frame_of_its_own() {
        let mut outbox = Outbox::default();
        push(&mut outbox, 1, FULL_BYTES / 2);
        push(&mut outbox, 2, limits::MESSAGE_BYTES - 1024);
        assert!(outbox.is_full());
        push(&mut outbox, 3, FULL_BYTES / 2);
        push(&mut outbox, 4, LARGEST_BYTES);
        assert_eq!(outbox.len(), 4);
        assert_eq!(frames(&mut outbox), [vec![1, 3], vec![2], vec![4]]);
    }

    #[test]
    fn failures_of_whole_frames_go_in_several() {
        let mut outbox = Outbox::default();
        let many = 0..3 * limits::FRAME_OPERATIONS as u64;
        outbox.fail_all(many.clone(), &Error::Node(node::Error::NoLeader));
        let sent = frames(&mut outbox).concat();
        assert_eq!(sent, many.collect::<Vec<_>>());
    }
}
