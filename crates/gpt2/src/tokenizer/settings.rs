//! What the files beside a vocabulary say: more tokens, and what happens to a text.
//!
//! Which file counts is as in `transformers`:
//!
//! ```text
//! tokenizer_config.json   added_tokens_decoder    tokens with their ids; where it is there, the two below are not read
//!                         bos_token, pad_token …  special tokens by name, numbered after the others if need be
//! special_tokens_map.json the same names          these go before those of tokenizer_config.json
//! added_tokens.json       {"<pad>": 50257}        tokens with their ids
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tokenizers::AddedToken;

use super::{END_OF_TEXT, TokenizerError, check_length};
use crate::json;

/// The names of special tokens, in the order in which they are numbered.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The first three are this, unless a file names others.
const END_OF_TEXT_NAMES: &[&str] = &["bos_token", "eos_token", "unk_token"];

/// The list of special tokens without names of their own, and what it was called before.
const MORE: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];

/// The class of GPT-2's tokenizers.
const GPT2: &str = "GPT2Tokenizer";

/// What the files beside a vocabulary say.
#[derive(Default)]
pub(super) struct Settings {
    /// Tokens with their ids.
    pub(super) numbered: BTreeMap<u32, AddedToken>,
    /// Whether these go before tokens of `tokenizer.json` with the same text and id.
    pub(super) replaces: bool,
    /// Special tokens that have the id of the vocabulary, or the next one, in their order.
    pub(super) named: Vec<AddedToken>,
    /// Whether texts get a space before them, if a file beside `tokenizer.json` is to say so.
    pub(super) add_prefix_space: Option<bool>,
    /// Whether special tokens in a text are never parsed.
    pub(super) split_special_tokens: bool,
    /// The token before every text, unless there is a `tokenizer.json`.
    pub(super) before: Option<String>,
    /// The token after every text, unless there is a `tokenizer.json`.
    pub(super) after: Option<String>,
    /// The class of tokenizers that was named.
    pub(super) class: Option<String>,
}

/// The contents of the files beside a vocabulary, those that are there.
#[derive(Default)]
pub(super) struct Companions {
    pub(super) tokenizer_config: Option<Vec<u8>>,
    pub(super) special_tokens_map: Option<Vec<u8>>,
    pub(super) added_tokens: Option<Vec<u8>>,
}

impl Companions {
    /// Reads the files' contents, to be used with a `tokenizer.json` or without.
    pub(super) fn settings(&self, tokenizer_json: bool) -> Result<Settings, TokenizerError> {
        let mut fields: Pairs<Value> = parse("tokenizer_config.json", self.tokenizer_config.as_deref())?;
        let class: Option<String> = fields.value("tokenizer_class")?;
        // Another class takes a `tokenizer.json` as it is.
        let named = class.as_deref().unwrap_or(GPT2);
        let gpt2 = !tokenizer_json || named.trim_end_matches("Fast") == GPT2;
        let add_prefix_space = fields.value("add_prefix_space")?.unwrap_or(false);
        let [add_bos, add_eos] = [fields.value("add_bos_token")?, fields.value("add_eos_token")?];
        let mut settings = Settings {
            add_prefix_space: gpt2.then_some(add_prefix_space),
            split_special_tokens: fields.value("split_special_tokens")?.unwrap_or(false),
            class,
            ..Settings::default()
        };

        let decoder: Option<BTreeMap<u32, TokenFields>> = fields.value("added_tokens_decoder")?;
        let legacy = decoder.is_none();
        settings.replaces = !legacy;
        for (id, token) in decoder.into_iter().flatten() {
            settings.numbered.insert(id, token.into_token(false));
        }
        if legacy {
            let map: Pairs<Value> = parse("special_tokens_map.json", self.special_tokens_map.as_deref())?;
            fields.take_over(map);
        }
        settings.named = fields.named(gpt2)?;
        if legacy && let Some(json) = &self.added_tokens {
            let added: BTreeMap<String, u32> = parse("added_tokens.json", Some(json))?;
            let special: HashSet<&str> = settings.named.iter().map(|token| &*token.content).collect();
            for (content, id) in added {
                let token = AddedToken::from(&*content, special.contains(&*content));
                if let Some(first) = settings.numbered.insert(id, token) {
                    return Err(TokenizerError::DuplicateId { id, first: first.content, second: content });
                }
            }
        }
        settings.before = if add_bos == Some(true) { fields.text("bos_token", gpt2)? } else { None };
        settings.after = if add_eos == Some(true) { fields.text("eos_token", gpt2)? } else { None };
        Ok(settings)
    }
}

