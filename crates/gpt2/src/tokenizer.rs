//! Text to token ids and back: the byte-level BPE of GPT-2.
//!
//! The merging itself is the `tokenizers` crate's. This module reads its files ([`Tokenizer::from_directory`],
//! [`Tokenizer::from_bytes`]), makes the treatment of special tokens a choice at every call, and keeps a table
//! of the bytes behind each id, so that decoding is exact: `decode(encode(text)) == text` for every text. The
//! exceptions are what a tokenizer's files ask for, none of which GPT-2's do: a space before every text and after
//! every added token (`add_prefix_space`), tokens before or after every text (`add_bos_token`, a
//! `TemplateProcessing`), and added tokens that take the white space beside them (`lstrip`, `rstrip`).
//!
//! ```text
//! "Hi there" ─ added tokens ─ words ─ bytes as letters ─ merges ─► [17250, 612]     the crate; words are ours
//! [17250, 612] ─► bytes[starts[id]..starts[id + 1]] … ─► "Hi there"                 the table
//! ```
//!
//! A directory is read as `transformers` reads it: the files beside the vocabulary add tokens and settings
//! (`settings.rs`). Only byte-level BPE is read; another kind of model, pre-tokenizer, post-processor or decoder and
//! any normalizer are refused by name (`parts.rs`), as is BPE dropout, which would make the ids of a text random. The
//! `truncation` and `padding` sections of a `tokenizer.json` are a batching policy and not applied, as `transformers`
//! does not apply them unless asked.

mod bytes;
mod file;
mod parts;
mod settings;
#[cfg(test)]
pub(crate) mod tests;
mod words;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde_json::json;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetType};

use self::bytes::MAX_VOCABULARY;
pub(crate) use self::bytes::TokenBytes;
use self::file::{AddedTokenEntry, BpeFile, Merge, TokenizerFile, refuse_unless};
use self::parts::{Finish, Splitting, check_decoder, check_normalizer};
use self::settings::{Companions, Settings};
use crate::json::without_mark;
use crate::process::structure::Vocabulary;

/// Files that may add tokens and settings to `tokenizer.json`, or to `vocab.json` and `merges.txt`.
///
/// Whoever fetches a tokenizer fetches these too, where they exist: without them, tokens may be plain text.
pub const COMPANION_FILES: &[&str] =
    &["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// The longest file that is read: tokenizers of a quarter million tokens have half of that.
const MAX_FILE: usize = 1 << 26;

/// The classes of tokenizers that a `vocab.json` and a `merges.txt` may name, without `Fast` at their ends.
const OLD_LAYOUT_CLASSES: [&str; 3] = ["GPT2Tokenizer", "PreTrainedTokenizer", "TokenizersBackend"];

/// The text of GPT-2's only special token.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A byte-level BPE tokenizer.
///
/// # Examples
///
/// ```
/// use gpt2::tokenizer::{SpecialText, SpecialTokens, Tokenizer};
///
/// let json = br#"{
///     "added_tokens": [],
///     "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
///     "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
///     "model": {"type": "BPE", "vocab": {"h": 0, "i": 1, "hi": 2}, "merges": [["h", "i"]]}
/// }"#;
/// let tokenizer = Tokenizer::from_bytes(json)?;
/// let ids = tokenizer.encode("hih", SpecialTokens::Parse)?;
/// assert_eq!(ids, [2, 0]);
/// assert_eq!(tokenizer.decode(&ids, SpecialText::Keep)?, "hih");
/// # Ok::<(), gpt2::tokenizer::TokenizerError>(())
/// ```
pub struct Tokenizer {
    model: BPE,
    splitting: Splitting,
    finish: Finish,
    /// Finds the added tokens in a text; `ordinary` finds only those that are not special.
    added: AddedVocabulary,
    ordinary: AddedVocabulary,
    bytes: Arc<TokenBytes>,
    /// Ids of the special tokens, ascending.
    special: Vec<u32>,
    /// Rows of the model's `wte`, where that is more than the vocabulary.
    padded: usize,
    /// The trie of the tokens, as soon as a text is to have a structure.
    vocabulary: OnceLock<Arc<Vocabulary>>,
}

/// What a special token's text, such as `<|endoftext|>`, becomes when it occurs in a text to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// The special token, as in `transformers` by default.
    Parse,
    /// Ordinary characters: the choice for text from strangers.
    AsText,
}

