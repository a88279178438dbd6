//! What is to be generated: a prompt, settings, and what a caller adds of his own.

use super::config::GenerationConfig;
use super::core::chain;
use super::details::DetailsRequest;
use super::dola::layers;
use super::text::{Completion, TextGeneration};
use super::{GenerateError, Generation, StructuredOutputs};
use crate::cache::PrefixCache;
use crate::model::Model;
use crate::process::{Allowed, Context, Processor};
use crate::tokenizer::Tokenizer;

/// Decides after every token whether a text ends with it.
pub(super) type Criterion<'a> = Box<dyn FnMut(&Context<'_>) -> bool + Send + 'a>;

/// A generation to be: transformers' `model.generate(...)`.
///
/// Made by [`Model::generate`]. Settings that have no method of their own here are set through
/// [`config`](Self::config) or [`with`](Self::with).
#[must_use = "nothing is generated before `tokens`, `text` or `run`"]
pub struct Generate<'m> {
    pub(super) model: &'m Model,
    pub(super) tokenizer: Option<&'m Tokenizer>,
    pub(super) prompt: Vec<u32>,
    pub(super) negative_prompt: Option<Vec<u32>>,
    pub(super) config: GenerationConfig,
    pub(super) processors: Vec<Box<dyn Processor>>,
    pub(super) allowed: Option<Allowed>,
    pub(super) criteria: Vec<Criterion<'m>>,
    pub(super) details: Option<DetailsRequest>,
    pub(super) assistant: Option<&'m Model>,
    pub(super) prefixes: Option<&'m PrefixCache<'m>>,
}

impl Model {
    /// Begins to say what is to be generated behind some tokens; none stand for the beginning-of-text token.
    ///
    /// ```
    /// # use gpt2::{checkpoint::Checkpoint, config::Config, model::{Formats, Model}, tokenizer::*};
    /// # use gpt2_kernels::{Cpu, Kernels};
    /// # let folder = &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    /// # let config = Config::from_json(&std::fs::read(folder.join("config.json"))?)?;
    /// # let checkpoint = Checkpoint::open(folder)?;
    /// # let model = Model::load(Cpu::new(Kernels::detect(), 2), config, &checkpoint, Formats::default(), &mut |_, _| ())?;
    /// # let tokenizer = Tokenizer::from_directory(folder)?;
    /// let prompt = tokenizer.encode("Once upon a time", SpecialTokens::Parse)?;
    /// let texts = model.generate(&prompt).tokenizer(&tokenizer).do_sample(true).temperature(0.7).top_p(0.95).run()?;
    /// println!("{}", texts[0].text);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate<'m>(&'m self, prompt: &[u32]) -> Generate<'m> {
        Generate {
            model: self,
            tokenizer: None,
            prompt: prompt.to_vec(),
            negative_prompt: None,
            config: GenerationConfig::default(),
            processors: Vec::new(),
            allowed: None,
            criteria: Vec::new(),
            details: None,
            assistant: None,
            prefixes: None,
        }
    }
}

