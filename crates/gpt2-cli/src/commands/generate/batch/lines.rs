//! The prompts of a batch, and the settings that each has of its own.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use gpt2::generate::{GenerateError, GenerationConfig};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::prompt::{LONGEST, read_file, read_text};

/// Lines of standard input that are read before they are wanted, at most.
const AHEAD: usize = 16;
/// What a line is.
const FORM: &str =
    "a line is a JSON string, or an object with `prompt` and settings named as in `generation_config.json`";
/// How standard input is named in errors.
const INPUT: &str = "standard input";

/// A prompt and what goes with it.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// How to name it in an error: `line 3 of prompts.jsonl`.
    pub(super) place: String,
    pub(super) prompt: String,
    /// What the user calls it.
    pub(super) id: Option<Value>,
    pub(super) negative_prompt: Option<String>,
    /// The settings that it has of its own.
    pub(super) config: GenerationConfig,
    /// Whether half of a surrogate pair in it was read as U+FFFD.
    pub(super) replaced: bool,
}

impl Line {
    /// Whether it has settings of its own.
    pub(super) fn has_settings(&self) -> bool {
        self.negative_prompt.is_some() || self.config != GenerationConfig::default()
    }

    /// Says that a setting cannot be.
    pub(super) fn wrong(&self, error: &GenerateError) -> Failure {
        Failure::new(format!("{}: {error}", self.place))
    }
}

/// Reads a file of JSON Lines, `-` for standard input, to its end.
pub(super) fn read(path: &str) -> Result<Vec<Line>, Failure> {
    if path == "-" {
        return parse(INPUT, &read_text(INPUT, io::stdin().lock())?);
    }
    parse(&format!("`{path}`"), &read_file(Path::new(path))?)
}

/// Reads standard input line by line, as they come; the first one that is wrong is the last.
pub(super) fn incoming() -> Result<Receiver<Result<Line, Failure>>, Failure> {
    let (sender, receiver) = sync_channel(AHEAD);
    let read = move || {
        let mut input = io::stdin().lock();
        for index in 0.. {
            let line = match next_line(&mut input, index) {
                Ok(None) => return,
                Ok(Some(text)) => match numbered(INPUT, (index, &text)) {
                    Some(line) => line,
                    None => continue,
                },
                Err(failure) => Err(failure),
            };
            let wrong = line.is_err();
            // Where nobody listens any more, the program is about to end.
            if sender.send(line).is_err() || wrong {
                return;
            }
        }
    };
    let thread = thread::Builder::new().spawn(read);
    thread.map_err(|error| Failure::caused(format!("cannot read {INPUT}"), error))?;
    Ok(receiver)
}

/// The next line as it is, if there is one.
fn next_line(input: &mut impl BufRead, index: usize) -> Result<Option<String>, Failure> {
    let place = format!("line {} of {INPUT}", index + 1);
    let mut bytes = Vec::new();
    let size = input
        .take(LONGEST + 1)
        .read_until(b'\n', &mut bytes)
        .map_err(|error| Failure::caused(format!("cannot read {place}"), error))?;
    if size == 0 { Ok(None) } else { read_text(&place, &bytes[..]).map(Some) }
}

/// Takes prompts as they are.
pub(super) fn of_texts(prompts: &[String]) -> Vec<Line> {
    let line = |(index, prompt): (usize, &String)| Line {
        place: format!("prompt {}", index + 1),
        prompt: prompt.clone(),
        id: None,
        negative_prompt: None,
        config: GenerationConfig::default(),
        replaced: false,
    };
    prompts.iter().enumerate().map(line).collect()
}

/// Parses lines; empty ones count, but are no prompts.
fn parse(name: &str, text: &str) -> Result<Vec<Line>, Failure> {
    text.lines().enumerate().filter_map(|line| numbered(name, line)).collect()
}

/// Parses a line, unless it is empty; its number is counted from 0.
fn numbered(name: &str, (index, line): (usize, &str)) -> Option<Result<Line, Failure>> {
    let place = format!("line {} of {name}", index + 1);
    // Some editors begin files with a mark of the byte order.
    let line = if index == 0 { line.trim_start_matches('\u{feff}') } else { line };
    let parse = || {
        parse_line(line, &place)
            .map_err(|error| Failure::caused(format!("cannot use {place}"), error).hint(FORM))
    };
    (!line.trim().is_empty()).then(parse)
}

