//! Histories that are known to be good or bad, a brute-force checker beside the real one on small random
//! histories, and large ones against the clock.

use std::time::{Duration, Instant};

use super::super::history::{Call, Condition, Event};
use super::*;

/// A history as text, an event per word pair: `p:call` invokes at client p, `p=outcome` returns.
///
/// Calls: `get`, `put(v)`, `add(v)` if absent, `cas(r,v)` if at revision r, `swap(u,v)` if u is held, `del`.
/// Outcomes: `v` or `v@r` found, `none`, `ok` or `ok@r`, `refused`, `never`. No return: unknown.
fn parse(text: &str) -> History {
    let mut events = Vec::new();
    let mut open = std::collections::BTreeMap::new();
    for (number, word) in (0..).zip(text.split_whitespace()) {
        if let Some((process, call)) = word.split_once(':') {
            open.insert(process.to_owned(), (number, parse_call(call)));
            events.push(Event::Invoke {
                operation: number,
                process: process.parse().unwrap(),
                at_us: 0,
                key: "k".to_owned(),
                call: parse_call(call),
            });
        } else {
            let (process, outcome) = word.split_once('=').unwrap();
            let (operation, call) = open.remove(process).unwrap();
            events.push(Event::Return {
                operation,
                at_us: 0,
                outcome: parse_outcome(outcome, &call),
            });
        }
    }
    History::new(events).unwrap()
}

fn parse_call(text: &str) -> Call {
    let (name, rest) = text.split_once('(').unwrap_or((text, ")"));
    let arguments: Vec<&str> = rest.trim_end_matches(')').split(',').collect();
    let put = |condition, value: &str| Call::Put {
        value: value.to_owned(),
        condition,
    };
    match name {
        "get" => Call::Get,
        "put" => put(Condition::Always, arguments[0]),
        "add" => put(Condition::IfAbsent, arguments[0]),
        "cas" => put(
            Condition::IfRevision(arguments[0].parse().unwrap()),
            arguments[1],
        ),
        "swap" => put(Condition::IfValue(arguments[0].to_owned()), arguments[1]),
        "del" => Call::Delete {
            condition: Condition::Always,
        },
        other => panic!("no call {other}"),
    }
}

fn parse_outcome(text: &str, call: &Call) -> Outcome {
    let (name, revision) = match text.split_once('@') {
        Some((name, revision)) => (name, Some(revision.parse().unwrap())),
        None => (text, None),
    };
    match (name, call) {
        ("none", _) => Outcome::Absent,
        ("refused", _) => Outcome::Refused,
        ("never", _) => Outcome::NotApplied,
        ("ok", Call::Delete { .. }) => Outcome::Deleted { revision },
        ("ok", _) => Outcome::Written { revision },
        (value, _) => Outcome::Found {
            value: value.to_owned(),
            revision,
        },
    }
}

fn verdict(text: &str) -> Verdict {
    check(&parse(text), DEFAULT_BUDGET)
}

