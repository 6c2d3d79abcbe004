//! Keeps the tree as README and the module docs describe it: who may import whom, which crate is used where,
//! how long a file or line may be, and what may not be called.
//!
//! Plain text work over a source whose comments and literals are blanked out; no parser. What stands in test
//! code (files under `tests/`, and what follows a `#[cfg(test)] mod`) may compose modules and crates freely
//! and may unwrap. The rules are themselves tested, on snippets that break each of them.

mod check;
mod examples;
mod rules;
mod source;

use check::check;
use source::read_tree;

#[test]
fn the_tree_is_tidy() {
    let files = read_tree();
    assert!(files.len() > 50, "only {} files were found", files.len());
    let findings = check(&files);
    let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}