fn parse_line(line: &str, place: &str) -> Result<Line, String> {
    // The parser counts lines too, and there is one.
    let syntax = |error: serde_json::Error| error.to_string().replace(" line 1 column ", " column ");
    let whole = whole_characters(line.trim_end());
    let mut fields = match serde_json::from_str(&whole).map_err(syntax)? {
        Value::String(prompt) => Map::from_iter([("prompt".to_owned(), Value::String(prompt))]),
        Value::Object(fields) => fields,
        _ => return Err("expected a string or an object".to_owned()),
    };
    let id = fields.remove("id");
    let mut text = |name: &str| match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{name}` must be a text, not {other}")),
    };
    let (prompt, negative_prompt) = (text("prompt")?, text("negative_prompt")?);
    let prompt = prompt.ok_or("the object has no `prompt`")?;
    let config = GenerationConfig::from_fields(fields).map_err(|error| error.to_string())?;
    match config.other.keys().next() {
        Some(unknown) => Err(format!("there is no setting `{unknown}`")),
        None => {
            let replaced = matches!(whole, Cow::Owned(_));
            Ok(Line { place: place.to_owned(), prompt, id, negative_prompt, config, replaced })
        }
    }
}

/// JSON with U+FFFD for every escape that is half of a surrogate pair without the other half, and so no character.
fn whole_characters(json: &str) -> Cow<'_, str> {
    let unit = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let (mut whole, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(escape) = json[at..].find('\\') {
        at += escape;
        match (unit(at), unit(at + 6)) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => at += 12,
            (Some(0xD800..0xE000), _) => {
                whole.push_str(&json[copied..at]);
                whole.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            (Some(_), _) => at += 6,
            // Whatever it is: the parser says so if it cannot be.
            (None, _) => at += 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    if copied == 0 { Cow::Borrowed(json) } else { Cow::Owned(whole + &json[copied..]) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_a_text_or_an_object() {
        let lines = parse(
            "x",
            "\"one\"\n\n{\"prompt\": \"two\", \"id\": [7], \"top_k\": 3, \"negative_prompt\": \"no\"}\r\n",
        )
        .unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!((&*lines[0].prompt, &*lines[0].place, &lines[0].id), ("one", "line 1 of x", &None));
        let config = GenerationConfig { top_k: Some(3), ..GenerationConfig::default() };
        let expected = Line {
            place: "line 3 of x".to_owned(),
            prompt: "two".to_owned(),
            id: Some(json!([7])),
            negative_prompt: Some("no".to_owned()),
            config,
            replaced: false,
        };
        assert_eq!(lines[1], expected);
    }

    #[test]
    fn half_a_surrogate_pair_is_read_as_a_replacement_character() {
        for (line, expected) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\uDE00b""#, "\u{fffd}b"),
            (r#""\ud83d\ud83d\ude00\ude00""#, "\u{fffd}😀\u{fffd}"),
            (r#""\ud83d\\ude00""#, "\u{fffd}\\ude00"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
        ] {
            let line = parse_line(line, "x").unwrap();
            assert_eq!((&*line.prompt, line.replaced), (expected, true));
        }
        for (line, expected) in [
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\\ud83d""#, "\\ud83d"),
            (r#""\u00e9\"é\\""#, "é\"é\\"),
            (r#""\ufffd""#, "\u{fffd}"),
        ] {
            let line = parse_line(line, "x").unwrap();
            assert_eq!((&*line.prompt, line.replaced), (expected, false));
        }
        for line in [r#""\ud83""#, r#""\ud83dé"#, r#""\u+83d""#, r#""a\"#, r#""\é""#] {
            assert!(parse_line(line, "x").is_err(), "{line}");
        }
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        for (line, message) in [
            ("once upon", "expected value at column 1"),
            ("{\"prompt\": \"\", \"top_k\": \"x\"}", "`top_k` cannot be \"x\""),
            ("[1]", "expected a string or an object"),
            ("{\"id\": 1}", "the object has no `prompt`"),
            ("{\"prompt\": 1}", "`prompt` must be a text, not 1"),
            ("{\"prompt\": \"\", \"topk\": 1}", "there is no setting `topk`"),
        ] {
            assert_eq!(parse_line(line, "x").unwrap_err(), message);
        }
    }
}
