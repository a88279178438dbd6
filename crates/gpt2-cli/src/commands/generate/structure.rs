//! The flags that say what a continuation must match, and what is said when it does not.

use std::path::Path;

use gpt2::generate::{Completion, FinishReason, StructuredOutputs};
use serde_json::Value;

use crate::failure::Failure;
use crate::prompt::read_file;

/// What the continuation, without the prompt, must match.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Structured output")]
#[group(multiple = false)]
pub(super) struct Structure {
    /// JSON that conforms to this schema: the schema itself (`{...}`) or a file
    #[arg(long, value_name = "SCHEMA|FILE")]
    json_schema: Option<String>,
    /// Any JSON object
    #[arg(long)]
    json_object: bool,
    /// Text that matches this regular expression in full
    #[arg(long, value_name = "RE", allow_hyphen_values = true)]
    regex: Option<String>,
    /// Exactly this text; repeat it to allow several
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    choice: Vec<String>,
    /// Text of this grammar, in Lark or GBNF: the grammar itself (`start: ...`, `root ::= ...`) or a file
    #[arg(long, value_name = "GRAMMAR|FILE")]
    grammar: Option<String>,
}

impl Structure {
    /// What the flags ask for, with the files that they name.
    pub(super) fn read(&self) -> Result<Option<StructuredOutputs>, Failure> {
        let Self { json_schema, json_object, regex, choice, grammar } = self;
        Ok(if let Some(given) = json_schema {
            Some(StructuredOutputs::Json(schema(given)?))
        } else if *json_object {
            Some(StructuredOutputs::JsonObject)
        } else if let Some(regex) = regex {
            Some(StructuredOutputs::Regex(regex.clone()))
        } else if !choice.is_empty() {
            Some(StructuredOutputs::Choice(choice.clone()))
        } else if let Some(given) = grammar {
            // A rule has a colon behind its name, in both flavours.
            let inline = given.contains('\n') || given.contains("::=") || given.contains(": ");
            let hint = "a grammar has rules, such as `start: \"yes\" | \"no\"` or `root ::= \"yes\" | \"no\"`; what has \
                        none is taken for the name of a file";
            let read = || read_file(Path::new(given)).map_err(|failure| failure.hint(hint));
            Some(StructuredOutputs::Grammar(if inline { given.clone() } else { read()? }))
        } else {
            None
        })
    }
}

fn schema(given: &str) -> Result<Value, Failure> {
    if given.trim_start().starts_with('{') || matches!(given.trim(), "true" | "false") {
        let schema = serde_json::from_str(given);
        schema.map_err(|error| {
            Failure::usage(format!("the schema of `--json-schema` is not valid JSON: {error}"))
        })
    } else {
        let text = read_file(Path::new(given)).map_err(|failure| {
            failure.hint("what does not begin with `{` is taken for the name of a file that holds a schema")
        })?;
        let schema = serde_json::from_str(text.trim_start_matches('\u{feff}'));
        schema.map_err(|error| Failure::caused(format!("cannot use `{given}`"), error))
    }
}

/// The flag of a kind of structure.
pub(super) fn flag(kind: &str) -> String {
    format!("--{}", if kind == "json" { "json-schema".to_owned() } else { kind.replace('_', "-") })
}

/// Fails if texts of many prompts were cut off before they matched.
pub(super) fn check_count(cut: usize) -> Result<(), Failure> {
    let message = match cut {
        0 => return Ok(()),
        1 => "1 text was cut off before it matched".to_owned(),
        cut => format!("{cut} texts were cut off before they matched"),
    };
    let hint = "in JSON they have `\"complete\": false`; raise `--max-new-tokens`, or `--max-length`";
    Err(Failure::new(message).hint(hint))
}

/// Fails if a text was cut off before it matched.
pub(super) fn check(completions: &[Completion], outputs: Option<&StructuredOutputs>) -> Result<(), Failure> {
    let is_cut = |(_, completion): &(usize, &Completion)| completion.complete == Some(false);
    let count = completions.iter().enumerate().filter(is_cut).count();
    let cut = completions.iter().enumerate().find(is_cut);
    let (Some((index, cut)), Some(outputs)) = (cut, outputs) else { return Ok(()) };
    let (tokens, name) = (cut.tokens.len(), outputs.name());
    let plural = if tokens == 1 { "" } else { "s" };
    let (end, hint) = match cut.finish {
        Some(FinishReason::Length) => {
            ("its length was reached", "raise `--max-new-tokens`, or `--max-length`")
        }
        Some(FinishReason::Context) => (
            "the model's context was full",
            "shorten the prompt, or let the text go on with `--overflow slide`",
        ),
        Some(FinishReason::Time) => ("its time was up", "raise `--max-time`"),
        _ => ("a stop string came up", "leave out `--stop`"),
    };
    let all = completions.len();
    let which = match (count, all) {
        (_, 1) => "the text was".to_owned(),
        (1, _) => format!("text {} of {all} was", index + 1),
        _ => format!("{count} of {all} texts were cut off; the first one was"),
    };
    let message =
        format!("{which} cut off after {tokens} token{plural}, for {end}: it does not match `{name}` yet");
    Err(Failure::new(message).hint(hint))
}
