//! The differences that are allowed: where a datasheet says that we are right and the peer is not.
//!
//! One line each, sorted, `#` starts a comment: `script | command | our answer | the peer's answer | source §section: why`.
//! An answer may be `*`, any answer, where it depends on what came before. A line stands for every time that the
//! script sends the command.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// So many lines at most.
pub const MAX: usize = 30;

/// An allowed difference.
#[derive(Debug)]
pub struct Allowed {
    /// The script's name.
    pub script: String,
    /// The command as sent, without variables.
    pub command: String,
    ours: String,
    theirs: String,
}

impl Allowed {
    /// Whether this line allows that difference.
    pub fn matches(&self, script: &str, command: &str, ours: &str, theirs: &str) -> bool {
        let fits = |pattern: &str, answer: &str| pattern == "*" || pattern == answer;
        self.script == script && self.command == command && fits(&self.ours, ours) && fits(&self.theirs, theirs)
    }
}

/// Reads the list.
///
/// # Errors
/// It is missing, too long, unsorted, a line is there twice, or one is not of the form above.
pub fn load(path: &Path) -> Result<Vec<Allowed>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Vec<Allowed>> {
    let lines: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    ensure!(lines.len() <= MAX, "{} lines, {MAX} are allowed", lines.len());
    for pair in lines.windows(2) {
        ensure!(pair[0] < pair[1], "not sorted, or twice: {}", pair[1]);
    }
    lines.into_iter().map(entry).collect()
}

fn entry(line: &str) -> Result<Allowed> {
    let fields: Vec<&str> = line.split(" | ").collect();
    let [script, command, ours, theirs, source] = fields[..] else {
        anyhow::bail!("five fields are expected between ' | ': {line}");
    };
    ensure!(source.contains('§'), "no section of a datasheet is cited: {line}");
    Ok(Allowed { script: script.into(), command: command.into(), ours: ours.into(), theirs: theirs.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "rtc | inb 0x71 | OK 0x0040 | * | MC146818A §12: PF";

    #[test]
    fn a_line_allows_its_difference_only() {
        let list = parse(&format!("# note\n{LINE}\n")).unwrap();
        assert!(list[0].matches("rtc", "inb 0x71", "OK 0x0040", "OK 0x0000"));
        assert!(!list[0].matches("rtc", "inb 0x71", "OK 0x0041", "OK 0x0000"));
        assert!(!list[0].matches("pit", "inb 0x71", "OK 0x0040", "OK 0x0000"));
    }

    #[test]
    fn what_a_list_may_not_be() {
        assert!(parse(&format!("{LINE}\n{LINE}\n")).is_err()); // twice
        assert!(parse(&format!("{LINE}\na{LINE}\n")).is_err()); // unsorted
        assert!(parse("a | b | c | d").is_err());
        assert!(parse("a | b | c | d | because").is_err()); // no section
        let many: String = (10..10 + MAX + 1).map(|i| format!("{i}{LINE}\n")).collect();
        assert!(parse(&many).is_err());
    }
}
