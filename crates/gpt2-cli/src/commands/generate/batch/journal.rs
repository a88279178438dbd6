//! The file that a batch writes to, and what it takes to go on with one that was interrupted.
//!
//! ```text
//! out.jsonl         the lines of each prompt in one piece, as soon as they may be written
//! out.jsonl.resume  what the run was asked for, seed included; gone when it is done
//! ```
//! A piece that the end of the process cut short is dropped, and its prompt is done again: a text is a function of what
//! was asked for, so the file becomes what it would have been.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// An open file, and which prompts it has already.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// The indices of the prompts that are done.
    pub(super) done: BTreeSet<usize>,
}

/// What tells where a line belongs.
#[derive(Deserialize)]
struct Record {
    index: usize,
    /// Of how many lines of its prompt it is which, counted from 0; an error is one.
    #[serde(default)]
    sequence: usize,
    error: Option<Value>,
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

    /// Begins a file, which may not be there yet, and notes what it is for.
    pub(super) fn begin(path: &str, asked: &Map<String, Value>) -> Result<Self, Failure> {
        let fail = |error| Failure::caused(format!("cannot write `{path}`"), error);
        // The notes are whole before there is a file.
        let name = notes(path);
        let mut draft = name.clone().into_os_string();
        draft.push(format!(".{}", std::process::id()));
        if fs::exists(path).map_err(fail)? {
            return Err(Failure::usage(format!("`{path}` is there already"))
                .hint("`--resume` goes on with an interrupted run; else remove the file or name another"));
        }
        let text = format!("{:#}\n", Value::Object(asked.clone()));
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &name)).map_err(fail)?;
        let file = OpenOptions::new().append(true).create_new(true).open(path).map_err(fail)?;
        Ok(Self { path: path.into(), file, done: BTreeSet::new() })
    }

    /// Goes on with a file, less what is not whole; `sequences` says how many lines a prompt has.
    pub(super) fn resume(path: &str, sequences: impl Fn(usize) -> Option<usize>) -> Result<Self, Failure> {
        let fail = |error| Failure::caused(format!("cannot go on with `{path}`"), error);
        let text = match fs::read(path) {
            // It ended between its notes and its file.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            text => text.map_err(fail)?,
        };
        let (done, length) = whole(&text, sequences)
            .map_err(|line| Failure::new(format!("line {line} of `{path}` is not of this run")))?;
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(fail)?;
        file.set_len(length as u64).map_err(fail)?;
        Ok(Self { path: path.into(), file, done })
    }

    /// Writes the lines of a prompt in one piece.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)
    }

    /// Ends the file: nothing is left to go on with.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        let name = self.path.to_string_lossy();
        fs::remove_file(notes(&name))
    }
}

fn notes(path: &str) -> PathBuf {
    format!("{path}.resume").into()
}

/// The prompts whose lines are all there, and the length of these lines; or the number of a line that cannot be.
fn whole(text: &[u8], sequences: impl Fn(usize) -> Option<usize>) -> Result<(BTreeSet<usize>, usize), usize> {
    let (mut done, mut length) = (BTreeSet::new(), 0);
    let (mut end, mut expected) = (0, 0);
    for (number, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        end += line.len();
        if !line.ends_with(b"\n") {
            break;
        }
        let record: Record = serde_json::from_slice(line).map_err(|_| number + 1)?;
        let lines = sequences(record.index).filter(|_| !done.contains(&record.index)).ok_or(number + 1)?;
        if record.sequence != expected {
            return Err(number + 1);
        }
        expected += 1;
        if record.error.is_some() || expected == lines {
            expected = 0;
            length = end;
            done.insert(record.index);
        }
    }
    Ok((done, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_dropped() {
        let text = concat!(
            "{\"index\":0,\"sequence\":0}\n",
            "{\"index\":2,\"sequence\":0}\n{\"index\":2,\"sequence\":1}\n",
            "{\"index\":1,\"error\":\"no\"}\n",
            "{\"index\":3,\"sequence\":0}\n{\"index\":3,\"sequence\":1}\n",
        );
        let sequences = |index| [1, 2, 2, 2].get(index).copied();
        let all = whole(text.as_bytes(), sequences).unwrap();
        assert_eq!(all, (BTreeSet::from([0, 1, 2, 3]), text.len()));
        // Wherever it is cut, what is left is a beginning that ends with a prompt.
        let mut lengths = BTreeSet::new();
        for cut in 0..text.len() {
            let (done, length) = whole(&text.as_bytes()[..cut], sequences).unwrap();
            assert!(length <= cut && done.len() == lengths.len() + usize::from(lengths.insert(length)) - 1);
        }
        assert_eq!(lengths.len(), 4);
        for (wrong, line) in
            [("x\n", 1), ("{\"index\":9,\"sequence\":0}\n", 1), ("{\"index\":2,\"sequence\":1}\n", 1)]
        {
            assert_eq!(whole(wrong.as_bytes(), sequences), Err(line));
        }
    }
}