#[test]
fn good_histories_pass() {
    let good = [
        ("nothing at all", ""),
        ("a write and its read", "1:put(a) 1=ok@1 2:get 2=a@1"),
        (
            "a read during a write sees the old value",
            "1:put(a) 2:get 2=none 1=ok",
        ),
        ("or the new one", "1:put(a) 2:get 2=a 1=ok"),
        (
            "reads during one write turn once",
            "1:put(a) 2:get 2=none 3:get 3=a 2:get 2=a 1=ok",
        ),
        (
            "two writes at once, either last",
            "1:put(a) 2:put(b) 1=ok 2=ok 3:get 3=a",
        ),
        ("and the other", "1:put(a) 2:put(b) 1=ok 2=ok 3:get 3=b"),
        ("an unanswered write took effect", "1:put(a) 2:get 2=a"),
        (
            "or much later",
            "1:put(a) 2:get 2=none 2:put(b) 2=ok 2:get 2=b 2:get 2=a",
        ),
        ("or never", "1:put(a) 2:get 2=none 2:get 2=none"),
        (
            "an unanswered write tells its revision once read",
            "1:put(a) 2:get 2=a@4 2:cas(4,b) 2=ok@5",
        ),
        (
            "a write that was not applied",
            "1:put(a) 1=never 2:get 2=none",
        ),
        (
            "a delete",
            "1:put(a) 1=ok@1 1:del 1=ok@2 2:get 2=none 2:del 2=none",
        ),
        (
            "an unanswered delete",
            "1:put(a) 1=ok 2:del 1:get 1=a 1:get 1=none",
        ),
        (
            "one of two conditional writes wins",
            "1:add(a) 2:add(b) 1=ok@1 2=refused 3:get 3=a@1",
        ),
        (
            "a chain of swaps",
            "1:put(a) 1=ok 1:swap(a,b) 2:swap(b,c) 2=ok 1=ok 3:get 3=c",
        ),
        (
            "a refusal that only an unanswered write explains",
            "1:add(a) 2:add(b) 2=refused",
        ),
        (
            "two unanswered writes that need each other",
            "1:put(a) 2:swap(a,b) 3:get 3=b",
        ),
        (
            "a delete that only an unanswered write explains",
            "1:put(a) 2:del 2=ok 2:get 2=none",
        ),
        (
            "the same value written again",
            "1:put(a) 1=ok@1 2:put(a) 2=ok@2 3:get 3=a@2",
        ),
    ];
    for (what, text) in good {
        let verdict = verdict(text);
        assert!(verdict.is_valid(), "{what}: {verdict:?}");
    }
}

#[test]
fn bad_histories_are_flagged() {
    let bad = [
        ("stale read", "1:put(a) 1=ok 1:put(b) 1=ok 2:get 2=a"),
        ("lost write", "1:put(a) 1=ok 2:get 2=none"),
        (
            "lost update",
            "1:put(a) 1=ok@1 1:cas(1,b) 2:cas(1,c) 1=ok@2 2=ok@3",
        ),
        (
            "lost update by value",
            "1:put(a) 1=ok 1:swap(a,b) 2:swap(a,c) 1=ok 2=ok",
        ),
        ("read from the future", "1:get 1=a 2:put(a) 2=ok"),
        ("read from nowhere", "1:put(a) 1=ok 2:get 2=z"),
        (
            "non-monotonic reads",
            "1:put(a) 2:get 2=a 2:get 2=none 1=ok",
        ),
        (
            "two readers that disagree on the order",
            "1:put(a) 2:put(b) 3:get 3=a 4:get 4=b 3:get 3=a 1=ok 2=ok",
        ),
        (
            "applied twice",
            "1:put(a) 1=ok 2:put(b) 2=ok 3:get 3=b 3:get 3=a",
        ),
        (
            "an unanswered write applied twice",
            "1:put(a) 2:get 2=a 2:put(b) 2=ok 2:get 2=b 2:get 2=a",
        ),
        (
            "an unanswered delete applied twice",
            "9:del 1:put(a) 1=ok 2:get 2=none 1:put(b) 1=ok 2:get 2=none",
        ),
        ("deleted and back", "1:put(a) 1=ok 1:del 1=ok 2:get 2=a"),
        ("not applied, and yet read", "1:put(a) 1=never 2:get 2=a"),
        (
            "two winners of one condition",
            "1:add(a) 2:add(b) 1=ok 2=ok",
        ),
        ("a refusal without a reason", "1:add(a) 1=refused"),
        (
            "a refusal of the right revision",
            "1:put(a) 1=ok@3 1:cas(3,b) 1=refused",
        ),
        ("revision going back", "1:put(a) 1=ok@5 1:put(b) 1=ok@4"),
        ("revision assigned twice", "1:put(a) 1=ok@5 1:put(b) 1=ok@5"),
        ("revision of another write", "1:put(a) 1=ok@1 2:get 2=a@2"),
        (
            "two revisions of one unanswered write",
            "1:put(a) 2:get 2=a@3 2:get 2=a@4",
        ),
        (
            "revision reused after a delete",
            "1:put(a) 1=ok@1 1:del 1=ok@2 1:add(b) 1=ok@2",
        ),
        ("a late effect before its call", "1:get 1=a 2:put(a)"),
    ];
    for (what, text) in bad {
        let verdict = verdict(text);
        assert!(
            matches!(verdict, Verdict::Invalid(_)),
            "{what}: {verdict:?}"
        );
    }
}

