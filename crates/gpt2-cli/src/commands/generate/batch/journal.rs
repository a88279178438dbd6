//! The file that a batch writes to, and what it takes to go on with one that was interrupted.
//!
//! ```text
//! out.jsonl         the lines of each prompt in one piece, as soon as they may be written
//! out.jsonl.resume  what the run was asked for, seed included; gone when it is done
//! ```
//! A piece that the end of the process cut short is dropped, and its prompt is done again: a text is a function of what
//! was asked for, so the file becomes what it would have been.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// An open file, and what it had when it was opened.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    pub(super) there: There,
}

/// What a file has.
#[derive(Debug, Default, PartialEq)]
pub(super) struct There {
    /// The indices of the prompts that are done.
    pub(super) done: BTreeSet<usize>,
    /// How many of these could not be continued.
    pub(super) failed: usize,
    /// Texts that were cut off before they had the structure that was asked for.
    pub(super) cut: usize,
    /// Bytes of the lines of the prompts that are done.
    length: usize,
}

/// What tells where a line belongs.
#[derive(Deserialize)]
pub(super) struct Record {
    pub(super) index: usize,
    pub(super) prompt: String,
    /// What it was made with; an error does not say it.
    pub(super) model: Option<String>,
    pub(super) seed: Option<u64>,
    /// Of how many lines of its prompt it is which, counted from 0; an error is one.
    #[serde(default)]
    sequence: usize,
    error: Option<Value>,
    complete: Option<bool>,
}

impl Journal {
    /// What an interrupted run of this name was asked for, if there is one.
    pub(super) fn interrupted(path: &str) -> Result<Option<Map<String, Value>>, Failure> {
        let name = notes(path);
        let fail = |error: Box<dyn std::error::Error + Send + Sync>| {
            Failure::caused(format!("cannot read `{}`", name.display()), error)
        };
        match fs::read(&name) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(error.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(error.into())),
        }
    }

    /// Begins a file and notes what it is for. It may not be there yet, but for an empty one with `resume`: the run that
    /// was interrupted had no time for more.
    pub(super) fn begin(path: &str, resume: bool, asked: &Map<String, Value>) -> Result<Self, Failure> {
        let fail = |error: std::io::Error| match error.kind() {
            ErrorKind::AlreadyExists => Failure::usage(format!("`{path}` is there already"))
                .hint("`--resume` goes on with an interrupted run; else remove the file or name another"),
            _ => Failure::caused(format!("cannot write `{path}`"), error),
        };
        let mut options = OpenOptions::new();
        let file = options.append(true).create(resume).create_new(!resume).open(path).map_err(fail)?;
        lock(&file, path)?;
        if file.metadata().map_err(fail)?.len() > 0 {
            return Err(busy(path));
        }
        // From here on the notes are this run's to write, and they are whole before the first line is.
        let name = notes(path);
        let draft = format!("{}.{}", name.display(), std::process::id());
        let text = format!("{:#}\n", Value::Object(asked.clone()));
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &name)).map_err(fail)?;
        Ok(Self { path: path.into(), file, there: There::default() })
    }

    /// Goes on with a file, less what is not whole; `lines` says how many lines the prompt of a line has, if it is of this
    /// run.
    pub(super) fn resume(
        path: &str,
        ordered: bool,
        lines: impl Fn(&Record) -> Option<usize>,
    ) -> Result<Self, Failure> {
        let fail = |error| Failure::caused(format!("cannot go on with `{path}`"), error);
        // Somebody may have removed it and left the notes.
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(fail)?;
        lock(&file, path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(fail)?;
        let there = understand(&text, path, ordered, lines)?;
        file.set_len(there.length as u64).map_err(fail)?;
        Ok(Self { path: path.into(), file, there })
    }

    /// Tells what a file has, which stays as it is.
    pub(super) fn read(
        path: &str,
        ordered: bool,
        lines: impl Fn(&Record) -> Option<usize>,
    ) -> Result<There, Failure> {
        let text = fs::read(path).map_err(|error| Failure::caused(format!("cannot read `{path}`"), error))?;
        understand(&text, path, ordered, lines)
    }

    /// Writes the lines of a prompt in one piece.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(lines);
        written.map_err(|error| Failure::caused(format!("cannot write `{}`", self.path.display()), error))
    }

    /// Ends the file: nothing is left to go on with.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let name = self.path.to_string_lossy();
        let finished = self.file.sync_all().and_then(|()| match fs::remove_file(notes(&name)) {
            // Another run may have come to the same end.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        });
        finished.map_err(|error| Failure::caused(format!("cannot finish `{name}`"), error))
    }
}

