//! Token healing: a prompt that ends within a word is read as if it did not.
//!
//! A text cut off within a token is written in tokens that the model has hardly seen so: `http` and `:` where it knows
//! `http://`. As transformers' `heal_tokens`, before anything else:
//!
//! 1. The prompt becomes text without special tokens, the white space at its ends is left out, and the rest is encoded
//!    again. Nothing more happens to a single token, nor to none, which the beginning-of-text token stands for.
//! 2. Of the last token, all tokens that begin with its characters are alternatives, itself among them. If it is the
//!    only one, nothing more happens.
//! 3. What follows the tokens before it takes its place: the highest logit, where alternatives have 10 more and the
//!    token itself 11. This is a preference and no constraint: a token that is no alternative may win.
//!
//! transformers looks for the characters of a token among the spellings of the vocabulary, where a byte-level vocabulary
//! has `Ġ` for a space and two or more letters for one beyond ASCII, and asks it for a token ` ` where it should ask for
//! `Ġ`. So of a token that begins with a space, as most words do, or is not of ASCII's visible characters there are no
//! alternatives, and nothing more happens. That is kept here; where transformers fails with a `KeyError` instead (`é`),
//! nothing more happens either.

use super::GenerateError;
use super::request::Generate;
use crate::cache::KvCache;
use crate::logits::argmax;
use crate::model::Model;
use crate::predict::{PREFILL_CHUNK, normaliser, prefill};
use crate::tokenizer::{SpecialText, SpecialTokens, Tokenizer};
use crate::workspace::Workspace;

/// What is added to the logits of alternatives.
const BIAS: f32 = 10.0;
/// What is added to that of the token itself, against needless changes.
const OWN_BIAS: f32 = 11.0;

/// Replaces the prompt of a request by the one to go on from instead, if its settings ask for that.
///
/// # Errors
/// As [`heal`], and if there is no tokenizer.
pub(super) fn heal_request(request: &mut Generate<'_>) -> Result<(), GenerateError> {
    if request.config.token_healing == Some(true) {
        let tokenizer = request.tokenizer.ok_or(GenerateError::NoTokenizer("token_healing"))?;
        request.prompt = heal(request.model, tokenizer, &request.prompt)?;
    }
    Ok(())
}

/// The prompt to go on from instead.
///
/// # Errors
/// If a token is not in the vocabulary, the tokens do not fit into the context, or the model's weights are damaged.
fn heal(model: &Model, tokenizer: &Tokenizer, prompt: &[u32]) -> Result<Vec<u32>, GenerateError> {
    let text = tokenizer.decode(prompt, SpecialText::Skip)?;
    // Python counts four separators of ASCII as white space that Unicode does not.
    let white = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let mut tokens = tokenizer.encode(text.trim_matches(white), SpecialTokens::Parse)?;
    let Some((&last, before)) = tokens.split_last().filter(|(_, before)| !before.is_empty()) else {
        return Ok(tokens);
    };
    let alternatives = alternatives(model, tokenizer, last);
    if alternatives.len() < 2 {
        return Ok(tokens);
    }
    let mut cache = KvCache::new(model);
    let mut work = Workspace::new(model, before.len().min(PREFILL_CHUNK), 1);
    prefill(model, before, &mut cache, &mut work)?;
    let logits = work.logits(1).row(0);
    normaliser(model, logits, before.len() - 1)?;
    let mut scores = logits.to_vec();
    for id in alternatives {
        scores[id as usize] += if id == last { OWN_BIAS } else { BIAS };
    }
    let healed = argmax(&scores) as u32;
    tokens.pop();
    tokens.push(healed);
    Ok(tokens)
}

/// The tokens that begin with a token's characters, if all of these are visible ASCII.
fn alternatives(model: &Model, tokenizer: &Tokenizer, token: u32) -> Vec<u32> {
    match tokenizer.token_bytes(token) {
        Some(start) if start.iter().all(u8::is_ascii_graphic) && !start.is_empty() => {
            let count = tokenizer.vocab_size().min(model.config().vocab_size) as u32;
            let longer = |&id: &u32| tokenizer.token_bytes(id).is_some_and(|bytes| bytes.starts_with(start));
            (0..count).filter(longer).collect()
        }
        _ => Vec::new(),
    }
}
