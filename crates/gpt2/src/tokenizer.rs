//! Text to token ids and back: the byte-level BPE of GPT-2.
//!
//! The merging itself is the `tokenizers` crate's. This module reads its files ([`Tokenizer::from_directory`],
//! [`Tokenizer::from_bytes`]), makes the treatment of special tokens a choice at every call, and keeps a table
//! of the bytes behind each id, so that decoding is exact: `decode(encode(text)) == text` for every text. The
//! one exception is a `tokenizer.json` whose pre-tokenizer sets `add_prefix_space`, which GPT-2's does not: as in
//! `transformers`, a text without a leading space then gets one, and so does what follows an added token.
//!
//! ```text
//! "Hi there" ─ added tokens ─ words ─ bytes as letters ─ merges ─► [17250, 612]     the crate
//! [17250, 612] ─► bytes[starts[id]..starts[id + 1]] … ─► "Hi there"                 the table
//! ```
//!
//! Only byte-level BPE is read; another kind of model, pre-tokenizer, post-processor or decoder and any
//! normalizer are refused by name, as are BPE dropout, which would make the ids of a text random, and added
//! tokens that take the spaces beside them. The `truncation` and `padding` sections of a `tokenizer.json` are a batching
//! policy and not applied, as `transformers` does not apply them unless asked.

mod bytes;
mod file;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::json;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, AddedVocabulary, Model, NormalizerWrapper, OffsetType, PostProcessor, PreTokenizer,
};

use self::bytes::{MAX_VOCABULARY, TokenBytes};
use self::file::{AddedTokenEntry, BpeFile, Merge, TokenizerFile, byte_level, kind, refuse_unless};

/// The longest file that is read: tokenizers of a quarter million tokens have half of that.
const MAX_FILE: usize = 1 << 26;

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
    pre_tokenizer: ByteLevel,
    post_processor: Option<ByteLevel>,
    /// Finds the added tokens in a text; `ordinary` finds only those that are not special.
    added: AddedVocabulary,
    ordinary: AddedVocabulary,
    bytes: TokenBytes,
    /// Ids of the special tokens, ascending.
    special: Vec<u32>,
    /// Rows of the model's `wte`, where that is more than the vocabulary.
    padded: usize,
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

