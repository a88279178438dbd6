//! How to generate: the fields of transformers' `GenerationConfig`, and those of other runtimes' samplers.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{GenerateError, StructuredOutputs};
use crate::config::{ConfigError, NO_TOKEN};
use crate::json;

/// How to generate: the names, meanings and defaults of transformers' `GenerationConfig`.
///
/// A field that is `None` is at its default. A `generation_config.json` reads into this and is written from it; fields
/// that nothing here knows are kept in `other`.
///
/// ```
/// use gpt2::generate::GenerationConfig;
///
/// let file = GenerationConfig::from_json(br#"{"eos_token_id": 50256, "temperature": 1, "_from_model_config": true}"#)?;
/// let asked = GenerationConfig { do_sample: Some(true), temperature: Some(0.7), ..GenerationConfig::default() };
/// let config = asked.or(file);
/// assert_eq!((config.temperature, config.eos_token_id.as_deref()), (Some(0.7), Some(&[50256][..])));
/// assert!(config.to_json().contains("_from_model_config"));
/// # Ok::<(), gpt2::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    // Length and end.
    /// Tokens of prompt and continuation together at most. Default: 20 more than the prompt has.
    pub max_length: Option<usize>,
    /// Tokens to generate at most; not together with `max_length`.
    pub max_new_tokens: Option<usize>,
    /// Tokens of prompt and continuation before which no end token is chosen. Default: 0.
    pub min_length: Option<usize>,
    /// New tokens before which no end token is chosen. Default: 0.
    pub min_new_tokens: Option<usize>,
    /// Seconds after which no further token is begun.
    pub max_time: Option<f64>,
    /// Texts that end a continuation.
    #[serde(deserialize_with = "one_or_many")]
    pub stop_strings: Option<Vec<String>>,
    /// Whether the text ends with the stop string instead of before it. Default: no.
    pub include_stop_str_in_output: Option<bool>,
    /// Whether special tokens, the end token among them, are left out of the text. Stop strings are matched on the text
    /// with them in any case. Default: yes.
    pub skip_special_tokens: Option<bool>,
    /// What happens when the model's context is full. Default: the text ends.
    pub overflow: Option<Overflow>,

    // The mode of decoding.
    /// Whether to draw tokens; if not, the likeliest is taken. Default: no.
    pub do_sample: Option<bool>,
    /// Texts to follow at the same time. Default: 1.
    pub num_beams: Option<usize>,
    /// When beam search ends. Default: when no better text is to be expected.
    pub early_stopping: Option<EarlyStopping>,
    /// The power of its length that the log-probability of a beam is divided by. Default: 1.
    pub length_penalty: Option<f64>,
    /// Groups of beams that differ from each other. Default: 1.
    pub num_beam_groups: Option<usize>,
    /// What a token's score loses for every beam of an earlier group that chose it at the same time. Default: 0.
    pub diversity_penalty: Option<f64>,
    /// Phrases that must occur; of a list of phrases one must.
    pub force_words_ids: Option<Vec<ForcedWords>>,
    /// Weight of the penalty for what resembles the text so far: contrastive search, with `top_k` candidates.
    pub penalty_alpha: Option<f64>,
    /// Layers whose predictions the last one is held against: decoding by contrasting layers.
    pub dola_layers: Option<DolaLayers>,
    /// Weight of the prompt over the negative prompt: classifier-free guidance.
    pub guidance_scale: Option<f64>,
    /// Whether the last token of the prompt may be replaced by a longer one; the white space at the prompt's ends is left
    /// out then, and so are special tokens. Default: no.
    pub token_healing: Option<bool>,
    /// Texts to return. Default: 1.
    pub num_return_sequences: Option<usize>,

    // Speculation: tokens that are guessed, so that the model looks at several positions at once.
    /// Most tokens to guess from what followed the last ones when they occurred before: prompt lookup.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// Most last tokens to look up. Default: 4.
    pub max_matching_ngram_size: Option<usize>,
    /// Most tokens for an assistant model to guess. Default: 15.
    pub num_assistant_tokens: Option<usize>,

    // Truncation: from which tokens one is drawn.
    /// What logits are divided by; 0 means no sampling. Default: 1.
    pub temperature: Option<f64>,
    /// Number of tokens to draw from, the likeliest ones; 0 means all. Default: 50.
    pub top_k: Option<usize>,
    /// Mass of the tokens to draw from, the likeliest ones; 1 means all. Default: 1.
    pub top_p: Option<f64>,
    /// Least probability, as a share of the likeliest token's.
    pub min_p: Option<f64>,
    /// Share of the entropy that the likeliest tokens to draw from may have.
    pub top_h: Option<f64>,
    /// Mass of the tokens to draw from, those of the most expected information; 1 means all. Default: 1.
    pub typical_p: Option<f64>,
    /// Least probability. Default: 0.
    pub epsilon_cutoff: Option<f64>,
    /// Least probability, lower where the entropy is high. Default: 0.
    pub eta_cutoff: Option<f64>,

    // Penalties and constraints.
    /// What scores of tokens that occurred are divided by. Default: 1.
    pub repetition_penalty: Option<f64>,
    /// What scores of the prompt's tokens are raised by. Default: 1.
    pub encoder_repetition_penalty: Option<f64>,
    /// Length of the phrases that may not occur twice; 0 means any may. Default: 0.
    pub no_repeat_ngram_size: Option<usize>,
    /// Length of the phrases of the prompt that may not occur again; 0 means any may. Default: 0.
    pub encoder_no_repeat_ngram_size: Option<usize>,
    /// Texts that may not occur, in whatever tokens they are written; a token that has one as part of a longer word stays.
    pub bad_words: Option<Vec<String>>,
    /// Phrases that may not occur, in these tokens.
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    /// What is added to the score of the token that completes a phrase.
    pub sequence_bias: Option<Vec<(Vec<u32>, f64)>>,
    /// Tokens that are never chosen.
    pub suppress_tokens: Option<Vec<u32>>,
    /// Tokens that are not chosen first.
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// The token that must come first, behind a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// The tokens one of which must come last.
    #[serde(deserialize_with = "one_or_many", serialize_with = "one_or_list")]
    pub forced_eos_token_id: Option<Vec<u32>>,
    /// After how many new tokens, and by which factor at each of them, end tokens get likelier.
    pub exponential_decay_length_penalty: Option<(usize, f64)>,
    /// Whether scores that are no numbers become numbers instead of an error. Default: no.
    pub remove_invalid_values: Option<bool>,
    /// Whether processed scores are made log-probabilities again. Default: no.
    pub renormalize_logits: Option<bool>,
    /// What the text must match: a JSON schema, a regular expression, a grammar.
    pub structured_outputs: Option<StructuredOutputs>,
    /// A pattern in the choice of tokens by which the text can be recognised.
    pub watermarking_config: Option<Watermarking>,

    // Samplers that transformers does not have.
    /// What a token's score loses for every time it occurred (OpenAI). Default: 0.
    pub frequency_penalty: Option<f64>,
    /// What a token's score loses if it occurred (OpenAI). Default: 0.
    pub presence_penalty: Option<f64>,
    /// Strength of the penalty for going on as a repetition would (DRY, llama.cpp). Default: 0, off.
    pub dry_multiplier: Option<f64>,
    /// By how much each further repeated token multiplies that penalty. Default: 1.75.
    pub dry_base: Option<f64>,
    /// Length of repetitions without a penalty. Default: 2.
    pub dry_allowed_length: Option<usize>,
    /// Number of last tokens to look for repetitions in. Default: all.
    pub dry_penalty_last_n: Option<usize>,
    /// Texts that no repetition reaches across. Default: new line, `:`, `"` and `*`.
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// Probability with which the likeliest tokens are left out (XTC, llama.cpp). Default: 0, off.
    pub xtc_probability: Option<f64>,
    /// Least probability of tokens that count as likeliest there. Default: 0.1.
    pub xtc_threshold: Option<f64>,
    /// Version of mirostat, 1 or 2 (llama.cpp); 0 is off. Default: 0.
    pub mirostat: Option<u8>,
    /// Surprise that mirostat aims at, in bits. Default: 5.
    pub mirostat_tau: Option<f64>,
    /// How fast mirostat learns. Default: 0.1.
    pub mirostat_eta: Option<f64>,
    /// By how much the temperature varies with the entropy (llama.cpp). Default: 0, off.
    pub dynatemp_range: Option<f64>,
    /// The power of the entropy it varies with. Default: 1.
    pub dynatemp_exponent: Option<f64>,
    /// Number of standard deviations below the highest score that tokens may have (llama.cpp).
    pub top_n_sigma: Option<f64>,
    /// The samplers to apply, and their order. Default: that of transformers.
    pub samplers: Option<Vec<SamplerName>>,

    // Random numbers.
    /// The key of the noise that draws tokens. Default: 0.
    pub seed: Option<u64>,
    /// Where random numbers come from. Default: noise keyed by seed, sequence and position.
    pub rng: Option<Rng>,

    // Tokens with a meaning.
    /// The token that an empty prompt stands for; `Some(None)`, `null` in a file, means that there is none. Default: the
    /// one in `config.json`.
    #[serde(deserialize_with = "token_or_none")]
    pub bos_token_id: Option<Option<u32>>,
    /// The tokens that end a text; an empty list, `null` in a file, means that none does. Default: those in
    /// `config.json`.
    #[serde(deserialize_with = "tokens_or_none", serialize_with = "one_or_list")]
    pub eos_token_id: Option<Vec<u32>>,
    /// The token that stands behind the end of shorter texts of a batch; here it is only what a group of beams that has
    /// ended counts as choosing. Default: the first end token.
    pub pad_token_id: Option<u32>,

    /// Fields that nothing here knows, as they were read.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What happens when the model's context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// A length that could not fit is refused before anything is computed.
    Error,
    /// The text ends.
    #[default]
    Stop,
    /// The text goes on: its last `n_positions / 2` tokens are read again, as the beginning of a new context.
    Slide,
}

