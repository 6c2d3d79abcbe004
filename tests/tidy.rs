//! Keeps the tree as README and the module docs describe it: who may import whom, which crate is used where,
//! how long a file or line may be, and what may not be called.
//!
//! Plain text work over a source whose comments and literals are blanked out; no parser. What stands in test
//! code (files under `tests/`, and what follows a `#[cfg(test)] mod`) may compose modules and crates freely
//! and may unwrap. The rules are themselves tested, on snippets that break each of them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

/// A file has fewer lines than this.
const MAX_LINES: usize = 800;
/// A line has at most as many characters; `rustfmt` wraps neither comments nor literals.
const MAX_COLUMNS: usize = 140;

/// Whom a module may import. `limits` and `types` are open to all; every module may import itself.
const IMPORTS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("planted", &[]),
    ("types", &[]),
    ("clock", &[]),
    ("transport", &[]),
    ("config", &[]),
    ("proto", &[]),
    ("state", &["proto"]),
    ("raft", &["state", "proto"]),
    ("storage", &["raft", "state", "proto"]),
    // Heartbeats carry the log clock.
    ("network", &["raft", "proto", "clock", "transport"]),
    (
        "node",
        &[
            "storage", "network", "raft", "state", "clock", "config", "proto",
        ],
    ),
    // A reply passes from raft to the edge as it is.
    ("api", &["node", "state", "proto", "raft", "transport"]),
    (
        "server",
        &[
            "node",
            "api",
            "network",
            "config",
            "clock",
            "proto",
            "transport",
        ],
    ),
    ("client", &["proto", "transport"]),
    // An expiry is a time on the web server's own clock.
    ("tower_sessions", &["client", "proto", "clock"]),
    // `trolley serve` hands over to the server, `bench` and `demo` to the workloads.
    ("cli", &["client", "proto", "config", "server", "torture"]),
    // The messages of other stores are generated in `proto` too.
    ("torture", &["client", "proto"]),
    ("bin", &[]),
];

const OPEN_TO_ALL: &[&str] = &["limits", "planted", "types"];

/// Where a crate, and the crates whose names begin with its name, may be used.
const CRATES: &[(&str, &[&str])] = &[
    ("rocksdb", &["src/storage"]),
    ("rustix", &["src/storage", "src/torture"]),
    (
        "openraft",
        &["src/raft", "src/storage", "src/network", "src/node"],
    ),
    ("tower_sessions_core", &["src/tower_sessions"]),
    (
        "tonic",
        &[
            "src/proto",
            "src/transport",
            "src/network",
            "src/api",
            "src/server",
            "src/client",
            "src/torture",
        ],
    ),
];

/// Where a ban holds.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    Everywhere,
    /// In what ships, but for these.
    ProductExcept(&'static [&'static str]),
    /// In tests of all kinds, but for these.
    TestsExcept(&'static [&'static str]),
}

/// What may not stand in code.
const BANS: &[(&str, Where, &str)] = &[
    (
        ".unwrap()",
        Where::ProductExcept(&[]),
        "say why it cannot fail: expect(\"...\")",
    ),
    ("dbg!", Where::Everywhere, "left over"),
    ("todo!", Where::Everywhere, "unfinished"),
    ("unimplemented!", Where::Everywhere, "unfinished"),
    (
        "#[ignore",
        Where::Everywhere,
        "a test that nobody runs proves nothing",
    ),
    (
        "SystemTime::now",
        Where::ProductExcept(&["src/clock.rs"]),
        "wall time is read in `clock` alone",
    ),
    (
        "thread::sleep",
        Where::TestsExcept(&[]),
        "wait for a condition, within a deadline",
    ),
    (
        "time::sleep(",
        // There, time is simulated: nobody waits, and what happens at a time is what is asked.
        Where::TestsExcept(&["tests/simulation"]),
        "wait for a condition, within a deadline",
    ),
    (
        "println!",
        Where::ProductExcept(&["src/cli", "src/main.rs", "scripts/build.rs"]),
        "only `cli` talks to people; log it",
    ),
    (
        "eprintln!",
        Where::ProductExcept(&["src/cli", "src/main.rs"]),
        "only `cli` talks to people; log it",
    ),
    (
        "print!",
        Where::ProductExcept(&["src/cli", "src/main.rs"]),
        "only `cli` talks to people; log it",
    ),
    (
        "eprint!",
        Where::ProductExcept(&["src/cli", "src/main.rs"]),
        "only `cli` talks to people; log it",
    ),
];

/// Functions that poll have to wait between two looks. They are named after what they do.
const POLLS: &[&str] = &["eventually", "poll"];

/// What may not stand anywhere, comments included. Put together here, so that this file may.
const BANNED_TEXT: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "do it or open an issue"),
    (concat!("FIX", "ME"), "do it or open an issue"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
];

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

// ---- reading ----------------------------------------------------------------------------------------------

/// A text file of the tree, its path relative to the root with `/` between.
struct File {
    path: String,
    text: String,
}

