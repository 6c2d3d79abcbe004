//! Each rule finds what breaks it, and nothing else.

use super::check::{Finding, check};
use super::rules::{BANNED_TEXT, MAX_COLUMNS, MAX_LINES};
use super::source::File;

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

/// What is found in one file, as `line: rule`.
fn findings(path: &str, text: &str) -> Vec<String> {
    let found = check(&[file(path, &format!("//! Doc.\n{text}"))]);
    let line = |finding: Finding| format!("{}: {}", finding.line, finding.rule);
    found.into_iter().map(line).collect()
}

#[track_caller]
fn assert_found(path: &str, text: &str, line: usize, rule: &str) {
    let found = findings(path, text);
    let expected = found.len() == 1 && found[0].starts_with(&format!("{line}: "));
    assert!(
        expected && found[0].contains(rule),
        "{path}: {text}\n{found:?}"
    );
}

#[track_caller]
fn assert_clean(path: &str, text: &str) {
    assert_eq!(findings(path, text), Vec::<String>::new(), "{path}: {text}");
}

#[test]
fn forbidden_imports_are_found() {
    assert_found(
        "src/state/apply.rs",
        "use crate::storage::Db;",
        2,
        "`state` may not import `storage`",
    );
    assert_found(
        "src/raft.rs",
        "\nfn f() { crate::node::g(); }",
        3,
        "`raft` may not import `node`",
    );
    assert_found(
        "src/api/kv.rs",
        "use crate::{\n    node::{Node, storage},\n    storage::Db,\n};",
        2,
        "`api` may not import `storage`",
    );
    assert_found(
        "src/gossip/mod.rs",
        "",
        1,
        "`gossip` is missing in the table",
    );
    assert_clean(
        "src/api/kv.rs",
        "use crate::node::Node;\nuse crate::types::Key;",
    );
    assert_clean(
        "src/state/apply.rs",
        "use crate::state::Fault;\n// crate::storage\nconst A: &str = \"crate::storage\";",
    );
    assert_clean(
        "src/state/apply.rs",
        "#[cfg(test)]\nmod tests {\n    use crate::storage::Db;\n}",
    );
    assert_clean("src/lib.rs", "use crate::storage::Db;");
}

#[test]
fn code_behind_a_test_module_ships() {
    let text = "#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\nuse crate::storage::Db;";
    assert_found("src/state/apply.rs", text, 7, "may not import");
    let text = "#[cfg(test)]\nmod tests;\nuse crate::storage::Db;";
    assert_found("src/state/apply.rs", text, 4, "may not import");
}

#[test]
fn crates_outside_their_place_are_found() {
    assert_found(
        "src/node/open.rs",
        "use rocksdb::DB;",
        2,
        "`rocksdb` is used only in src/storage",
    );
    assert_found(
        "src/state/apply.rs",
        "fn f(_: openraft::Vote) {}",
        2,
        "`openraft`",
    );
    assert_found("src/cli/bench.rs", "use tonic_health::pb;", 2, "`tonic`");
    assert_clean("src/torture/peers/etcd.rs", "use tonic::Request;");
    assert_clean(
        "src/node/open.rs",
        "use openraft_rt::Runtime;\nlet tonic = 1;\nuse crate::node::rocksdb::x;",
    );
}

#[test]
fn banned_calls_are_found() {
    assert_found(
        "src/node/open.rs",
        "fn f() { g().unwrap(); }",
        2,
        ".unwrap()",
    );
    assert_found("tests/it/main.rs", "fn f() { dbg!(1); }", 2, "dbg!");
    assert_found("src/node/open.rs", "fn f() { todo!() }", 2, "todo!");
    assert_found(
        "tests/it/main.rs",
        "fn f() { unimplemented!() }",
        2,
        "unimplemented!",
    );
    assert_found(
        "tests/it/main.rs",
        "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
        3,
        "#[ignore",
    );
    assert_found(
        "src/node/open.rs",
        "let now = SystemTime::now();",
        2,
        "SystemTime::now",
    );
    assert_found(
        "tests/it/main.rs",
        "std::thread::sleep(A);",
        2,
        "thread::sleep",
    );
    assert_found(
        "tests/it/main.rs",
        "tokio::time::sleep(A).await;",
        2,
        "time::sleep(",
    );
    assert_found("src/node/open.rs", "println!(\"a\");", 2, "println!");
    assert_found("src/node/open.rs", "eprint!(\"a\");", 2, "eprint!");
}

