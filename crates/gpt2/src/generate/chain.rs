//! The processors that a configuration asks for, in their order.

use super::GenerateError;
use super::config::{ForcedWords, GenerationConfig, SamplerName};
use super::details::Recording;
use crate::process::structure::{Grammar, Structure};
use crate::process::{
    BadWords, Context, Dry, DynamicTemperature, EncoderRepetitionPenalty, EpsilonCutoff, EtaCutoff,
    ExponentialDecayLengthPenalty, ForcedTokens, FrequencyPenalty, HammingDiversity, MinLength, MinP,
    Mirostat, NoRepeatNgram, Processor, RemoveInvalidValues, RenormalizeLogits, RepetitionPenalty, Scores,
    SequenceBias, SuppressTokens, Temperature, TopH, TopK, TopNSigma, TopP, TypicalP, Xtc,
};
use crate::tokenizer::Tokenizer;

/// The steps between the logits and the choice of a token: all processors that a configuration asks for.
///
/// A generation has its own. By itself it is for those who have logits from elsewhere.
///
/// ```
/// use gpt2::generate::{Chain, GenerationConfig, Setup};
/// use gpt2::process::{Context, Scores};
///
/// let config = GenerationConfig { repetition_penalty: Some(2.0), ..GenerationConfig::default() };
/// let mut chain = Chain::new(&config, &Setup { vocabulary: 3, total_tokens: 20, ..Setup::default() })?;
/// let mut scores = Scores::default();
/// scores.set(&[1.0, -1.0, 4.0]);
/// chain.process(&Context { tokens: &[1, 2], prompt: 2, ..Context::default() }, &mut scores);
/// assert_eq!(scores.all(), [1.0, -2.0, 2.0]);
/// # Ok::<(), gpt2::generate::GenerateError>(())
/// ```
pub struct Chain {
    /// Ascending.
    steps: Vec<(Place, Box<dyn Processor>)>,
    /// What the texts are to match.
    grammar: Option<Grammar>,
}

/// What processors need to know besides their settings.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    /// The tokens that end a text; those that are not in the vocabulary never do.
    pub eos_token_ids: &'a [u32],
    /// Tokens of a text at most, its prompt included.
    pub total_tokens: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Reads the settings that are texts.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// Where in the chain a processor stands: the order of transformers' `_get_logits_processor`, with those between that
/// it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    SequenceBias,
    DiversityPenalty,
    EncoderRepetitionPenalty,
    RepetitionPenalty,
    FrequencyPenalty,
    Dry,
    NoRepeatNgram,
    EncoderNoRepeatNgram,
    BadWords,
    MinLength,
    MinNewTokens,
    PrefixAllowedTokens,
    StructuredOutputs,
    ForcedBos,
    ForcedEos,
    RemoveInvalidValues,
    ExponentialDecayLengthPenalty,
    SuppressTokens,
    BeginSuppressTokens,
    /// The caller's own.
    Custom,
    /// Samplers whose order the configuration gives, by their index in it.
    Ordered(usize),
    TopNSigma,
    Temperature,
    TopH,
    TopK,
    TopP,
    MinP,
    TypicalP,
    EpsilonCutoff,
    EtaCutoff,
    Xtc,
    Mirostat,
    Watermark,
    Renormalize,
}

impl Chain {
    /// Makes the chain of a configuration that was [checked](GenerationConfig::check).
    ///
    /// # Errors
    /// If a setting names a token that is not in the vocabulary, or is a text and there is no tokenizer.
    ///
    /// # Panics
    /// Panics if the configuration does not pass its check.
    pub fn new(config: &GenerationConfig, setup: &Setup<'_>) -> Result<Self, GenerateError> {
        check_tokens(config, setup.vocabulary)?;
        let mut chain = Self { steps: Vec::new(), grammar: None };
        let eos: Vec<u32> =
            setup.eos_token_ids.iter().copied().filter(|&id| (id as usize) < setup.vocabulary).collect();
        chain.add_penalties(config);
        chain.add_dry(config, setup.tokenizer)?;
        chain.add_constraints(config, &eos, setup.total_tokens);
        chain.add_bad_words(config, setup, &eos)?;
        chain.add_structure(config, setup, &eos)?;
        if config.samples() {
            // With several beams there must be something to go on with beside every end; as in transformers, one end
            // is allowed for where there is none.
            let least = if config.beams() > 1 { setup.eos_token_ids.len().max(1) + 1 } else { 1 };
            chain.add_samplers(config, least);
        }
        if config.renormalize_logits == Some(true) {
            chain.add(Place::Renormalize, Box::new(RenormalizeLogits));
        }
        Ok(chain)
    }