/// An added token as the files write it, where what is absent has a default.
#[derive(Clone, Deserialize)]
struct TokenFields {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl TokenFields {
    /// The token, which is special if it has a name, whatever else is said.
    fn into_token(self, named: bool) -> AddedToken {
        let special = self.special || named;
        AddedToken {
            content: self.content,
            single_word: self.single_word,
            lstrip: self.lstrip,
            rstrip: self.rstrip,
            normalized: self.normalized.unwrap_or(!special),
            special,
        }
    }
}

/// A special token: its text, or a text with flags.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "expected a token's text, or an object with its `content`")]
enum Named {
    Text(String),
    Fields(TokenFields),
}

impl Named {
    fn into_token(self) -> AddedToken {
        match self {
            Self::Text(content) => AddedToken::from(content, true),
            Self::Fields(fields) => fields.into_token(true),
        }
    }
}

/// The fields of a JSON object in their order, which is that of new ids.
struct Pairs<T>(Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

impl Pairs<Value> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// A field's value, if it is there and not null.
    fn value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, TokenizerError> {
        let value = self.get(name).cloned().unwrap_or_default();
        Option::<T>::deserialize(value)
            .map_err(|source| TokenizerError::Setting { setting: name.to_owned(), source })
    }

    /// Takes over the fields of another file, which go before those of the same name. A list of more tokens grows.
    fn take_over(&mut self, other: Self) {
        for (name, value) in other.0 {
            let Some(place) = self.0.iter().position(|(field, _)| *field == name) else {
                self.0.push((name, value));
                continue;
            };
            match (&mut self.0[place].1, value) {
                (Value::Array(old), Value::Array(new)) if name == MORE[0] => old.extend(new),
                (old, value) => *old = value,
            }
        }
    }

    /// The text of a token with one of the usual names.
    fn text(&self, name: &str, gpt2: bool) -> Result<Option<String>, TokenizerError> {
        match self.get(name) {
            None if gpt2 && END_OF_TEXT_NAMES.contains(&name) => Ok(Some(END_OF_TEXT.to_owned())),
            _ => Ok(self.value::<Named>(name)?.map(|token| token.into_token().content)),
        }
    }

    /// All tokens that have a name, in the order in which they are numbered.
    fn named(&self, gpt2: bool) -> Result<Vec<AddedToken>, TokenizerError> {
        let mut named = Vec::new();
        for name in NAMES {
            match self.get(name) {
                None if gpt2 && END_OF_TEXT_NAMES.contains(&name) => {
                    named.push(AddedToken::from(END_OF_TEXT, true));
                }
                _ => named.extend(self.value::<Named>(name)?.map(Named::into_token)),
            }
        }
        for (name, value) in &self.0 {
            if name.ends_with("_token") && !NAMES.contains(&&**name) {
                // Not everything of such a name is a token: `add_bos_token` is true or false.
                named.extend(Named::deserialize(value).ok().map(Named::into_token));
            }
        }
        let more = MORE
            .into_iter()
            .find(|name| self.get(name).is_some_and(|value| !value.is_null() && !is_empty(value)));
        match more.map(|name| (name, self.get(name))) {
            Some((name, Some(Value::Object(_)))) => {
                let tokens: Option<Pairs<Named>> = self.value(name)?;
                let tokens = tokens.into_iter().flat_map(|Pairs(pairs)| pairs);
                named.extend(tokens.map(|(_, token)| token.into_token()));
            }
            Some((name, _)) => {
                let tokens: Option<Vec<Named>> = self.value(name)?;
                named.extend(tokens.into_iter().flatten().map(Named::into_token));
            }
            None => {}
        }
        Ok(named)
    }
}

/// Reads a file's contents; nothing where there is no file.
fn parse<T: DeserializeOwned + Default>(
    file: &'static str,
    json: Option<&[u8]>,
) -> Result<T, TokenizerError> {
    let Some(json) = json else { return Ok(T::default()) };
    check_length(file, json)?;
    json::read(json).map_err(|source| TokenizerError::Companion { file, source })
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}
