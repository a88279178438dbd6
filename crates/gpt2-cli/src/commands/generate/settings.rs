//! The flags of `generate` that are fields of `GenerationConfig`.

use std::hash::{BuildHasher, Hasher, RandomState};

use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use gpt2::generate::{
    DolaHalf, DolaLayers, EarlyStopping, ForcedWords, GenerationConfig, Overflow, Rng, SamplerName,
    StructuredOutputs, Watermarking,
};
use gpt2::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};

use super::UNGUIDED;
use super::speculation::Speculation;
use super::structure::Structure;
use crate::arguments::{Seed, at_most, count, not_negative, positive, seed, share, token_id, truth};
use crate::failure::Failure;

/// What is to be generated, but for the prompt.
#[derive(clap::Args, Debug)]
pub(super) struct Settings {
    #[command(flatten)]
    length: Length,
    #[command(flatten)]
    mode: Mode,
    #[command(flatten)]
    draw: Draw,
    #[command(flatten)]
    penalties: Penalties,
    #[command(flatten)]
    structure: Structure,
    #[command(flatten)]
    constraints: Constraints,
    #[command(flatten)]
    end: End,
    #[command(flatten)]
    pub(super) speculation: Speculation,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Length")]
struct Length {
    /// Maximum number of tokens to generate [default: 50]
    #[arg(short = 'n', long, aliases = ["max-tokens", "n-predict"], value_name = "N", value_parser = positive)]
    #[arg(allow_negative_numbers = true)]
    max_new_tokens: Option<usize>,
    /// Maximum number of tokens including the prompt; cannot be combined with `--max-new-tokens`
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    max_length: Option<usize>,
    /// Minimum number of tokens to generate before an end-of-text token is allowed [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    min_new_tokens: Option<usize>,
    /// Like `--min-new-tokens`, but counts the prompt as well [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    min_length: Option<usize>,
    /// Stop generating after this many seconds [default: no limit]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_time: Option<f64>,
    /// What to do when the model's context is full [default: stop]
    #[arg(long, value_name = "WHAT", value_enum)]
    overflow: Option<OverflowName>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Decoding")]
struct Mode {
    /// Sample tokens at random (the default)
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = truth, overrides_with = "greedy")]
    do_sample: Option<bool>,
    /// Always take the most likely token
    ///
    /// With `--num-beams`, run beam search.
    #[arg(long, overrides_with = "do_sample")]
    greedy: bool,
    /// Seed of the random numbers; -1 picks one [default: -1]
    ///
    /// The same seed gives the same text on any machine.
    #[arg(short, long, value_name = "SEED", value_parser = seed, allow_negative_numbers = true)]
    seed: Option<Seed>,
    /// Random number generator; `torch` gives the text that transformers draws after `torch.manual_seed(SEED)` [default:
    /// keyed]
    #[arg(long, value_name = "RNG", value_enum)]
    rng: Option<RngName>,
    /// Number of continuations to generate [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = at_most(GenerationConfig::MOST_SEQUENCES))]
    num_return_sequences: Option<usize>,
    /// Number of beams: beam search with `--greedy`, else beam sampling; 1 disables [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = at_most(GenerationConfig::MOST_SEQUENCES))]
    num_beams: Option<usize>,
    /// When beam search stops: `true` once enough candidates have ended, `false` when no better one is likely,
    /// `never` when no better one is possible [default: false]
    #[arg(long, value_name = "WHEN", value_parser = early_stopping)]
    early_stopping: Option<EarlyStopping>,
    /// Exponent of the length by which a beam's log-probability is divided; higher values favor longer text
    /// [default: 1]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// Number of groups for diverse beam search [default: 1]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    num_beam_groups: Option<usize>,
    /// Penalty for a token that an earlier beam group chose at the same step [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    diversity_penalty: Option<f64>,
    /// Text that must occur, with beam search; `one|other` for one of several; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = one_of)]
    force_words: Vec<String>,
    /// Like `--force-words`, but token ids: `1,2` or `1,2|3`; may be repeated
    #[arg(long, value_name = "IDS", value_parser = forced_ids)]
    force_words_ids: Vec<ForcedWords>,
    /// Contrastive search over the `--top-k` most likely tokens: weight of the penalty for resembling the text
    /// so far [default: 0, off]
    #[arg(long, value_name = "ALPHA", value_parser = share, allow_negative_numbers = true)]
    penalty_alpha: Option<f64>,
    /// Contrast the last layer with earlier ones (DoLa): `low`, `high` or layer numbers like `2,4,6` [default: off]
    #[arg(long, value_name = "LAYERS", value_parser = dola_layers)]
    dola_layers: Option<DolaLayers>,
    /// Classifier-free guidance: weight of the prompt over the negative prompt; 1 disables [default: 1]
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    guidance_scale: Option<f64>,
    /// Text to steer away from, with `--guidance-scale` [default: the prompt's last token]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    negative_prompt: Option<String>,
    /// Allow the last token of the prompt to be replaced by a longer one, for prompts that end within a word
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = truth)]
    token_healing: Option<bool>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Sampling (any of these enables `--do-sample`)")]