/// What a special token becomes when it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialText {
    /// Its text, such as `<|endoftext|>`.
    Keep,
    /// Nothing.
    Skip,
}

/// The tokens of a text, where each came from, and how it is written in the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The ids.
    pub ids: Vec<u32>,
    /// The tokens as the vocabulary writes them: bytes as letters, a leading space as `Ġ`.
    pub tokens: Vec<String>,
    /// The characters (not bytes) of the text that each token covers, end excluded. Tokens that share one
    /// character all cover the whole of it.
    pub offsets: Vec<(usize, usize)>,
}

/// A token as text, and as bytes where the text is not all of it.
///
/// It serializes as `{"token": "text"}`, with `"bytes": [227, 129]` where they are needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenText<'a> {
    /// What the token decodes to by itself, with U+FFFD for bytes that are not UTF-8.
    #[serde(rename = "token")]
    pub text: Cow<'a, str>,
    /// The token's bytes, only where they are not UTF-8 by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<&'a [u8]>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` from a model directory, else `vocab.json` and `merges.txt`, and those of the
    /// [`COMPANION_FILES`] that are there.
    ///
    /// # Errors
    ///
    /// When the files are not there, cannot be read, or do not describe a byte-level BPE tokenizer.
    pub fn from_directory(directory: &Path) -> Result<Self, TokenizerError> {
        let json = read(&directory.join("tokenizer.json"))?;
        let companions = Companions {
            tokenizer_config: read(&directory.join("tokenizer_config.json"))?,
            special_tokens_map: read(&directory.join("special_tokens_map.json"))?,
            added_tokens: read(&directory.join("added_tokens.json"))?,
        };
        if let Some(json) = json {
            return Self::build(TokenizerFile::parse(&json)?, companions.settings(true)?);
        }
        let vocab = read(&directory.join("vocab.json"))?;
        let merges = read(&directory.join("merges.txt"))?;
        match (vocab, merges) {
            (Some(vocab), Some(merges)) => {
                Self::from_vocab_and_merges(&vocab, &merges, companions.settings(false)?)
            }
            (vocab, merges) => {
                let missing = match (vocab, merges) {
                    (Some(_), _) => "`tokenizer.json` and `merges.txt`",
                    (_, Some(_)) => "`tokenizer.json` and `vocab.json`",
                    _ => "`tokenizer.json`, `vocab.json` and `merges.txt`",
                };
                Err(TokenizerError::Missing { directory: directory.to_owned(), missing })
            }
        }
    }

    /// Reads the contents of a `tokenizer.json`, without any other file.
    ///
    /// # Errors
    ///
    /// When they do not describe a byte-level BPE tokenizer, or are longer than any.
    pub fn from_bytes(json: &[u8]) -> Result<Self, TokenizerError> {
        Self::build(TokenizerFile::parse(json)?, Settings::default())
    }

    /// Reads the contents of GPT-2's first file format: a `vocab.json` and a `merges.txt`.
    fn from_vocab_and_merges(
        vocab: &[u8],
        merges: &[u8],
        mut settings: Settings,
    ) -> Result<Self, TokenizerError> {
        check_length("vocab.json", vocab)?;
        check_length("merges.txt", merges)?;
        let vocab: Vocab = serde_json::from_slice(without_mark(vocab))
            .map_err(|source| TokenizerError::Json { file: "vocab.json", source })?;
        let merges = std::str::from_utf8(without_mark(merges))
            .map_err(|source| TokenizerError::Utf8 { file: "merges.txt", source })?;
        let merges = merges
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"))
            .map(|(index, line)| Merge::parse(line).ok_or(TokenizerError::MergeLine { line: index + 1 }))
            .collect::<Result<_, _>>()?;
        // The name does not say what happens to a text in other classes; `tokenizer.json` would.
        if let Some(class) = settings.class.take() {
            let known = OLD_LAYOUT_CLASSES.contains(&class.trim_end_matches("Fast"));
            let expected = "`GPT2Tokenizer`, as there is no `tokenizer.json`";
            refuse_unless(known, "`tokenizer_class`", expected, class)?;
        }
        let (before, after) = (settings.before.take(), settings.after.take());
        let mut tokenizer = Self::build(
            TokenizerFile {
                added_tokens: Vec::new(),
                normalizer: None,
                pre_tokenizer: Some(json!({ "type": "ByteLevel", "add_prefix_space": false })),
                post_processor: None,
                decoder: Some(json!({ "type": "ByteLevel" })),
                model: BpeFile { vocab, merges, ..BpeFile::default() },
            },
            settings,
        )?;
        let id = |token: String| tokenizer.added.token_to_id(&token, &tokenizer.model);
        let (before, after) = (before.and_then(id), after.and_then(id));
        tokenizer.finish.before.extend(before);
        tokenizer.finish.after.extend(after);
        Ok(tokenizer)
    }

    fn build(file: TokenizerFile, settings: Settings) -> Result<Self, TokenizerError> {
        let TokenizerFile { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model } = file;
        check_normalizer(&normalizer)?;
        let mut splitting = Splitting::read(&pre_tokenizer)?;
        splitting.add_prefix_space = settings.add_prefix_space.unwrap_or(splitting.add_prefix_space);
        let finish = Finish::read(&post_processor)?;
        check_decoder(&decoder)?;
        let split_special_tokens = settings.split_special_tokens;
        let added_tokens = numbered(added_tokens, settings, &model.vocab);
        // The crate panics where a token begins in the white space that another one takes.
        let takes = added_tokens.iter().any(|entry| entry.token.rstrip);
        let inside = added_tokens.iter().find(|entry| entry.token.content.starts_with(char::is_whitespace));
        if let Some(entry) = inside.filter(|_| takes) {
            let expected = "without leading white space, as one has `rstrip`";
            refuse_unless(false, "added tokens", expected, entry.token.content.clone())?;
        }
        let bytes = Arc::new(TokenBytes::new(&model.vocab, &added_tokens)?);
        for id in finish.before.iter().chain(&finish.after) {
            let expected = "with ids of the vocabulary";
            refuse_unless(bytes.get(*id).is_some(), "post_processor", expected, id.to_string())?;
        }
        let model = model.build()?;

        let (ids, tokens): (Vec<u32>, Vec<AddedToken>) =
            added_tokens.into_iter().map(|entry| (entry.id, entry.token)).unzip();
        let mut added = AddedVocabulary::new();
        added.add_tokens(&tokens, &model, None::<&NormalizerWrapper>);
        for (&expected, token) in ids.iter().zip(&tokens) {
            // The crate numbers added tokens itself, and only logs where that is not what the file says.
            match added.token_to_id(&token.content, &model) {
                Some(found) if found == expected => {}
                found => {
                    let token = token.content.clone();
                    return Err(TokenizerError::AddedTokenId { token, expected, found });
                }
            }
        }
        let mut ordinary = added.clone();
        ordinary.set_encode_special_tokens(true);
        added.set_encode_special_tokens(split_special_tokens);
        let mut special: Vec<u32> =
            ids.iter().zip(&tokens).filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        special.sort_unstable();
        special.dedup();
        Ok(Self {
            model,
            splitting,
            finish,
            added,
            ordinary,
            bytes,
            special,
            padded: 0,
            vocabulary: OnceLock::new(),
        })
    }

    /// Accepts every id below `model_vocabulary`, the number of rows of the model's `wte`.
    ///
    /// Checkpoints are often padded past the tokenizer's vocabulary, and such a model can draw an id that has
    /// no token. Without this, decoding it is an error; with it, it decodes to nothing.
    #[must_use]
    pub fn padded_to(mut self, model_vocabulary: usize) -> Self {
        self.padded = model_vocabulary;
        self
    }

    /// Encodes a whole text as token ids, with the tokens that the tokenizer puts before or after it, if any.
    ///
    /// # Errors
    ///
    /// When the vocabulary lacks one of the text's bytes. GPT-2's has them all.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.finish.before.clone();
        ids.extend_from_slice(self.tokenize(text, special, OffsetType::None)?.get_ids());
        ids.extend_from_slice(&self.finish.after);
        Ok(ids)
    }

    /// Encodes a part of a text, such as a word to look for: nothing is put before or after it.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_part(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.tokenize(text, special, OffsetType::None)?.get_ids().to_vec())
    }

    /// Encodes a whole text as token ids with their spelling and the characters they cover.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(
        &self,
        text: &str,
        special: SpecialTokens,
    ) -> Result<Encoding, TokenizerError> {
        let found = self.tokenize(text, special, OffsetType::Char)?;
        let mut encoding = Encoding { ids: Vec::new(), tokens: Vec::new(), offsets: Vec::new() };
        let around = |encoding: &mut Encoding, ids: &[u32]| {
            encoding.ids.extend_from_slice(ids);
            encoding.tokens.extend(ids.iter().map(|&id| self.token(id).unwrap_or_default()));
            encoding.offsets.extend(ids.iter().map(|_| (0, 0)));
        };
        around(&mut encoding, &self.finish.before);
        encoding.ids.extend_from_slice(found.get_ids());
        encoding.tokens.extend_from_slice(found.get_tokens());
        encoding.offsets.extend_from_slice(found.get_offsets());
        around(&mut encoding, &self.finish.after);
        Ok(encoding)
    }

    fn tokenize(
        &self,
        text: &str,
        special: SpecialTokens,
        offsets: OffsetType,
    ) -> Result<tokenizers::Encoding, TokenizerError> {
        let added = match special {
            SpecialTokens::Parse => &self.added,
            SpecialTokens::AsText => &self.ordinary,
        };
        let mut pieces = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
        self.splitting.apply(&mut pieces).map_err(TokenizerError::library)?;
        pieces
            .tokenize(|piece| {
                let piece = piece.get();
                let tokens = self.model.tokenize(piece)?;
                // The crate drops letters that are not in the vocabulary, and says nothing.
                if tokens.last().map_or(0, |token| token.offsets.1) != piece.len() {
                    return Err(self.unencodable(piece).into());
                }
                Ok(tokens)
            })
            .map_err(TokenizerError::library)?;
        let encoding = pieces.into_encoding(None, 0, offsets).map_err(TokenizerError::library)?;
        self.finish.trim(encoding).map_err(TokenizerError::library)
    }

    /// Names the first letter of `piece` that the vocabulary lacks.
    fn unencodable(&self, piece: &str) -> TokenizerError {
        let missing = |letter: &char| self.model.token_to_id(letter.encode_utf8(&mut [0; 4])).is_none();
        let letter = piece.chars().find(missing).unwrap_or(char::REPLACEMENT_CHARACTER);
        TokenizerError::Unencodable { letter }
    }

    /// Decodes token ids; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    ///
    /// When an id is neither in the vocabulary nor below the bound of [`padded_to`](Self::padded_to).
    pub fn decode(&self, ids: &[u32], special: SpecialText) -> Result<String, TokenizerError> {
        let bytes = self.decode_bytes(ids, special)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Decodes token ids to the exact bytes they stand for.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    pub fn decode_bytes(&self, ids: &[u32], special: SpecialText) -> Result<Vec<u8>, TokenizerError> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            let token = self.token_bytes(id).ok_or_else(|| self.unknown(id))?;
            if special == SpecialText::Keep || !self.is_special(id) {
                bytes.extend_from_slice(token);
            }
        }
        Ok(bytes)
    }

    /// Returns the bytes that a token stands for: none for a padding id, `None` for an unknown one.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes.get(id).or_else(|| ((id as usize) < self.padded).then_some(&[] as &[u8]))
    }

    /// Decodes a token by itself, keeping its bytes where they are not a text.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(tokenizer: &gpt2::tokenizer::Tokenizer) -> Result<(), gpt2::tokenizer::TokenizerError> {
    /// // The first two bytes of `あ` in GPT-2's vocabulary.
    /// let token = tokenizer.token_text(2515)?;
    /// assert_eq!((&*token.text, token.bytes), ("\u{fffd}", Some(&[0xe3, 0x81][..])));
    /// # Ok(())
    /// # }
    /// ```
    pub fn token_text(&self, id: u32) -> Result<TokenText<'_>, TokenizerError> {
        let bytes = self.token_bytes(id).ok_or_else(|| self.unknown(id))?;
        let text = String::from_utf8_lossy(bytes);
        let whole = matches!(text, Cow::Borrowed(_));
        Ok(TokenText { text, bytes: (!whole).then_some(bytes) })
    }

    /// Returns a token as the vocabulary writes it, such as `Ġlanguage` for ` language`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.added.simple_id_to_token(id).or_else(|| self.model.id_to_token(id))
    }

    /// Returns one more than the highest id in the vocabulary: 50257 for GPT-2.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the id of `<|endoftext|>`, if the vocabulary has it.
    pub fn end_of_text(&self) -> Option<u32> {
        self.added.token_to_id(END_OF_TEXT, &self.model)
    }

    /// Returns the ids of the special tokens, ascending.
    pub fn special_ids(&self) -> &[u32] {
        &self.special
    }

    /// Says whether an id is a special token's.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    /// The bytes of all tokens.
    pub(crate) fn bytes(&self) -> Arc<TokenBytes> {
        Arc::clone(&self.bytes)
    }

    /// The trie of the tokens, which is made once.
    pub(crate) fn vocabulary(&self) -> Arc<Vocabulary> {
        self.vocabulary.get_or_init(|| Arc::new(Vocabulary::new(self))).clone()
    }

    /// Makes the error for an id that has no token.
    pub(crate) fn unknown(&self, id: u32) -> TokenizerError {
        TokenizerError::UnknownId { id, vocabulary: self.vocab_size().max(self.padded) }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("special", &self.special)
            .field("padded", &self.padded)
            .finish_non_exhaustive()
    }
}

