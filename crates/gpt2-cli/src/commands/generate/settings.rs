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
use crate::arguments::{at_most, count, not_negative, positive, seed, share, token_id};
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
    /// Tokens to generate at most [default: 50]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    max_new_tokens: Option<usize>,
    /// Tokens of prompt and continuation together at most, instead
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    max_length: Option<usize>,
    /// New tokens before which no end token is chosen [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    min_new_tokens: Option<usize>,
    /// The same for prompt and continuation together [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    min_length: Option<usize>,
    /// Seconds after which no further token is begun
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_time: Option<f64>,
    /// What happens when the model's context is full [default: stop]
    #[arg(long, value_name = "WHAT", value_enum)]
    overflow: Option<OverflowName>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Mode")]
struct Mode {
    /// Draw tokens at random: the default
    #[arg(long, overrides_with = "greedy")]
    do_sample: bool,
    /// Take the likeliest token every time; with several beams: search for the likeliest text
    #[arg(long, overrides_with = "do_sample")]
    greedy: bool,
    /// The same seed gives the same text, on any machine [default: another one every time]
    #[arg(long, value_name = "SEED", value_parser = seed, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Where random numbers come from; `torch` gives the text of `torch.manual_seed(SEED)` [default: keyed]
    #[arg(long, value_name = "RNG", value_enum)]
    rng: Option<RngName>,
    /// Continuations to return
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    #[arg(value_parser = at_most(GenerationConfig::MOST_SEQUENCES))]
    num_return_sequences: usize,
    /// Texts to follow at the same time, for the likeliest as a whole [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = at_most(GenerationConfig::MOST_SEQUENCES))]
    num_beams: Option<usize>,
    /// When beam search ends: `true`, `false` or `never` [default: false]
    #[arg(long, value_name = "WHEN", value_parser = early_stopping)]
    early_stopping: Option<EarlyStopping>,
    /// The power of its length that a beam's log-probability is divided by [default: 1]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// Groups of beams that are to differ from each other [default: 1]
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    num_beam_groups: Option<usize>,
    /// How much they are to differ [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    diversity_penalty: Option<f64>,
    /// A text that must occur, with beams; `one|other` for one of several; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = one_of)]
    force_words: Vec<String>,
    /// The same as token ids: `1,2` or `1,2|3`
    #[arg(long, value_name = "IDS", value_parser = forced_ids)]
    force_words_ids: Vec<ForcedWords>,
    /// Contrastive search among the `--top-k` likeliest: the weight of the penalty for what resembles the text so far
    #[arg(long, value_name = "ALPHA", value_parser = share, allow_negative_numbers = true)]
    penalty_alpha: Option<f64>,
    /// Hold the last layer against others: `low`, `high`, or their numbers (DoLa)
    #[arg(long, value_name = "LAYERS", value_parser = dola_layers)]
    dola_layers: Option<DolaLayers>,
    /// Weight of the prompt over the negative prompt, above 1 (classifier-free guidance)
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    guidance_scale: Option<f64>,
    /// What the text is to stay away from, for `--guidance-scale` [default: the prompt's last token]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    negative_prompt: Option<String>,
    /// Let the prompt's last token be replaced by a longer one
    #[arg(long)]
    token_healing: bool,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Which tokens to draw from (each of these turns sampling on)")]
struct Draw {
    /// Below 1 likely tokens get likelier, above 1 less so; 0 is greedy [default: 0.7]
    #[arg(long, value_name = "T", value_parser = not_negative, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// The K likeliest tokens only; 0 is off [default: 50]
    #[arg(long, value_name = "K", value_parser = count, allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// The likeliest tokens that together have the probability P; 1 is off [default: 0.95]
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Tokens of about the expected information that together have the probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f64>,
    /// The likeliest tokens that have that share of the entropy
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    top_h: Option<f64>,
    /// Tokens at least this likely
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    epsilon_cutoff: Option<f64>,
    /// Tokens at least this likely, or less where much is possible
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    eta_cutoff: Option<f64>,
    /// Tokens at most N standard deviations of the scores below the highest
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top_n_sigma: Option<f64>,
    /// Vary the temperature by so much with the entropy
    #[arg(long, value_name = "RANGE", allow_negative_numbers = true)]
    dynatemp_range: Option<f64>,
    /// The power of the entropy it varies with [default: 1]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true)]
    dynatemp_exponent: Option<f64>,
    /// With this probability leave out all but the least likely of the likely tokens (XTC)
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    xtc_probability: Option<f64>,
    /// How likely a likely token is, there [default: 0.1]
    #[arg(long, value_name = "P", value_parser = share, allow_negative_numbers = true)]
    xtc_threshold: Option<f64>,
    /// Version 1 or 2 of mirostat, which keeps the surprise even
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(0..=2))]
    mirostat: Option<u8>,
    /// The surprise that mirostat aims at, in bits [default: 5]
    #[arg(long, value_name = "BITS", allow_negative_numbers = true)]
    mirostat_tau: Option<f64>,
    /// How fast mirostat learns [default: 0.1]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    mirostat_eta: Option<f64>,
    /// These samplers alone and in this order, with `,` or `;` between [default: all, in transformers' order]
    #[arg(long, value_name = "NAMES", value_delimiter = ';', value_parser = samplers)]
    samplers: Option<Vec<Samplers>>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Against repetition")]
