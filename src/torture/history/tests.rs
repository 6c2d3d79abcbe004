//! Recording from many threads, the file form, and what is refused as a history.

use std::sync::Arc;
use std::thread;

use super::*;

fn put(value: &str) -> Call {
    Call::Put {
        value: value.to_owned(),
        condition: Condition::Always,
    }
}

fn invoke(operation: u64, call: Call) -> Event {
    Event::Invoke {
        operation,
        process: 0,
        at_us: 0,
        key: "k".to_owned(),
        call,
    }
}

fn returns(operation: u64, outcome: Outcome) -> Event {
    Event::Return {
        operation,
        at_us: 0,
        outcome,
    }
}

#[test]
fn many_threads_record_one_order() {
    let recorder = Arc::new(Recorder::new());
    let clients: Vec<_> = (0..8)
        .map(|process| {
            let recorder = Arc::clone(&recorder);
            thread::spawn(move || {
                for turn in 0..200 {
                    let key = format!("k{}", turn % 3);
                    let ticket = recorder.invoke(process, &key, put(&format!("{process}-{turn}")));
                    recorder.complete(ticket, Outcome::Written { revision: None });
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }

    let history = recorder.history().unwrap();
    assert_eq!(history.events().len(), 8 * 200 * 2);
    let operations: Vec<_> = history.by_key().values().flatten().collect();
    assert_eq!(operations.len(), 8 * 200);
    assert!(operations.iter().all(|o| o.returned > Some(o.invoked)));
    // A client is sequential, so its own operations never overlap.
    for process in 0..8 {
        let mut own: Vec<_> = operations.iter().filter(|o| o.process == process).collect();
        own.sort_by_key(|o| o.invoked);
        assert!(own.windows(2).all(|w| w[0].returned < Some(w[1].invoked)));
    }
    let times: Vec<_> = history
        .events()
        .iter()
        .map(|event| match event {
            Event::Invoke { at_us, .. } | Event::Return { at_us, .. } => *at_us,
        })
        .collect();
    assert!(times.is_sorted());
}

#[test]
fn a_dropped_ticket_is_an_unknown_outcome() {
    let recorder = Recorder::new();
    drop(recorder.invoke(1, "k", put("a")));
    let history = recorder.history().unwrap();
    let operation = &history.by_key()["k"][0];
    assert_eq!(operation.outcome, Outcome::Unknown);
    assert_eq!(operation.returned, None);
}

#[test]
fn a_dump_loads_as_it_was() {
    let recorder = Recorder::new();
    let cas = Call::Put {
        value: "b\n\"ü".to_owned(),
        condition: Condition::IfRevision(7),
    };
    let first = recorder.invoke(1, "k", cas);
    let read = recorder.invoke(2, "l", Call::Get);
    recorder.complete(first, Outcome::Refused);
    let found = Outcome::Found {
        value: "x".to_owned(),
        revision: Some(3),
    };
    recorder.complete(read, found);
    drop(recorder.invoke(3, "k", put("c")));

    let history = recorder.history().unwrap();
    let mut file = Vec::new();
    history.dump(&mut file).unwrap();
    assert_eq!(str::from_utf8(&file).unwrap().lines().count(), 5);
    let loaded = History::load(file.as_slice()).unwrap();
    assert_eq!(loaded.events(), history.events());
    assert_eq!(loaded.by_key(), history.by_key());
}

#[test]
fn the_file_form_is_stable() {
    let line = concat!(
        r#"{"event":"invoke","operation":4,"process":2,"at_us":17,"key":"k","#,
        r#""call":{"put":{"value":"v","condition":{"if_revision":9}}}}"#,
        "\n",
        r#"{"event":"return","operation":4,"at_us":20,"outcome":{"written":{"revision":10}}}"#,
        "\n",
    );
    let history = History::load(line.as_bytes()).unwrap();
    let mut file = Vec::new();
    history.dump(&mut file).unwrap();
    assert_eq!(String::from_utf8(file).unwrap(), line);
}

#[test]
fn what_is_not_a_history_is_refused() {
    let done = || Outcome::Written { revision: None };
    let refused = |events| History::new(events).unwrap_err().to_string();
    assert_eq!(
        refused(vec![invoke(1, put("a")), invoke(1, put("b"))]),
        "operation 1 is invoked twice"
    );
    assert_eq!(
        refused(vec![returns(1, done()), invoke(1, put("a"))]),
        "operation 1 returns before it is invoked"
    );
    assert_eq!(
        refused(vec![
            invoke(1, put("a")),
            returns(1, done()),
            returns(1, done())
        ]),
        "operation 1 returns twice"
    );
    assert_eq!(
        refused(vec![invoke(1, Call::Get), returns(1, done())]),
        "operation 1 has an outcome that does not fit its call"
    );
    let broken = "{\"event\":\"invoke\"}\n";
    assert!(matches!(
        History::load(broken.as_bytes()),
        Err(Error::Syntax { line: 1, .. })
    ));
}