    /// What depends on the tokens that occurred.
    fn add_penalties(&mut self, config: &GenerationConfig) {
        let penalty = |penalty: Option<f64>| penalty.filter(|&penalty| penalty != 1.0);
        let size = |size: Option<usize>| size.filter(|&size| size > 0);
        if let Some(penalty) = config.diversity_penalty.filter(|_| config.groups() > 1) {
            self.add(Place::DiversityPenalty, Box::new(HammingDiversity::new(penalty)));
        }
        if let Some(reward) = penalty(config.encoder_repetition_penalty) {
            self.add(Place::EncoderRepetitionPenalty, Box::new(EncoderRepetitionPenalty::new(reward)));
        }
        if let Some(penalty) = penalty(config.repetition_penalty) {
            self.sampler(config, SamplerName::Penalties, Place::RepetitionPenalty, || {
                RepetitionPenalty::new(penalty)
            });
        }
        let frequency = config.frequency_penalty.unwrap_or(0.0);
        let presence = config.presence_penalty.unwrap_or(0.0);
        if (frequency, presence) != (0.0, 0.0) {
            self.sampler(config, SamplerName::Penalties, Place::FrequencyPenalty, || {
                FrequencyPenalty::new(frequency, presence)
            });
        }
        if let Some(size) = size(config.no_repeat_ngram_size) {
            self.add(Place::NoRepeatNgram, Box::new(NoRepeatNgram::new(size)));
        }
        if let Some(size) = size(config.encoder_no_repeat_ngram_size) {
            self.add(Place::EncoderNoRepeatNgram, Box::new(NoRepeatNgram::of_prompt(size)));
        }
    }