/// When beam search ends, once it has found as many texts as there are beams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best beam that goes on is not better, as long as it is now, than the worst text found.
    #[default]
    False,
    /// At once.
    True,
    /// When no beam that goes on can become better, however long it gets.
    Never,
}

/// Something that must occur in the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ForcedWords {
    /// This phrase.
    Phrase(Vec<u32>),
    /// One of these phrases.
    OneOf(Vec<Vec<u32>>),
}

/// Layers that the last one is held against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DolaLayers {
    /// These outputs of layers, 0 being the embeddings.
    Layers(Vec<usize>),
    /// The lower or the upper half.
    Half(DolaHalf),
}

/// A half of the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DolaHalf {
    /// The lower half.
    Low,
    /// The upper half.
    High,
}

/// A pattern in the choice of tokens (Kirchenbauer et al., "A Watermark for Large Language Models", 2023).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watermarking {
    /// The share of the vocabulary that is preferred.
    pub greenlist_ratio: f64,
    /// What is added to the scores of preferred tokens.
    pub bias: f64,
    /// The key of the pattern.
    pub hashing_key: u64,
    /// What of the text decides which tokens are preferred.
    pub seeding_scheme: SeedingScheme,
    /// Number of last tokens that decide it.
    pub context_width: usize,
}

impl Default for Watermarking {
    fn default() -> Self {
        Self {
            greenlist_ratio: 0.25,
            bias: 2.0,
            hashing_key: 15_485_863,
            seeding_scheme: SeedingScheme::Lefthash,
            context_width: 1,
        }
    }
}

