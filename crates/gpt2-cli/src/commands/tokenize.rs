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
use crate::terminal::{DIM, Output, Terminal, counted};
use crate::wrap::columns;

/// Split a text into tokens.
///
/// Tokens are shown as what each of them decodes to. A token that is only part of a character decodes to U+FFFD; on a
/// terminal its bytes are named, as in `<E6>`.
/// Without `--model`, the tokenizer is GPT-2's own, which all sizes share and which is built in.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    text: TextArguments,
    /// Show tokens as the vocabulary spells them: `Ġ` is a space, `Ċ` a new line
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    format: Format,
}

/// The tokens of a text.
#[derive(Serialize)]
struct Record<'a> {
    text: &'a str,
    ids: &'a [u32],
    tokens: &'a [String],
    /// The bytes of the tokens that are not UTF-8 by themselves, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Vec<Option<&'a [u8]>>>,
    offsets: &'a [(usize, usize)],
}

/// Splits the text and shows its tokens.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let text = arguments.text.read()?;
    let tokenizer = find_tokenizer(options, terminal)?;
    let Encoding { ids, mut tokens, offsets } =
        tokenizer.encode_with_offsets(&text, arguments.text.special())?;
    let mut bytes = None;
    if !arguments.raw {
        let decoded = ids.iter().map(|&id| tokenizer.token_text(id)).collect::<Result<Vec<_>, _>>()?;
        if decoded.iter().any(|token| token.bytes.is_some()) {
            bytes = Some(decoded.iter().map(|token| token.bytes).collect());
        }
        tokens = decoded.into_iter().map(|token| token.text.into_owned()).collect();
    }
    let out = &mut terminal.output;
    if arguments.format.json {
        let record = Record { text: &text, ids: &ids, tokens: &tokens, bytes, offsets: &offsets };
        return Ok(out.json(&record)?);
    }
    if out.is_terminal() && !arguments.raw {
        let bytes = ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap_or_default());
        tokens = bytes.map(with_named_bytes).collect();
    }
    let bold = out.style(Style::new().bold());
    write!(out, "{bold}Original Text:{bold:#} '")?;
    out.text(&text, Style::new())?;
    writeln!(out, "'\n{bold}Input IDs    :{bold:#} {ids:?}")?;
    let quoted: Vec<String> = tokens.iter().map(|token| python_string(token)).collect();
    writeln!(out, "{bold}Tokens       :{bold:#} [{}]", quoted.join(", "))?;
    if out.is_terminal() {
        writeln!(out)?;
        chips(out, &tokenizer, &ids)?;
        let (tokens, characters) = (counted(ids.len(), "token"), counted(text.chars().count(), "character"));
        let dim = out.style(DIM);
        writeln!(out, "{dim}{tokens}, {characters}{dim:#}")?;
    }
    Ok(())
}

/// The tokenizer of the named model, of which no weights are fetched, else the built-in one: GPT-2's own.
///
/// It takes every id that the model can draw, if there is a configuration to say which those are.
pub(crate) fn find_tokenizer(options: &Options, terminal: &Terminal) -> Result<Tokenizer, Failure> {
    let files = ModelFiles::find_tokenizer(options, terminal)?;
    let padded = files.config().map_or(0, |config| config.vocab_size);
    Ok(files.tokenizer()?.padded_to(padded))
}

/// A string as Python's `print` shows it inside a list.
fn python_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if c == quote || c == '\\' => quoted.extend(['\\', c]),
            _ => quoted.push_str(&escaped(c)),
        }
    }
    quoted.push(quote);
    quoted
}