#[test]
fn keys_are_judged_apart_and_the_bad_one_is_named() {
    let mut events = parse("1:put(a) 1=ok 1:get 1=a").events().to_vec();
    for event in parse("1:put(a) 1=ok 1:get 1=b").events() {
        let mut event = event.clone();
        match &mut event {
            Event::Invoke { operation, key, .. } => {
                *operation += 100;
                "other".clone_into(key);
            }
            Event::Return { operation, .. } => *operation += 100,
        }
        events.push(event);
    }
    let history = History::new(events).unwrap();
    let Verdict::Invalid(found) = check(&history, DEFAULT_BUDGET) else {
        panic!("it is not linearizable");
    };
    assert_eq!(found.key, "other");
}

#[test]
fn a_counterexample_ends_at_the_first_violation() {
    let text = "1:put(a) 1=ok 2:get 2=a 1:put(b) 1=ok 2:get 2=a 1:put(c) 1=ok 2:get 2=c";
    let Verdict::Invalid(found) = verdict(text) else {
        panic!("it is not linearizable");
    };
    assert_eq!(found.operations.len(), 4);
    assert_eq!(found.order.len(), 3);
    assert_eq!(found.blocked, found.operations[3..]);
    let text = found.to_string();
    assert!(
        text.contains("of its first 4 operations at most 3"),
        "{text}"
    );
    assert!(text.contains("then the key holds \"b\""), "{text}");
}

#[test]
fn a_spent_budget_is_no_verdict() {
    let history = parse("1:put(a) 1=ok 1:put(b) 1=ok 2:get 2=a");
    assert!(matches!(
        check(&history, 1),
        Verdict::Unknown { steps: 1, .. }
    ));
}

/// `SplitMix64`: a small generator, so that a seed gives the same history for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// What a simulated client is doing.
#[derive(Clone)]
enum Client {
    Idle,
    Sent(u64, Call),
    Applied(u64, Outcome),
}

struct Shape {
    clients: usize,
    operations: u64,
    values: usize,
    unanswered_percent: usize,
    revisions: bool,
}

/// A real register with real clients in a random schedule: linearizable by construction. A client whose call goes
/// unanswered leaves it behind, to take effect later or never.
struct Simulation<'a> {
    random: &'a mut Random,
    shape: &'a Shape,
    events: Vec<Event>,
    held: Option<(String, u64)>,
    revision: u64,
    adrift: Vec<Call>,
}

fn simulate(random: &mut Random, shape: &Shape) -> Vec<Event> {
    let mut simulation = Simulation {
        random,
        shape,
        events: Vec::new(),
        held: None,
        revision: 0,
        adrift: Vec::new(),
    };
    simulation.run();
    simulation.events
}

