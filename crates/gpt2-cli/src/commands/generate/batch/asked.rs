//! What a run is asked for: all that its output depends on, to tell whether an interrupted one was the same.

use gpt2::generate::GenerationConfig;
use gpt2::model::Model;
use gpt2::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::Job;
use crate::commands::generate::Arguments;
use crate::failure::Failure;
use crate::model::Loaded;

/// Bytes of a matrix in a sample, and samples of it.
const SAMPLE: usize = 1024;
const SAMPLES: usize = 8;

/// Names what the output depends on, what is long by its digest.
pub(super) fn asked_for(
    arguments: &Arguments,
    loaded: &Loaded,
    base: &GenerationConfig,
    jobs: &[Job],
) -> Result<Map<String, Value>, Failure> {
    let mut prompts = Sha256::new();
    for Job { line, .. } in jobs {
        let fields = (&line.prompt, &line.id, &line.negative_prompt, &line.config);
        prompts.update(serde_json::to_vec(&fields).map_err(Failure::new)?);
        prompts.update(b"\n");
    }
    let formats = loaded.model.formats();
    let fields = [
        ("gpt2", env!("CARGO_PKG_VERSION").into()),
        ("model", loaded.name.as_str().into()),
        ("dtype", formats.weights.name().into()),
        ("kv_dtype", formats.cache.name().into()),
        ("weights", hexadecimal(weights(&loaded.model))),
        ("vocabulary", hexadecimal(vocabulary(&loaded.tokenizer))),
        ("settings", serde_json::to_value(base).map_err(Failure::new)?),
        ("negative_prompt", json!(arguments.settings.negative_prompt())),
        ("force_words", json!(arguments.settings.force_words())),
        ("special_tokens", (arguments.prompt.special() == SpecialTokens::Parse).into()),
        ("logprobs", json!(arguments.logprobs)),
        ("trace", arguments.trace.into()),
        ("unordered", arguments.batch.unordered.into()),
        ("prompts", hexadecimal(prompts)),
    ];
    Ok(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// In what a run differs from the one before, in words: the first such thing.
pub(super) fn difference(before: &Map<String, Value>, asked: &Map<String, Value>) -> Option<String> {
    let value = |fields: &Map<String, Value>, name: &str| fields.get(name).cloned().unwrap_or_default();
    let (name, now) = asked.iter().find(|(name, now)| before.get(*name) != Some(now))?;
    Some(match (name.as_str(), before.get(name), now) {
        ("weights" | "vocabulary" | "prompts", ..) => format!("other `{name}`"),
        ("settings", Some(Value::Object(was)), Value::Object(now)) => {
            let name = now.keys().chain(was.keys()).find(|name| was.get(*name) != now.get(*name))?;
            format!("`{name}` was {}, and is {}", value(was, name), value(now, name))
        }
        (name, ..) => format!("`{name}` was {}, and is {now}", value(before, name)),
    })
}

fn hexadecimal(hash: Sha256) -> Value {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Samples of every matrix, and the vectors that all models have: reading all would take as long as loading them.
fn weights(model: &Model) -> Sha256 {
    let (mut hash, weights) = (Sha256::new(), model.weights());
    for values in [&weights.wpe, &weights.ln_f.weight, &weights.ln_f.bias] {
        values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    for matrix in weights.matrices() {
        let bytes = matrix.as_bytes();
        let apart = (bytes.len() / SAMPLES).max(SAMPLE);
        bytes.chunks(apart).for_each(|part| hash.update(&part[..part.len().min(SAMPLE)]));
    }
    hash
}

/// What every token spells.
fn vocabulary(tokenizer: &Tokenizer) -> Sha256 {
    let mut hash = Sha256::new();
    for id in 0..tokenizer.vocab_size() as u32 {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash
}