/// What decides which tokens a watermark prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeedingScheme {
    /// The last tokens.
    Lefthash,
    /// The last tokens and the candidate itself.
    Selfhash,
}

/// Where random numbers come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rng {
    /// A hash of seed, sequence, position and token: no draw depends on another.
    #[default]
    Keyed,
    /// The generator of torch on the CPU after `torch.manual_seed(seed)`: the text that transformers gives.
    Torch,
}

/// A step whose place in the order of samplers can be chosen. The names are llama.cpp's, and transformers' where
/// it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerName {
    /// `repetition_penalty`, `frequency_penalty` and `presence_penalty`.
    Penalties,
    /// `dry_multiplier` and its like.
    Dry,
    /// `top_n_sigma`.
    TopNSigma,
    /// `temperature`, with `dynatemp_range`.
    Temperature,
    /// `top_h`.
    TopH,
    /// `top_k`.
    TopK,
    /// `typical_p`.
    #[serde(alias = "typical_p")]
    TypP,
    /// `top_p`.
    TopP,
    /// `min_p`.
    MinP,
    /// `epsilon_cutoff`.
    EpsilonCutoff,
    /// `eta_cutoff`.
    EtaCutoff,
    /// `xtc_probability` and `xtc_threshold`.
    Xtc,
}