impl<'m> Generate<'m> {
    /// Names the tokenizer, without which there are neither texts nor settings that are texts.
    pub fn tokenizer(mut self, tokenizer: &'m Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Replaces all settings.
    pub fn config(mut self, config: GenerationConfig) -> Self {
        self.config = config;
        self
    }

    /// Changes any setting: `.with(|config| config.typical_p = Some(0.9))`.
    pub fn with(mut self, change: impl FnOnce(&mut GenerationConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Tokens of prompt and continuation together at most.
    pub fn max_length(self, tokens: usize) -> Self {
        self.with(|config| config.max_length = Some(tokens))
    }

    /// Tokens to generate at most.
    pub fn max_new_tokens(self, tokens: usize) -> Self {
        self.with(|config| config.max_new_tokens = Some(tokens))
    }

    /// Whether to draw tokens; if not, the likeliest is taken.
    pub fn do_sample(self, sample: bool) -> Self {
        self.with(|config| config.do_sample = Some(sample))
    }

    /// What logits are divided by.
    pub fn temperature(self, temperature: f64) -> Self {
        self.with(|config| config.temperature = Some(temperature))
    }

    /// Number of tokens to draw from, the likeliest ones; 0 means all.
    pub fn top_k(self, tokens: usize) -> Self {
        self.with(|config| config.top_k = Some(tokens))
    }

    /// Mass of the tokens to draw from, the likeliest ones; 1 means all.
    pub fn top_p(self, mass: f64) -> Self {
        self.with(|config| config.top_p = Some(mass))
    }

    /// Texts to follow at the same time.
    pub fn num_beams(self, beams: usize) -> Self {
        self.with(|config| config.num_beams = Some(beams))
    }

    /// Texts to return.
    pub fn num_return_sequences(self, sequences: usize) -> Self {
        self.with(|config| config.num_return_sequences = Some(sequences))
    }

    /// What the continuation must match; it takes a tokenizer. [`Completion::complete`] says whether it does.
    ///
    /// ```
    /// # use gpt2::{generate::StructuredOutputs, model::Formats, pretrained::Pretrained};
    /// # use gpt2_kernels::{Cpu, Kernels};
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    /// # let gpt2 = Pretrained::from_directory(folder, Cpu::new(Kernels::detect(), 2), Formats::default())?;
    /// let date = StructuredOutputs::Regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}".to_owned());
    /// let text = gpt2.generate("It was on the")?.structured_outputs(date).run()?.remove(0);
    /// assert_eq!((text.text.len(), text.complete), (10, Some(true)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn structured_outputs(self, outputs: StructuredOutputs) -> Self {
        self.with(|config| config.structured_outputs = Some(outputs))
    }

    /// The key of the noise that draws tokens.
    pub fn seed(self, seed: u64) -> Self {
        self.with(|config| config.seed = Some(seed))
    }

    /// Ends a continuation before this text, besides others that were named.
    pub fn stop(self, text: impl Into<String>) -> Self {
        self.with(|config| config.stop_strings.get_or_insert_default().push(text.into()))
    }

    /// What the continuation is held against where `guidance_scale` is not 1: transformers' `negative_prompt_ids`.
    pub fn negative_prompt(mut self, tokens: &[u32]) -> Self {
        self.negative_prompt = Some(tokens.to_vec());
        self
    }

    /// Adds a processor of the caller's own: it comes before temperature, `top_k` and `top_p`, as in transformers, and
    /// behind those added before it; if it has the name of one of the library's, it stands in for that.
    pub fn processor(mut self, processor: impl Processor + 'static) -> Self {
        self.processors.push(Box::new(processor));
        self
    }

    /// Leaves only the tokens that a function of the text so far allows: transformers' `prefix_allowed_tokens_fn`.
    ///
    /// If all that it allows is ruled out by other settings, it is let in again, as in transformers; with several beams
    /// the beam ends instead. If it allows nothing, generating ends with an error.
    pub fn prefix_allowed_tokens_fn(
        mut self,
        allowed: impl FnMut(&Context<'_>) -> Vec<u32> + Send + 'static,
    ) -> Self {
        self.allowed = Some(Box::new(allowed));
        self
    }

    /// Adds a criterion: after every token it is asked whether the text ends with that.
    pub fn stopping_criterion(mut self, ends: impl FnMut(&Context<'_>) -> bool + Send + 'm) -> Self {
        self.criteria.push(Box::new(ends));
        self
    }

    /// Names a model that guesses tokens, any GPT-2 with the same vocabulary: transformers' `assistant_model`.
    ///
    /// The text is the same to the last bit, and comes sooner where the guesses are often right; where they are not, they
    /// are left out. A copy of the model itself in `int4` guesses well.
    ///
    /// ```
    /// # use gpt2::{model::Formats, pretrained::Pretrained};
    /// # use gpt2_kernels::{Cpu, Kernels, WeightFormat};
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    /// # let load = |formats| Pretrained::from_directory(folder, Cpu::new(Kernels::detect(), 2), formats);
    /// let gpt2 = load(Formats::default())?;
    /// let draft = load(WeightFormat::Int4.into())?;
    /// let request = || Ok::<_, Box<dyn std::error::Error>>(gpt2.generate("Once upon a time")?.max_new_tokens(30));
    /// assert_eq!(request()?.assistant(&draft.model).run()?, request()?.run()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn assistant(mut self, model: &'m Model) -> Self {
        self.assistant = Some(model);
        self
    }

    /// Begins with what a cache has kept of texts that began alike, and has it keep this prompt, and of plain decoding the
    /// continuations too. The text is the same to the last bit. Contrastive search reads its prompt anew.
    ///
    /// # Panics
    /// Panics if the cache was made for another model.
    pub fn prefix_cache(mut self, prefixes: &'m PrefixCache<'m>) -> Self {
        assert!(prefixes.is_for(self.model), "a cache of prefixes of another model");
        self.prefixes = Some(prefixes);
        self
    }

    /// Asks for more about every token than its log-probability: see [`Details`](super::Details). The tokens are the same.
    ///
    /// ```
    /// # use gpt2::{generate::DetailsRequest, model::Formats, pretrained::Pretrained};
    /// # use gpt2_kernels::{Cpu, Kernels};
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");
    /// # let gpt2 = Pretrained::from_directory(folder, Cpu::new(Kernels::detect(), 2), Formats::default())?;
    /// let request = gpt2.generate("Once upon a time")?.do_sample(true).top_k(40).max_new_tokens(5);
    /// let text = request.details(DetailsRequest { alternatives: 3, trace: true }).run()?.remove(0);
    /// let details = &text.details[0];
    /// assert!(details.alternatives[0].logprob >= details.alternatives[1].logprob);
    /// let trace = details.trace.as_ref().expect("it was asked for");
    /// assert_eq!((trace.steps[0].name, trace.steps[0].left), ("top_k", 40));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn details(mut self, request: DetailsRequest) -> Self {
        self.details = Some(request);
        self
    }

    /// Checks the settings, by themselves, against each other, and against the model and its vocabulary. Whether the
    /// prompt fits is left to those who begin.
    ///
    /// # Errors
    /// If a setting is out of its range or contradicts another, cannot be used with this model, or is a text and there
    /// is no tokenizer.
    pub fn check(&self) -> Result<(), GenerateError> {
        self.config.check()?;
        self.config.check_speculation(self.assistant.is_some())?;
        if let Some(setting) = &self.config.dola_layers {
            layers(self.model.config(), setting)?;
        }
        chain(self.model, self.tokenizer, &self.config, self.model.config().n_positions).map(drop)
    }

    /// Runs the prompt through the model, and gives the tokens as they are chosen.
    ///
    /// # Errors
    /// If a setting is out of its range or contradicts another, or the prompt is empty and the model has no
    /// beginning-of-text token, is longer than the context or `max_length`, or has a token that is not in the
    /// vocabulary, or a setting is a text and there is no tokenizer. Nothing has been computed then.
    pub fn tokens(self) -> Result<Generation<'m>, GenerateError> {
        Generation::new(self)
    }

    /// Does the same, and gives the text as it becomes certain.
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens), and if no tokenizer was named.
    pub fn text(self) -> Result<TextGeneration<'m>, GenerateError> {
        let tokenizer = self.tokenizer.ok_or(GenerateError::NoTokenizer("text"))?;
        Ok(TextGeneration::new(self.tokens()?, tokenizer))
    }

    /// Does the same, and returns the texts when all are finished.
    ///
    /// # Errors
    /// As [`text`](Self::text), and if the model's weights are damaged.
    pub fn run(self) -> Result<Vec<Completion>, GenerateError> {
        let mut texts = self.text()?;
        texts.by_ref().try_for_each(|delta| delta.map(drop))?;
        Ok(texts.into_completions())
    }
}