    /// The penalty for going on as before; without a tokenizer there are no breakers.
    fn add_dry(
        &mut self,
        config: &GenerationConfig,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<(), GenerateError> {
        let Some(multiplier) = config.dry_multiplier.filter(|&multiplier| multiplier > 0.0) else {
            return Ok(());
        };
        let base = config.dry_base.unwrap_or(1.75);
        let mut dry = Dry::new(multiplier, base, config.dry_allowed_length.unwrap_or(2))
            .last_n(config.dry_penalty_last_n.unwrap_or(usize::MAX));
        match (tokenizer, &config.dry_sequence_breakers) {
            (Some(tokenizer), Some(texts)) => {
                for text in texts {
                    dry = dry.text_breaker(text, tokenizer)?;
                }
            }
            (Some(tokenizer), None) => {
                for text in Dry::BREAKERS {
                    dry = dry.text_breaker(text, tokenizer)?;
                }
            }
            (None, Some(texts)) if !texts.is_empty() => {
                return Err(GenerateError::NoTokenizer("dry_sequence_breakers"));
            }
            (None, _) => {}
        }
        self.sampler(config, SamplerName::Dry, Place::Dry, || dry);
        Ok(())
    }

    /// What rules tokens out, lets them in or moves them, whatever the distribution.
    fn add_constraints(&mut self, config: &GenerationConfig, eos: &[u32], total_tokens: usize) {
        if let Some(phrases) = &config.sequence_bias {
            self.add(Place::SequenceBias, Box::new(SequenceBias::new(phrases)));
        }
        if let Some(phrases) = &config.bad_words_ids {
            self.add(Place::BadWords, Box::new(SequenceBias::bad_words(phrases, eos)));
        }
        match (config.min_new_tokens, config.min_length) {
            // As in transformers, where it replaces `min_length`.
            (Some(tokens), _) => {
                self.add(Place::MinNewTokens, Box::new(MinLength::of_new_tokens(tokens, eos.to_vec())));
            }
            (None, Some(tokens)) => {
                self.add(Place::MinLength, Box::new(MinLength::new(tokens, eos.to_vec())));
            }
            (None, None) => {}
        }
        if let Some(id) = config.forced_bos_token_id {
            self.add(Place::ForcedBos, Box::new(ForcedTokens::bos(id)));
        }
        if let Some(ids) = config.forced_eos_token_id.as_ref().filter(|ids| !ids.is_empty()) {
            self.add(Place::ForcedEos, Box::new(ForcedTokens::eos(ids.clone(), total_tokens)));
        }
        if config.remove_invalid_values == Some(true) {
            self.add(Place::RemoveInvalidValues, Box::new(RemoveInvalidValues));
        }
        if let Some((start, factor)) = config.exponential_decay_length_penalty {
            let decay = ExponentialDecayLengthPenalty::new(start, factor, eos.to_vec());
            self.add(Place::ExponentialDecayLengthPenalty, Box::new(decay));
        }
        if let Some(ids) = &config.suppress_tokens {
            self.add(Place::SuppressTokens, Box::new(SuppressTokens::new(ids.clone())));
        }
        if let Some(ids) = &config.begin_suppress_tokens {
            let forced = config.forced_bos_token_id.is_some();
            let suppress = SuppressTokens::at_begin(ids.clone(), forced);
            self.add(Place::BeginSuppressTokens, Box::new(suppress));
        }
    }

    /// The texts that may not occur.
    fn add_bad_words(
        &mut self,
        config: &GenerationConfig,
        setup: &Setup<'_>,
        eos: &[u32],
    ) -> Result<(), GenerateError> {
        let Some(texts) = config.bad_words.as_ref().filter(|texts| !texts.is_empty()) else { return Ok(()) };
        let tokenizer = setup.tokenizer.ok_or(GenerateError::NoTokenizer("bad_words"))?;
        self.add(Place::BadWords, Box::new(BadWords::new(texts, tokenizer, eos, setup.vocabulary)));
        Ok(())
    }

    /// What the text must match.
    fn add_structure(
        &mut self,
        config: &GenerationConfig,
        setup: &Setup<'_>,
        eos: &[u32],
    ) -> Result<(), GenerateError> {
        let Some(outputs) = &config.structured_outputs else { return Ok(()) };
        let tokenizer = setup.tokenizer.ok_or(GenerateError::NoTokenizer("structured_outputs"))?;
        let wrong = |message| GenerateError::Structure { kind: outputs.name(), message };
        let grammar = Grammar::new(outputs, tokenizer.vocabulary()).map_err(wrong)?;
        let structure = Structure::new(&grammar, eos, setup.vocabulary);
        let structure = structure.map_err(|error| wrong(format!("cannot start a thread: {error}")))?;
        self.add(Place::StructuredOutputs, Box::new(structure));
        self.grammar = Some(grammar);
        Ok(())
    }

    /// What the texts are to match.
    pub(super) fn grammar(&self) -> Option<&Grammar> {
        self.grammar.as_ref()
    }

    /// What draws are restricted by; each keeps at least so many tokens.
    fn add_samplers(&mut self, config: &GenerationConfig, least: usize) {
        use SamplerName as Name;
        let temperature = config.temperature.unwrap_or(1.0);
        if let Some(range) = config.dynatemp_range.filter(|&range| range > 0.0) {
            let exponent = config.dynatemp_exponent.unwrap_or(1.0);
            self.sampler(config, Name::Temperature, Place::Temperature, || {
                DynamicTemperature::new(temperature, range, exponent)
            });
        } else if temperature != 1.0 {
            self.sampler(config, Name::Temperature, Place::Temperature, || Temperature::new(temperature));
        }
        if let Some(version) = config.mirostat.filter(|&version| version > 0) {
            let tau = config.mirostat_tau.unwrap_or(5.0);
            let eta = config.mirostat_eta.unwrap_or(0.1);
            let mirostat = if version == 1 { Mirostat::v1(tau, eta) } else { Mirostat::v2(tau, eta) };
            self.add(Place::Mirostat, Box::new(mirostat));
            return;
        }
        if let Some(n) = config.top_n_sigma.filter(|&n| n > 0.0) {
            self.sampler(config, Name::TopNSigma, Place::TopNSigma, || TopNSigma::new(n));
        }
        if let Some(share) = config.top_h {
            self.sampler(config, Name::TopH, Place::TopH, || TopH::new(share));
        }
        let top_k = config.top_k.unwrap_or(50);
        if top_k != 0 {
            self.sampler(config, Name::TopK, Place::TopK, || TopK::new(top_k.max(least)));
        }
        if let Some(p) = config.top_p.filter(|&p| p < 1.0) {
            self.sampler(config, Name::TopP, Place::TopP, || TopP::new(p).keeping(least));
        }
        if let Some(share) = config.min_p {
            self.sampler(config, Name::MinP, Place::MinP, || MinP::new(share).keeping(least));
        }
        if let Some(mass) = config.typical_p.filter(|&mass| mass < 1.0) {
            self.sampler(config, Name::TypP, Place::TypicalP, || TypicalP::new(mass).keeping(least));
        }
        if let Some(epsilon) = config.epsilon_cutoff.filter(|&epsilon| epsilon > 0.0) {
            self.sampler(config, Name::EpsilonCutoff, Place::EpsilonCutoff, || {
                EpsilonCutoff::new(epsilon).keeping(least)
            });
        }
        if let Some(epsilon) = config.eta_cutoff.filter(|&epsilon| epsilon > 0.0) {
            self.sampler(config, Name::EtaCutoff, Place::EtaCutoff, || {
                EtaCutoff::new(epsilon).keeping(least)
            });
        }
        if let Some(probability) = config.xtc_probability.filter(|&probability| probability > 0.0) {
            let threshold = config.xtc_threshold.unwrap_or(0.1);
            let seed = config.seed.unwrap_or(0);
            self.sampler(config, Name::Xtc, Place::Xtc, || Xtc::new(probability, threshold, seed));
        }
    }

    /// Adds a sampler where the configuration's order has it, or else at its own place.
    fn sampler<P: Processor + 'static>(
        &mut self,
        config: &GenerationConfig,
        name: SamplerName,
        place: Place,
        make: impl FnOnce() -> P,
    ) {
        // An order is one of samplers; what else has a name in it keeps its own place where nothing is drawn.
        let place = match config.samplers.as_ref().filter(|_| config.samples()) {
            None => place,
            Some(order) => match order.iter().position(|&other| other == name) {
                Some(index) => Place::Ordered(index),
                None => return,
            },
        };
        self.add(place, Box::new(make()));
    }

