//! Random scripts against the naive model, under any cut into batches, across snapshots.

use proptest::prelude::*;
use proptest::sample::Index;

use super::model::Model;
use super::steps::{Script, Step, TOKENS, sessions_with_carts, steps};
use super::{Machine, fields};
use crate::limits;
use crate::proto::internal::reply::Body;
use crate::state::{CartOwner, Command, MemoryStore, Store, SweepHorizon, query};
use crate::types::{KeyPrefix, Namespace, UserId};

/// Applies entries cut where the lengths say, over and over.
fn in_batches(
    machine: &mut Machine,
    entries: &[(u64, Command)],
    lengths: &[usize],
) -> Vec<crate::state::Applied> {
    let mut applied = Vec::new();
    let mut rest = entries;
    for length in lengths.iter().cycle() {
        let (batch, after) = rest.split_at((*length).min(rest.len()));
        applied.extend(machine.apply_batch(batch));
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    applied
}

/// What can be read is what the model has.
fn compare_reads(machine: &Machine, model: &Model) {
    let store = &machine.store;
    assert_eq!(store.header().revision, model.revision);
    assert_eq!(store.header().log_time, model.now);
    for name in ["default", "n"] {
        let ns = Namespace::parse(name).expect("a valid name");
        let page = query::list(store, &ns, &KeyPrefix::default(), limits::LIST_MAX, None);
        let listed: Vec<_> = page
            .expect("no fault")
            .items
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let expected: Vec<_> = model
            .keys
            .keys()
            .filter(|id| id.0 == ns)
            .map(|id| id.1.clone())
            .collect();
        assert_eq!(listed, expected);
        for nth in 0..TOKENS {
            let hash = super::token(nth);
            let found = query::session(store, &ns, &hash).expect("no fault");
            let expected = model.sessions.get(&(ns.clone(), hash));
            assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some(expected)) = (found, expected) {
                assert_eq!(fields(&found), expected.fields);
                assert_eq!(found.user_id, expected.user);
                assert_eq!(found.client, expected.client);
                assert_eq!(query::session_handle(&found), expected.handle());
                assert_eq!(found.create_revision, expected.created);
                assert_eq!(found.mod_revision, expected.modified);
                assert_eq!(
                    query::session_idle_deadline(&found).as_millis(),
                    expected.due()
                );
            }
            let user = UserId::parse(format!("u{nth}")).expect("short");
            for owner in [CartOwner::User(user), CartOwner::Session(hash)] {
                compare_cart(machine, model, &ns, &owner);
            }
        }
    }
    for ((ns, lease), expected) in &model.leases {
        let found = query::lease(store, ns, *lease).expect("no fault");
        assert_eq!(found.expect("the model has it").deadline, expected.deadline);
    }
    compare_listings(store, model);
    for ((ns, key), expected) in &model.keys {
        let found = query::key(store, ns, key)
            .expect("no fault")
            .expect("the model has it");
        assert_eq!(query::key_value(&found), expected.shown());
        assert_eq!(found.mod_revision, expected.modified);
        assert_eq!(found.deadline, expected.deadline.unwrap_or(0));
    }
}