struct Draw {
    /// Higher is more random, 0 is greedy [default: 0.7]
    ///
    /// Scores are divided by the temperature before a token is drawn.
    #[arg(long, alias = "temp", value_name = "T", value_parser = not_negative, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Use the K most likely tokens; 0 disables [default: 50]
    #[arg(short = 'k', long, value_name = "K", value_parser = count, allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Sample from the fewest tokens that together have probability P; 1 disables [default: 0.95]
    ///
    /// These are the fewest tokens whose probabilities add up to at least P.
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Drop tokens that are less than P times as likely as the most likely one; 0 disables [default: 0]
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Locally typical sampling: keep the tokens whose information content is closest to the entropy, up to
    /// probability P; 1 disables [default: 1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f64>,
    /// Keep the most likely tokens that make up this share of the entropy [default: off]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    top_h: Option<f64>,
    /// Drop tokens with a probability below P; 0 disables [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    epsilon_cutoff: Option<f64>,
    /// Like `--epsilon-cutoff`, with a lower threshold when the distribution is flat; 0 disables [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    eta_cutoff: Option<f64>,
    /// Drop tokens whose score is more than N standard deviations below the highest [default: off]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top_n_sigma: Option<f64>,
    /// Vary the temperature by up to ±RANGE, depending on the entropy; 0 disables [default: 0]
    #[arg(long, value_name = "RANGE", allow_negative_numbers = true)]
    dynatemp_range: Option<f64>,
    /// Exponent of the entropy for `--dynatemp-range` [default: 1]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true)]
    dynatemp_exponent: Option<f64>,
    /// With probability P, drop all tokens above `--xtc-threshold` except the least likely of them (XTC) [default: 0]
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    xtc_probability: Option<f64>,
    /// Probability above which XTC may drop a token [default: 0.1]
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    xtc_threshold: Option<f64>,
    /// Version of mirostat, which keeps the surprise per token constant: 1 or 2; 0 disables [default: 0]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(0..=2))]
    mirostat: Option<u8>,
    /// Target surprise of mirostat, in bits per token [default: 5]
    #[arg(long, value_name = "BITS", allow_negative_numbers = true)]
    mirostat_tau: Option<f64>,
    /// Learning rate of mirostat [default: 0.1]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    mirostat_eta: Option<f64>,
    /// Use only these samplers, in this order, separated by `,` or `;` [default: all, in the order of transformers]
    #[arg(long, value_name = "NAMES", value_delimiter = ';', value_parser = samplers)]
    samplers: Option<Vec<Samplers>>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Repetition")]
struct Penalties {
    /// Penalty for tokens that occurred before, above 1 [default: 1]
    ///
    /// The scores of tokens of the prompt and of the text so far are divided by X, or multiplied if they are negative.
    #[arg(long, alias = "repeat-penalty", value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f64>,
    /// Bonus for tokens of the prompt; above 1 encourages them [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    encoder_repetition_penalty: Option<f64>,
    /// Subtract X from the score of a token for each time it was generated [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f64>,
    /// Subtract X from the score of every token that was generated [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f64>,
    /// Never repeat a sequence of N tokens; 0 disables [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    no_repeat_ngram_size: Option<usize>,
    /// Never repeat a sequence of N tokens of the prompt; 0 disables [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    encoder_no_repeat_ngram_size: Option<usize>,
    /// Strength of the DRY penalty for tokens that would continue a repetition; 0 disables [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_multiplier: Option<f64>,
    /// Base of the DRY penalty: it grows by this factor per repeated token [default: 1.75]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_base: Option<f64>,
    /// Longest repetition, in tokens, that DRY leaves unpenalized [default: 2]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    dry_allowed_length: Option<usize>,
    /// Number of recent tokens that DRY searches for repetitions [default: all]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    dry_penalty_last_n: Option<usize>,
    /// Text that ends a repetition for DRY; may be repeated [default: newline, `:`, `"` and `*`]
    #[arg(long, value_name = "TEXT", value_parser = escaped, allow_hyphen_values = true)]
    dry_sequence_breakers: Vec<String>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Constraints")]
struct Constraints {
    /// Text that must not occur, except within a longer word of one token; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    bad_words: Vec<String>,
    /// Token ids that must not occur in this order: `1,2`; may be repeated
    #[arg(long, value_name = "IDS", value_parser = ids)]
    bad_words_ids: Vec<Ids>,
    /// Add X to a token's score when it would complete this sequence of ids: `1,2=-3.5`; may be repeated
    #[arg(long, value_name = "IDS=X", value_parser = bias)]
    sequence_bias: Vec<(Ids, f64)>,
    /// Token ids that are never generated, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    suppress_tokens: Option<Vec<u32>>,
    /// Token ids that are not generated as the first token, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    begin_suppress_tokens: Option<Vec<u32>>,
    /// Token id to generate first, after a prompt of a single token
    #[arg(long, value_name = "ID", value_parser = token_id)]
    forced_bos_token_id: Option<u32>,
    /// Token ids, one of which is generated last when `--max-length` is reached
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    forced_eos_token_id: Option<Vec<u32>>,
    /// Make end-of-text tokens more likely from the Nth new token on, exponentially by FACTOR
    #[arg(long, value_name = "N,FACTOR", value_parser = decay)]
    exponential_decay_length_penalty: Option<(usize, f64)>,
    /// Replace NaN and infinite scores instead of failing
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = truth)]
    remove_invalid_values: Option<bool>,
    /// Renormalize the processed scores to log-probabilities
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = truth)]
    renormalize_logits: Option<bool>,
    /// Add a detectable watermark; its parameters as JSON, or `{}` for the defaults [default: off]
    #[arg(long, value_name = "JSON", value_parser = watermarking)]
    watermarking_config: Option<Watermarking>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Stopping")]