/// Keeps a file for this run alone, as far as the file system can.
fn lock(file: &File, path: &str) -> Result<(), Failure> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(busy(path)),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// What the text of a file has.
fn understand(
    text: &[u8],
    path: &str,
    ordered: bool,
    lines: impl Fn(&Record) -> Option<usize>,
) -> Result<There, Failure> {
    whole(text, ordered, lines).map_err(|line| {
        Failure::usage(format!("line {line} of `{path}` is not of this run"))
            .hint("its prompt, model, seed or place is another one: remove the file, or name another one")
    })
}

fn busy(path: &str) -> Failure {
    Failure::new(format!("another run is writing `{path}`"))
}

fn notes(path: &str) -> PathBuf {
    format!("{path}.resume").into()
}

/// The prompts whose lines are all there; or the number of a line that cannot be.
fn whole(text: &[u8], ordered: bool, lines: impl Fn(&Record) -> Option<usize>) -> Result<There, usize> {
    let mut there = There::default();
    let (mut end, mut expected, mut cut) = (0, 0, 0);
    for (number, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        end += line.len();
        if !line.ends_with(b"\n") {
            break;
        }
        let record: Record = serde_json::from_slice(line).map_err(|_| number + 1)?;
        let count = lines(&record).filter(|_| !there.done.contains(&record.index)).ok_or(number + 1)?;
        if record.sequence != expected || ordered && record.index != there.done.len() {
            return Err(number + 1);
        }
        expected += 1;
        cut += usize::from(record.complete == Some(false));
        if record.error.is_some() || expected == count {
            there.failed += usize::from(record.error.is_some());
            there.cut += std::mem::take(&mut cut);
            there.length = end;
            there.done.insert(record.index);
            expected = 0;
        }
    }
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_dropped() {
        let text = concat!(
            "{\"prompt\":\"\",\"index\":0,\"sequence\":0}\n",
            "{\"prompt\":\"\",\"index\":2,\"sequence\":0}\n{\"prompt\":\"\",\"index\":2,\"sequence\":1}\n",
            "{\"prompt\":\"\",\"index\":1,\"error\":\"no\"}\n",
            "{\"prompt\":\"\",\"index\":3,\"sequence\":0,\"complete\":false}\n",
            "{\"prompt\":\"\",\"index\":3,\"sequence\":1,\"complete\":true}\n",
        );
        let lines = |record: &Record| [1, 2, 2, 2].get(record.index).copied();
        let all = whole(text.as_bytes(), false, lines).unwrap();
        let expected = There { done: BTreeSet::from([0, 1, 2, 3]), failed: 1, cut: 1, length: text.len() };
        assert_eq!(all, expected);
        // Wherever it is cut, what is left is a beginning that ends with a prompt.
        let mut lengths = BTreeSet::new();
        for cut in 0..text.len() {
            let there = whole(&text.as_bytes()[..cut], false, lines).unwrap();
            let There { done, length, .. } = there;
            assert!(
                there.cut == 0
                    && length <= cut
                    && done.len() == lengths.len() + usize::from(lengths.insert(length)) - 1
            );
        }
        assert_eq!(lengths.len(), 4);
        // In the order of the prompts, number 2 cannot be the second one.
        assert_eq!(whole(text.as_bytes(), true, lines), Err(2));
        for (wrong, line) in [
            ("x\n", 1),
            ("{\"prompt\":\"\",\"index\":9,\"sequence\":0}\n", 1),
            ("{\"prompt\":\"\",\"index\":2,\"sequence\":1}\n", 1),
        ] {
            assert_eq!(whole(wrong.as_bytes(), false, lines), Err(line));
        }
    }

    #[test]
    fn a_file_is_one_runs_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.jsonl");
        let path = path.to_str().unwrap();
        let one = Journal::begin(path, false, &Map::new()).unwrap();
        let other = || Journal::resume(path, true, |_| Some(1));
        let refused = format!("{:?}", other().err().unwrap());
        assert!(refused.contains("another run is writing"), "{refused}");
        // Who is refused has changed nothing of what the other one has noted.
        let asked = Map::from_iter([("seed".to_owned(), Value::from(2))]);
        assert!(Journal::begin(path, false, &asked).is_err() && Journal::begin(path, true, &asked).is_err());
        assert_eq!(Journal::interrupted(path).unwrap(), Some(Map::new()));
        drop(one);
        let mut again = other().unwrap();
        again.write(b"{\"index\":0,\"prompt\":\"\"}\n{\"ind").unwrap();
        // To look at it changes nothing.
        assert_eq!(Journal::read(path, true, |_| Some(1)).unwrap().done.len(), 1);
        assert!(fs::read(path).unwrap().ends_with(b"{\"ind"));
        again.finish().unwrap();
        assert!(!notes(path).exists());
    }
}