impl Simulation<'_> {
    fn run(&mut self) {
        let mut clients = vec![Client::Idle; self.shape.clients];
        let mut invoked = 0;
        while invoked < self.shape.operations || clients.iter().any(|c| !matches!(c, Client::Idle))
        {
            if !self.adrift.is_empty() && self.random.percent(3) {
                let which = self.random.below(self.adrift.len());
                let call = self.adrift.swap_remove(which);
                self.apply(&call);
            }
            let who = self.random.below(clients.len());
            clients[who] = match clients[who].clone() {
                Client::Idle if invoked < self.shape.operations => {
                    invoked += 1;
                    self.invoke(invoked, who)
                }
                Client::Idle => Client::Idle,
                Client::Sent(_, call) if self.random.percent(self.shape.unanswered_percent) => {
                    self.adrift.push(call);
                    Client::Idle
                }
                Client::Sent(operation, call) => Client::Applied(operation, self.apply(&call)),
                Client::Applied(operation, outcome) => {
                    self.events.push(Event::Return {
                        operation,
                        at_us: 0,
                        outcome,
                    });
                    Client::Idle
                }
            };
        }
    }

    fn invoke(&mut self, operation: u64, who: usize) -> Client {
        let value = match self.shape.values {
            0 => format!("v{operation}"),
            values => format!("v{}", self.random.below(values)),
        };
        let condition = match self.random.below(8) {
            0 => Condition::IfAbsent,
            1 if self.shape.revisions => Condition::IfRevision(self.revision),
            2 => match &self.held {
                Some((held, _)) => Condition::IfValue(held.clone()),
                None => Condition::Always,
            },
            _ => Condition::Always,
        };
        let call = match self.random.below(10) {
            0..=4 => Call::Get,
            5..=8 => Call::Put { value, condition },
            _ => Call::Delete { condition },
        };
        self.events.push(Event::Invoke {
            operation,
            process: u32::try_from(who).unwrap(),
            at_us: 0,
            key: "k".to_owned(),
            call: call.clone(),
        });
        Client::Sent(operation, call)
    }

    fn holds(&self, condition: &Condition) -> bool {
        match (condition, &self.held) {
            (Condition::Always, _) | (Condition::IfAbsent, None) => true,
            (Condition::IfRevision(wanted), Some((_, revision))) => wanted == revision,
            (Condition::IfValue(wanted), Some((value, _))) => wanted == value,
            _ => false,
        }
    }

    fn apply(&mut self, call: &Call) -> Outcome {
        let shown = |revision| self.shape.revisions.then_some(revision);
        match call {
            Call::Get => match &self.held {
                None => Outcome::Absent,
                Some((value, revision)) => Outcome::Found {
                    value: value.clone(),
                    revision: shown(*revision),
                },
            },
            Call::Delete { .. } if self.held.is_none() => Outcome::Absent,
            Call::Put { condition, .. } | Call::Delete { condition } if !self.holds(condition) => {
                Outcome::Refused
            }
            Call::Put { value, .. } => {
                self.revision += 1;
                self.held = Some((value.clone(), self.revision));
                Outcome::Written {
                    revision: shown(self.revision),
                }
            }
            Call::Delete { .. } => {
                self.revision += 1;
                self.held = None;
                Outcome::Deleted {
                    revision: shown(self.revision),
                }
            }
        }
    }
}

/// Changes one answer.
fn mutate(random: &mut Random, events: &mut [Event]) {
    let outcomes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Return { outcome, .. } => Some(outcome.clone()),
            Event::Invoke { .. } => None,
        })
        .collect();
    let calls: std::collections::BTreeMap<u64, Call> = events
        .iter()
        .filter_map(|event| match event {
            Event::Invoke {
                operation, call, ..
            } => Some((*operation, call.clone())),
            Event::Return { .. } => None,
        })
        .collect();
    let which = random.below(events.len());
    if let Event::Return {
        outcome, operation, ..
    } = &mut events[which]
    {
        let other = outcomes[random.below(outcomes.len())].clone();
        let event = |outcome| {
            vec![
                Event::Invoke {
                    operation: 0,
                    process: 0,
                    at_us: 0,
                    key: String::new(),
                    call: calls[operation].clone(),
                },
                Event::Return {
                    operation: 0,
                    at_us: 0,
                    outcome,
                },
            ]
        };
        if History::new(event(other.clone())).is_ok() {
            *outcome = other;
        }
    }
}

