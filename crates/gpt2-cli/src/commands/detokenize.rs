//! `gpt2 detokenize`: join tokens to a text.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use gpt2::tokenizer::SpecialText;
use serde::Serialize;

use super::Format;
use super::tokenize::find_tokenizer;
use crate::arguments::Options;
use crate::failure::Failure;
use crate::prompt::standard_input;
use crate::terminal::Terminal;

/// Join tokens to a text.
///
/// The ids may have spaces, commas or both between them, and brackets around them: what
/// `gpt2 tokenize` prints can be pasted. Bytes that are not UTF-8 become U+FFFD. Ids between the sizes of the
/// vocabulary and of the model have no text.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Token ids; `-`, or none at all, reads standard input
    #[arg(value_name = "IDS", allow_negative_numbers = true)]
    ids: Vec<String>,
    #[command(flatten)]
    format: Format,
}

/// The text of tokens.
#[derive(Serialize)]
struct Record<'a> {
    ids: &'a [u32],
    text: &'a str,
    /// The text's bytes, only where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<&'a [u8]>,
}

/// Joins the tokens and shows the text.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let given = match arguments.ids.as_slice() {
        [] if io::stdin().is_terminal() => {
            return Err(
                Failure::usage("no token ids to work on").hint("for instance `gpt2 detokenize 15496 995`")
            );
        }
        [] => standard_input()?,
        [dash] if dash == "-" => standard_input()?,
        ids => ids.join(" "),
    };
    let ids = parse(&given)?;
    let bytes = find_tokenizer(options, terminal)?.decode_bytes(&ids, SpecialText::Keep)?;
    let text = String::from_utf8_lossy(&bytes);
    if arguments.format.json {
        let bytes = matches!(text, Cow::Owned(_)).then_some(&*bytes);
        return Ok(terminal.output.json(&Record { ids: &ids, text: &text, bytes })?);
    }
    terminal.output.text(&text, anstyle::Style::new())?;
    Ok(writeln!(terminal.output)?)
}

/// Reads ids with spaces, commas and brackets between them.
fn parse(text: &str) -> Result<Vec<u32>, Failure> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
        .filter(|id| !id.is_empty())
        .map(|id| {
            id.parse().map_err(|_| {
                Failure::usage(format!("`{id}` is not a token id: expected a whole number from 0"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_pasted_from_a_list() {
        assert_eq!(parse("[1, 2,3\n 4]").unwrap(), [1, 2, 3, 4]);
        assert!(parse("").unwrap().is_empty());
        assert!(parse("1 -2").is_err());
        assert!(parse("4294967296").is_err());
    }
}
