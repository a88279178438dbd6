//! What all modes of decoding have in common.

use std::time::{Duration, Instant};

use super::chain::{Chain, Place, Setup};
use super::config::{GenerationConfig, Overflow};
use super::details::{Details, Recording};
use super::request::{Criterion, Generate};
use super::{FinishReason, GenerateError, guidance};
use crate::cache::{KvCache, PrefixCache};
use crate::config::Config;
use crate::model::{Model, StepError};
use crate::predict::{PREFILL_CHUNK, normaliser, prefill, prefill_probed};
use crate::probe::Probe;
use crate::process::structure::Grammar;
use crate::process::{Context, PrefixAllowedTokens, Scores};
use crate::sample::Draw;
use crate::tokenizer::Tokenizer;
use crate::watermark::Watermark;
use crate::workspace::Workspace;

/// A prompt, what is asked for, and how the tokens that follow are chosen.
pub(super) struct Core<'m> {
    pub(super) model: &'m Model,
    pub(super) tokenizer: Option<&'m Tokenizer>,
    prefixes: Option<&'m PrefixCache<'m>>,
    pub(super) config: GenerationConfig,
    pub(super) chain: Chain,
    criteria: Vec<Criterion<'m>>,
    /// Whether functions of the caller's take part in choosing, which may use the model themselves.
    pub(super) calls_back: bool,
    pub(super) eos_token_ids: Vec<u32>,
    /// What was given, or the beginning-of-text token.
    pub(super) prompt: Vec<u32>,
    /// What guidance holds the prompt against.
    pub(super) unconditional: Option<Vec<u32>>,
    pub(super) limit: Limit,
    deadline: Option<Instant>,
    /// What ends a beam; the texts of plain sequences are watched as they are read.
    stop: Option<StopStrings<'m>>,
    /// The scores that the processors change: the model's own stay where they are.
    pub(super) scores: Scores,
    /// What happens to the scores, if anybody wants to know.
    pub(super) recording: Option<Recording>,
}

/// Texts that end a beam.
struct StopStrings<'m> {
    tokenizer: &'m Tokenizer,
    texts: Vec<String>,
}

impl StopStrings<'_> {
    /// Whether one of the texts ends within the last of a continuation's tokens.
    fn ends(&self, continuation: &[u32]) -> bool {
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let mut tail: Vec<u8> = Vec::new();
        let mut last = 0;
        for (index, &id) in continuation.iter().rev().enumerate() {
            let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
            last = if index == 0 { bytes.len() } else { last };
            tail.splice(0..0, bytes.iter().copied());
            if tail.len() >= last + longest {
                break;
            }
        }
        let before = tail.len() - last;
        self.texts.iter().filter(|text| !text.is_empty()).any(|text| {
            tail.windows(text.len())
                .enumerate()
                .any(|(start, window)| start + text.len() > before && window == text.as_bytes())
        })
    }
}

/// The most tokens a sequence may have, its prompt included, and what reaching that means.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) tokens: usize,
    pub(super) reason: FinishReason,
}

/// The processors that settings ask for, and the tokens that end a text.
pub(super) fn chain(
    model: &Model,
    tokenizer: Option<&Tokenizer>,
    config: &GenerationConfig,
    total_tokens: usize,
) -> Result<(Chain, Vec<u32>), GenerateError> {
    if config.stop_strings.is_some() && tokenizer.is_none() {
        return Err(GenerateError::NoTokenizer("stop_strings"));
    }
    let Config { vocab_size: vocabulary, eos_token_ids, .. } = model.config();
    let eos_token_ids = config.eos_token_id.as_ref().unwrap_or(eos_token_ids).clone();
    let setup = Setup { eos_token_ids: &eos_token_ids, total_tokens, vocabulary: *vocabulary, tokenizer };
    Ok((Chain::new(config, &setup)?, eos_token_ids))
}

