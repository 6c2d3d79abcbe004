//! Outcomes that are ready to be sent, and how large a frame they make.

use std::collections::BTreeMap;

use crate::api::{Error, encode::Answer};
use crate::limits;
use crate::proto::v1::outcome::Response;
use crate::proto::v1::{Cart, CartLine, Failure, Outcome};
use crate::types::{Fields, Revision, TextMap};

/// A frame is sent when its outcomes weigh this much. The one that crosses it goes along, so a frame stays below
/// [`limits::MESSAGE_BYTES`].
pub(super) const FULL_BYTES: usize = 512 << 10;
/// What an outcome weighs beside its variable parts; more than most really do.
const BASE_BYTES: usize = 256;

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
    pub fn push(&mut self, sequence: u64, result: Result<Answer, Error>) {
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
            Err(error) => self.push_failure(sequence, Failure::from(&error)),
        }
    }

    /// Adds a failure.
    pub fn push_failure(&mut self, sequence: u64, failure: Failure) {
        self.bytes += BASE_BYTES + failure.message.len() + text_weight(&failure.metadata);
        self.outcomes.push(Outcome {
            sequence,
            revision: Revision::default().get(),
            replayed: false,
            response: Some(Response::Failure(failure)),
        });
    }

    /// The same failure for many.
    pub fn fail_all(&mut self, sequences: impl Iterator<Item = u64>, error: &Error) {
        let failure = Failure::from(error);
        for sequence in sequences {
            self.push_failure(sequence, failure.clone());
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

/// Bytes of a response's variable parts, cheaper than its encoded length.
pub(super) fn weight(response: &Response) -> usize {
    match response {
        Response::CreateSession(r) => session_weight(r.session.as_ref()),
        Response::RotateSession(r) => r.ended.iter().map(|handle| handle.len() + 8).sum(),
        Response::GetSession(r) => session_weight(r.session.as_ref()),
        Response::ListSessions(r) => r.sessions.iter().map(listed_weight).sum(),
        Response::SaveSession(r) => r.overwritten.iter().map(String::len).sum(),
        Response::AddCartLine(r) => r.line.as_ref().map_or(0, line_weight),
        Response::SetCartLineQuantity(r) => r.line.as_ref().map_or(0, line_weight),
        Response::RemoveCartLine(r) => r.line.as_ref().map_or(0, line_weight),
        Response::GetCart(r) => r.cart.as_ref().map_or(0, cart_weight),
        Response::FreezeCart(r) => r.snapshot.as_ref().map_or(0, cart_weight),
        Response::UpdateCart(r) => r.results.len() * 16,
        Response::GetKey(r) => r
            .item
            .as_ref()
            .map_or(0, |item| item.key.len() + item.value.len()),
        Response::ListKeys(r) => {
            let items = r.items.iter();
            items
                .map(|item| item.key.len() + item.value.len() + 64)
                .sum()
        }
        Response::GetLease(r) => r.keys.iter().map(|key| key.len() + 8).sum(),
        Response::Txn(r) => {
            let responses = r
                .results
                .iter()
                .filter_map(|result| result.response.as_ref());
            responses
                .map(|response| BASE_BYTES + weight(response))
                .sum()
        }
        Response::Failure(_)
        | Response::UpdateSession(_)
        | Response::TouchSession(_)
        | Response::DestroySession(_)
        | Response::EndSession(_)
        | Response::RevokeAllSessions(_)
        | Response::GetNamespace(_)
        | Response::SetNamespace(_)
        | Response::ClearCart(_)
        | Response::MergeCarts(_)
        | Response::ReleaseCart(_)
        | Response::CompleteOrder(_)
        | Response::PutKey(_)
        | Response::DeleteKey(_)
        | Response::IncrementKey(_)
        | Response::GrantLease(_)
        | Response::KeepLeaseAlive(_)
        | Response::RevokeLease(_) => 0,
    }
}

fn session_weight(session: Option<&crate::proto::v1::Session>) -> usize {
    session.map_or(0, |session| {
        session.user_id.len() + Fields::size(&session.fields) + text_weight(&session.client)
    })
}

fn listed_weight(session: &crate::proto::v1::UserSession) -> usize {
    64 + session.handle.len() + text_weight(&session.client)
}

fn text_weight(texts: &BTreeMap<String, String>) -> usize {
    texts
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum()
}

fn cart_weight(cart: &Cart) -> usize {
    let details = cart.details.as_ref().map_or(0, |details| {
        let maps = [
            &details.attributes,
            &details.shipping_address,
            &details.billing_address,
        ];
        let codes = details.coupon_codes.iter().map(String::len);
        details.note.len() + codes.sum::<usize>() + maps.map(TextMap::size).iter().sum::<usize>()
    });
    let lines = cart.lines.iter().map(|line| line_weight(line) + 64);
    details + lines.sum::<usize>()
}

fn line_weight(line: &CartLine) -> usize {
    line.sku.len() + text_weight(&line.attributes)
}
