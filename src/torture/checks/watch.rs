//! Watchers are told of every change once, in order, whatever they went through.

use std::collections::BTreeMap;

use super::Check;
use crate::torture::history::{Call, History, Outcome};
use crate::torture::record::Audit;
use crate::torture::workloads::registers::PREFIX;
use crate::torture::workloads::watchers::{Feed, Told};

/// Every consumer's events go up; every acknowledged change is among them, at its revision; and applied to an empty map,
/// they give what each node holds.
#[must_use]
pub fn complete(feeds: &[Feed], history: &History, audit: &Audit) -> Check {
    let mut check = Check::new("watchers are told everything once");
    let final_revision = audit.nodes.iter().map(|node| node.revision).max();
    let final_revision = final_revision.unwrap_or(0);
    let (mut resumed, mut late) = (0, false);
    for (number, feed) in feeds.iter().enumerate() {
        resumed += feed.resumed;
        check.examined += feed.events.len() as u64;
        if let Some(why) = &feed.ended {
            check.violate(None, format!("consumer {number} was turned away: {why}"));
            continue;
        }
        in_order(&mut check, number, feed);
        acknowledged(&mut check, number, feed, history);
        if feed.progress < final_revision {
            late = true;
        } else {
            same_as_nodes(&mut check, number, feed, audit);
        }
    }
    if late {
        check.doubt("a consumer had not come to the end in time");
    } else {
        check.note = format!("{resumed} times a consumer went on with another stream");
    }
    check.expect_facts()
}

fn in_order(check: &mut Check, number: usize, feed: &Feed) {
    let place = |it: &Told| (it.revision, it.position);
    for pair in feed.events.windows(2) {
        if place(&pair[0]) >= place(&pair[1]) {
            let what = format!("consumer {number}: {:?} after {:?}", pair[1], pair[0]);
            check.violate(None, what);
        }
    }
}

fn acknowledged(check: &mut Check, number: usize, feed: &Feed, history: &History) {
    let mut events: BTreeMap<u64, &Told> = BTreeMap::new();
    events.extend(feed.events.iter().map(|event| (event.revision, event)));
    for (key, operations) in history.by_key() {
        for operation in operations {
            let (revision, value) = match (&operation.call, &operation.outcome) {
                (Call::Put { value, .. }, Outcome::Written { revision }) => (revision, Some(value)),
                (_, Outcome::Deleted { revision }) => (revision, None),
                _ => continue,
            };
            let Some(revision) = revision.filter(|revision| *revision <= feed.progress) else {
                continue;
            };
            let event = events.get(&revision);
            let is_told = event.is_some_and(|it| it.key == *key && it.value.as_ref() == value);
            if !is_told {
                let what = format!(
                    "consumer {number}: {key} = {value:?} was acknowledged at revision {revision}, told was {event:?}"
                );
                check.violate_in(key, None, what);
            }
        }
    }
}

fn same_as_nodes(check: &mut Check, number: usize, feed: &Feed, audit: &Audit) {
    let mut map: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    for event in &feed.events {
        match &event.value {
            Some(value) => map.insert(&event.key, (value, event.revision)),
            None => map.remove(event.key.as_str()),
        };
    }
    for node in &audit.nodes {
        let held = node.keys.iter().filter(|(key, _)| key.starts_with(PREFIX));
        let held: BTreeMap<&str, (&str, u64)> = held
            .map(|(key, (value, revision))| (key.as_str(), (value.as_str(), *revision)))
            .collect();
        if map != held {
            let differs = |key: &&&str| map.get(**key) != held.get(**key);
            let keys = map.keys().chain(held.keys()).find(differs);
            let what = format!(
                "consumer {number} and node {} differ, for instance in {keys:?}",
                node.node
            );
            check.violate(Some(audit.at_us), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Judgement;
    use super::super::testing::{assert_invalid, assert_valid};
    use super::*;
    use crate::torture::history::{Condition, Recorder};
    use crate::torture::record::NodeAudit;

    fn key() -> String {
        format!("{PREFIX}k")
    }

    fn told(revision: u64, value: Option<&str>) -> Told {
        Told {
            revision,
            position: 0,
            key: key(),
            value: value.map(str::to_owned),
        }
    }

    fn history() -> History {
        let recorder = Recorder::new();
        for (value, revision) in [("a", 3), ("b", 5)] {
            let call = Call::Put {
                value: value.to_owned(),
                condition: Condition::Always,
            };
            let ticket = recorder.invoke(0, &key(), call);
            let revision = Some(revision);
            recorder.complete(ticket, Outcome::Written { revision });
        }
        recorder.history().expect("outcomes fit")
    }

    fn audit() -> Audit {
        Audit {
            nodes: vec![NodeAudit {
                node: 1,
                revision: 9,
                keys: [
                    (key(), ("b".to_owned(), 5)),
                    ("bank/1".to_owned(), ("1".to_owned(), 9)),
                ]
                .into(),
                ..NodeAudit::default()
            }],
            ..Audit::default()
        }
    }

    fn judge(events: &[Told], progress: u64) -> Check {
        let feed = Feed {
            events: events.to_vec(),
            progress,
            ..Feed::default()
        };
        complete(&[feed], &history(), &audit())
    }

    #[test]
    fn all_events_in_order_are_right() {
        assert_valid(&judge(
            &[told(3, Some("a")), told(4, None), told(5, Some("b"))],
            9,
        ));
    }

    #[test]
    fn what_is_missing_twice_or_out_of_order_is_found() {
        assert_invalid(
            &judge(&[told(5, Some("b"))], 9),
            "acknowledged at revision 3",
        );
        let twice = [told(3, Some("a")), told(3, Some("a")), told(5, Some("b"))];
        assert_invalid(&judge(&twice, 9), "after");
        let back = [told(5, Some("b")), told(3, Some("a"))];
        assert_invalid(&judge(&back, 9), "after");
        let wrong = [told(3, Some("a")), told(5, Some("c"))];
        assert_invalid(&judge(&wrong, 9), "acknowledged at revision 5");
        let more = [told(3, Some("a")), told(5, Some("b")), told(7, Some("c"))];
        assert_invalid(&judge(&more, 9), "node 1 differ");
    }

    #[test]
    fn a_consumer_that_is_not_there_yet_proves_nothing() {
        assert_eq!(
            judge(&[told(3, Some("a"))], 4).judgement,
            Judgement::Unknown
        );
        let feed = Feed {
            ended: Some("COMPACTED".to_owned()),
            ..Feed::default()
        };
        assert_invalid(&complete(&[feed], &history(), &audit()), "turned away");
    }
}