impl<'m> Core<'m> {
    /// Checks what is asked for; nothing is computed yet. The time that it may take begins now.
    pub(super) fn new(request: Generate<'m>) -> Result<Self, GenerateError> {
        let begin = Instant::now();
        let Generate { model, tokenizer, mut prompt, negative_prompt, config, .. } = request;
        let Generate { processors, allowed, criteria, details, prefixes, .. } = request;
        if prompt.is_empty() {
            prompt.extend(config.bos_token_id.unwrap_or(model.config().bos_token_id));
        }
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        model.check_tokens(&prompt)?;
        let unconditional = guidance::context(model, &config, &prompt, negative_prompt)?;
        let other = unconditional.as_ref().map_or(0, Vec::len);
        let limit = limit(model, &config, prompt.len(), other)?;
        let vocabulary = model.config().vocab_size;
        let calls_back = !processors.is_empty() || allowed.is_some() || !criteria.is_empty();
        let (mut chain, eos_token_ids) = chain(model, tokenizer, &config, limit.tokens)?;
        if let Some(watermarking) = config.watermarking_config {
            chain.add(Place::Watermark, Box::new(Watermark::new(watermarking, vocabulary)));
        }
        if let Some(allowed) = allowed {
            let allowed = PrefixAllowedTokens::new(allowed, config.beams());
            chain.add(Place::PrefixAllowedTokens, Box::new(allowed));
        }
        processors.into_iter().for_each(|processor| chain.add_custom(processor));
        // An hour of no end is as good as one of a thousand years, which an `Instant` need not hold.
        let deadline =
            config.max_time.and_then(|seconds| begin.checked_add(Duration::try_from_secs_f64(seconds).ok()?));
        let scores = Scores::with_capacity(vocabulary);
        let stop = match (tokenizer, &config.stop_strings) {
            (Some(tokenizer), Some(texts)) if config.beams() > 1 => {
                Some(StopStrings { tokenizer, texts: texts.clone() })
            }
            _ => None,
        };
        Ok(Self {
            model,
            tokenizer,
            prefixes,
            config,
            chain,
            criteria,
            calls_back,
            eos_token_ids,
            prompt,
            unconditional,
            limit,
            deadline,
            stop,
            scores,
            recording: details.map(Recording::new),
        })
    }

    /// Makes room for the prompt's way through the model, and for `rows` sequences behind it.
    pub(super) fn workspace(&self, rows: usize) -> Workspace {
        Workspace::new(self.model, self.prompt.len().min(PREFILL_CHUNK).max(rows), rows)
    }

    /// Runs the prompt through the model, as far as it is not known from earlier texts: returns the cache behind it. Its
    /// logits are row 0 of the workspace.
    pub(super) fn prefill(&self, work: &mut Workspace) -> Result<KvCache, GenerateError> {
        let mut cache = self.begin()?;
        prefill(self.model, &self.text()[cache.len()..], &mut cache, work)?;
        self.keep(self.text(), &cache);
        Ok(cache)
    }

    /// What the model sees of the prompt.
    pub(super) fn text(&self) -> &[u32] {
        &self.prompt[self.window(self.prompt.len())..]
    }

    /// The cache of what is known of the prompt from earlier texts: of its last token nothing is.
    pub(super) fn begin(&self) -> Result<KvCache, GenerateError> {
        let (tokens, context) = (self.text(), self.model.config().n_positions);
        if tokens.len() > context {
            return Err(StepError::Context { past: 0, new: tokens.len(), context }.into());
        }
        Ok(self.prefixes.map_or_else(|| KvCache::new(self.model), |known| known.begin(tokens)))
    }

    /// Keeps what a text begins with for others, if they are to begin with it.
    pub(super) fn keep(&self, tokens: &[u32], cache: &KvCache) {
        if let Some(prefixes) = self.prefixes {
            prefixes.keep(tokens, cache);
        }
    }

    /// Runs the whole prompt through the model, before an observer.
    pub(super) fn prefill_probed(
        &self,
        work: &mut Workspace,
        probe: &mut impl Probe,
    ) -> Result<KvCache, GenerateError> {
        let mut cache = KvCache::new(self.model);
        let start = self.window(self.prompt.len());
        prefill_probed(self.model, &self.prompt[start..], &mut cache, work, probe)?;
        Ok(cache)
    }

    /// Prepares the scores behind a sequence from its row of logits, and returns `ln Σ exp` of that row.
    pub(super) fn process(
        &mut self,
        logits: &[f32],
        sequence: usize,
        tokens: &[u32],
    ) -> Result<f32, GenerateError> {
        self.process_changed(logits, sequence, tokens, |_, _| ())
    }

    /// Does the same, but `change` comes before the processors: it is given that `ln Σ exp` and the row's scores.
    pub(super) fn process_changed(
        &mut self,
        logits: &[f32],
        sequence: usize,
        tokens: &[u32],
        change: impl FnOnce(f32, &mut Scores),
    ) -> Result<f32, GenerateError> {
        let Self { model, config, chain, scores, prompt, recording, .. } = self;
        let normaliser = normaliser_of(model, config, logits, tokens)?;
        scores.set(logits);
        if let Some(recording) = recording {
            recording.begin(logits, normaliser, scores);
        }
        change(normaliser, scores);
        if let Some(recording) = recording {
            if config.guides() {
                recording.step("guidance_scale", scores);
            } else if config.dola_layers.is_some() {
                recording.step("dola_layers", scores);
            }
        }
        process(chain, &Context { tokens, prompt: prompt.len(), sequence, others: &[] }, scores, recording);
        match (chain.grammar().and_then(Grammar::failure), &config.structured_outputs) {
            (Some(failure), Some(outputs)) => {
                Err(GenerateError::Structure { kind: outputs.name(), message: failure.to_owned() })
            }
            _ => Ok(normaliser),
        }
    }