/// A tokenizer that could not be read, or a text or id it does not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A directory lacks the files of a tokenizer.
    #[error(
        "no tokenizer in `{}`: expected `tokenizer.json`, or `vocab.json` with `merges.txt`; missing {missing}",
        directory.display()
    )]
    Missing {
        /// The directory searched.
        directory: PathBuf,
        /// The files it lacks.
        missing: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is longer than any tokenizer's.
    #[error("`{file}` has more than {limit} bytes, the most that a tokenizer is read from")]
    TooLong {
        /// The file's name.
        file: &'static str,
        /// The most bytes it may have.
        limit: usize,
    },
    /// A file is not JSON, or not of the expected form.
    #[error("`{file}` is not a byte-level BPE tokenizer's")]
    Json {
        /// The file's name.
        file: &'static str,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A file beside the vocabulary is not JSON, or not of the expected form.
    #[error("cannot use `{file}`")]
    Companion {
        /// The file's name.
        file: &'static str,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A setting in a file beside the vocabulary is not of the expected form.
    #[error("cannot use `{setting}` of the tokenizer's settings")]
    Setting {
        /// The setting.
        setting: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file is not UTF-8.
    #[error("`{file}` is not UTF-8")]
    Utf8 {
        /// The file's name.
        file: &'static str,
        /// Where it is not.
        source: std::str::Utf8Error,
    },
    /// A line of `merges.txt` does not hold two tokens.
    #[error("line {line} of `merges.txt` is not two tokens with a space between them")]
    MergeLine {
        /// The line, counted from one.
        line: usize,
    },
    /// A part of the tokenizer is of a kind that GPT-2 does not use.
    #[error("unsupported tokenizer: expected {part} {expected}, found `{found}`")]
    Unsupported {
        /// The part.
        part: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Two tokens have one id.
    #[error("tokens `{first}` and `{second}` both have the id {id}")]
    DuplicateId {
        /// The id.
        id: u32,
        /// One of the tokens.
        first: String,
        /// The other.
        second: String,
    },
    /// An id is too high to be believed.
    #[error("token `{token}` has the id {id}, expected one below {MAX_VOCABULARY}")]
    IdTooHigh {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
    },
    /// An added token does not follow on from the vocabulary.
    #[error(
        "added token `{token}` has the id {expected}, but its place in the vocabulary is {}",
        found.map_or("none".to_owned(), |id| id.to_string())
    )]
    AddedTokenId {
        /// The token.
        token: String,
        /// The id in the file.
        expected: u32,
        /// The id that follows from its place.
        found: Option<u32>,
    },
    /// A text has a byte that the vocabulary lacks.
    #[error("the vocabulary has no token for the byte it writes `{letter}`")]
    Unencodable {
        /// The byte as the vocabulary would write it.
        letter: char,
    },
    /// An id has no token.
    #[error("token id {id} is not in the vocabulary of {vocabulary} tokens")]
    UnknownId {
        /// The id.
        id: u32,
        /// The number of ids there are.
        vocabulary: usize,
    },
    /// The `tokenizers` crate refused the files or the text.
    #[error("the tokenizer's files contradict themselves")]
    Library(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TokenizerError {
    /// Unwraps our own error out of the crate's boxed one, or wraps the crate's.
    fn library(error: tokenizers::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(theirs) => Self::Library(theirs),
        }
    }
}

/// Adds the tokens of the files beside the vocabulary, in the order in which the crate numbers them.
fn numbered(added: Vec<AddedTokenEntry>, settings: Settings, vocab: &Vocab) -> Vec<AddedTokenEntry> {
    let index = |tokens: &[AddedTokenEntry]| -> HashMap<String, usize> {
        let contents = tokens.iter().map(|entry| entry.token.content.clone());
        contents.enumerate().map(|(index, content)| (content, index)).collect()
    };
    let mut tokens = added;
    let places = index(&tokens);
    for (id, token) in settings.numbered {
        match places.get(&token.content) {
            Some(&place) if tokens[place].id == id => {
                if settings.replaces {
                    tokens[place].token = token;
                }
            }
            _ => tokens.push(AddedTokenEntry { id, token }),
        }
    }
    tokens.sort_by_key(|entry| entry.id);
    let mut places = index(&tokens);
    let new = places.keys().filter(|content| !vocab.contains_key(*content)).count();
    let mut next = (vocab.len() + new) as u32;
    for token in settings.named {
        if let Some(&place) = places.get(&token.content) {
            tokens[place].token.special = true;
        } else if !token.content.is_empty() {
            let id = vocab.get(&token.content).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            places.insert(token.content.clone(), tokens.len());
            tokens.push(AddedTokenEntry { id, token });
        }
    }
    tokens
}

fn check_length(file: &'static str, contents: &[u8]) -> Result<(), TokenizerError> {
    let fits = contents.len() <= MAX_FILE;
    if fits { Ok(()) } else { Err(TokenizerError::TooLong { file, limit: MAX_FILE }) }
}

/// Reads a file, up to where it is too long; `None` when there is none of that name.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { path: path.to_owned(), source }),
    }
}