    /// Adds a processor behind those of its place.
    pub(super) fn add(&mut self, place: Place, processor: Box<dyn Processor>) {
        let index = self.steps.partition_point(|&(other, _)| other <= place);
        self.steps.insert(index, (place, processor));
    }

    /// Adds a processor of the caller's: in place of the one that has its name, as in transformers, or before the
    /// samplers.
    pub(super) fn add_custom(&mut self, processor: Box<dyn Processor>) {
        match self
            .steps
            .iter_mut()
            .find(|(_, other)| other.name() == processor.name() && other.name() != "custom")
        {
            Some((_, other)) => *other = processor,
            None => self.add(Place::Custom, processor),
        }
    }

    /// Changes the scores step by step.
    ///
    /// # Panics
    /// Panics if there are fewer scores than tokens in the vocabulary.
    pub fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        for (_, processor) in &mut self.steps {
            processor.process(context, scores);
        }
    }

    /// Does the same, and has every step recorded.
    pub(super) fn trace(&mut self, context: &Context<'_>, scores: &mut Scores, recording: &mut Recording) {
        for (_, processor) in &mut self.steps {
            processor.process(context, scores);
            recording.step(processor.name(), scores);
        }
    }

    /// Tells all who want to know which token was chosen from the scores that were left.
    pub fn chosen(&mut self, context: &Context<'_>, scores: &Scores, token: u32) {
        for (_, processor) in &mut self.steps {
            processor.chosen(context, scores, token);
        }
    }

    /// Whether a text ends with its last token, though that is no end token.
    pub(super) fn ended(&mut self, context: &Context<'_>) -> bool {
        self.steps.iter_mut().any(|(_, processor)| processor.ended(context))
    }
}

/// Checks that settings name only tokens of the vocabulary.
fn check_tokens(config: &GenerationConfig, vocabulary: usize) -> Result<(), GenerateError> {
    let forced = config.force_words_ids.iter().flatten().flat_map(ForcedWords::phrases);
    let settings: [(&'static str, Vec<u32>); 7] = [
        ("force_words_ids", forced.flatten().copied().collect()),
        ("sequence_bias", config.sequence_bias.iter().flatten().flat_map(|(ids, _)| ids).copied().collect()),
        ("bad_words_ids", config.bad_words_ids.iter().flatten().flatten().copied().collect()),
        ("forced_bos_token_id", config.forced_bos_token_id.into_iter().collect()),
        ("forced_eos_token_id", config.forced_eos_token_id.clone().unwrap_or_default()),
        ("suppress_tokens", config.suppress_tokens.clone().unwrap_or_default()),
        ("begin_suppress_tokens", config.begin_suppress_tokens.clone().unwrap_or_default()),
    ];
    for (setting, ids) in settings {
        if let Some(id) = ids.into_iter().find(|&id| id as usize >= vocabulary) {
            return Err(GenerateError::setting(setting, "tokens of the vocabulary", id));
        }
    }
    Ok(())
}