/// A character, or its number as Python writes it where it cannot be seen.
fn escaped(c: char) -> String {
    match u32::from(c) {
        _ if is_printable(c) => c.to_string(),
        code @ ..0x100 => format!("\\x{code:02x}"),
        code @ ..0x10000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// Says whether Python shows a character as it is: not a separator other than the space, nor a control character, nor
/// one that Unicode does not define.
fn is_printable(c: char) -> bool {
    // Behind another character, Rust escapes those same ones, and quotes and backslashes.
    matches!(c, '"' | '\'' | '\\') || format!("x{c}").escape_debug().skip(1).eq([c])
}

/// Shows every token on a ground of its own colour, with its id beneath. Tokens that share a character share a ground.
fn chips(out: &mut Output, tokenizer: &Tokenizer, ids: &[u32]) -> io::Result<()> {
    // Light grounds that differ in brightness too, so that neighbours can be told apart without colour vision.
    const GROUNDS: [u8; 5] = [153, 223, 114, 218, 187];
    let width = out.width().unwrap_or(usize::MAX);
    let coloured = out.is_coloured();
    let mut rows: Vec<Vec<(Style, String, String)>> = vec![Vec::new()];
    let mut used = 0;
    for (index, chip) in whole(tokenizer, ids).iter().enumerate() {
        let ground = Ansi256Color(GROUNDS[index % GROUNDS.len()]);
        let style = Style::new().bg_color(Some(ground.into())).fg_color(Some(AnsiColor::Black.into()));
        let text = on_one_line(&chip.text, if coloured { ' ' } else { '·' });
        let label = chip.ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let taken = columns(&text).max(label.len());
        if used > 0 && used + taken > width {
            rows.push(Vec::new());
            used = 0;
        }
        used += taken + 1;
        let ends_line = chip.text.ends_with('\n');
        if let Some(row) = rows.last_mut() {
            row.push((style, text, label));
        }
        if ends_line {
            rows.push(Vec::new());
            used = 0;
        }
    }
    for row in rows.iter().filter(|row| !row.is_empty()) {
        for (style, text, label) in row {
            out.text(text, *style)?;
            write!(out, "{:1$}", "", label.len().saturating_sub(columns(text)) + 1)?;
        }
        let dim = out.style(DIM);
        write!(out, "\n{dim}")?;
        for (_, text, label) in row {
            write!(out, "{label:0$} ", columns(text))?;
        }
        writeln!(out, "{dim:#}\n")?;
    }
    Ok(())
}

/// A text without line ends and characters that cannot be seen, and with spaces as they are to be shown.
fn on_one_line(text: &str, space: char) -> String {
    text.chars().fold(String::new(), |line, c| match c {
        ' ' => line + space.encode_utf8(&mut [0; 4]),
        '\n' => line + "⏎",
        '\t' => line + "⇥",
        _ => line + &escaped(c),
    })
}

/// Tokens that are whole characters together.
#[derive(Debug, PartialEq, Eq)]
struct Chip<'a> {
    text: String,
    ids: &'a [u32],
}

/// Joins the tokens that share a character.
fn whole<'a>(tokenizer: &Tokenizer, ids: &'a [u32]) -> Vec<Chip<'a>> {
    let mut chips = Vec::new();
    let mut start = 0;
    let mut bytes = Vec::new();
    for (index, &id) in ids.iter().enumerate() {
        bytes.extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        let unfinished = std::str::from_utf8(&bytes).is_err_and(|error| error.error_len().is_none());
        if !unfinished || index + 1 == ids.len() {
            chips.push(Chip { text: with_named_bytes(&bytes), ids: &ids[start..=index] });
            bytes.clear();
            start = index + 1;
        }
    }
    chips
}

/// A text, where bytes that are not UTF-8 are named, as in `<E6>`.
fn with_named_bytes(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |text, chunk| {
        let named = chunk.invalid().iter().map(|byte| format!("<{byte:02X}>"));
        text + chunk.valid() + &named.collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use gpt2::tokenizer::SpecialTokens;

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
            ("\u{7f}\u{a0}\u{ad}", "'\\x7f\\xa0\\xad'"),
            ("\u{200b}\u{3000}\u{e000}\u{feff}", "'\\u200b\\u3000\\ue000\\ufeff'"),
            ("\u{e0001}", "'\\U000e0001'"),
            ("e\u{301}漢🎉\u{fffd}", "'e\u{301}漢🎉\u{fffd}'"),
        ] {
            assert_eq!(python_string(text), expected);
        }
    }

    #[test]
    fn tokens_that_share_a_character_are_one_chip() {
        let tokenizer = ModelFiles::demo().tokenizer().unwrap();
        let chips = |ids: &[u32]| -> Vec<(String, usize)> {
            whole(&tokenizer, ids).into_iter().map(|chip| (chip.text, chip.ids.len())).collect()
        };
        let ids = tokenizer.encode("a 日本\n", SpecialTokens::Parse).unwrap();
        let expected = [("a", 1), (" 日", 3), ("本", 2), ("\n", 1)];
        assert_eq!(chips(&ids), expected.map(|(text, tokens)| (text.to_owned(), tokens)));
        // Half a character, at the end and before something else.
        assert_eq!(chips(&[33768]), [("<E6><97>".to_owned(), 1)]);
        assert_eq!(chips(&[33768, 64]), [("<E6><97>a".to_owned(), 2)]);
    }
}