    /// The same for log-probabilities, which are what the processors of beams change. `others` are the tokens that
    /// beams of other groups have chosen at this position.
    pub(super) fn process_log_probabilities(
        &mut self,
        logits: &[f32],
        sequence: usize,
        tokens: &[u32],
        others: &[u32],
    ) -> Result<f32, GenerateError> {
        let Self { model, config, chain, scores, prompt, recording, .. } = self;
        let normaliser = normaliser_of(model, config, logits, tokens)?;
        scores.set(logits);
        scores.map(|_, logit| logit - normaliser);
        if let Some(recording) = recording {
            recording.begin(logits, normaliser, scores);
        }
        process(chain, &Context { tokens, prompt: prompt.len(), sequence, others }, scores, recording);
        Ok(normaliser)
    }

    /// What there is to say of a token that was chosen by the scores, if it was asked for.
    pub(super) fn details(&self, id: u32, draw: Option<Draw>) -> Option<Box<Details>> {
        Some(Box::new(self.recording.as_ref()?.details(id, draw)))
    }

    /// Why a sequence ends with its last token, if it does.
    pub(super) fn finish(&mut self, sequence: usize, tokens: &[u32]) -> Option<FinishReason> {
        let context = Context { tokens, prompt: self.prompt.len(), sequence, ..Context::default() };
        let last = tokens.last()?;
        if self.eos_token_ids.contains(last) {
            Some(FinishReason::Eos)
        } else if self.criteria.iter_mut().any(|ends| ends(&context))
            || self.stop.as_ref().is_some_and(|stop| stop.ends(&tokens[self.prompt.len()..]))
            || self.chain.ended(&context)
        {
            Some(FinishReason::Stop)
        } else if tokens.len() >= self.limit.tokens {
            Some(self.limit.reason)
        } else {
            self.deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(FinishReason::Time)
        }
    }

    /// The first of a sequence's tokens that the model sees.
    pub(super) fn window(&self, length: usize) -> usize {
        window(&self.config, length, self.model.config().n_positions)
    }
}

/// Changes the scores step by step.
fn process(chain: &mut Chain, context: &Context<'_>, scores: &mut Scores, recording: &mut Option<Recording>) {
    match recording {
        None => chain.process(context, scores),
        Some(recording) => {
            chain.trace(context, scores, recording);
            recording.end(scores);
        }
    }
}

/// `ln Σ exp` of the logits behind some tokens; NaN, where invalid values are to be removed.
fn normaliser_of(
    model: &Model,
    config: &GenerationConfig,
    logits: &[f32],
    tokens: &[u32],
) -> Result<f32, StepError> {
    match normaliser(model, logits, tokens.len() - 1) {
        Err(StepError::NotFinite { .. }) if config.remove_invalid_values == Some(true) => Ok(f32::NAN),
        normaliser => normaliser,
    }
}

/// How long a text may get whose prompt is held against an unconditional context of `other` tokens.
fn limit(
    model: &Model,
    config: &GenerationConfig,
    prompt: usize,
    other: usize,
) -> Result<Limit, GenerateError> {
    let wanted = config.total_tokens(prompt)?;
    let context = model.config().n_positions;
    // The token behind a full context can still be chosen; it cannot be continued.
    let mut most = context + 1 - other.saturating_sub(prompt);
    if config.contrasts() {
        // Its candidates have been fed to the model when one of them is chosen.
        most = context;
        if prompt == context {
            return Err(StepError::Context { past: prompt, new: 1, context }.into());
        }
    }
    match config.overflow.unwrap_or_default() {
        Overflow::Stop if wanted > most => Ok(Limit { tokens: most, reason: FinishReason::Context }),
        Overflow::Error if wanted > most => Err(GenerateError::Overflow { wanted, context }),
        _ => Ok(Limit { tokens: wanted, reason: FinishReason::Length }),
    }
}

/// The first token that the model sees of a text: the start, but where the text slides through the context. There, half
/// a context is left out as often as it takes for the rest to fit. It is a function of the length alone, and so is what
/// follows: it does not matter which part of a text was the prompt.
fn window(config: &GenerationConfig, length: usize, context: usize) -> usize {
    if config.overflow != Some(Overflow::Slide) {
        return 0;
    }
    let half = (context / 2).max(1);
    length.saturating_sub(context).div_ceil(half) * half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_at_least_half_a_context_and_at_most_a_whole_one() {
        let slide = GenerationConfig { overflow: Some(Overflow::Slide), ..GenerationConfig::default() };
        assert_eq!(
            [10, 100, 101, 150, 151, 1000].map(|length| window(&slide, length, 100)),
            [0, 0, 50, 50, 100, 900]
        );
        assert_eq!(window(&GenerationConfig::default(), 101, 100), 0);
        for context in [1, 2, 3, 7, 64] {
            for length in 1..500 {
                let seen = length - window(&slide, length, context);
                assert!(
                    seen <= context && seen >= length.min(context / 2).max(1),
                    "{length} in {context}: {seen}"
                );
            }
        }
    }
}
