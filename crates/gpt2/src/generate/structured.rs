//! What a text must match: the setting `structured_outputs`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the whole continuation must match, the prompt not counted: vLLM's `structured_outputs`.
///
/// As JSON it is an object with exactly one of these fields.
///
/// ```
/// use gpt2::generate::{GenerationConfig, StructuredOutputs};
///
/// let config = GenerationConfig::from_json(br#"{"structured_outputs": {"choice": ["yes", "no"]}}"#)?;
/// let expected = StructuredOutputs::Choice(vec!["yes".to_owned(), "no".to_owned()]);
/// assert_eq!(config.structured_outputs, Some(expected));
/// # Ok::<(), gpt2::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum StructuredOutputs {
    /// `json`: a JSON text that meets this JSON schema. It is written as Python's `json.dumps` does: one space behind `,`
    /// and `:`, none elsewhere; the schema's own `x-guidance` says otherwise.
    Json(Value),
    /// `json_object`: any JSON object, written like that.
    JsonObject,
    /// `regex`: a match, as a whole, of this regular expression (in the syntax of the crate `regex`, without anchors and
    /// word boundaries).
    Regex(String),
    /// `choice`: one of these texts.
    Choice(Vec<String>),
    /// `grammar`: a text of this grammar, in llguidance's variant of Lark, or in llama.cpp's GBNF: that is what has
    /// rules with `::=`.
    Grammar(String),
}

/// The fields as they are written.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_object: Option<bool>,
}

impl StructuredOutputs {
    /// The name of its field.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::JsonObject => "json_object",
            Self::Regex(_) => "regex",
            Self::Choice(_) => "choice",
            Self::Grammar(_) => "grammar",
        }
    }
}

impl TryFrom<Written> for StructuredOutputs {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { json, regex, choice, grammar, json_object } = written;
        let json = match json {
            Some(Value::String(text)) => {
                let schema = serde_json::from_str(&text);
                Some(schema.map_err(|error| format!("the schema in `json` is not valid JSON: {error}"))?)
            }
            json => json,
        };
        if json_object == Some(false) {
            return Err("`json_object` must be true, not false".to_owned());
        }
        let given = [
            json.map(Self::Json),
            json_object.map(|_| Self::JsonObject),
            regex.map(Self::Regex),
            choice.map(Self::Choice),
            grammar.map(Self::Grammar),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => {
                Err("expected one of `json`, `json_object`, `regex`, `choice`, `grammar`".to_owned())
            }
            (Some(one), Some(other)) => {
                Err(format!("expected one field, found `{}` and `{}`", one.name(), other.name()))
            }
        }
    }
}

impl From<StructuredOutputs> for Written {
    fn from(outputs: StructuredOutputs) -> Self {
        let none = Self::default();
        match outputs {
            StructuredOutputs::Json(schema) => Self { json: Some(schema), ..none },
            StructuredOutputs::JsonObject => Self { json_object: Some(true), ..none },
            StructuredOutputs::Regex(regex) => Self { regex: Some(regex), ..none },
            StructuredOutputs::Choice(choice) => Self { choice: Some(choice), ..none },
            StructuredOutputs::Grammar(grammar) => Self { grammar: Some(grammar), ..none },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_field_is_read_and_written() {
        for text in [
            r#"{"json":{"type":"null"}}"#,
            r#"{"json_object":true}"#,
            r#"{"regex":"a+"}"#,
            r#"{"choice":["a","b"]}"#,
            r#"{"grammar":"start: \"a\""}"#,
        ] {
            let read: StructuredOutputs = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        // vLLM writes what is not set as null, and schemas as texts.
        let read: StructuredOutputs =
            serde_json::from_str(r#"{"json": "{\"type\": \"null\"}", "regex": null}"#).unwrap();
        assert_eq!(read, StructuredOutputs::Json(serde_json::json!({"type": "null"})));
        for (text, expected) in [
            ("{}", "expected one of"),
            (r#"{"regex": "a", "choice": ["a"]}"#, "found `regex` and `choice`"),
            (r#"{"json_object": false}"#, "must be true"),
            (r#"{"json": "{"}"#, "is not valid JSON"),
            (r#"{"regex": "a", "whitespace_pattern": " "}"#, "whitespace_pattern"),
        ] {
            let error = serde_json::from_str::<StructuredOutputs>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