struct Penalties {
    /// Divide the scores of tokens that occurred, above 1 [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f64>,
    /// Raise the scores of the prompt's tokens, above 1 [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    encoder_repetition_penalty: Option<f64>,
    /// Lower the score of a token by X for every time it occurred [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f64>,
    /// Lower the score of a token by X if it occurred [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f64>,
    /// No phrase of N tokens twice; 0 is off [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    no_repeat_ngram_size: Option<usize>,
    /// No phrase of N tokens that the prompt has; 0 is off [default: 0]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    encoder_no_repeat_ngram_size: Option<usize>,
    /// Strength of the penalty for going on as a repetition would (DRY) [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_multiplier: Option<f64>,
    /// By how much each further token multiplies it [default: 1.75]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_base: Option<f64>,
    /// Length of repetitions without it [default: 2]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    dry_allowed_length: Option<usize>,
    /// Number of last tokens in which to look [default: all]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    dry_penalty_last_n: Option<usize>,
    /// A text that no repetition reaches across; may be repeated [default: new line, `:`, `"` and `*`]
    #[arg(long, value_name = "TEXT", value_parser = escaped, allow_hyphen_values = true)]
    dry_sequence_breakers: Vec<String>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "What may and must occur")]
struct Constraints {
    /// A text that may not occur, with or without a space before it; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    bad_words: Vec<String>,
    /// The same as token ids: `1,2`; may be repeated
    #[arg(long, value_name = "IDS", value_parser = ids)]
    bad_words_ids: Vec<Ids>,
    /// What is added to the score of the last of some tokens: `1,2=-3.5`; may be repeated
    #[arg(long, value_name = "IDS=X", value_parser = bias)]
    sequence_bias: Vec<(Ids, f64)>,
    /// Tokens never to choose
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    suppress_tokens: Option<Vec<u32>>,
    /// Tokens not to choose first
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    begin_suppress_tokens: Option<Vec<u32>>,
    /// The first token, behind a prompt of one token
    #[arg(long, value_name = "ID", value_parser = token_id)]
    forced_bos_token_id: Option<u32>,
    /// The last token, at `--max-length`; one of these
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    forced_eos_token_id: Option<Vec<u32>>,
    /// Make end tokens likelier from the Nth new token on, by a factor for each: `N,FACTOR`
    #[arg(long, value_name = "N,FACTOR", value_parser = decay)]
    exponential_decay_length_penalty: Option<(usize, f64)>,
    /// Make numbers of scores that are none, instead of failing
    #[arg(long)]
    remove_invalid_values: bool,
    /// Make log-probabilities of processed scores
    #[arg(long)]
    renormalize_logits: bool,
    /// Leave a pattern by which the text can be recognised: its fields as JSON, or `{}`
    #[arg(long, value_name = "JSON", value_parser = watermarking)]
    watermarking_config: Option<Watermarking>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "End")]
struct End {
    /// End before this text; `\n` is a new line, `\t` a tab, `\\` a backslash; may be repeated
    #[arg(long, alias = "stop-strings", value_name = "TEXT", value_parser = escaped, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Keep that text
    #[arg(long, requires = "stop")]
    include_stop_str_in_output: bool,
    /// Tokens that end a continuation, with commas between [default: the model's]
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = token_id)]
    #[arg(allow_negative_numbers = true, conflicts_with = "ignore_eos")]
    eos_token_id: Option<Vec<u32>>,
    /// Go on past end-of-text tokens
    #[arg(long)]
    ignore_eos: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverflowName {
    /// Refuse a length that could not fit
    Error,
    /// End the text
    Stop,
    /// Forget the first half of the context, and go on
    Slide,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RngName {
    Keyed,
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
        let given = |flag: bool| flag.then_some(true);
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
            seed: mode.seed,
            rng: mode.rng.map(|rng| match rng {
                RngName::Keyed => Rng::Keyed,
                RngName::Torch => Rng::Torch,
            }),
            num_return_sequences: Some(mode.num_return_sequences),
            num_beams: mode.num_beams,
            early_stopping: mode.early_stopping,
            length_penalty: mode.length_penalty,
            num_beam_groups: mode.num_beam_groups,
            diversity_penalty: mode.diversity_penalty,
            force_words_ids: some(&mode.force_words_ids),
            penalty_alpha: mode.penalty_alpha,
            dola_layers: mode.dola_layers.clone(),
            guidance_scale: mode.guidance_scale,
            token_healing: given(mode.token_healing),
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
            remove_invalid_values: given(constraints.remove_invalid_values),
            renormalize_logits: given(constraints.renormalize_logits),
            watermarking_config: constraints.watermarking_config,
            structured_outputs: None,
            stop_strings: some(&end.stop),
            include_stop_str_in_output: given(end.include_stop_str_in_output),
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
        match (mode.greedy, mode.do_sample || asks, excludes) {
            (true, ..) | (false, false, true) => Some(false),
            (false, true, _) => Some(true),
            (false, false, false) => None,
        }
    }

    /// Joins what is set, with a file and the model's own settings behind the flags, and the defaults last.
    pub(super) fn config(&self, file: GenerationConfig) -> GenerationConfig {
        let mut config = self.given().or(file).or(GenerationConfig::notebook());
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
            let mut phrases = vec![tokenizer.encode(text, SpecialTokens::Parse)?];
            if !text.starts_with(char::is_whitespace) {
                phrases.push(tokenizer.encode(&format!(" {text}"), SpecialTokens::Parse)?);
            }
            Ok(phrases)
        };
        for text in &self.constraints.bad_words {
            config.bad_words_ids.get_or_insert_default().extend(both(text)?);
        }
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

    /// The texts that become tokens: those that must not occur, and those that must.
    pub(super) fn words(&self) -> (&[String], &[String]) {
        (&self.constraints.bad_words, &self.mode.force_words)
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
        "true" => Ok(EarlyStopping::True),
        "false" => Ok(EarlyStopping::False),
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
