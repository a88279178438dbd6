//! The processors that a configuration asks for, in their order.

use super::config::{GenerationConfig, SamplerName};
use crate::process::{Context, Processor, Scores, Temperature, TopK, TopP};

/// The steps between the logits and the choice of a token.
pub(super) struct Chain {
    /// Ascending.
    steps: Vec<(Place, Box<dyn Processor>)>,
}

/// Where in the chain a processor stands: the order of transformers' `_get_logits_processor`, with those between that
/// it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(dead_code, reason = "their processors come one by one")]
pub(super) enum Place {
    SequenceBias,
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
    /// Makes the chain of a configuration that was checked.
    pub(super) fn new(config: &GenerationConfig) -> Self {
        let mut chain = Self { steps: Vec::new() };
        if config.samples() {
            chain.add_samplers(config);
        }
        chain
    }

    /// What draws are restricted by.
    fn add_samplers(&mut self, config: &GenerationConfig) {
        use SamplerName as Name;
        if let Some(temperature) = config.temperature.filter(|&t| t != 1.0) {
            self.sampler(config, Name::Temperature, Place::Temperature, || Temperature::new(temperature));
        }
        let top_k = config.top_k.unwrap_or(50);
        if top_k != 0 {
            self.sampler(config, Name::TopK, Place::TopK, || TopK::new(top_k));
        }
        if let Some(p) = config.top_p.filter(|&p| p < 1.0) {
            self.sampler(config, Name::TopP, Place::TopP, || TopP::new(p));
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
        let place = match &config.samplers {
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
    pub(super) fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        for (_, processor) in &mut self.steps {
            processor.process(context, scores);
        }
    }

    /// Tells all who want to know which token was chosen.
    pub(super) fn chosen(&mut self, context: &Context<'_>, scores: &Scores, token: u32) {
        for (_, processor) in &mut self.steps {
            processor.chosen(context, scores, token);
        }
    }
}
