//! Transcripts: commands as typed into a shell, and all they print.
//!
//! ```text
//! $ gpt2 tokenize "Hi"       a command; both its streams follow, as a terminal would show them
//! Original Text: 'Hi'
//! …
//! ? 1                        its exit code, where that is not zero
//! ```
//! `[..]` stands for anything within a line. Lines that begin with `#` are comments.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::support::Room;

#[test]
fn transcripts_hold() {
    let directory = root().join("crates/gpt2-cli/tests/cli/transcripts");
    let entries = std::fs::read_dir(directory).expect("the transcripts are there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.sort();
    check(&paths);
}

#[test]
fn the_notebooks_guide_holds() {
    check(&[root().join("docs/notebook.md")]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the commands of transcripts, or of the blocks `console` in Markdown, and compares what they print.
///
/// With `UPDATE_TRANSCRIPTS=1` the files are rewritten instead; lines that hold, with their gaps, stay as they are.
fn check(paths: &[PathBuf]) {
    let room = Room::new();
    let mut wrong = String::new();
    for path in paths {
        let text = std::fs::read_to_string(path).expect("a transcript is text");
        let mut rewritten = String::new();
        let mut commands = 0;
        let markdown = path.extension().is_some_and(|extension| extension == "md");
        let mut inside = !markdown;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            rewritten += &format!("{line}\n");
            inside = if markdown && line.starts_with("```") { line == "```console" } else { inside };
            let Some(command) = line.strip_prefix("$ ").filter(|_| inside) else { continue };
            let is_output = |line: &&str| !(line.starts_with("$ ") || markdown && *line == "```");
            let mut expected: Vec<&str> = std::iter::from_fn(|| lines.next_if(is_output)).collect();
            let between = |line: &&str| line.is_empty() || line.starts_with('#');
            let end = expected.iter().rposition(|line| !between(line)).map_or(0, |last| last + 1);
            let after = expected.split_off(end);
            let mut found = run(&room, command);
            if !matches(&expected, &found) {
                let _ = writeln!(wrong, "{}\n$ {command}\n{}\n", path.display(), found.join("\n"));
            }
            for (found, expected) in found.iter_mut().zip(&expected) {
                if line_matches(expected, found) {
                    *found = (*expected).to_owned();
                }
            }
            for line in found.iter().map(String::as_str).chain(after) {
                rewritten += &format!("{line}\n");
            }
            commands += 1;
        }
        assert!(commands > 0, "no command in {}", path.display());
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() && rewritten != text {
            std::fs::write(path, rewritten).expect("a transcript can be written");
            wrong.clear();
        }
    }
    assert!(wrong.is_empty(), "these commands print something else now:\n{wrong}");
}

/// Runs a command in a shell and returns the lines it prints, with the exit code if that is not zero.
fn run(room: &Room, command: &str) -> Vec<String> {
    let output = room.shell(&format!("exec 2>&1; {command}")).output().expect("there is a shell");
    let text = String::from_utf8(output.stdout).expect("all output is UTF-8");
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    if let Some(code) = output.status.code().filter(|code| *code != 0) {
        lines.push(format!("? {code}"));
    }
    // Empty lines at the end separate the commands of a transcript.
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn matches(expected: &[&str], found: &[String]) -> bool {
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| line_matches(expected, found))
}

/// Says whether a line is as expected, where `[..]` stands for anything.
fn line_matches(expected: &str, found: &str) -> bool {
    let mut parts = expected.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(position) => rest = &rest[position + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn lines_match_with_gaps() {
    for (expected, found, matches) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a[..]", "abc", true),
        ("[..]c", "abc", true),
        ("a[..]b[..]c", "axbxc", true),
        ("a[..]c", "ab", false),
        ("[..]", "", true),
    ] {
        assert_eq!(line_matches(expected, found), matches, "{expected:?} {found:?}");
    }
}
