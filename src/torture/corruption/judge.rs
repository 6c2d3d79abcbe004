//! What is said of a node that was started over damage, from what was seen of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Exit codes by which a node says that its data are damaged: at the start, and later.
const DAMAGED: [i32; 2] = [3, 5];
/// Of what it said, at most so much is shown.
const SHOWN: usize = 300;

/// What a node did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It did not start, by its exit code and in one line, which names the file or its database.
    Refused,
    /// The same, once it had served something right.
    FoundLater,
    /// It started, said what was wrong, and lacks nothing.
    Told,
    /// It started, and lacks nothing: the file, or the part of it, does not matter.
    Intact,
    /// It ended, and nobody is told by what.
    Unclear,
    /// It started, and has not come to where the others are.
    Stuck,
    /// It started with less than it had, so that what it had acknowledged may be lost.
    Lost,
    /// It served what was never written, or lacks what was.
    Served,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::FoundLater,
        Self::Told,
        Self::Intact,
        Self::Unclear,
        Self::Stuck,
        Self::Lost,
        Self::Served,
    ];

    /// It must not be.
    #[must_use]
    pub fn is_bad(self) -> bool {
        self >= Self::Unclear
    }

    /// In a word or two.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::FoundLater => "found later",
            Self::Told => "told",
            Self::Intact => "intact",
            Self::Unclear => "UNCLEAR",
            Self::Stuck => "STUCK",
            Self::Lost => "LOST",
            Self::Served => "SERVED",
        }
    }
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The file that was damaged, below the data directory.
    pub file: PathBuf,
    /// It answered.
    pub has_served: bool,
    /// It has applied what the others have, and was read.
    pub has_caught_up: bool,
    /// What it had acknowledged and has no more.
    pub lost: Option<String>,
    /// What it holds that it should not, or the other way round.
    pub wrong: Option<String>,
    /// Its exit code, if it ended.
    pub code: Option<i32>,
    /// Its log since it was started.
    pub log: String,
}

impl Seen {
    /// The line that names the file, or its directory.
    fn line(&self, level: &str) -> Option<&str> {
        let name = self.file.file_name().map(|it| it.to_string_lossy());
        let name = name.map(std::borrow::Cow::into_owned);
        let parent = self.file.parent().filter(|it| *it != Path::new(""));
        let parent = parent.map(|it| format!("/{}", it.display()));
        let names: Vec<String> = name.into_iter().chain(parent).collect();
        let mut lines = self.log.lines().rev().filter(|it| it.contains(level));
        lines.find(|line| names.iter().any(|it| line.contains(it.as_str())))
    }
}

/// What it comes to, and what shows it.
pub(super) fn judge(seen: &Seen) -> (Ending, String) {
    let (ending, said) = decide(seen);
    (ending, said.chars().take(SHOWN).collect())
}

fn decide(seen: &Seen) -> (Ending, String) {
    if let Some(wrong) = &seen.wrong {
        return (Ending::Served, wrong.clone());
    }
    if let Some(lost) = &seen.lost {
        return (Ending::Lost, lost.clone());
    }
    if let Some(code) = seen.code {
        let last = seen.log.lines().next_back().unwrap_or_default();
        return match seen.line("ERROR") {
            Some(line) if DAMAGED.contains(&code) && seen.has_served => {
                (Ending::FoundLater, line.to_owned())
            }
            Some(line) if DAMAGED.contains(&code) => (Ending::Refused, line.to_owned()),
            _ => (Ending::Unclear, last.to_owned()),
        };
    }
    if !seen.has_caught_up {
        let last = seen.log.lines().next_back().unwrap_or_default();
        return (Ending::Stuck, last.to_owned());
    }
    match seen.line("WARN").or_else(|| seen.line("ERROR")) {
        Some(line) => (Ending::Told, line.to_owned()),
        None => (Ending::Intact, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(code: Option<i32>, log: &str) -> Seen {
        Seen {
            file: PathBuf::from("log/000012.sst"),
            has_caught_up: code.is_none(),
            code,
            log: log.to_owned(),
            ..Seen::default()
        }
    }

    const SAID: &str = "INFO begin\nERROR stopped error=entry 5 in /data/log is damaged";
    const NAMED: &str = "ERROR stopped error=checksum of /data/log/000012.sst";

    #[test]
    fn a_refusal_has_its_exit_code_and_names_the_file() {
        assert_eq!(judge(&seen(Some(3), NAMED)).0, Ending::Refused);
        assert_eq!(judge(&seen(Some(3), SAID)).0, Ending::Refused);
        assert_eq!(judge(&seen(Some(101), NAMED)).0, Ending::Unclear);
        assert_eq!(judge(&seen(Some(3), "ERROR something")).0, Ending::Unclear);
        let mut later = seen(Some(5), NAMED);
        later.has_served = true;
        assert_eq!(judge(&later).0, Ending::FoundLater);
    }

    #[test]
    fn whoever_starts_lacks_nothing_or_is_bad() {
        assert_eq!(judge(&seen(None, "INFO begin")).0, Ending::Intact);
        assert_eq!(
            judge(&seen(None, "WARN 000012.sst was cut")).0,
            Ending::Told
        );
        let mut lost = seen(None, "WARN 000012.sst was cut");
        lost.lost = Some("its log ends at 5".to_owned());
        assert_eq!(judge(&lost).0, Ending::Lost);
        let mut wrong = seen(Some(3), NAMED);
        wrong.wrong = Some("k holds x".to_owned());
        assert_eq!(judge(&wrong).0, Ending::Served);
        let mut stuck = seen(None, "");
        stuck.has_caught_up = false;
        assert_eq!(judge(&stuck).0, Ending::Stuck);
        assert!(Ending::ALL.iter().filter(|it| it.is_bad()).count() == 4);
    }
}