/// A user's devices, in pages of two.
fn compare_listings(store: &MemoryStore, model: &Model) {
    for ns in ["default", "n"].map(|name| Namespace::parse(name).expect("a valid name")) {
        for user in ["u0", "u1"].map(|name| UserId::parse(name).expect("short")) {
            let (mut listed, mut after) = (Vec::new(), 0);
            loop {
                let page = query::user_sessions(store, &ns, &user, 2, after).expect("no fault");
                assert!(page.items.len() <= 2);
                listed.extend(page.items.into_iter().map(|(token, _)| token));
                match page.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            assert_eq!(listed, model.sessions_of(&ns, user.as_str()));
        }
        let found = query::namespace(store, &ns).expect("no fault");
        let found = found.map(|it| (it.settings.unwrap_or_default(), it.mod_revision));
        assert_eq!(found.as_ref(), model.settings.get(&ns));
    }
}

fn compare_cart(machine: &Machine, model: &Model, ns: &Namespace, owner: &CartOwner) {
    let expected = model.cart(ns, owner);
    match query::cart(&machine.store, ns, owner).expect("no fault") {
        query::CartRead::SessionNotFound => {
            let CartOwner::Session(hash) = owner else {
                panic!("a user's cart needs no session");
            };
            assert!(!model.sessions.contains_key(&(ns.clone(), *hash)));
        }
        query::CartRead::Absent => assert!(expected.is_none()),
        query::CartRead::Cart(cart) => {
            let expected = expected.expect("the model has the cart");
            assert_eq!(cart.lines, expected.lines);
            assert_eq!(cart.mod_revision, expected.modified);
            assert_eq!(cart.details.clone().unwrap_or_default(), expected.details);
            assert_eq!(cart.order_id, expected.order);
            assert_eq!(cart.deadline, expected.deadline);
            assert!(cart.merged_into.is_none());
            let freeze = expected.freeze.filter(|freeze| freeze.until > model.now);
            assert_eq!(
                query::running_freeze(&machine.store, &cart).map(|it| (
                    it.holder.as_str(),
                    it.revision,
                    it.deadline
                )),
                freeze
                    .as_ref()
                    .map(|it| (it.holder.as_str(), it.revision, it.until)),
            );
        }
    }
    let own = query::own_cart(&machine.store, ns, owner).expect("no fault");
    let is_pointer = matches!(&own, query::CartRead::Cart(cart) if cart.merged_into.is_some());
    let expected = model.own_cart(ns, owner);
    assert_eq!(
        is_pointer,
        expected.is_some_and(|cart| cart.merged_into.is_some())
    );
}

/// Gives both the same, step by step.
fn compare_with_model(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut script = Script::default();
    let mut machine = Machine::default();
    for step in steps {
        let (stamp, command, expected) = script.answered(step);
        prop_assert_eq!(machine.apply(stamp, &command), expected, "{:?}", command);
        compare_reads(&machine, &script.model);
        machine.check_index();
    }
    machine.check_invariants();
    Ok(())
}

proptest! {
    #[test]
    fn the_machine_answers_as_the_model_does(steps in steps(1..150)) {
        compare_with_model(steps)?;
    }

    /// Now the session ends first, and now its cart.
    #[test]
    fn a_cart_and_its_session_end_each_at_its_own_time(steps in sessions_with_carts(1..100)) {
        compare_with_model(steps)?;
    }

    /// An entry of several commands answers each as if they came one after the other, at one time, however entries are cut
    /// into batches.
    #[test]
    fn commands_that_share_an_entry_are_answered_as_the_model_does(
        steps in steps(1..250),
        sizes in prop::collection::vec(1usize..12, 1..6),
        lengths in prop::collection::vec(1usize..10, 1..4),
    ) {
        let mut script = Script::default();
        let mut entries: Vec<(u64, u64, Vec<Command>)> = Vec::new();
        let mut expected = Vec::new();
        let mut sizes = sizes.into_iter().cycle();
        let mut room = 0usize;
        for step in steps {
            let (stamp, command, applied) = script.answered(step);
            expected.push(applied);
            let now = script.model.now;
            let open = entries.last_mut().filter(|(_, at, _)| *at == now && room > 0);
            if let Some((.., commands)) = open {
                commands.push(command);
            } else {
                room = sizes.next().expect("it goes round");
                entries.push((stamp, now, vec![command]));
            }
            room = room.saturating_sub(1);
        }
        let entries: Vec<_> = entries.iter().map(|(stamp, _, commands)| (*stamp, &commands[..])).collect();
        let mut single = Machine::default();
        let mut replies = Vec::new();
        for (stamp, commands) in &entries {
            replies.extend(single.apply_entry(*stamp, commands));
            single.check_index();
        }
        prop_assert_eq!(&replies, &expected);
        compare_reads(&single, &script.model);
        single.check_invariants();
        let mut cut = Machine::default();
        let mut lengths = lengths.into_iter().cycle();
        let (mut replies, mut rest) = (Vec::new(), &entries[..]);
        while !rest.is_empty() {
            let length = lengths.next().expect("it goes round").min(rest.len());
            let (batch, after) = rest.split_at(length);
            replies.extend(cut.apply_entries(batch.iter().copied()));
            rest = after;
        }
        prop_assert_eq!(&replies, &expected);
        prop_assert_eq!(cut.store.snapshot(), single.store.snapshot());
        prop_assert_eq!(cut.horizon, single.horizon);
    }

    #[test]
    fn how_entries_are_cut_changes_nothing(
        steps in steps(1..250),
        lengths in prop::collection::vec(1usize..40, 1..8),
    ) {
        let mut script = Script::default();
        let entries: Vec<_> = steps.into_iter().map(|step| script.next(step)).collect();
        let mut single = Machine::default();
        let replies = in_batches(&mut single, &entries, &[1]);
        for lengths in [&lengths[..], &[entries.len()]] {
            let mut cut = Machine::default();
            prop_assert_eq!(&in_batches(&mut cut, &entries, lengths), &replies);
            prop_assert_eq!(cut.store.snapshot(), single.store.snapshot());
            cut.check_invariants();
        }
    }

    #[test]
    fn a_snapshot_and_a_lost_horizon_change_nothing(
        steps in steps(2..150),
        lengths in prop::collection::vec(1usize..20, 1..4),
        at in any::<Index>(),
    ) {
        let mut script = Script::default();
        let entries: Vec<_> = steps.into_iter().map(|step| script.next(step)).collect();
        let (before, after) = entries.split_at(at.index(entries.len() - 1) + 1);
        let mut original = Machine::default();
        in_batches(&mut original, before, &lengths);
        let mut restored = Machine {
            store: MemoryStore::restore(&original.store.snapshot()).expect("own snapshot"),
            horizon: SweepHorizon::default(),
        };
        prop_assert_eq!(&restored.store, &original.store);
        for entry in after {
            restored.horizon = SweepHorizon::default();
            let replies = (original.apply(entry.0, &entry.1), restored.apply(entry.0, &entry.1));
            prop_assert_eq!(replies.0, replies.1);
        }
        prop_assert_eq!(restored.store.snapshot(), original.store.snapshot());
    }

    /// An aborted transaction is as if nothing had been tried, whatever stood in it and however entries are cut.
    #[test]
    fn an_aborted_transaction_leaves_no_trace(
        steps in steps(1..120),
        tried in steps(1..120),
        lengths in prop::collection::vec(1usize..40, 1..8),
    ) {
        let mut script = Script::default();
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut tried = tried.into_iter().cycle();
        for step in steps {
            let (namespace, doomed) = script.doomed(tried.next().expect("it goes round"));
            with.push((script.now, doomed));
            without.push((script.now, super::command_in(namespace, super::tick())));
            let entry = script.next(step);
            with.push(entry.clone());
            without.push(entry);
        }
        let (mut tried, mut single) = (Machine::default(), Machine::default());
        let replies = in_batches(&mut single, &without, &[1]);
        let with = in_batches(&mut tried, &with, &lengths);
        for (nth, (with, without)) in with.iter().zip(&replies).enumerate() {
            if nth % 2 == 1 {
                prop_assert_eq!(with, without);
            } else {
                prop_assert!(matches!(with.reply.body, Some(Body::TxnAborted(_))), "{:?}", with);
                prop_assert_eq!(with.reply.revision, without.reply.revision);
            }
        }
        prop_assert_eq!(tried.store.snapshot(), single.store.snapshot());
        prop_assert_eq!(tried.horizon, single.horizon);
        tried.check_invariants();
    }

    /// More falls due at once than one entry sweeps, so that the unswept is met by every operation. Revisions then
    /// depend on when it is swept, and are compared between cuts instead of with the model.
    #[test]
    fn what_is_due_is_gone_before_it_is_swept(
        rounds in prop::collection::vec((steps(1..40), 1u64..400), 1..5),
        lengths in prop::collection::vec(1usize..30, 1..4),
        plain in any::<bool>(),
    ) {
        let mut script = Script::default();
        script.plain = plain;
        let mut entries = Vec::new();
        for (steps, lull) in rounds {
            let crowd = (0..200).map(|nth| {
                let operation = super::put(&format!("crowd{nth}"), "v", Some(1 + nth % 3));
                (script.now, super::command(operation))
            });
            entries.extend(crowd);
            script.now += 3;
            entries.extend(steps.into_iter().map(|step| script.next(step)));
            script.now += lull;
        }
        let mut single = Machine::default();
        let replies: Vec<_> = entries
            .iter()
            .map(|(stamp, command)| {
                let applied = single.apply(*stamp, command);
                single.check_index();
                applied
            })
            .collect();
        let mut cut = Machine::default();
        prop_assert_eq!(&in_batches(&mut cut, &entries, &lengths), &replies);
        prop_assert_eq!(cut.store.snapshot(), single.store.snapshot());
        // Once all is swept, what is left is what the model has.
        script.now += 1;
        for _ in 0..10 {
            let ticked = super::command(super::tick());
            script.model.apply(script.now, &ticked);
            single.apply(script.now, &ticked);
        }
        if plain {
            compare_visible(&single, &script.model);
        }
        single.check_invariants();
    }
}

/// As [`compare_reads`] without revisions, which only scripts without conditions on them allow.
fn compare_visible(machine: &Machine, model: &Model) {
    let store = &machine.store;
    for ns in ["default", "n"].map(|name| Namespace::parse(name).expect("a valid name")) {
        for nth in 0..TOKENS {
            let hash = super::token(nth);
            let found = query::session(store, &ns, &hash).expect("no fault");
            let expected = model.sessions.get(&(ns.clone(), hash));
            assert_eq!(
                found.map(|it| (fields(&it), it.user_id.clone())),
                expected.map(|it| (it.fields.clone(), it.user.clone())),
            );
            let user = UserId::parse(format!("u{nth}")).expect("short");
            for owner in [CartOwner::User(user), CartOwner::Session(hash)] {
                let found = match query::cart(store, &ns, &owner).expect("no fault") {
                    query::CartRead::Cart(cart) => Some(cart.lines.clone()),
                    _ => None,
                };
                assert_eq!(found, model.cart(&ns, &owner).map(|it| it.lines));
            }
        }
        let prefix = KeyPrefix::default();
        let page = query::list(store, &ns, &prefix, limits::LIST_MAX, None).expect("no fault");
        let found = page.items.into_iter();
        let expected = model.keys.iter().filter(|(id, _)| id.0 == ns);
        assert_eq!(
            found
                .map(|(key, it)| (key, query::key_value(&it)))
                .collect::<Vec<_>>(),
            expected
                .map(|(id, it)| (id.1.clone(), it.shown()))
                .collect::<Vec<_>>(),
        );
    }
}