impl Tokenizer {
    /// Reads `tokenizer.json` from a model directory, else `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    ///
    /// When the files are not there, cannot be read, or do not describe a byte-level BPE tokenizer.
    pub fn from_directory(directory: &Path) -> Result<Self, TokenizerError> {
        if let Some(json) = read(&directory.join("tokenizer.json"))? {
            return Self::from_bytes(&json);
        }
        let vocab = read(&directory.join("vocab.json"))?;
        let merges = read(&directory.join("merges.txt"))?;
        match (vocab, merges) {
            (Some(vocab), Some(merges)) => Self::from_vocab_and_merges(&vocab, &merges),
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

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// When they do not describe a byte-level BPE tokenizer, or are longer than any.
    pub fn from_bytes(json: &[u8]) -> Result<Self, TokenizerError> {
        check_length("tokenizer.json", json)?;
        let file: TokenizerFile = serde_json::from_slice(json)
            .map_err(|source| TokenizerError::Json { file: "tokenizer.json", source })?;
        Self::build(file)
    }

    /// Reads the contents of GPT-2's first file format: a `vocab.json` and a `merges.txt`.
    fn from_vocab_and_merges(vocab: &[u8], merges: &[u8]) -> Result<Self, TokenizerError> {
        check_length("vocab.json", vocab)?;
        check_length("merges.txt", merges)?;
        let vocab: Vocab = serde_json::from_slice(vocab)
            .map_err(|source| TokenizerError::Json { file: "vocab.json", source })?;
        let merges = std::str::from_utf8(merges)
            .map_err(|source| TokenizerError::Utf8 { file: "merges.txt", source })?;
        let merges = merges
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"))
            .map(|(index, line)| Merge::parse(line).ok_or(TokenizerError::MergeLine { line: index + 1 }))
            .collect::<Result<_, _>>()?;
        let end_of_text = vocab
            .get(END_OF_TEXT)
            .map(|&id| AddedTokenEntry { id, token: AddedToken::from(END_OF_TEXT, true).normalized(true) });
        Self::build(TokenizerFile {
            added_tokens: end_of_text.into_iter().collect(),
            normalizer: None,
            pre_tokenizer: Some(json!({ "type": "ByteLevel", "add_prefix_space": false })),
            post_processor: Some(json!({ "type": "ByteLevel", "trim_offsets": false })),
            decoder: Some(json!({ "type": "ByteLevel" })),
            model: BpeFile { vocab, merges, ..BpeFile::default() },
        })
    }

    fn build(file: TokenizerFile) -> Result<Self, TokenizerError> {
        let TokenizerFile { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model } = file;
        refuse_unless(normalizer.is_none(), "normalizer", "none", kind(&normalizer))?;
        let pre_tokenizer = byte_level("pre_tokenizer", &pre_tokenizer)?;
        let post_processor = if post_processor.is_some() {
            Some(byte_level("post_processor", &post_processor)?)
        } else {
            None
        };
        byte_level("decoder", &decoder)?;
        for AddedTokenEntry { token, .. } in &added_tokens {
            // The spaces they take could not be decoded, and where another token begins in them the crate panics.
            let expected = "without `lstrip` and `rstrip`";
            refuse_unless(!token.lstrip && !token.rstrip, "added tokens", expected, token.content.clone())?;
        }
        let bytes = TokenBytes::new(&model.vocab, &added_tokens)?;
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
        let mut special: Vec<u32> =
            ids.iter().zip(&tokens).filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        special.sort_unstable();
        special.dedup();
        Ok(Self { model, pre_tokenizer, post_processor, added, ordinary, bytes, special, padded: 0 })
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

    /// Encodes a text as token ids.
    ///
    /// # Errors
    ///
    /// When the vocabulary lacks one of the text's bytes. GPT-2's has them all.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.tokenize(text, special, OffsetType::None)?.get_ids().to_vec())
    }

    /// Encodes a text as token ids with their spelling and the characters they cover.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(
        &self,
        text: &str,
        special: SpecialTokens,
    ) -> Result<Encoding, TokenizerError> {
        let encoding = self.tokenize(text, special, OffsetType::Char)?;
        Ok(Encoding {
            ids: encoding.get_ids().to_vec(),
            tokens: encoding.get_tokens().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        })
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
        self.pre_tokenizer.pre_tokenize(&mut pieces).map_err(TokenizerError::library)?;
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
        match &self.post_processor {
            Some(processor) => processor.process(encoding, None, true).map_err(TokenizerError::library),
            None => Ok(encoding),
        }
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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;
    use std::fs;

    use serde_json::Value;

    use super::bytes::byte_of;
    use super::*;

    /// Writes a byte as a letter, by the inverse of `byte_of`.
    fn letter_of(byte: u8) -> char {
        (0..0x144)
            .filter_map(char::from_u32)
            .find(|&letter| byte_of(letter) == Some(byte))
            .expect("every byte has a letter")
    }

    /// A `tokenizer.json` of all bytes in order, the merge `he`, and the two special tokens.
    fn byte_json() -> Value {
        let mut vocab: serde_json::Map<String, Value> =
            (0..=255).map(|byte| (letter_of(byte).to_string(), json!(byte))).collect();
        vocab.insert("he".to_owned(), json!(256));
        vocab.insert(END_OF_TEXT.to_owned(), json!(257));
        let flags = json!({ "single_word": false, "lstrip": false, "rstrip": false, "normalized": false });
        let added = |id: u32, content: &str, special: bool| {
            let mut token = flags.clone();
            token["id"] = json!(id);
            token["content"] = json!(content);
            token["special"] = json!(special);
            token
        };
        json!({
            "added_tokens": [added(257, END_OF_TEXT, true), added(258, "né e", false)],
            "normalizer": null,
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
            "post_processor": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false },
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true },
            "model": { "type": "BPE", "vocab": vocab, "merges": ["h e"] },
        })
    }