struct End {
    /// Stop before this text; may be repeated
    ///
    /// `\n` is a newline, `\t` a tab, `\\` a backslash.
    #[arg(long, alias = "stop-strings", value_name = "TEXT", value_parser = escaped, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// End with the stop string instead of before it
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = truth)]
    include_stop_str_in_output: Option<bool>,
    /// Leave special tokens out of the text; stop strings match them either way [default: true]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = truth)]
    skip_special_tokens: Option<bool>,
    /// Token ids that end the text, separated by commas [default: the model's]
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    #[arg(allow_negative_numbers = true, conflicts_with = "ignore_eos")]
    eos_token_id: Option<Vec<u32>>,
    /// Do not stop at end-of-text tokens
    #[arg(long)]
    ignore_eos: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverflowName {
    /// Fail if the requested length does not fit
    Error,
    /// End the text
    Stop,
    /// Drop the first half of the context and continue
    Slide,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RngName {
    /// The same random numbers on any machine and in any batch
    Keyed,
    /// Those of PyTorch on the CPU
    Torch,
}

/// Token ids of one flag: a type of its own, for clap takes a `Vec` for several flags.
type Ids = Box<[u32]>;
/// Samplers between two semicolons.
type Samplers = Box<[SamplerName]>;

impl Settings {
    /// What the flags set, as far as that can be said without a tokenizer and without files.
    pub(super) fn given(&self) -> GenerationConfig {
        let Self { length, mode, draw, penalties, constraints, end, speculation, .. } = self;
        GenerationConfig {
            max_length: length.max_length,
            max_new_tokens: length.max_new_tokens,
            min_length: length.min_length,
            min_new_tokens: length.min_new_tokens,
            max_time: length.max_time,
            overflow: length.overflow.map(|overflow| match overflow {
                OverflowName::Error => Overflow::Error,
                OverflowName::Stop => Overflow::Stop,
                OverflowName::Slide => Overflow::Slide,
            }),
            do_sample: self.do_sample(),
            seed: mode.seed.and_then(|seed| match seed {
                Seed::Fixed(seed) => Some(seed),
                Seed::Any => None,
            }),
            rng: mode.rng.map(|rng| match rng {
                RngName::Keyed => Rng::Keyed,
                RngName::Torch => Rng::Torch,
            }),
            num_return_sequences: mode.num_return_sequences,
            num_beams: mode.num_beams,
            early_stopping: mode.early_stopping,
            length_penalty: mode.length_penalty,
            num_beam_groups: mode.num_beam_groups,
            diversity_penalty: mode.diversity_penalty,
            force_words_ids: some(&mode.force_words_ids),
            penalty_alpha: mode.penalty_alpha,
            dola_layers: mode.dola_layers.clone(),
            guidance_scale: mode.guidance_scale,
            token_healing: mode.token_healing,
            temperature: draw.temperature,
            top_k: draw.top_k,
            top_p: draw.top_p,
            min_p: draw.min_p,
            typical_p: draw.typical_p,
            top_h: draw.top_h,
            epsilon_cutoff: draw.epsilon_cutoff,
            eta_cutoff: draw.eta_cutoff,
            top_n_sigma: draw.top_n_sigma,
            dynatemp_range: draw.dynatemp_range,
            dynatemp_exponent: draw.dynatemp_exponent,
            xtc_probability: draw.xtc_probability,
            xtc_threshold: draw.xtc_threshold,
            mirostat: draw.mirostat,
            mirostat_tau: draw.mirostat_tau,
            mirostat_eta: draw.mirostat_eta,
            samplers: draw.samplers.as_ref().map(|parts| parts.iter().flatten().copied().collect()),
            repetition_penalty: penalties.repetition_penalty,
            encoder_repetition_penalty: penalties.encoder_repetition_penalty,
            frequency_penalty: penalties.frequency_penalty,
            presence_penalty: penalties.presence_penalty,
            no_repeat_ngram_size: penalties.no_repeat_ngram_size,
            encoder_no_repeat_ngram_size: penalties.encoder_no_repeat_ngram_size,
            dry_multiplier: penalties.dry_multiplier,
            dry_base: penalties.dry_base,
            dry_allowed_length: penalties.dry_allowed_length,
            dry_penalty_last_n: penalties.dry_penalty_last_n,
            dry_sequence_breakers: some(&penalties.dry_sequence_breakers),
            bad_words: some(&constraints.bad_words),
            bad_words_ids: some(
                &constraints.bad_words_ids.iter().map(|ids| ids.to_vec()).collect::<Vec<_>>(),
            ),
            sequence_bias: some(
                &constraints.sequence_bias.iter().map(|(ids, x)| (ids.to_vec(), *x)).collect::<Vec<_>>(),
            ),
            suppress_tokens: constraints.suppress_tokens.clone(),
            begin_suppress_tokens: constraints.begin_suppress_tokens.clone(),
            forced_bos_token_id: constraints.forced_bos_token_id,
            forced_eos_token_id: constraints.forced_eos_token_id.clone(),
            exponential_decay_length_penalty: constraints.exponential_decay_length_penalty,
            remove_invalid_values: constraints.remove_invalid_values,
            renormalize_logits: constraints.renormalize_logits,
            watermarking_config: constraints.watermarking_config,
            structured_outputs: None,
            stop_strings: some(&end.stop),
            include_stop_str_in_output: end.include_stop_str_in_output,
            skip_special_tokens: end.skip_special_tokens,
            eos_token_id: if end.ignore_eos { Some(Vec::new()) } else { end.eos_token_id.clone() },
            ..speculation.given()
        }
    }

    /// What the continuation must match, which files may have to be read for.
    pub(super) fn structure(&self) -> Result<Option<StructuredOutputs>, Failure> {
        self.structure.read()
    }

    /// Whether the flags ask for sampling: those that say so, and those that mean nothing with or without it.
    fn do_sample(&self) -> Option<bool> {
        let Self { mode, draw, .. } = self;
        let contrastive = mode.penalty_alpha.is_some_and(|alpha| alpha > 0.0);
        let numbers = [
            draw.temperature,
            draw.top_p,
            draw.min_p,
            draw.typical_p,
            draw.top_h,
            draw.epsilon_cutoff,
            draw.eta_cutoff,
            draw.top_n_sigma,
            draw.dynatemp_range,
            draw.xtc_probability,
        ];
        let asks = numbers.iter().any(Option::is_some)
            || draw.top_k.is_some() && !contrastive
            || draw.mirostat.is_some_and(|version| version > 0)
            || draw.samplers.is_some();
        let excludes = contrastive
            || mode.num_beam_groups.is_some_and(|groups| groups > 1)
            || !mode.force_words.is_empty()
            || !mode.force_words_ids.is_empty();
        let greedy = mode.greedy || mode.do_sample == Some(false);
        match (greedy, mode.do_sample == Some(true) || asks, excludes) {
            (true, ..) | (false, false, true) => Some(false),
            (false, true, _) => Some(true),
            (false, false, false) => None,
        }
    }

    /// Joins what is set, with a file and the model's own settings behind the flags, and the defaults last.
    pub(super) fn config(&self, file: GenerationConfig) -> GenerationConfig {
        let mut config = self.given().or(file);
        self.speculation.complete(&mut config);
        // A file may ask for a mode that samples nothing, as a flag may.
        if excludes_sampling(&config) {
            config.do_sample.get_or_insert(false);
        }
        let mut config = config.or(GenerationConfig::notebook());
        config.num_return_sequences.get_or_insert(1);
        if self.mode.seed == Some(Seed::Any) {
            config.seed = None;
        }
        config.seed.get_or_insert_with(any_seed);
        config
    }

    /// Adds the settings that are texts and become tokens.
    pub(super) fn add_words(
        &self,
        config: &mut GenerationConfig,
        tokenizer: &Tokenizer,
    ) -> Result<(), TokenizerError> {
        let both = |text: &str| -> Result<Vec<Vec<u32>>, TokenizerError> {
            let mut phrases = vec![tokenizer.encode_part(text, SpecialTokens::Parse)?];
            if !text.starts_with(char::is_whitespace) {
                phrases.push(tokenizer.encode_part(&format!(" {text}"), SpecialTokens::Parse)?);
            }
            Ok(phrases)
        };
        for text in &self.mode.force_words {
            let mut phrases = text.split('|').map(both).collect::<Result<Vec<_>, _>>()?.concat();
            // Where one begins with another, that other occurs with it: a search takes the shorter one only.
            phrases.sort_unstable_by_key(Vec::len);
            let mut shortest: Vec<Vec<u32>> = Vec::with_capacity(phrases.len());
            for phrase in phrases {
                if !shortest.iter().any(|other| phrase.starts_with(other)) {
                    shortest.push(phrase);
                }
            }
            let phrases = shortest;
            config.force_words_ids.get_or_insert_default().push(ForcedWords::OneOf(phrases));
        }
        Ok(())
    }

    /// The texts that must occur, which become tokens.
    pub(super) fn force_words(&self) -> &[String] {
        &self.mode.force_words
    }

    /// Flags with texts that change nothing, and why; they are not part of the settings yet.
    pub(super) fn idle_words(
        &self,
        config: &GenerationConfig,
    ) -> impl Iterator<Item = (&'static str, &'static str)> {
        let words = !self.mode.force_words.is_empty() && config.beams() == 1;
        let negative = self.mode.negative_prompt.is_some() && !config.guides();
        let words = words.then_some(("--force-words", "it takes several beams (`num_beams`)"));
        words.into_iter().chain(negative.then_some(("--negative-prompt", UNGUIDED)))
    }

    /// What the text is to stay away from.
    pub(super) fn negative_prompt(&self) -> Option<&str> {
        self.mode.negative_prompt.as_deref()
    }
}

/// Whether settings ask for a mode of decoding that samples nothing.
fn excludes_sampling(config: &GenerationConfig) -> bool {
    config.penalty_alpha.is_some_and(|alpha| alpha > 0.0)
        || config.groups() > 1
        || config.force_words_ids.is_some()
}

/// A seed that is another one every time, short enough to be typed again.
fn any_seed() -> u64 {
    // The standard library keys its hash maps at random; this is where that randomness can be had.
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

/// What several flags gave, if there was one.
fn some<T: Clone>(values: &[T]) -> Option<Vec<T>> {
    (!values.is_empty()).then(|| values.to_vec())
}

/// Replaces the escapes that shells make hard to type.
fn escaped(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("expected at least one character".to_owned());
    }
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, characters.as_str().chars().next()) {
            ('\\', Some(escape @ ('n' | 't' | '\\'))) => {
                characters.next();
                result.push(match escape {
                    'n' => '\n',
                    't' => '\t',
                    _ => '\\',
                });
            }
            _ => result.push(c),
        }
    }
    Ok(result)
}

