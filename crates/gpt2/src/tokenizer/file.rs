//! The files a tokenizer is read from, checked against what is supported.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};

use super::{TokenizerError, check_length};
use crate::json::without_mark;

/// The parts of a `tokenizer.json` that matter here.
///
/// The crate's own reader goes through a generic JSON value three times over; this one goes straight to the
/// vocabulary, and sees what must be refused.
#[derive(Deserialize)]
pub(super) struct TokenizerFile {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedTokenEntry>,
    pub(super) normalizer: Option<Value>,
    pub(super) pre_tokenizer: Option<Value>,
    pub(super) post_processor: Option<Value>,
    pub(super) decoder: Option<Value>,
    pub(super) model: BpeFile,
}

impl TokenizerFile {
    /// Reads the contents of a `tokenizer.json`.
    pub(super) fn parse(json: &[u8]) -> Result<Self, TokenizerError> {
        check_length("tokenizer.json", json)?;
        serde_json::from_slice(without_mark(json))
            .map_err(|source| TokenizerError::Json { file: "tokenizer.json", source })
    }
}

#[derive(Deserialize)]
pub(super) struct AddedTokenEntry {
    pub(super) id: u32,
    #[serde(flatten)]
    pub(super) token: AddedToken,
}

/// The model; `unk_token`, `fuse_unk` and `byte_fallback` say what becomes of a byte that the vocabulary lacks,
/// which is an error here: it could not be decoded.
#[derive(Default, Deserialize)]
pub(super) struct BpeFile {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) dropout: Option<f32>,
    pub(super) continuing_subword_prefix: Option<String>,
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    pub(super) vocab: Vocab,
    pub(super) merges: Vec<Merge>,
}

impl BpeFile {
    pub(super) fn build(self) -> Result<BPE, TokenizerError> {
        let kind = self.kind.unwrap_or_else(|| "BPE".to_owned());
        refuse_unless(kind == "BPE", "model", "`BPE`", kind)?;
        let dropout = self.dropout.unwrap_or(0.0);
        refuse_unless(dropout == 0.0, "`dropout`", "0", dropout.to_string())?;
        for (part, affix) in [
            ("`continuing_subword_prefix`", self.continuing_subword_prefix),
            ("`end_of_word_suffix`", self.end_of_word_suffix),
        ] {
            let affix = affix.unwrap_or_default();
            refuse_unless(affix.is_empty(), part, "empty", affix)?;
        }
        let merges = self.merges.into_iter().map(|Merge(left, right)| (left, right)).collect();
        let builder =
            BpeBuilder::new().vocab_and_merges(self.vocab, merges).ignore_merges(self.ignore_merges);
        builder.build().map_err(TokenizerError::library)
    }
}

/// Makes the error for an unsupported part, unless it is supported.
pub(super) fn refuse_unless(
    supported: bool,
    part: &'static str,
    expected: &'static str,
    found: String,
) -> Result<(), TokenizerError> {
    if supported { Ok(()) } else { Err(TokenizerError::Unsupported { part, expected, found }) }
}

/// Two tokens that become one; in a file `"a b"` or `["a", "b"]`.
pub(super) struct Merge(String, String);

impl Merge {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(' ')?;
        let valid = !left.is_empty() && !right.is_empty() && !right.contains(' ');
        valid.then(|| Self(left.to_owned(), right.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;

        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: \"a b\" or [\"a\", \"b\"]")
            }

            fn visit_str<E: de::Error>(self, merge: &str) -> Result<Merge, E> {
                Merge::parse(merge).ok_or_else(|| E::invalid_value(de::Unexpected::Str(merge), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut merge: A) -> Result<Merge, A::Error> {
                let short = |length| de::Error::invalid_length(length, &self);
                let left = merge.next_element()?.ok_or_else(|| short(0))?;
                let right = merge.next_element()?.ok_or_else(|| short(1))?;
                Ok(Merge(left, right))
            }
        }

        deserializer.deserialize_any(MergeVisitor)
    }
}