    fn parse(json: &Value) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::from_bytes(json.to_string().as_bytes())
    }

    /// A tokenizer whose id of every byte is the byte.
    pub(crate) fn byte_tokenizer() -> Tokenizer {
        parse(&byte_json()).expect("the tokenizer is valid")
    }

    #[test]
    fn parts_that_could_do_harm_or_lose_text_are_refused_by_name() {
        let template = json!({
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "missing", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "pair": [],
            "special_tokens": {},
        });
        for (part, value) in [
            ("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "////////////" })),
            ("normalizer", json!({ "type": "Lowercase" })),
            ("pre_tokenizer", json!({ "type": "WhitespaceSplit" })),
            ("pre_tokenizer", Value::Null),
            ("post_processor", template),
            ("decoder", json!({ "type": "WordPiece" })),
        ] {
            let mut file = byte_json();
            file[part] = value;
            match parse(&file) {
                Err(TokenizerError::Unsupported { part: found, .. }) => assert_eq!(found, part),
                other => panic!("{part}: {other:?}"),
            }
        }
    }

    #[test]
    fn added_tokens_that_take_spaces_are_refused() {
        for strip in ["lstrip", "rstrip"] {
            let mut file = byte_json();
            file["added_tokens"][1][strip] = json!(true);
            let error = parse(&file).expect_err(strip).to_string();
            assert!(error.contains(strip) && error.ends_with("found `né e`"), "{error}");
        }
    }

    #[test]
    fn add_prefix_space_adds_the_space_that_is_documented_and_no_other() {
        let mut file = byte_json();
        file["pre_tokenizer"]["add_prefix_space"] = json!(true);
        let tokenizer = parse(&file).expect("supported");
        for (text, expected) in [("he", " he"), (" he", " he"), ("", ""), ("né ehe", "né e he")] {
            let ids = tokenizer.encode(text, SpecialTokens::Parse).expect("encodes");
            assert_eq!(tokenizer.decode(&ids, SpecialText::Keep).expect("decodes"), expected, "{text:?}");
        }
    }

    #[test]
    fn files_longer_than_any_tokenizer_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let too_long = |result: Result<Tokenizer, TokenizerError>, name: &str| {
            let error = result.expect_err(name);
            assert!(matches!(error, TokenizerError::TooLong { file, .. } if file == name), "{name}: {error}");
        };
        // A hole up to one byte more than is allowed.
        let make = |name: &str, length: usize| {
            let file = File::create(directory.path().join(name)).expect("created");
            file.set_len(length as u64).expect("resized");
        };
        make("vocab.json", 0);
        make("merges.txt", MAX_FILE + 1);
        too_long(Tokenizer::from_directory(directory.path()), "merges.txt");
        make("vocab.json", MAX_FILE + 1);
        too_long(Tokenizer::from_directory(directory.path()), "vocab.json");
        make("tokenizer.json", MAX_FILE + 1);
        too_long(Tokenizer::from_directory(directory.path()), "tokenizer.json");
        too_long(Tokenizer::from_bytes(&vec![0; MAX_FILE + 1]), "tokenizer.json");
    }

    #[test]
    fn letters_and_bytes_are_one_to_one() {
        let letters: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        let bytes: HashSet<u8> = letters.iter().filter_map(|&letter| byte_of(letter)).collect();
        assert_eq!((letters.len(), bytes.len()), (256, 256));
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('\u{144}'), None);
    }

    #[test]
    fn special_tokens_in_a_text_are_a_choice() {
        let tokenizer = byte_tokenizer();
        let text = "h<|endoftext|>";
        let parsed = tokenizer.encode(text, SpecialTokens::Parse).expect("encodes");
        assert_eq!(parsed, [104, 257]);
        let plain = tokenizer.encode(text, SpecialTokens::AsText).expect("encodes");
        assert_eq!(plain.len(), text.len());
        for ids in [&parsed, &plain] {
            assert_eq!(tokenizer.decode(ids, SpecialText::Keep).expect("decodes"), text);
        }
        assert_eq!(tokenizer.decode(&parsed, SpecialText::Skip).expect("decodes"), "h");
        assert_eq!(tokenizer.decode(&plain, SpecialText::Skip).expect("decodes"), text);
        assert_eq!((tokenizer.special_ids(), tokenizer.end_of_text()), (&[257][..], Some(257)));
    }

    #[test]
    fn added_tokens_that_are_not_special_are_always_found_and_decode_to_their_text() {
        let tokenizer = byte_tokenizer();
        for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
            assert_eq!(tokenizer.encode("né e", special).expect("encodes"), [258]);
        }
        assert_eq!(tokenizer.decode(&[258], SpecialText::Skip).expect("decodes"), "né e");
        assert_eq!(tokenizer.token(258).as_deref(), Some("né e"));
    }

    #[test]
    fn offsets_count_characters_and_share_a_split_one() {
        let encoding = byte_tokenizer().encode_with_offsets("é he", SpecialTokens::Parse).expect("encodes");
        assert_eq!(encoding.ids, [0xc3, 0xa9, 0x20, 256]);
        assert_eq!(encoding.tokens, ["Ã", "©", "Ġ", "he"]);
        assert_eq!(encoding.offsets, [(0, 1), (0, 1), (1, 2), (2, 4)]);
    }

    #[test]
    fn an_empty_text_has_no_tokens() {
        let tokenizer = byte_tokenizer();
        assert!(tokenizer.encode("", SpecialTokens::Parse).expect("encodes").is_empty());
        assert_eq!(tokenizer.decode(&[], SpecialText::Keep).expect("decodes"), "");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_as_bytes_and_replaced_in_text() {
        let tokenizer = byte_tokenizer();
        let ids = [b'a'.into(), 0xe2, 0x82, b'b'.into()];
        assert_eq!(tokenizer.decode(&ids, SpecialText::Keep).expect("decodes"), "a\u{fffd}b");
        assert_eq!(tokenizer.decode_bytes(&ids, SpecialText::Keep).expect("decodes"), b"a\xe2\x82b");
    }

    #[test]
    fn ids_past_the_vocabulary_are_errors_unless_the_model_is_padded() {
        let tokenizer = byte_tokenizer();
        assert_eq!(tokenizer.vocab_size(), 259);
        let error = tokenizer.decode(&[104, 259], SpecialText::Keep).expect_err("259 is unknown");
        assert_eq!(error.to_string(), "token id 259 is not in the vocabulary of 259 tokens");
        let padded = tokenizer.padded_to(264);
        assert_eq!(padded.decode(&[104, 259, 263], SpecialText::Keep).expect("decodes"), "h");
        assert_eq!((padded.token(263), padded.token_bytes(263)), (None, Some(&b""[..])));
        assert_eq!(padded.token_bytes(264), None);
        assert_eq!((padded.vocab_size(), padded.token_bytes(u32::MAX)), (259, None));
    }

    #[test]
    fn a_byte_that_the_vocabulary_lacks_is_an_error_not_a_hole() {
        let mut json = byte_json();
        let vocab = json["model"]["vocab"].as_object_mut().expect("an object");
        let id = vocab.remove("z").expect("a letter");
        vocab.insert("zz".to_owned(), id);
        let tokenizer = parse(&json).expect("valid");
        assert!(tokenizer.encode("he", SpecialTokens::Parse).is_ok());
        json["model"]["unk_token"] = json!(END_OF_TEXT);
        for tokenizer in [tokenizer, parse(&json).expect("valid")] {
            let error = tokenizer.encode("hez", SpecialTokens::Parse).expect_err("there is no `z`");
            assert!(matches!(error, TokenizerError::Unencodable { letter: 'z' }), "{error}");
        }
    }

    #[test]
    fn both_file_formats_give_the_same_tokenizer() {
        let directory = tempfile::tempdir().expect("a directory");
        let json = byte_json();
        let vocab = json["model"]["vocab"].to_string();
        fs::write(directory.path().join("vocab.json"), vocab).expect("written");
        let error = Tokenizer::from_directory(directory.path()).expect_err("no merges");
        assert!(error.to_string().ends_with("missing `tokenizer.json` and `merges.txt`"), "{error}");

        fs::write(directory.path().join("merges.txt"), "#version: 0.2\nh e\n").expect("written");
        let tokenizer = Tokenizer::from_directory(directory.path()).expect("valid");
        let text = "the né he<|endoftext|>";
        let ids = tokenizer.encode(text, SpecialTokens::Parse).expect("encodes");
        assert_eq!(ids, byte_tokenizer().encode(text, SpecialTokens::Parse).expect("encodes"));
        assert_eq!(ids.last(), Some(&257));

        fs::write(directory.path().join("tokenizer.json"), json.to_string()).expect("written");
        let tokenizer = Tokenizer::from_directory(directory.path()).expect("valid");
        assert_eq!(tokenizer.vocab_size(), 259, "`tokenizer.json` comes first");
    }

    #[test]
    fn hostile_files_are_errors() {
        let change = |pointer: &str, value: Value| {
            let mut json = byte_json();
            *json.pointer_mut(pointer).expect("a part of the file") = value;
            json.to_string().into_bytes()
        };
        let mut not_utf8 = byte_json().to_string().into_bytes();
        let quote = not_utf8.iter().position(|&byte| byte == b'h').expect("a letter");
        not_utf8[quote] = 0xff;
        let whole = byte_json().to_string();
        for (what, file, expected) in [
            ("empty", vec![], "is not a byte-level BPE tokenizer's"),
            ("not JSON", b"{]".to_vec(), "is not a byte-level"),
            ("not an object", b"[]".to_vec(), "is not a byte-level"),
            ("truncated", whole.as_bytes()[..whole.len() / 2].to_vec(), "is not a byte-level"),
            ("not UTF-8", not_utf8, "is not a byte-level"),
            ("no vocabulary", change("/model", json!({ "merges": [] })), "is not a byte-level"),
            ("negative id", change("/model/vocab/a", json!(-1)), "is not a byte-level"),
            ("huge id", change("/model/vocab/a", json!(u32::MAX)), "`a` has the id 4294967295"),
            ("shared id", change("/model/vocab/a", json!(98)), "both have the id 98"),
            ("unknown merge", change("/model/merges", json!(["zz top"])), "contradict"),
            ("merge of three", change("/model/merges", json!(["a b c"])), "is not a byte-level"),
            ("merge of one", change("/model/merges", json!([["a"]])), "is not a byte-level"),
            ("wrong model", change("/model/type", json!("Unigram")), "expected model `BPE`, found `Unigram`"),
            (
                "wrong decoder",
                change("/decoder/type", json!("Fuse")),
                "expected decoder `ByteLevel`, found `Fuse`",
            ),
            ("no decoder", change("/decoder", Value::Null), "expected decoder `ByteLevel`, found `none`"),
            (
                "letters",
                change(
                    "/added_tokens/1",
                    json!({ "content": "é", "id": 0xe9, "special": true, "single_word": false,
                        "lstrip": false, "rstrip": false, "normalized": false }),
                ),
                "expected added token that",
            ),
            ("added id", change("/added_tokens/1/id", json!(999)), "has the id 999, but"),
            ("added empty", change("/added_tokens/1/content", json!("")), "added token `` has the id 258"),
        ] {
            let error = Tokenizer::from_bytes(&file).expect_err(what).to_string();
            assert!(error.contains(expected), "{what}: {error}");
        }
        let mut json = byte_json();
        for (part, value) in [("dropout", json!(0.1)), ("continuing_subword_prefix", json!("##"))] {
            json["model"][part] = value;
            assert!(parse(&json).expect_err(part).to_string().contains(part));
            json["model"][part] = Value::Null;
        }
    }

    #[test]
    fn hostile_vocab_and_merges_are_errors() {
        let vocab = br#"{"a": 0, "b": 1, "ab": 2}"#;
        for (merges, expected) in [
            (&b"a b\nc d\n"[..], "contradict"),
            (b"a b\nab\n", "line 2 of `merges.txt`"),
            (b"a b c\n", "line 1 of `merges.txt`"),
            (b"\xff\xfe\n", "`merges.txt` is not UTF-8"),
        ] {
            let error = Tokenizer::from_vocab_and_merges(vocab, merges).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(Tokenizer::from_vocab_and_merges(b"", b"").is_err());
        let empty =
            Tokenizer::from_vocab_and_merges(b"{}", b"").expect("an empty vocabulary is a vocabulary");
        assert_eq!((empty.vocab_size(), empty.end_of_text()), (0, None));
        assert!(empty.encode("a", SpecialTokens::Parse).is_err());
    }
}