const ROOTS: &[&str] = &[
    "src",
    "examples",
    "tests",
    "proto",
    "scripts",
    ".ci",
    "README.md",
    "Cargo.toml",
];

fn read_tree() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for start in ROOTS {
        read_into(root, &root.join(start), &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn read_into(root: &Path, at: &Path, files: &mut Vec<File>) {
    if at.is_dir() {
        for entry in fs::read_dir(at).expect("a directory of the checkout can be listed") {
            let entry = entry.expect("a directory of the checkout can be listed");
            read_into(root, &entry.path(), files);
        }
    } else if let Ok(text) = fs::read_to_string(at) {
        // What is not text is a fixture, and holds no rules to break.
        let path = at.strip_prefix(root).expect("it was found under the root");
        files.push(File {
            path: path.to_string_lossy().replace('\\', "/"),
            text,
        });
    }
}

/// The source with comments and the insides of literals as spaces, line for line.
fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let Some(end) = literal_or_comment(bytes, at) else {
            at += 1;
            continue;
        };
        let end = end.min(bytes.len());
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Characters of more than one byte are only found in what was blanked, or are left whole.
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins here ends.
fn literal_or_comment(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_word = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => Some(at + find(rest, b"\n").unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + find(rest, b"*/").map_or(rest.len(), |end| end + 2)),
        [b'"', ..] => Some(at + quoted(rest, b'"')),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string(rest).map(|len| at + len),
        [b'b', b'r', b'"' | b'#', ..] if !in_word => raw_string(&rest[1..]).map(|len| at + 1 + len),
        [b'\'', b'\\', ..] => Some(at + quoted(rest, b'\'')),
        // A lifetime has no closing quote behind its first character.
        [b'\'', _, b'\'', ..] => Some(at + 3),
        _ => None,
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = 2 + hashes;
    Some(find(&bytes[body..], &close).map_or(bytes.len(), |end| body + end + close.len()))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

// ---- test code --------------------------------------------------------------------------------------------

/// Paths without `.rs` of modules that are compiled for tests only.
fn test_modules(files: &[File]) -> BTreeSet<String> {
    let rust = files.iter().filter(|file| is_rust(&file.path));
    rust.flat_map(|file| {
        let lines: Vec<&str> = file.text.lines().collect();
        let marks = (0..lines.len()).filter(|i| lines[*i].trim() == "#[cfg(test)]");
        let found: Vec<String> = marks
            .filter_map(|mark| test_module(&file.path, &lines[mark + 1..]))
            .collect();
        found
    })
    .collect()
}

/// The module that a `#[cfg(test)]` in front of these lines declares, if it has a file of its own.
fn test_module(path: &str, lines: &[&str]) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    let mut given = None;
    for line in lines {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            given = rest.strip_suffix("\"]");
        } else if let Some(module) = line.strip_suffix(';').and_then(|l| l.rsplit_once("mod ")) {
            let own = matches!(name, "mod.rs" | "lib.rs" | "main.rs");
            let stem = name.trim_end_matches(".rs");
            return Some(match given {
                Some(given) => format!("{folder}/{}", module_of(given)),
                None if own => format!("{folder}/{}", module.1),
                None => format!("{folder}/{stem}/{}", module.1),
            });
        } else if !line.starts_with("#[") {
            return None;
        }
    }
    None
}

fn module_of(path: &str) -> &str {
    let path = path.trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path)
}

/// For each line whether it is test code.
fn test_lines(file: &File, test_modules: &BTreeSet<String>) -> Vec<bool> {
    let module = module_of(&file.path);
    let whole =
        file.path.starts_with("tests/") || test_modules.iter().any(|test| is_under(module, test));
    let mut lines: Vec<bool> = Vec::new();
    let mut inside: Option<&str> = None;
    for line in file.text.lines() {
        let trimmed = line.trim_start();
        let indent = &line[..line.len() - trimmed.len()];
        if inside.is_none() && trimmed == "#[cfg(test)]" {
            inside = Some(indent);
        }
        lines.push(whole || inside.is_some());
        // rustfmt closes what a line opened at that line's indentation; an item of one line ends with `;`.
        let closes = line == format!("{}}}", inside.unwrap_or("\0"));
        let declares = inside == Some(indent) && trimmed.ends_with(';');
        if closes || declares {
            inside = None;
        }
    }
    lines
}

fn is_under(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == "rs")
}

// ---- the rules --------------------------------------------------------------------------------------------

fn check(files: &[File]) -> Vec<Finding> {
    let test_modules = test_modules(files);
    let mut findings = Vec::new();
    for file in files {
        let mut report = |line: usize, rule: String| {
            findings.push(Finding {
                path: file.path.clone(),
                line,
                rule,
            });
        };
        check_text(file, &mut report);
        if is_rust(&file.path) {
            check_shape(file, &mut report);
            check_code(file, &test_modules, &mut report);
        }
    }
    findings
}

