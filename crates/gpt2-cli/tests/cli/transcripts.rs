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
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/transcripts");
    let entries = std::fs::read_dir(directory).expect("the transcripts are there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.sort();
    let room = Room::new();
    let mut wrong = String::new();
    let mut commands = 0;
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a transcript is text");
        for case in text.split("\n$ ").skip(1) {
            let lines = case.lines().filter(|line| !line.starts_with('#'));
            let (command, expected) =
                lines.collect::<Vec<_>>().split_first().map_or((String::new(), vec![]), |(command, rest)| {
                    ((*command).to_owned(), rest.iter().map(|line| (*line).to_owned()).collect())
                });
            let found = run(&room, &command);
            if !matches(&trimmed(expected), &trimmed(found.clone())) {
                let _ = writeln!(wrong, "{}\n$ {command}\n{}\n", path.display(), found.join("\n"));
            }
            commands += 1;
        }
    }
    assert!(commands > 0, "no command in any transcript");
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
    lines
}

/// Leaves out the empty lines at the end, which separate the commands of a transcript.
fn trimmed(mut lines: Vec<String>) -> Vec<String> {
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn matches(expected: &[String], found: &[String]) -> bool {
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
