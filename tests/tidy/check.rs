//! Whether the tree keeps the rules.

use std::collections::BTreeSet;
use std::fmt;

use super::rules::{
    BANNED_TEXT, BANS, CRATES, IMPORTS, MAX_COLUMNS, MAX_LINES, OPEN_TO_ALL, POLLS, Where,
};
use super::source::{File, blank, is_rust, is_under, is_word, test_lines, test_modules};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

// ---- reading ----------------------------------------------------------------------------------------------

pub fn check(files: &[File]) -> Vec<Finding> {
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

pub fn check_text(file: &File, report: &mut impl FnMut(usize, String)) {
    for (number, line) in (1..).zip(file.text.lines()) {
        for (text, why) in BANNED_TEXT {
            if line.contains(text) {
                report(number, format!("{text}: {why}"));
            }
        }
    }
}

pub fn check_shape(file: &File, report: &mut impl FnMut(usize, String)) {
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

pub fn check_code(
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

pub fn is_banned(path: &str, is_test: bool, place: Where) -> bool {
    let listed = |paths: &[&str]| paths.iter().any(|listed| is_under(path, listed));
    match place {
        Where::Everywhere => true,
        Where::ProductExcept(paths) => !is_test && !listed(paths),
        Where::TestsExcept(paths) => is_test && !listed(paths),
    }
}

/// Whether `call` stands in a line, not as the end of a longer word.
pub fn has_call(line: &str, call: &str) -> bool {
    let starts_with_word = is_word(call.as_bytes()[0]);
    line.match_indices(call)
        .any(|(at, _)| !(starts_with_word && at > 0 && is_word(line.as_bytes()[at - 1])))
}

/// Whether a path in this line begins with the crate or with one named after it, as `tonic_health` is.
pub fn uses_crate(line: &str, name: &str) -> bool {
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

pub fn check_imports(
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
pub fn top_module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let name = inside.split(['/', '.']).next()?;
    (!matches!(inside, "lib.rs" | "main.rs")).then_some(name)
}

/// Every module that code names by a path from the crate's root, with its line.
pub fn imports(code: &str) -> Vec<(usize, &str)> {
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

pub fn word(code: &str) -> &str {
    let end = code.bytes().position(|byte| !is_word(byte));
    &code[..end.unwrap_or(code.len())]
}

/// The first names of a group's members: `a::{b, c}, d}` gives `a` and `d`.
pub fn first_names(group: &str) -> Vec<&str> {
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
