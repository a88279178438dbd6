//! The parts of a `tokenizer.json` around its model, read for what they do.
//!
//! The same tokenizer is written in several ways: `ByteLevel`, a `Sequence` of one part, a `Split` by GPT-2's
//! pattern before a `ByteLevel` that does not split, a `TemplateProcessing` that adds nothing. What a part does is
//! kept, and a part that does something else is refused by name.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Encoding, PostProcessor, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};

use super::TokenizerError;
use super::file::refuse_unless;
use super::words::{self, Words};

/// The deepest `Sequence` in a `Sequence` that is read.
const MAX_DEPTH: usize = 8;

/// What happens to a text before its words are merged.
pub(super) struct Splitting {
    /// Whether a text gets a space before it, and so does what follows an added token.
    pub(super) add_prefix_space: bool,
    /// What words are, unless the text is one word.
    words: Option<Words>,
}

impl Splitting {
    /// Reads a pre-tokenizer.
    pub(super) fn read(part: &Option<Value>) -> Result<Self, TokenizerError> {
        const PART: &str = "pre_tokenizer";
        let mut splits = false;
        let mut byte_level: Option<(bool, bool)> = None;
        for part in flat(PART, part, "pretokenizers")? {
            match kind(part) {
                "Split" if !splits && byte_level.is_none() => {
                    let pattern = part["pattern"]["Regex"].as_str().unwrap_or("none");
                    let expected = "`Split` by GPT-2's pattern";
                    refuse_unless(words::PATTERNS.contains(&pattern), PART, expected, pattern.to_owned())?;
                    let behavior = part["behavior"].as_str().unwrap_or("none");
                    let keeps =
                        behavior == "Isolated" || behavior == "Removed" && flag(part, "invert", false);
                    refuse_unless(keeps, PART, "`Split` that is `Isolated`", behavior.to_owned())?;
                    splits = true;
                }
                "ByteLevel" if byte_level.is_none() => {
                    let prefix = flag(part, "add_prefix_space", true);
                    // After a split, every word would get a space.
                    let expected = "without `add_prefix_space` after a `Split`";
                    refuse_unless(!(prefix && splits), PART, expected, "ByteLevel".to_owned())?;
                    byte_level = Some((prefix, flag(part, "use_regex", true)));
                }
                found => refuse_unless(false, PART, "`ByteLevel`", found.to_owned())?,
            }
        }
        let Some((add_prefix_space, use_regex)) = byte_level else {
            let found = if splits { "Split" } else { "none" };
            return Err(unsupported(PART, "`ByteLevel`", found));
        };
        // Splitting words again leaves them whole: no word is more than one by the pattern.
        Ok(Self { add_prefix_space, words: (splits || use_regex).then(Words::new) })
    }

    /// Cuts pieces of a text into words, and writes their bytes as letters.
    pub(super) fn apply(&self, pieces: &mut PreTokenizedString) -> tokenizers::Result<()> {
        pieces.split(|_, mut piece| {
            if self.add_prefix_space && !piece.get().starts_with(' ') {
                piece.prepend(" ");
            }
            match &self.words {
                Some(words) => piece.split(words, SplitDelimiterBehavior::Isolated),
                None => Ok(vec![piece]),
            }
        })?;
        ByteLevel::new(false, false, false).pre_tokenize(pieces)
    }
}

/// What happens to the tokens of a whole text.
#[derive(Default)]
pub(super) struct Finish {
    /// Take blanks out of what tokens cover, which changes no id.
    trims: Vec<ByteLevel>,
    /// The ids before a text.
    pub(super) before: Vec<u32>,
    /// The ids after it.
    pub(super) after: Vec<u32>,
}

impl Finish {
    /// Reads a post-processor.
    pub(super) fn read(part: &Option<Value>) -> Result<Self, TokenizerError> {
        const PART: &str = "post_processor";
        let mut finish = Self::default();
        for part in flat(PART, part, "processors")? {
            let (before, after) = match kind(part) {
                "ByteLevel" => {
                    finish.trims.extend(trim(part));
                    continue;
                }
                "TemplateProcessing" => template(part)?,
                "BertProcessing" => (vec![pair_id(part, "cls")?], vec![pair_id(part, "sep")?]),
                "RobertaProcessing" => {
                    finish.trims.extend(trim(part));
                    (vec![pair_id(part, "cls")?], vec![pair_id(part, "sep")?])
                }
                found => {
                    let expected = "`ByteLevel` or `TemplateProcessing`";
                    return Err(unsupported(PART, expected, found));
                }
            };
            if before.is_empty() && after.is_empty() {
                continue;
            }
            // What a part makes of a text and tokens that another has added is not what it makes of a text.
            let first = finish.before.is_empty() && finish.after.is_empty();
            refuse_unless(
                first,
                PART,
                "one part that adds tokens",
                format!("two, `{}` among them", kind(part)),
            )?;
            (finish.before, finish.after) = (before, after);
        }
        Ok(finish)
    }