/// Every order of every subset of the unanswered operations, without memory and without cleverness.
fn brute_force(compiled: &Compiled<'_>) -> bool {
    let all: Vec<_> = compiled.definite.iter().chain(&compiled.optional).collect();
    let must = compiled.definite.len();
    let mut taken = vec![false; all.len()];
    extend(&all, must, &mut taken, register::State::default())
}

fn extend(
    all: &[&register::Candidate],
    must: usize,
    taken: &mut [bool],
    state: register::State,
) -> bool {
    if taken[..must].iter().all(|taken| *taken) {
        return true;
    }
    for next in 0..all.len() {
        let blocked =
            (0..all.len()).any(|other| !taken[other] && all[other].returned < all[next].invoked);
        if taken[next] || blocked {
            continue;
        }
        if let Some(after) = state.after(all[next].step) {
            taken[next] = true;
            if extend(all, must, taken, after) {
                return true;
            }
            taken[next] = false;
        }
    }
    false
}

#[test]
fn small_histories_are_judged_as_by_brute_force() {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..10_000 {
        let mut random = Random(seed);
        let shape = Shape {
            clients: 2 + random.below(3),
            operations: 3 + random.next() % 5,
            values: random.below(4),
            unanswered_percent: 25,
            revisions: random.percent(50),
        };
        let mut events = simulate(&mut random, &shape);
        let genuine = check(&History::new(events.clone()).unwrap(), DEFAULT_BUDGET);
        assert!(genuine.is_valid(), "seed {seed}: {genuine:?}");
        for _ in 0..random.below(3) * 8 {
            mutate(&mut random, &mut events);
        }
        let history = History::new(events).unwrap();
        let compiled = Compiled::new(&history.by_key()["k"]);
        let expected = brute_force(&compiled);
        let verdict = check(&history, DEFAULT_BUDGET);
        assert_eq!(verdict.is_valid(), expected, "seed {seed}: {verdict:?}");
        if expected {
            valid += 1;
        } else {
            invalid += 1;
        }
    }
    // Both kinds occur, or the comparison says nothing.
    assert!(
        valid > 1_000 && invalid > 1_000,
        "{valid} valid, {invalid} not"
    );
}

fn large(seed: u64, revisions: bool, unanswered_percent: usize) -> Vec<Event> {
    let shape = Shape {
        clients: 8,
        operations: 4_000,
        values: 0,
        unanswered_percent,
        revisions,
    };
    simulate(&mut Random(seed), &shape)
}

#[test]
fn large_histories_take_no_time() {
    for (seed, revisions, unanswered) in [(1, true, 0), (2, true, 1), (3, false, 0), (4, false, 1)]
    {
        let history = History::new(large(seed, revisions, unanswered)).unwrap();
        let started = Instant::now();
        let verdict = check(&history, DEFAULT_BUDGET);
        let took = started.elapsed();
        assert!(verdict.is_valid(), "seed {seed}: {verdict:?}");
        // Generous, for a busy machine; it takes a few hundredths of a second.
        assert!(took < Duration::from_secs(5), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_stale_read_in_a_large_history_is_found() {
    let mut found = 0;
    for seed in 0..10 {
        let mut events = large(seed, true, 1);
        // A read late in the history answers what one in its middle did.
        let reads: Vec<usize> = (0..events.len())
            .filter(|i| {
                matches!(
                    &events[*i],
                    Event::Return {
                        outcome: Outcome::Found { .. },
                        ..
                    }
                )
            })
            .collect();
        let (old, late) = (reads[reads.len() / 2], reads[reads.len() * 3 / 4]);
        let Event::Return { outcome: stale, .. } = events[old].clone() else {
            unreachable!("only reads were picked");
        };
        if let Event::Return { outcome, .. } = &mut events[late] {
            *outcome = stale;
        }
        let history = History::new(events).unwrap();
        match check(&history, DEFAULT_BUDGET) {
            Verdict::Invalid(counterexample) => {
                found += 1;
                assert!(counterexample.operations.len() < 4_000, "seed {seed}");
            }
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert_eq!(found, 10);
}
