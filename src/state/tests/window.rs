//! A client's window against the message that it is stored as.

use proptest::prelude::*;
use prost::Message as _;

use crate::proto::internal as pb;
use crate::state::ClientWindow;
use crate::types::LogTime;

/// What can befall a window.
#[derive(Debug, Clone)]
enum Step {
    Remember { sequence: u64, fingerprint: u64 },
    Confirm { below: u64 },
    Forget,
    Restart,
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_u64, 0..3_u64).prop_map(|(sequence, fingerprint)| Step::Remember {
            sequence,
            fingerprint
        }),
        2 => (0..40_u64).prop_map(|below| Step::Confirm { below }),
        2 => Just(Step::Forget),
        1 => Just(Step::Restart),
        1 => Just(Step::Clear),
    ]
}

/// A reply whose length depends on the sequence, some of them over 127 bytes.
fn reply(sequence: u64) -> pb::Reply {
    let count = usize::try_from(sequence).expect("a small sequence") * 7;
    pb::Reply {
        revision: sequence * 1000,
        body: Some(pb::reply::Body::SessionCreated(pb::SessionCreated {
            token_hash: vec![0xab; count].into(),
            ..pb::SessionCreated::default()
        })),
    }
}

proptest! {
    #[test]
    fn a_window_is_stored_as_its_message(steps in prop::collection::vec(step(), 0..60)) {
        let mut window = ClientWindow::empty(0, LogTime::from_millis(9));
        let mut message = pb::ClientWindow { deadline: 9, indexed_deadline: 9, ..pb::ClientWindow::default() };
        for step in steps {
            match step {
                Step::Remember { sequence, fingerprint } => {
                    let at = message.replies.partition_point(|it| it.sequence < sequence);
                    if message.replies.get(at).is_none_or(|it| it.sequence != sequence) {
                        window.remember(sequence, fingerprint, &reply(sequence));
                        let reply = reply(sequence).encode_to_vec().into();
                        message.replies.insert(at, pb::StoredReply { sequence, fingerprint, reply });
                    }
                }
                Step::Confirm { below } => {
                    window.confirmed_below = window.confirmed_below.max(below);
                    message.confirmed_below = message.confirmed_below.max(below);
                }
                Step::Forget => {
                    window.forget_confirmed();
                    message.replies.retain(|it| it.sequence >= message.confirmed_below);
                }
                Step::Restart => {
                    window = ClientWindow::decode(message.encode_to_vec().into()).expect("a message");
                }
                Step::Clear => {
                    window.clear();
                    message.replies.clear();
                    message.confirmed_below = 0;
                }
            }
            let mut encoded = Vec::new();
            window.encode_to(&mut encoded);
            prop_assert_eq!(window.encoded_len(), encoded.len());
            prop_assert_eq!(encoded, message.encode_to_vec());
            prop_assert_eq!(window.len(), message.replies.len());
            let below = message.confirmed_below;
            let confirmed = message.replies.iter().filter(|it| it.sequence < below).count();
            prop_assert_eq!(window.confirmed(), confirmed);
            for sequence in 0..40 {
                let stored = message.replies.iter().find(|it| it.sequence == sequence);
                let found = window.find(sequence);
                prop_assert_eq!(found.map(|it| it.fingerprint), stored.map(|it| it.fingerprint));
                if let Some(found) = found {
                    prop_assert_eq!(found.reply().expect("it was encoded"), reply(sequence));
                }
            }
        }
    }
}
