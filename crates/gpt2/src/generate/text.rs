//! Generated tokens as text: pieces that never break a character, and stop strings.

use crate::process::structure::Grammar;
use crate::stream::TextStream;
use crate::tokenizer::{SpecialText, Tokenizer, TokenizerError};

use super::{Details, FinishReason, GenerateError, GeneratedToken, Generation, GenerationConfig, Repetition};

/// What one token adds to a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextDelta {
    /// The token; its `finish` knows of stop strings too.
    pub token: GeneratedToken,
    /// The text that is certain now; may be empty, and may hold what earlier tokens held back.
    pub text: String,
}

/// One return sequence, as far as it has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// The continuation, without the prompt. Whether it has the stop string and special tokens, the end token among them,
    /// is up to [`include_stop_str_in_output`](GenerationConfig::include_stop_str_in_output) and
    /// [`skip_special_tokens`](GenerationConfig::skip_special_tokens).
    pub text: String,
    /// The generated tokens, the end token included.
    pub tokens: Vec<u32>,
    /// Their log-probabilities by the model.
    pub logprobs: Vec<f32>,
    /// Their scores after the processors; see [`GeneratedToken::score`].
    pub scores: Vec<f32>,
    /// What else there is to say of each token; empty unless [it was asked for](super::Generate::details).
    pub details: Vec<Details>,
    /// Why it ended; `None` while it goes on.
    pub finish: Option<FinishReason>,
    /// Whether the text, as it stands, matches the [structure](super::StructuredOutputs) that was asked for; `None` without
    /// one, and while the text goes on.
    pub complete: Option<bool>,
    /// The loop that the tokens, but for the end token, run into; `None` while the text goes on.
    pub repetition: Option<Repetition>,
}

/// The texts of some sequences, as far as they have come.
pub(super) struct Texts<'m> {
    /// None without a tokenizer.
    streams: Vec<TextStream<'m>>,
    completions: Vec<Completion>,
}

impl<'m> Texts<'m> {
    pub(super) fn new(tokenizer: Option<&'m Tokenizer>, config: &GenerationConfig) -> Self {
        let count = config.sequences();
        let stop = config.stop_strings.as_deref().unwrap_or_default();
        let special = match config.skip_special_tokens {
            Some(false) => SpecialText::Keep,
            Some(true) | None => SpecialText::Skip,
        };
        let keep = config.include_stop_str_in_output == Some(true);
        let new = |tokenizer| TextStream::new(tokenizer, stop).special_text(special).keep_stop(keep);
        let stream = |tokenizer| (0..count).map(|_| new(tokenizer)).collect();
        Self {
            streams: tokenizer.map_or_else(Vec::new, stream),
            completions: vec![Completion::default(); count],
        }
    }

    pub(super) fn completions(&self) -> &[Completion] {
        &self.completions
    }

    pub(super) fn into_completions(self) -> Vec<Completion> {
        self.completions
    }

    /// Reads a token; says whether a stop string ends its sequence. The grammar is that of the structure asked for.
    pub(super) fn take(
        &mut self,
        mut token: GeneratedToken,
        grammar: Option<&Grammar>,
    ) -> Result<(TextDelta, bool), TokenizerError> {
        let (mut text, mut stopped) = (String::new(), false);
        if let Some(stream) = self.streams.get_mut(token.sequence) {
            let ends = token.finish == Some(FinishReason::Eos);
            text.push_str(if ends { stream.push_end(token.id) } else { stream.push(token.id)? });
            stopped = stream.stopped().is_some();
            if stopped && !ends {
                token.finish = Some(FinishReason::Stop);
            } else if token.finish.is_some() {
                text.push_str(stream.finish());
            }
        }
        let completion = &mut self.completions[token.sequence];
        completion.text.push_str(&text);
        completion.tokens.push(token.id);
        completion.logprobs.push(token.logprob);
        completion.scores.push(token.score);
        completion.details.extend(token.details.as_deref().cloned());
        completion.finish = token.finish;
        if let Some(reason) = token.finish {
            let end = completion.tokens.len() - usize::from(reason == FinishReason::Eos);
            completion.repetition = Repetition::find(&completion.tokens[..end]);
            completion.complete = grammar.map(|grammar| match stopped {
                // The text is not that of the tokens then.
                true => grammar.accepts_text(&completion.text),
                false => grammar.accepts(&completion.tokens[..end]),
            });
        }
        Ok((TextDelta { token, text }, stopped))
    }
}

/// A [`Generation`] read as text.
///
/// Stop strings are matched on the text of the continuation with its special tokens, wherever tokens begin and end. What
/// follows the stop string is left out, and so is the stop string itself unless
/// [`include_stop_str_in_output`](GenerationConfig::include_stop_str_in_output) is set.
pub struct TextGeneration<'m> {
    generation: Generation<'m>,
    texts: Texts<'m>,
}

impl<'m> TextGeneration<'m> {
    pub(super) fn new(generation: Generation<'m>, tokenizer: &'m Tokenizer) -> Self {
        let texts = Texts::new(Some(tokenizer), generation.config());
        Self { generation, texts }
    }

    /// The generation itself: its prompt, settings and timing.
    #[must_use]
    pub fn generation(&self) -> &Generation<'m> {
        &self.generation
    }

    /// Every sequence as far as it has come.
    #[must_use]
    pub fn completions(&self) -> &[Completion] {
        self.texts.completions()
    }

    /// Every sequence, for good.
    #[must_use]
    pub fn into_completions(self) -> Vec<Completion> {
        self.texts.into_completions()
    }

    fn take(&mut self, token: GeneratedToken) -> Result<TextDelta, TokenizerError> {
        let (delta, stopped) = self.texts.take(token, self.generation.core.chain.grammar())?;
        if stopped {
            self.generation.stop(delta.token.sequence, FinishReason::Stop);
        }
        Ok(delta)
    }
}

impl Iterator for TextGeneration<'_> {
    type Item = Result<TextDelta, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let token = self.generation.next()?;
        Some(token.and_then(|token| Ok(self.take(token)?)))
    }
}
