//! One frame, cut into what goes to Raft together and what reads the same view.

use std::collections::BTreeMap;

use prost::Message as _;

use super::outbox::Outbox;
use super::reads::ReadGroup;
use super::writes::{NewWrites, PendingWrite};
use crate::api::Error;
use crate::api::parse::{self, Origin, Parsed, Read, Write};
use crate::api::weight::fields_weight;
use crate::node::ReadMode;
use crate::proto::v1::{ExchangeRequest, Operation, operation::Request};
use crate::types::{ClientId, Invalid, Revision};

/// What a write weighs beside its payload.
const BASE_BYTES: usize = 256;

/// A frame's valid operations.
pub(super) struct Split {
    /// In the frame's order.
    pub writes: NewWrites,
    /// By how fresh they must be.
    pub reads: Vec<(ReadMode, ReadGroup)>,
}

#[derive(Default)]
struct Groups {
    linearizable: ReadGroup,
    stale: ReadGroup,
    at_least: BTreeMap<Revision, ReadGroup>,
}

impl Groups {
    fn add(&mut self, sequence: u64, read: Read) {
        let group = match read.mode {
            ReadMode::Linearizable => &mut self.linearizable,
            ReadMode::Stale => &mut self.stale,
            ReadMode::AtLeast(revision) => self.at_least.entry(revision).or_default(),
        };
        group.push_back((sequence, read.query));
    }

    fn into_vec(self) -> Vec<(ReadMode, ReadGroup)> {
        let fixed = [
            (ReadMode::Linearizable, self.linearizable),
            (ReadMode::Stale, self.stale),
        ];
        let at_least = self.at_least.into_iter();
        let at_least = at_least.map(|(revision, group)| (ReadMode::AtLeast(revision), group));
        let groups = fixed.into_iter().chain(at_least);
        groups.filter(|(_, group)| !group.is_empty()).collect()
    }
}

/// Cuts a frame. Operations that are not valid have their outcome at once.
pub(super) fn split(frame: ExchangeRequest, client: ClientId, outbox: &mut Outbox) -> Split {
    let confirmed_below = frame.confirmed_below;
    let mut writes = NewWrites::with_capacity(frame.operations.len());
    let mut reads = Groups::default();
    for Operation { sequence, request } in frame.operations {
        let origin = Origin::Exchange {
            client,
            sequence,
            confirmed_below,
        };
        let bytes = request.as_ref().map_or(0, payload_bytes);
        match parse(request, origin) {
            Ok(Parsed::Write(Write { command, echo })) => {
                writes.commands.push(command);
                writes.pending.push(PendingWrite { sequence, echo });
                writes.bytes += BASE_BYTES + bytes;
            }
            Ok(Parsed::Read(read)) => reads.add(sequence, read),
            Err(error) => outbox.push(sequence, Err(error.into())),
        }
    }
    Split {
        writes,
        reads: reads.into_vec(),
    }
}

fn parse(request: Option<Request>, origin: Origin) -> Result<Parsed, Error> {
    let request = request.ok_or(Invalid::Empty { field: "request" })?;
    parse::operation(request, origin)
}

/// The bytes that a write may hold in memory until it is answered; what is small is not counted.
fn payload_bytes(request: &Request) -> usize {
    match request {
        Request::CreateSession(r) => fields_weight(&r.fields),
        Request::UpdateSession(r) => fields_weight(&r.set) + text_bytes(&r.remove),
        Request::RotateSession(r) => fields_weight(&r.set) + text_bytes(&r.remove),
        Request::SaveSession(r) => {
            let base = r.base.as_ref();
            fields_weight(&r.fields) + base.map_or(0, |base| fields_weight(&base.fields))
        }
        Request::PutKey(r) => r.value.len(),
        Request::UpdateCart(r) => r.encoded_len(),
        Request::Txn(r) => {
            let requests = r.then.iter().chain(&r.otherwise);
            let requests = requests.filter_map(|operation| operation.request.as_ref());
            let requests = requests.map(|request| BASE_BYTES + payload_bytes(request));
            let compares = r.compare.iter().map(prost::Message::encoded_len);
            requests.chain(compares).sum()
        }
        _ => 0,
    }
}

fn text_bytes(texts: &[String]) -> usize {
    texts.iter().map(String::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1;

    /// What is large must weigh, wherever in the request it is.
    #[test]
    fn payloads_weigh_what_they_hold() {
        const LARGE: usize = 1 << 16;
        let large = || "x".repeat(LARGE);
        let compare = v1::Compare {
            operand: Some(v1::compare::Operand::Value(large().into())),
            ..v1::Compare::default()
        };
        let txn = v1::TxnRequest {
            compare: vec![compare],
            ..v1::TxnRequest::default()
        };
        let update = v1::UpdateSessionRequest {
            remove: vec![large()],
            ..v1::UpdateSessionRequest::default()
        };
        let rotate = v1::RotateSessionRequest {
            remove: vec![large()],
            ..v1::RotateSessionRequest::default()
        };
        let put = v1::PutKeyRequest {
            value: large().into(),
            ..v1::PutKeyRequest::default()
        };
        for request in [
            Request::Txn(txn),
            Request::UpdateSession(update),
            Request::RotateSession(rotate.into()),
            Request::PutKey(put),
        ] {
            assert!(payload_bytes(&request) >= LARGE, "{request:?}");
        }
    }
}