    /// Corrects what the tokens of a text cover.
    pub(super) fn trim(&self, mut encoding: Encoding) -> tokenizers::Result<Encoding> {
        for part in &self.trims {
            encoding = part.process(encoding, None, true)?;
        }
        Ok(encoding)
    }
}

/// Checks that a decoder turns letters back to bytes and does nothing else.
pub(super) fn check_decoder(part: &Option<Value>) -> Result<(), TokenizerError> {
    const PART: &str = "decoder";
    let parts = flat(PART, part, "decoders")?;
    let found = |index: usize| parts.get(index).map_or("none", |part| kind(part));
    refuse_unless(found(0) == "ByteLevel", PART, "`ByteLevel`", found(0).to_owned())?;
    for part in &parts[1..] {
        // What `ByteLevel` returns is one text, which `Fuse` leaves as it is.
        refuse_unless(kind(part) == "Fuse", PART, "`ByteLevel`", kind(part).to_owned())?;
    }
    Ok(())
}

/// Checks that a normalizer does nothing.
pub(super) fn check_normalizer(part: &Option<Value>) -> Result<(), TokenizerError> {
    let parts = flat("normalizer", part, "normalizers")?;
    let found = parts.first().map_or("none", |part| kind(part));
    refuse_unless(parts.is_empty(), "normalizer", "none", found.to_owned())
}

/// The parts that a part consists of, in their order.
fn flat<'a>(
    name: &'static str,
    part: &'a Option<Value>,
    list: &str,
) -> Result<Vec<&'a Value>, TokenizerError> {
    fn add<'a>(part: &'a Value, list: &str, depth: usize, parts: &mut Vec<&'a Value>) -> bool {
        if kind(part) != "Sequence" {
            parts.push(part);
            return true;
        }
        match part[list].as_array() {
            Some(inner) if depth < MAX_DEPTH => inner.iter().all(|part| add(part, list, depth + 1, parts)),
            _ => false,
        }
    }
    let mut parts = Vec::new();
    let whole = part.as_ref().is_none_or(|part| add(part, list, 0, &mut parts));
    refuse_unless(whole, name, "`Sequence` with a list of parts", "Sequence".to_owned())?;
    Ok(parts)
}

/// The `type` of a part.
fn kind(part: &Value) -> &str {
    part["type"].as_str().unwrap_or("unnamed")
}

/// A setting of a part; one that is absent has the crate's default.
fn flag(part: &Value, name: &str, default: bool) -> bool {
    part[name].as_bool().unwrap_or(default)
}

/// The part of a post-processor that takes blanks out of what tokens cover, if it does.
fn trim(part: &Value) -> Option<ByteLevel> {
    flag(part, "trim_offsets", true)
        .then(|| ByteLevel::new(flag(part, "add_prefix_space", true), true, false))
}

/// The ids that a `TemplateProcessing` puts before and after a text.
fn template(part: &Value) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    #[derive(Deserialize)]
    enum Piece {
        SpecialToken { id: String },
        Sequence { id: String },
    }
    let expected = "a template of one text and of tokens with ids";
    let refused = |_| unsupported("post_processor", expected, "TemplateProcessing");
    let pieces = Vec::<Piece>::deserialize(&part["single"]).map_err(refused)?;
    let mut ids: [Vec<u32>; 2] = Default::default();
    let mut texts = 0;
    for piece in pieces {
        match piece {
            Piece::Sequence { id } => {
                refuse_unless(id == "A" && texts == 0, "post_processor", expected, id)?;
                texts = 1;
            }
            Piece::SpecialToken { id } => {
                let token = &part["special_tokens"][&id]["ids"];
                ids[texts].extend(Vec::<u32>::deserialize(token).map_err(refused)?);
            }
        }
    }
    refuse_unless(texts == 1, "post_processor", expected, "none".to_owned())?;
    let [before, after] = ids;
    Ok((before, after))
}

/// The id in a pair of token and id.
fn pair_id(part: &Value, name: &str) -> Result<u32, TokenizerError> {
    let (_, id) = <(String, u32)>::deserialize(&part[name])
        .map_err(|_| unsupported("post_processor", "`cls` and `sep` with their ids", kind(part)))?;
    Ok(id)
}

fn unsupported(part: &'static str, expected: &'static str, found: &str) -> TokenizerError {
    TokenizerError::Unsupported { part, expected, found: found.to_owned() }
}
