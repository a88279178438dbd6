//! `tidy`: the rules of this repository that no compiler knows.
//!
//! ```text
//! git ls-files ───► [File] ──► text          rules about one file: length, opening, words, paths, names
//!                          └─► architecture  ARCHITECTURE.md: its length, and its list of `unsafe`
//! cargo metadata ─► Value ───► workspace     lints and dependencies of our crates, licences of all others
//! ```
//! Every rule is a function from files to problems, so that its test is a string. All problems are
//! listed before the check fails. What is not tracked is not looked at.

mod architecture;
mod code;
mod text;
mod workspace;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// A tracked file.
struct File {
    /// From the root of the repository, with `/`.
    path: String,
    bytes: u64,
    /// What it says, if it is text.
    text: Option<String>,
    /// The text without comments and literals, if it is Rust.
    code: Option<String>,
}

impl File {
    fn new(path: &str, bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let code = text.filter(|_| path.ends_with(".rs")).map(code::only);
        Self { path: path.to_owned(), bytes: bytes.len() as u64, text: text.map(str::to_owned), code }
    }

    /// The lines of the text with their numbers, from 1 on.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.iter().flat_map(|text| (1..).zip(text.lines()))
    }

    /// The lines of the code with their numbers, from 1 on.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.iter().flat_map(|code| (1..).zip(code.lines()))
    }

    fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem { path: self.path.clone(), line, message: message.into() }
    }
}

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    path: String,
    line: usize,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Checks the repository at `root` and lists what breaks a rule, in order of the files.
///
/// # Errors
/// Fails if `git` or `cargo` cannot say what there is.
pub(crate) fn check(root: &Path) -> Result<Vec<Problem>, String> {
    let files = tracked(root)?;
    let metadata =
        output(Command::new("cargo").args(["metadata", "--format-version", "1", "--locked"]), root)?;
    let metadata = serde_json::from_slice(&metadata).map_err(|error| format!("`cargo metadata`: {error}"))?;
    let mut problems: Vec<Problem> = files.iter().flat_map(text::problems).collect();
    problems.extend(architecture::problems(&files));
    problems.extend(workspace::problems(&files, &metadata));
    problems.sort();
    Ok(problems)
}

/// Reads every tracked file that is there.
fn tracked(root: &Path) -> Result<Vec<File>, String> {
    // A clone may belong to another user than the one who checks it, in a container for example.
    let names = output(Command::new("git").args(["-c", "safe.directory=*", "ls-files", "-z"]), root)?;
    let names = String::from_utf8(names).map_err(|_| "a tracked file's name is not UTF-8".to_owned())?;
    let mut files = Vec::new();
    for path in names.split_terminator('\0') {
        match fs::read(root.join(path)) {
            Ok(bytes) => files.push(File::new(path, &bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot read `{path}`: {error}")),
        }
    }
    Ok(files)
}

fn output(command: &mut Command, root: &Path) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.current_dir(root).output().map_err(|error| format!("cannot start `{program}`: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("`{program}` failed: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
    }
}

/// Whether `line` has `word`, not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        !(word.starts_with(in_name) && before.ends_with(in_name)
            || word.ends_with(in_name) && after.starts_with(in_name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_not_parts_of_longer_names() {
        for (line, word, expected) in [
            ("unsafe { x }", "unsafe", true),
            ("unsafe_code", "unsafe", false),
            ("eprint!(x)", "print!", false),
            ("std::print!(x)", "print!", true),
            ("print_it(); print!(x)", "print!", true),
            ("dotenv::load()", "env::", false),
        ] {
            assert_eq!(has_word(line, word), expected, "{line:?}, {word:?}");
        }
    }

    #[test]
    fn problems_name_file_and_line() {
        let problem = File::new("a/b.rs", b"").problem(7, "is wrong");
        assert_eq!(problem.to_string(), "a/b.rs:7: is wrong");
    }

    #[test]
    fn files_with_zero_bytes_or_bad_utf8_are_not_text() {
        for (bytes, is_text) in [(&b"word"[..], true), (b"wo\0rd", false), (b"\xff", false)] {
            assert_eq!(File::new("a", bytes).text.is_some(), is_text, "{bytes:?}");
        }
    }
}
