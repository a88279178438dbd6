//! Texts from the command line or standard input.
//!
//! | | argument | standard input or `--file` |
//! |---|---|---|
//! | a prompt (`generate`, `next`, `tokenize`) | as it is | less one newline at its end, which `echo` and editors add |
//! | a text to score (`score`) | as it is | as it is |
//!
//! A continuation of `echo "Dear diary,"` is not to begin on a new line; a text that is measured is measured to its last
//! byte, whichever way it comes.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use gpt2::tokenizer::SpecialTokens;

use crate::failure::Failure;
use crate::terminal::Terminal;

/// Longest text that is read: more than any model's context, less than would fill the memory.
pub(crate) const LONGEST: u64 = 1 << 30;

/// A text to work on.
#[derive(Args, Clone, Debug)]
pub(crate) struct TextArguments {
    /// Text; if omitted or `-`, read from standard input
    ///
    /// Several words are joined by spaces. One trailing newline is removed from what is read.
    #[arg(id = "text", value_name = "TEXT|-")]
    words: Vec<String>,
    /// Read the text from a file; `-` is standard input
    #[arg(short, long, value_name = "PATH", conflicts_with = "text")]
    file: Option<PathBuf>,
    #[command(flatten)]
    special: SpecialArguments,
}

/// What to make of `<|endoftext|>` in a text.
#[derive(Args, Clone, Debug)]
pub(crate) struct SpecialArguments {
    /// How to read `<|endoftext|>` in the text: as the special token or as plain text
    #[arg(long, value_name = "AS", value_enum, default_value_t = Special::Parse)]
    special_tokens: Special,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Special {
    Parse,
    Text,
}

impl SpecialArguments {
    /// The choice in the library's words.
    pub(crate) fn choice(&self) -> SpecialTokens {
        match self.special_tokens {
            Special::Parse => SpecialTokens::Parse,
            Special::Text => SpecialTokens::AsText,
        }
    }
}

impl TextArguments {
    /// The text as a prompt, as [`read`](Self::read) has it; a note says so where nothing was read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_prompt(&self, terminal: &Terminal) -> Result<String, Failure> {
        let prompt = self.read()?;
        if prompt.is_empty() && self.is_read() {
            terminal.note("the prompt is empty: the text starts from the beginning-of-text token");
        }
        Ok(prompt)
    }

    /// The text: what comes from a file or standard input, less one newline at its end.
    ///
    /// # Errors
    /// If there is none, or it cannot be read or is not UTF-8.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        match self.source()? {
            Source::Argument(text) => Ok(text),
            Source::File(path) => read_file(path).map(without_newline),
            Source::StandardInput => standard_input(),
        }
    }

    /// The text to its last byte, whichever way it comes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_whole(&self) -> Result<String, Failure> {
        match self.source()? {
            Source::Argument(text) => Ok(text),
            Source::File(path) => read_file(path),
            Source::StandardInput => read_text("standard input", io::stdin().lock()),
        }
    }

    /// Whether the text comes from a file or standard input.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.source(), Ok(Source::File(_) | Source::StandardInput))
    }

    /// Where the text comes from.
    fn source(&self) -> Result<Source<'_>, Failure> {
        match (self.file.as_deref(), self.words.as_slice()) {
            (Some(path), _) if path == Path::new("-") => Ok(Source::StandardInput),
            (Some(path), _) => Ok(Source::File(path)),
            (None, [dash]) if dash == "-" => Ok(Source::StandardInput),
            (None, [text]) => Ok(Source::Argument(text.clone())),
            (None, []) if io::stdin().is_terminal() => Err(Failure::usage("no text to work on")
                .hint("give it as an argument in quotes, name a file with `--file`, or pipe it in")),
            (None, []) => Ok(Source::StandardInput),
            (None, words) => joined(words).map(Source::Argument),
        }
    }

    /// What to make of `<|endoftext|>`.
    pub(crate) fn special(&self) -> SpecialTokens {
        self.special.choice()
    }
}

/// Where a text comes from.
enum Source<'a> {
    Argument(String),
    File(&'a Path),
    StandardInput,
}

/// Joins the words of a text that was typed without quotes, unless something else may have been meant.
fn joined(words: &[String]) -> Result<String, Failure> {
    if words.iter().any(|word| word == "-") {
        return Err(Failure::usage("`-` stands for standard input and cannot be combined with other text")
            .hint("put the text in quotes if the `-` is part of it"));
    }
    if words.iter().any(|word| word.contains(char::is_whitespace)) {
        return Err(Failure::usage(format!("expected one text, found {} arguments", words.len()))
            .hint("put the whole text in one pair of quotes"));
    }
    if let Some(word) = words.iter().find(|word| is_flag_with_long_dash(word)) {
        let flag = word.trim_start_matches(LONG_DASHES);
        return Err(Failure::usage(format!("`{word}` begins with a long dash, not with `--`"))
            .hint(format!("a flag is `--{flag}`; put the text in quotes if this is part of it")));
    }
    if let Some(setting) = words.iter().find(|word| looks_like_setting(word)) {
        let flag = match setting.split_once('=') {
            Some((name, value)) => format!("--{}={value}", name.replace('_', "-")),
            None => format!("--{}", setting.replace('_', "-")),
        };
        return Err(Failure::usage(format!("`{setting}` looks like a setting, not like a part of the text"))
            .hint(format!("a setting is a flag: `{flag}`; put the text in quotes if this is part of it")));
    }
    Ok(words.join(" "))
}

/// What some programs make of two dashes.
const LONG_DASHES: [char; 2] = ['–', '—'];

/// Whether a word is a flag whose dashes a text processor has joined.
fn is_flag_with_long_dash(word: &str) -> bool {
    word.strip_prefix(LONG_DASHES).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// Whether a word is written as Python's keyword arguments are: `top_k`, `top_k=50`, `temperature=0.7`.
fn looks_like_setting(word: &str) -> bool {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_value = |value: &str| value.parse::<f64>().is_ok() || matches!(value, "True" | "False" | "None");
    // A single letter with a number is an equation.
    is_name && (name.contains('_') || name.len() >= 4 && value.is_some_and(is_value))
}

/// Reads a file, to its last byte.
pub(crate) fn read_file(path: &Path) -> Result<String, Failure> {
    let name = format!("`{}`", path.display());
    let file = File::open(path).map_err(|error| Failure::caused(format!("cannot read {name}"), error))?;
    read_text(&name, file)
}

/// Takes away one newline at the end: the one that `echo` and editors add.
fn without_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// Reads standard input to its end, less one newline there.
pub(crate) fn standard_input() -> Result<String, Failure> {
    read_text("standard input", io::stdin().lock()).map(without_newline)
}

/// Reads a whole text, which must be UTF-8.
pub(crate) fn read_text(name: &str, source: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let size = source
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::caused(format!("cannot read {name}"), error))?;
    if size as u64 > LONGEST {
        return Err(Failure::new(format!("{name} is longer than {LONGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[position];
        Failure::new(format!("{name} is not UTF-8: byte 0x{byte:02x} at offset {position}"))
            .hint("convert the text to UTF-8 first, for instance with `iconv`")
    })
}
