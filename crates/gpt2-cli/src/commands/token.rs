//! Tokens by name in JSON, and what a result was made with.

use gpt2::tokenizer::{TokenText, Tokenizer};
use serde::Serialize;

use crate::model::Loaded;

/// A token in quotes, for people; bytes that are no whole character are named: `"\xe6\x97"`.
pub(crate) fn quoted(id: u32, tokenizer: &Tokenizer) -> String {
    let mut text = String::new();
    for chunk in tokenizer.token_bytes(id).unwrap_or_default().utf8_chunks() {
        let valid = format!("{:?}", chunk.valid());
        text.push_str(&valid[1..valid.len() - 1]);
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    format!("\"{text}\"")
}

/// What is said of a token, with its text.
#[derive(Serialize)]
pub(crate) struct Named<'t, T: Serialize> {
    #[serde(flatten)]
    text: Option<TokenText<'t>>,
    #[serde(flatten)]
    said: T,
}

impl<'t, T: Serialize> Named<'t, T> {
    pub(crate) fn new(id: u32, said: T, tokenizer: &'t Tokenizer) -> Self {
        // The vocabulary is padded to that of the model, whose tokens these are.
        Self { text: tokenizer.token_text(id).ok(), said }
    }
}

/// What a result was made with, beside model and settings: all that it takes to make it again.
#[derive(Serialize)]
pub(crate) struct Origin<'a> {
    /// The commit of a model of the hub, as `--revision` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    pub(crate) dtype: &'static str,
    pub(crate) kv_dtype: &'static str,
    /// Of this program.
    version: &'static str,
}

impl<'a> Origin<'a> {
    pub(crate) fn of(loaded: &'a Loaded) -> Self {
        let formats = loaded.model.formats();
        Self {
            revision: loaded.revision.as_deref(),
            dtype: formats.weights.name(),
            kv_dtype: formats.cache.name(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
