//! The tree as text: what is code in it, what is a test, and which module it belongs to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A text file of the tree, its path relative to the root with `/` between.
pub struct File {
    pub path: String,
    pub text: String,
}

pub const ROOTS: &[&str] = &[
    "src",
    "examples",
    "tests",
    "proto",
    "scripts",
    ".ci",
    "README.md",
    "Cargo.toml",
];

pub fn read_tree() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for start in ROOTS {
        read_into(root, &root.join(start), &mut files);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

pub fn read_into(root: &Path, at: &Path, files: &mut Vec<File>) {
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
pub fn blank(source: &str) -> String {
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
pub fn literal_or_comment(bytes: &[u8], at: usize) -> Option<usize> {
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

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

pub fn quoted(bytes: &[u8], quote: u8) -> usize {
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

pub fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = 2 + hashes;
    Some(find(&bytes[body..], &close).map_or(bytes.len(), |end| body + end + close.len()))
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

// ---- test code --------------------------------------------------------------------------------------------

/// Paths without `.rs` of modules that are compiled for tests only.
pub fn test_modules(files: &[File]) -> BTreeSet<String> {
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
pub fn test_module(path: &str, lines: &[&str]) -> Option<String> {
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

pub fn module_of(path: &str) -> &str {
    let path = path.trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path)
}

/// For each line whether it is test code.
pub fn test_lines(file: &File, test_modules: &BTreeSet<String>) -> Vec<bool> {
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

pub fn is_under(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
}

pub fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == "rs")
}

// ---- the rules --------------------------------------------------------------------------------------------