fn early_stopping(text: &str) -> Result<EarlyStopping, String> {
    match text {
        "true" | "True" => Ok(EarlyStopping::True),
        "false" | "False" => Ok(EarlyStopping::False),
        "never" => Ok(EarlyStopping::Never),
        _ => Err("expected `true`, `false` or `never`".to_owned()),
    }
}

fn ids(text: &str) -> Result<Ids, String> {
    text.split(',').map(token_id).collect()
}

fn one_of(text: &str) -> Result<String, String> {
    if text.split('|').any(str::is_empty) {
        return Err("expected a text, or several with `|` between".to_owned());
    }
    Ok(text.to_owned())
}

fn forced_ids(text: &str) -> Result<ForcedWords, String> {
    let mut phrases: Vec<Vec<u32>> =
        text.split('|').map(|phrase| ids(phrase).map(Vec::from)).collect::<Result<_, _>>()?;
    Ok(if phrases.len() == 1 { ForcedWords::Phrase(phrases.remove(0)) } else { ForcedWords::OneOf(phrases) })
}

fn bias(text: &str) -> Result<(Ids, f64), String> {
    let wrong = || "expected token ids and a number: `1,2=-3.5`".to_owned();
    let (tokens, bias) = text.split_once('=').ok_or_else(wrong)?;
    Ok((ids(tokens)?, bias.parse().map_err(|_| wrong())?))
}

