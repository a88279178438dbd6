//! Texts from the command line or standard input.

use std::io::{self, IsTerminal, Read};

use clap::{Args, ValueEnum};
use gpt2::tokenizer::SpecialTokens;

use crate::failure::Failure;

/// Longest text that is read: more than any model's context, less than would fill the memory.
pub(crate) const LONGEST: u64 = 1 << 30;

/// A text to work on.
#[derive(Args, Clone, Debug)]
pub(crate) struct TextArguments {
    /// The text; `-`, or nothing at all, reads standard input, less one newline at its end
    #[arg(value_name = "TEXT|-")]
    text: Option<String>,
    #[command(flatten)]
    special: SpecialArguments,
}

/// What to make of `<|endoftext|>` in a text.
#[derive(Args, Clone, Debug)]
pub(crate) struct SpecialArguments {
    /// Whether `<|endoftext|>` in the text is parsed as the special token, or is plain text
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
    /// The text itself.
    ///
    /// # Errors
    /// If it is to come from standard input and that is a terminal, cannot be read, or is not UTF-8.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        match self.text.as_deref() {
            Some("-") => standard_input(),
            Some(text) => Ok(text.to_owned()),
            None if io::stdin().is_terminal() => {
                Err(Failure::usage("no text to work on")
                    .hint("give it as an argument in quotes, or pipe it in"))
            }
            None => standard_input(),
        }
    }

    /// What to make of `<|endoftext|>`.
    pub(crate) fn special(&self) -> SpecialTokens {
        self.special.choice()
    }
}

/// Reads standard input to its end, less one newline there: the one that `echo` adds.
pub(crate) fn standard_input() -> Result<String, Failure> {
    let mut text = read_text("standard input", io::stdin().lock())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
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