impl ForcedWords {
    /// The phrases, one of which must occur.
    #[must_use]
    pub fn phrases(&self) -> &[Vec<u32>] {
        match self {
            Self::Phrase(phrase) => std::slice::from_ref(phrase),
            Self::OneOf(phrases) => phrases,
        }
    }
}

impl GenerationConfig {
    /// New tokens when nothing limits the length.
    pub const DEFAULT_NEW_TOKENS: usize = 20;

    /// Most sequences of one prompt, and most beams: all are held in memory at once.
    pub const MOST_SEQUENCES: usize = 256;

    /// The settings of the well-known notebook: sample at temperature 0.7 from the 50 likeliest tokens and 95 % of
    /// the mass, 50 new tokens.
    #[must_use]
    pub fn notebook() -> Self {
        Self {
            max_new_tokens: Some(50),
            do_sample: Some(true),
            temperature: Some(0.7),
            top_k: Some(50),
            top_p: Some(0.95),
            ..Self::default()
        }
    }

    /// Reads the bytes of a `generation_config.json`; unknown fields are kept.
    ///
    /// A field that is `null` is `None`, as if the file did not have it, but for `bos_token_id` and `eos_token_id`: there
    /// `null` means that there is no such token. Whole numbers may be written with a fraction, as `50.0`.
    ///
    /// # Errors
    /// If the bytes are not a JSON object or a value has the wrong type. The message names the field.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        Self::from_fields(json::read(json).map_err(ConfigError::Json)?)
    }

    /// Reads the fields of such a file.
    ///
    /// # Errors
    /// If a setting cannot be what it is; the message names it.
    pub fn from_fields(mut fields: Map<String, Value>) -> Result<Self, ConfigError> {
        // A number means something else where a schema has it.
        let structure = fields.remove_entry("structured_outputs");
        let mut plain = json::with_whole_numbers(fields.clone());
        fields.extend(structure.clone());
        plain.extend(structure);
        for name in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            if plain.get(name).is_some_and(|id| *id == NO_TOKEN) {
                plain[name] = Value::Null;
            }
        }
        let mut config = serde_json::from_value::<Self>(Value::Object(plain.clone())).map_err(|error| {
            let culprit = fields.iter().find_map(|(name, found)| {
                let field = Map::from_iter([(name.clone(), plain[name].clone())]);
                let source = serde_json::from_value::<Self>(Value::Object(field)).err()?;
                Some(ConfigError::Field { field: name.clone(), found: found.to_string(), source })
            });
            culprit.unwrap_or(ConfigError::Json(error))
        })?;
        for (name, value) in &mut config.other {
            value.clone_from(&fields[name]);
        }
        Ok(config)
    }

    /// Writes what a `generation_config.json` holds: the fields that are set, and those that were kept.
    #[must_use]
    pub fn to_json(&self) -> String {
        let known = Self { other: Map::new(), ..self.clone() };
        let mut fields = match serde_json::to_value(known) {
            Ok(Value::Object(fields)) => fields,
            _ => unreachable!("a struct of plain fields is a JSON object"),
        };
        fields.retain(|_, value| !value.is_null());
        if self.bos_token_id == Some(None) {
            fields.insert("bos_token_id".to_owned(), Value::Null);
        }
        if self.eos_token_id.as_ref().is_some_and(Vec::is_empty) {
            fields.insert("eos_token_id".to_owned(), Value::Null);
        }
        fields.extend(self.other.clone());
        fields.sort_keys();
        format!("{:#}", Value::Object(fields))
    }

    /// Takes from `base` what is not set here. The two ways to limit the length are one: where either is set here,
    /// neither is taken.
    #[must_use]
    pub fn or(self, base: Self) -> Self {
        let limited = self.max_length.is_some() || self.max_new_tokens.is_some();
        let mut other = base.other;
        other.extend(self.other);
        Self {
            max_length: if limited { self.max_length } else { base.max_length },
            max_new_tokens: if limited { self.max_new_tokens } else { base.max_new_tokens },
            min_length: self.min_length.or(base.min_length),
            min_new_tokens: self.min_new_tokens.or(base.min_new_tokens),
            max_time: self.max_time.or(base.max_time),
            stop_strings: self.stop_strings.or(base.stop_strings),
            include_stop_str_in_output: self.include_stop_str_in_output.or(base.include_stop_str_in_output),
            skip_special_tokens: self.skip_special_tokens.or(base.skip_special_tokens),
            overflow: self.overflow.or(base.overflow),
            do_sample: self.do_sample.or(base.do_sample),
            num_beams: self.num_beams.or(base.num_beams),
            early_stopping: self.early_stopping.or(base.early_stopping),
            length_penalty: self.length_penalty.or(base.length_penalty),
            num_beam_groups: self.num_beam_groups.or(base.num_beam_groups),
            diversity_penalty: self.diversity_penalty.or(base.diversity_penalty),
            force_words_ids: self.force_words_ids.or(base.force_words_ids),
            prompt_lookup_num_tokens: self.prompt_lookup_num_tokens.or(base.prompt_lookup_num_tokens),
            max_matching_ngram_size: self.max_matching_ngram_size.or(base.max_matching_ngram_size),
            num_assistant_tokens: self.num_assistant_tokens.or(base.num_assistant_tokens),
            penalty_alpha: self.penalty_alpha.or(base.penalty_alpha),
            dola_layers: self.dola_layers.or(base.dola_layers),
            guidance_scale: self.guidance_scale.or(base.guidance_scale),
            token_healing: self.token_healing.or(base.token_healing),
            num_return_sequences: self.num_return_sequences.or(base.num_return_sequences),
            temperature: self.temperature.or(base.temperature),
            top_k: self.top_k.or(base.top_k),
            top_p: self.top_p.or(base.top_p),
            min_p: self.min_p.or(base.min_p),
            top_h: self.top_h.or(base.top_h),
            typical_p: self.typical_p.or(base.typical_p),
            epsilon_cutoff: self.epsilon_cutoff.or(base.epsilon_cutoff),
            eta_cutoff: self.eta_cutoff.or(base.eta_cutoff),
            repetition_penalty: self.repetition_penalty.or(base.repetition_penalty),
            encoder_repetition_penalty: self.encoder_repetition_penalty.or(base.encoder_repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.or(base.no_repeat_ngram_size),
            encoder_no_repeat_ngram_size: self
                .encoder_no_repeat_ngram_size
                .or(base.encoder_no_repeat_ngram_size),
            bad_words: self.bad_words.or(base.bad_words),
            bad_words_ids: self.bad_words_ids.or(base.bad_words_ids),
            sequence_bias: self.sequence_bias.or(base.sequence_bias),
            suppress_tokens: self.suppress_tokens.or(base.suppress_tokens),
            begin_suppress_tokens: self.begin_suppress_tokens.or(base.begin_suppress_tokens),
            forced_bos_token_id: self.forced_bos_token_id.or(base.forced_bos_token_id),
            forced_eos_token_id: self.forced_eos_token_id.or(base.forced_eos_token_id),
            exponential_decay_length_penalty: self
                .exponential_decay_length_penalty
                .or(base.exponential_decay_length_penalty),
            remove_invalid_values: self.remove_invalid_values.or(base.remove_invalid_values),
            renormalize_logits: self.renormalize_logits.or(base.renormalize_logits),
            structured_outputs: self.structured_outputs.or(base.structured_outputs),
            watermarking_config: self.watermarking_config.or(base.watermarking_config),
            frequency_penalty: self.frequency_penalty.or(base.frequency_penalty),
            presence_penalty: self.presence_penalty.or(base.presence_penalty),
            dry_multiplier: self.dry_multiplier.or(base.dry_multiplier),
            dry_base: self.dry_base.or(base.dry_base),
            dry_allowed_length: self.dry_allowed_length.or(base.dry_allowed_length),
            dry_penalty_last_n: self.dry_penalty_last_n.or(base.dry_penalty_last_n),
            dry_sequence_breakers: self.dry_sequence_breakers.or(base.dry_sequence_breakers),
            xtc_probability: self.xtc_probability.or(base.xtc_probability),
            xtc_threshold: self.xtc_threshold.or(base.xtc_threshold),
            mirostat: self.mirostat.or(base.mirostat),
            mirostat_tau: self.mirostat_tau.or(base.mirostat_tau),
            mirostat_eta: self.mirostat_eta.or(base.mirostat_eta),
            dynatemp_range: self.dynatemp_range.or(base.dynatemp_range),
            dynatemp_exponent: self.dynatemp_exponent.or(base.dynatemp_exponent),
            top_n_sigma: self.top_n_sigma.or(base.top_n_sigma),
            samplers: self.samplers.or(base.samplers),
            seed: self.seed.or(base.seed),
            rng: self.rng.or(base.rng),
            bos_token_id: self.bos_token_id.or(base.bos_token_id),
            eos_token_id: self.eos_token_id.or(base.eos_token_id),
            pad_token_id: self.pad_token_id.or(base.pad_token_id),
            other,
        }
    }

    /// Whether tokens are drawn: sampling is on and the temperature is above zero.
    #[must_use]
    pub fn samples(&self) -> bool {
        self.do_sample == Some(true) && self.temperature != Some(0.0)
    }

    /// Texts followed at the same time.
    #[must_use]
    pub fn beams(&self) -> usize {
        self.num_beams.unwrap_or(1)
    }

    /// Groups of beams, each of which avoids the tokens of those before it.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.num_beam_groups.unwrap_or(1)
    }

    /// Texts returned.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.num_return_sequences.unwrap_or(1)
    }

    /// Whether a negative prompt has a say.
    #[must_use]
    pub fn guides(&self) -> bool {
        self.guidance_scale.is_some_and(|scale| scale != 1.0)
    }

    /// Whether this is contrastive search.
    pub(super) fn contrasts(&self) -> bool {
        self.beams() == 1
            && !self.samples()
            && self.penalty_alpha.is_some_and(|alpha| alpha > 0.0)
            && self.top_k.is_some_and(|k| k > 1)
    }

    /// Tokens that a sequence ends with at most, its prompt included.
    pub(super) fn total_tokens(&self, prompt: usize) -> Result<usize, GenerateError> {
        match self.max_length {
            Some(max_length) if prompt >= max_length => Err(GenerateError::MaxLength { prompt, max_length }),
            Some(max_length) => Ok(max_length),
            None => Ok(prompt.saturating_add(self.max_new_tokens.unwrap_or(Self::DEFAULT_NEW_TOKENS))),
        }
    }
}

/// Reads a token, and `null` as none.
fn token_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads a token or a list, and `null` as none of them.
fn tokens_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u32>>, D::Error> {
    one_or_many(deserializer).map(|tokens| Some(tokens.unwrap_or_default()))
}

/// Reads a value alone or a list.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(Option::deserialize(deserializer)?.map(|value| match value {
        OneOrMany::One(value) => vec![value],
        OneOrMany::Many(values) => values,
    }))
}

/// Writes one token as transformers does: alone.
fn one_or_list<S: Serializer>(ids: &Option<Vec<u32>>, serializer: S) -> Result<S::Ok, S::Error> {
    match ids.as_deref() {
        Some([id]) => id.serialize(serializer),
        ids => ids.serialize(serializer),
    }
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::False => serializer.serialize_bool(false),
            Self::True => serializer.serialize_bool(true),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(false) => Ok(Self::False),
            Value::Bool(true) => Ok(Self::True),
            Value::String(text) if text == "never" => Ok(Self::Never),
            other => Err(D::Error::custom(format!("expected `true`, `false` or `never`, found `{other}`"))),
        }
    }
}