#[test]
fn what_only_looks_banned_is_not() {
    assert_clean(
        "tests/it/main.rs",
        "fn f() { g().unwrap(); println!(\"a\"); }",
    );
    assert_clean("src/cli/output.rs", "fn f() { println!(\"a\"); }");
    assert_clean(
        "src/node/open.rs",
        "// Never .unwrap() here.\nlet a = \"todo!() .unwrap()\";",
    );
    assert_clean(
        "src/node/open.rs",
        "let a = r#\"x\".unwrap()\"#; let b = '\"'; let c = '\\''; g::<'a>();",
    );
    assert_clean(
        "tests/it/main.rs",
        "async fn eventually() {\n    tokio::time::sleep(A).await;\n}",
    );
    assert_clean("tests/simulation/log.rs", "tokio::time::sleep(A).await;");
    assert_clean("src/clock.rs", "let now = SystemTime::now();");
    assert_clean(
        "src/node/open.rs",
        "tokio::time::sleep_until(next).await;\ntokio::time::sleep(A).await;",
    );
}

#[test]
fn literals_do_not_hide_what_follows_them() {
    let text = "let a = r#\"x\"#; let b = '\"'; let c = \"\\\"\"; let d: &'a str = e.unwrap();";
    assert_found("src/node/open.rs", text, 2, ".unwrap()");
    assert_found(
        "src/node/open.rs",
        "/* a\nb */ let d = e.unwrap();",
        3,
        ".unwrap()",
    );
}

#[test]
fn test_modules_in_files_of_their_own_are_known() {
    let check_both = |parent: &str, declaration: &str, child: &str| {
        let files = [
            file(parent, &format!("//! Doc.\n#[cfg(test)]\n{declaration}\n")),
            file(child, "//! Doc.\nfn f() { g().unwrap(); }"),
        ];
        check(&files)
    };
    assert_eq!(
        check_both("src/node/mod.rs", "mod tests;", "src/node/tests.rs"),
        []
    );
    assert_eq!(
        check_both("src/node/mod.rs", "mod tests;", "src/node/tests/deep.rs"),
        []
    );
    assert_eq!(
        check_both("src/node/open.rs", "mod tests;", "src/node/open/tests.rs"),
        []
    );
    let placed = "#[path = \"open_tests/mod.rs\"]\nmod tests;";
    assert_eq!(
        check_both("src/node/open.rs", placed, "src/node/open_tests/a.rs"),
        []
    );
    assert_eq!(
        check_both("src/node/mod.rs", "mod tests;", "src/node/tests_not.rs").len(),
        1
    );
    assert_eq!(
        check_both("src/node/mod.rs", "use a::b;", "src/node/tests.rs").len(),
        1
    );
}

#[test]
fn bad_shapes_and_texts_are_found() {
    let bare = check(&[file("src/node/open.rs", "fn f() {}\n")]);
    assert!(bare.len() == 1 && bare[0].rule.contains("no module documentation"));
    let long = "\n".repeat(MAX_LINES);
    assert_found("src/node/open.rs", &long, MAX_LINES + 1, "too many");
    assert_clean("src/node/open.rs", &"\n".repeat(MAX_LINES - 2));
    let wide = |columns| format!("// {}", "─".repeat(columns - 3));
    assert_found("src/node/open.rs", &wide(MAX_COLUMNS + 1), 2, "columns");
    assert_clean("src/node/open.rs", &wide(MAX_COLUMNS));
    for (text, _) in BANNED_TEXT {
        assert_found("src/node/open.rs", &format!("// {text} later"), 2, text);
        assert_found("README.md", &format!("see {text}"), 2, text);
    }
}
