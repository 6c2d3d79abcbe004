//! Commands survive the log, and damaged ones are found.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::Machine;
use super::steps::{Script, steps};
use crate::proto::internal as pb;
use crate::state::{
    Batch, Command, Fault, Fields, Identity, Record, RequestHash, SessionOperation, apply,
};
use crate::types::{ClientAttributes, LogTime, Namespace, Ttl};

proptest! {
    #[test]
    fn round_trip(steps in steps(1..40)) {
        let mut script = Script::default();
        for step in steps {
            let (_, command) = script.next(step);
            prop_assert_eq!(&Command::decode(command.encode()).expect("own bytes"), &command);
            let message = pb::Command::decode(command.encode()).expect("own bytes");
            prop_assert_eq!(message.encoded_len(), command.encoded().len());
        }
    }

    /// A record is kept for as long as it is not changed; the buffer of a log entry must not be.
    #[test]
    fn records_hold_no_memory_of_the_commands(steps in steps(1..60)) {
        let (mut script, mut machine) = (Script::default(), Machine::default());
        for step in steps {
            let (stamp, command) = script.next(step);
            let buffer = Bytes::copy_from_slice(command.encoded());
            let command = Command::decode(buffer.clone()).expect("own bytes");
            let mut batch = Batch::new(&machine.store, machine.horizon);
            apply(&mut batch, LogTime::from_millis(stamp), &command).expect("no fault");
            let (changes, horizon) = batch.finish();
            let within = buffer.as_ptr_range();
            for stored in changes.writes.iter().filter_map(|change| change.value.as_ref()) {
                for piece in large_pieces(&stored.record) {
                    prop_assert!(piece.is_empty() || !within.contains(&piece.as_ptr()), "{:?}", stored.record);
                }
            }
            machine.store.commit(changes);
            machine.horizon = horizon;
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(Command::decode(bytes.into()));
    }

    #[test]
    fn damaged_bytes_never_panic(steps in steps(1..5), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut script = Script::default();
        for step in steps {
            let mut bytes = script.next(step).1.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            drop(Command::decode(bytes.into()));
        }
    }
}

#[test]
fn what_no_edge_lets_in_is_a_fault() {
    let touch = pb::command::Operation::SessionTouch(pb::SessionTouch {
        token_hash: Bytes::from_static(&[1; 32]),
    });
    let valid = pb::Command {
        namespace: "n".to_owned(),
        operation: Some(touch),
        ..pb::Command::default()
    };
    let client = pb::ClientSequence {
        client_id: Bytes::from_static(&[1; 16]),
        ..pb::ClientSequence::default()
    };
    let broken = [
        pb::Command {
            operation: None,
            ..valid.clone()
        },
        pb::Command {
            namespace: "a b".to_owned(),
            ..valid.clone()
        },
        pb::Command {
            request_hash: Bytes::from_static(&[1; 15]),
            ..valid.clone()
        },
        pb::Command {
            request_hash: Bytes::from_static(&[1; 16]),
            client: Some(client),
            ..valid.clone()
        },
        pb::Command {
            operation: Some(pb::command::Operation::SessionTouch(
                pb::SessionTouch::default(),
            )),
            ..valid.clone()
        },
        pb::Command {
            operation: Some(pb::command::Operation::Tick(pb::Tick {
                checkpoint: false,
                expect: Some(pb::DigestCheckpoint {
                    number: 1,
                    digest: Bytes::from_static(&[1; 3]),
                }),
            })),
            ..valid.clone()
        },
    ];
    assert!(Command::decode(valid.encode_to_vec().into()).is_ok());
    for message in broken {
        let decoded = Command::decode(message.encode_to_vec().into());
        assert!(matches!(decoded, Err(Fault::Corrupt { .. })), "{message:?}");
    }
}

/// What of a record is kept as shared bytes.
fn large_pieces(record: &Record) -> Vec<Bytes> {
    match record {
        Record::Kv(kv) => vec![kv.value.clone()],
        Record::Session(session) => session.fields.shared().map(|(_, value)| value).collect(),
        Record::Request(request) => request.reply.iter().map(|it| it.reply.clone()).collect(),
        Record::RequestGroup(group) => group.requests.clone(),
        _ => Vec::new(),
    }
}

#[test]
fn the_fingerprint_tells_bodies_and_namespaces_apart() {
    let of = |namespace: &str, value: &'static str| {
        let namespace = Namespace::parse(namespace).expect("a valid name");
        let identity = Identity::Request(RequestHash::new([1; 16]));
        Command::new(namespace, identity, super::put("k", value, None)).fingerprint
    };
    assert_eq!(of("n", "v"), of("n", "v"));
    assert_ne!(of("n", "v"), of("n", "w"));
    assert_ne!(of("n", "v"), of("m", "v"));
}

#[test]
fn an_encoded_command_stays_what_it_is() {
    let fields = BTreeMap::from([("cart".to_owned(), Bytes::from_static(b"full"))]);
    let command = Command::with_fingerprint(
        Namespace::default(),
        Identity::Request(RequestHash::new([2; 16])),
        3,
        SessionOperation::Create {
            token: super::token(1),
            sealed_token: Bytes::from_static(b"sealed"),
            user: None,
            fields: Fields::parse(&fields).expect("a small field"),
            client: ClientAttributes::default(),
            idle_ttl: Some(Ttl::from_millis(4)),
            absolute_ttl: Some(Ttl::from_millis(5)),
        },
    );
    let hex = hex::encode(command.encode());
    let expected = format!(
        "0a0764656661756c742a3c0a20{}12067365616c6564220c0a0463617274120466756c6c280430051210{}\
         210300000000000000",
        "01".repeat(32),
        "02".repeat(16),
    );
    assert_eq!(hex, expected);
}
