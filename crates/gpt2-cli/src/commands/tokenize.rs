//! `gpt2 tokenize`: split a text into tokens.

use std::io::{self, Write};

use anstyle::{Ansi256Color, AnsiColor, Style};
use gpt2::tokenizer::{Encoding, Tokenizer};
use serde::Serialize;

use super::Format;
use crate::arguments::Options;
use crate::failure::Failure;
use crate::model::ModelFiles;
use crate::prompt::TextArguments;
use crate::terminal::{DIM, Output, Terminal, thousands};

/// Split a text into tokens.
///
/// Tokens are written as the vocabulary has them: `Ġ` is a space, `Ċ` a new line. Without `--model`,
/// the tokenizer is GPT-2's own, which all sizes share and which is built in.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    format: Format,
}

/// The tokens of a text.
#[derive(Serialize)]
struct Record<'a> {
    text: &'a str,
    ids: &'a [u32],
    tokens: &'a [String],
    offsets: &'a [(usize, usize)],
}

/// Splits the text and shows its tokens.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let text = arguments.text.read()?;
    let tokenizer = find_tokenizer(options, terminal)?;
    let encoding = tokenizer.encode_with_offsets(&text, arguments.text.special())?;
    let Encoding { ids, tokens, offsets } = &encoding;
    let out = &mut terminal.output;
    if arguments.format.json {
        return Ok(out.json(&Record { text: &text, ids, tokens, offsets })?);
    }
    write!(out, "Original text: ")?;
    out.text(&text, Style::new())?;
    writeln!(out, "\nToken IDs: {ids:?}")?;
    let quoted: Vec<String> = tokens.iter().map(|token| python_string(token)).collect();
    writeln!(out, "Tokens: [{}]", quoted.join(", "))?;
    if out.is_terminal() {
        writeln!(out)?;
        chips(out, &tokenizer, ids)?;
        let characters = thousands(text.chars().count());
        let dim = out.style(DIM);
        writeln!(out, "{dim}{} tokens, {characters} characters{dim:#}", thousands(ids.len()))?;
    }
    Ok(())
}

/// The tokenizer of the named model, of which no weights are fetched, else the built-in one: GPT-2's own.
pub(crate) fn find_tokenizer(options: &Options, terminal: &Terminal) -> Result<Tokenizer, Failure> {
    ModelFiles::find_tokenizer(options, terminal)?.tokenizer()
}

/// A string as Python's `print` shows it inside a list.
fn python_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if c == quote => quoted.extend(['\\', c]),
            _ if c.is_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            _ => quoted.push(c),
        }
    }
    quoted.push(quote);
    quoted
}

/// Shows the text with every token on a ground of its own colour.
fn chips(out: &mut Output, tokenizer: &Tokenizer, ids: &[u32]) -> io::Result<()> {
    // Light grounds that differ in brightness too, so that neighbours can be told apart without colour vision.
    const GROUNDS: [u8; 5] = [153, 223, 114, 218, 187];
    for (index, &id) in ids.iter().enumerate() {
        let ground = Ansi256Color(GROUNDS[index % GROUNDS.len()]);
        let style = Style::new().bg_color(Some(ground.into())).fg_color(Some(AnsiColor::Black.into()));
        let text = String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default());
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    out.text(&format!("{line}⏎"), style)?;
                    writeln!(out)?;
                }
                None => out.text(line, style)?,
            }
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_in_python() {
        for (text, expected) in [
            ("Ġlanguage", "'Ġlanguage'"),
            ("'s", "\"'s\""),
            ("\"", "'\"'"),
            ("'\"", "'\\'\"'"),
            ("\\", "'\\\\'"),
            ("\u{1}", "'\\x01'"),
        ] {
            assert_eq!(python_string(text), expected);
        }
    }
}