fn decay(text: &str) -> Result<(usize, f64), String> {
    let parts =
        text.split_once(',').and_then(|(start, factor)| Some((start.parse().ok()?, factor.parse().ok()?)));
    parts.ok_or_else(|| "expected a number of tokens and a factor: `20,1.1`".to_owned())
}

fn dola_layers(text: &str) -> Result<DolaLayers, String> {
    match text {
        "low" => Ok(DolaLayers::Half(DolaHalf::Low)),
        "high" => Ok(DolaLayers::Half(DolaHalf::High)),
        _ => {
            let layers = text.split(',').map(|layer| layer.trim().parse()).collect::<Result<_, _>>();
            layers
                .map(DolaLayers::Layers)
                .map_err(|_| "expected `low`, `high` or numbers of layers".to_owned())
        }
    }
}

fn samplers(text: &str) -> Result<Samplers, String> {
    text.split(',')
        .map(|name| {
            let name = name.trim().replace('-', "_");
            serde_json::from_value(name.into()).map_err(|_| {
                "expected names among penalties, dry, top_n_sigma, temperature, top_h, top_k, typ_p, top_p, min_p, \
                 epsilon_cutoff, eta_cutoff, xtc"
                    .to_owned()
            })
        })
        .collect()
}

fn watermarking(text: &str) -> Result<Watermarking, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_escapes() {
        for (given, expected) in [(r"\n", "\n"), (r"a\tb\\n", "a\tb\\n"), (r"\x", r"\x"), ("\\", "\\")] {
            assert_eq!(escaped(given).unwrap(), expected);
        }
        assert!(escaped("").is_err());
    }
}