fn check_text(file: &File, report: &mut impl FnMut(usize, String)) {
    for (number, line) in (1..).zip(file.text.lines()) {
        for (text, why) in BANNED_TEXT {
            if line.contains(text) {
                report(number, format!("{text}: {why}"));
            }
        }
    }
}

fn check_shape(file: &File, report: &mut impl FnMut(usize, String)) {
    let lines = file.text.lines().count();
    if lines >= MAX_LINES {
        report(
            lines,
            format!("{lines} lines, where {MAX_LINES} are too many: split it"),
        );
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        let columns = line.chars().count();
        if columns > MAX_COLUMNS {
            report(number, format!("{columns} columns: wrap at {MAX_COLUMNS}"));
        }
    }
    if !file.text.starts_with("//!") {
        report(1, "no module documentation: begin with `//!`".to_owned());
    }
}

fn check_code(
    file: &File,
    test_modules: &BTreeSet<String>,
    report: &mut impl FnMut(usize, String),
) {
    let code = blank(&file.text);
    let in_test = test_lines(file, test_modules);
    let mut polls = false;
    for ((number, line), is_test) in (1..).zip(code.lines()).zip(in_test) {
        if let Some((_, function)) = line.split_once("fn ") {
            polls = POLLS.contains(&word(function));
        }
        for (call, place, why) in BANS {
            let may_poll = polls && matches!(place, Where::TestsExcept(_));
            if has_call(line, call) && is_banned(&file.path, is_test, *place) && !may_poll {
                report(number, format!("{call}: {why}"));
            }
        }
        for (name, places) in CRATES {
            let allowed = places.iter().any(|place| is_under(&file.path, place));
            if file.path.starts_with("src/") && !is_test && !allowed && uses_crate(line, name) {
                report(
                    number,
                    format!("`{name}` is used only in {}", places.join(", ")),
                );
            }
        }
    }
    check_imports(file, &code, test_modules, report);
}

fn is_banned(path: &str, is_test: bool, place: Where) -> bool {
    let listed = |paths: &[&str]| paths.iter().any(|listed| is_under(path, listed));
    match place {
        Where::Everywhere => true,
        Where::ProductExcept(paths) => !is_test && !listed(paths),
        Where::TestsExcept(paths) => is_test && !listed(paths),
    }
}

/// Whether `call` stands in a line, not as the end of a longer word.
fn has_call(line: &str, call: &str) -> bool {
    let starts_with_word = is_word(call.as_bytes()[0]);
    line.match_indices(call)
        .any(|(at, _)| !(starts_with_word && at > 0 && is_word(line.as_bytes()[at - 1])))
}

/// Whether a path in this line begins with the crate or with one named after it, as `tonic_health` is.
fn uses_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].trim_end();
        let starts = !line[..at].bytes().next_back().is_some_and(is_word)
            && (!before.ends_with("::") || before.ends_with(" ::"))
            && !before.ends_with('.');
        let rest =
            line[at + name.len()..].trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        let suffix = &line[at + name.len()..line.len() - rest.len()];
        let named = suffix.is_empty() || suffix.starts_with('_');
        starts && named && (rest.starts_with("::") || before.ends_with("use"))
    })
}

fn check_imports(
    file: &File,
    code: &str,
    test_modules: &BTreeSet<String>,
    report: &mut impl FnMut(usize, String),
) {
    let Some(module) = top_module(&file.path) else {
        return;
    };
    let Some((_, listed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        report(
            1,
            format!("module `{module}` is missing in the table of imports"),
        );
        return;
    };
    let in_test = test_lines(file, test_modules);
    for (line, imported) in imports(code) {
        let allowed = imported == module
            || OPEN_TO_ALL.contains(&imported)
            || listed.contains(&imported)
            || in_test[line - 1];
        if !allowed {
            report(line, format!("`{module}` may not import `{imported}`"));
        }
    }
}

/// The module below the crate's root that a file belongs to; none for the roots themselves.
fn top_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let name = inside.split(['/', '.']).next()?;
    (!matches!(inside, "lib.rs" | "main.rs")).then_some(name)
}

/// Every module that code names by a path from the crate's root, with its line.
fn imports(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, root) in code.match_indices("crate::") {
        if at > 0 && is_word(code.as_bytes()[at - 1]) {
            continue;
        }
        let start = at + root.len();
        let line = code[..at].matches('\n').count() + 1;
        if let Some(group) = code[start..].strip_prefix('{') {
            found.extend(first_names(group).into_iter().map(|name| (line, name)));
        } else {
            found.push((line, word(&code[start..])));
        }
    }
    found
}

fn word(code: &str) -> &str {
    let end = code.bytes().position(|byte| !is_word(byte));
    &code[..end.unwrap_or(code.len())]
}

/// The first names of a group's members: `a::{b, c}, d}` gives `a` and `d`.
fn first_names(group: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let (mut depth, mut fresh) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                names.push(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

// ---- the tests --------------------------------------------------------------------------------------------

#[test]
fn the_tree_is_tidy() {
    let files = read_tree();
    assert!(files.len() > 50, "only {} files were found", files.len());
    let findings = check(&files);
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

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
