//! Outcomes that are ready to be sent, and how large a frame they make.

use crate::api::weight::{BASE_BYTES, text_weight, weight};
use crate::api::{Error, Refused, encode::Answer};
use crate::limits;
use crate::proto::v1::outcome::Response;
use crate::proto::v1::{Failure, Outcome};
use crate::types::Revision;

/// A frame is sent when its outcomes weigh this much. The one that crosses it goes along, so a frame stays below
/// [`limits::MESSAGE_BYTES`].
pub(super) const FULL_BYTES: usize = 512 << 10;

const _: () = {
    // The largest outcome is a page of a listing: LIST_MAX items with some thirty bytes of framing each.
    let page =
        limits::LIST_PAGE_BYTES + limits::VALUE_BYTES + limits::KEY_BYTES + limits::LIST_MAX * 64;
    assert!(FULL_BYTES + page < limits::MESSAGE_BYTES);
    // So is a page of sessions, each of them with what is said of its client.
    let sessions =
        limits::LIST_MAX * (limits::CLIENT_ATTRIBUTE_BYTES + limits::CLIENT_ATTRIBUTES * 8 + 128);
    assert!(FULL_BYTES + sessions < limits::MESSAGE_BYTES);
    // Outcomes that fail together, all of one frame, are not weighed against the bound.
    assert!(
        limits::FRAME_OPERATIONS * 512 + page < limits::MESSAGE_BYTES + limits::LIST_PAGE_BYTES
    );
};

/// Ready outcomes, in the order in which they became ready.
#[derive(Default)]
pub(super) struct Outbox {
    outcomes: Vec<Outcome>,
    bytes: usize,
}

impl Outbox {
    /// Adds an operation's outcome.
    pub fn push(&mut self, sequence: u64, result: Result<Answer, Refused>) {
        match result {
            Ok(answer) => {
                self.bytes += BASE_BYTES + weight(&answer.response);
                self.outcomes.push(Outcome {
                    sequence,
                    revision: answer.revision.get(),
                    replayed: answer.replayed,
                    response: Some(answer.response),
                });
            }
            Err(Refused { error, revision }) => {
                self.push_failure(sequence, revision, Failure::from(&error));
            }
        }
    }

    fn push_failure(&mut self, sequence: u64, revision: Revision, failure: Failure) {
        self.bytes += BASE_BYTES + failure.message.len() + text_weight(&failure.metadata);
        self.outcomes.push(Outcome {
            sequence,
            revision: revision.get(),
            replayed: false,
            response: Some(Response::Failure(failure)),
        });
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
        self.outcomes.len()
    }

    /// Nothing more should be added before a frame was taken.
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }

    /// A frame's worth.
    pub fn take(&mut self) -> Vec<Outcome> {
        if self.outcomes.len() > limits::FRAME_OPERATIONS {
            // What is left over are failures: the next frame takes them at once.
            self.bytes = 0;
            let rest = self.outcomes.split_off(limits::FRAME_OPERATIONS);
            return std::mem::replace(&mut self.outcomes, rest);
        }
        self.bytes = 0;
        std::mem::take(&mut self.outcomes)
    }
}
