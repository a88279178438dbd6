//! `gpt2 generate`: continue a text.

mod batch;
mod output;
mod record;
mod settings;
mod speculation;
mod structure;
mod summary;
mod trace;

use std::path::Path;

use gpt2::generate::{DetailsRequest, GenerateError, GenerationConfig};
use gpt2::tokenizer::SpecialText;

use self::batch::BatchArguments;
use self::output::Shown;
use self::record::Inputs;
use self::settings::Settings;
use super::Format;
use crate::arguments::{Options, count};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::model::ModelFiles;
use crate::prompt::{TextArguments, read_file};
use crate::terminal::Terminal;

/// Continue a text.
///
/// The prompt and its continuation appear on standard output as the model writes them. Several continuations are
/// separated by an empty line. An empty prompt stands for the beginning-of-text token.
///
/// Flags are named as the fields of transformers' `GenerationConfig`. Flags come first, then `--generation-config`,
/// then the model's `generation_config.json` (or its `config.json` if it has none), then the defaults shown.
/// docs/generation.md explains each setting with an example.
#[derive(clap::Args, Debug)]
#[command(mut_arg("text", |text| text.value_name("PROMPT|-")))]
pub(crate) struct Arguments {
    #[command(flatten)]
    prompt: TextArguments,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    batch: BatchArguments,
    #[command(flatten)]
    files: Files,
    /// Print only the continuation, not the prompt
    #[arg(long, help_heading = "Output")]
    no_prompt: bool,
    #[command(flatten)]
    format: Format,
    /// Report each token's rank, the entropy, and the N most likely alternatives
    #[arg(long, help_heading = "Output", value_name = "N", value_parser = count, allow_negative_numbers = true)]
    logprobs: Option<usize>,
    /// Like `--logprobs`, for the tokens of the prompt
    #[arg(long, help_heading = "Output", value_name = "N", value_parser = count, allow_negative_numbers = true)]
    prompt_logprobs: Option<usize>,
    /// Show for each token how each step changed the candidates, and which random number decided
    #[arg(long, help_heading = "Output")]
    trace: bool,
    /// With `--json`, also print a line for each token as soon as it is final
    #[arg(long, help_heading = "Output", requires = "json")]
    stream: bool,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Settings files")]
struct Files {
    /// Read settings from a file in the format of `generation_config.json`; flags override it
    #[arg(long, value_name = "FILE")]
    generation_config: Option<String>,
    /// Print the effective settings as a `generation_config.json` and exit
    #[arg(long)]
    print_config: bool,
    /// Fail if a setting has no effect, instead of printing a note
    #[arg(long)]
    strict: bool,
}

/// Why a negative prompt changes nothing.
const UNGUIDED: &str = "it takes a `guidance_scale` other than 1";

/// What is said of a prompt that ends in a space.
const ENDS_IN_SPACE: &str = "the prompt ends with a space, but GPT-2's tokens include the space before a word: \
                             remove it, or use `--token-healing`";

/// Whether a prompt ends in a space that the continuation would have begun with. What must match something begins as that
/// does.
fn ends_in_space(prompt: &str, config: &GenerationConfig) -> bool {
    prompt.ends_with(' ') && config.token_healing != Some(true) && config.structured_outputs.is_none()
}

/// Generates and shows the continuations.
pub(crate) fn run(arguments: &Arguments, options: &Options, terminal: &mut Terminal) -> Result<(), Failure> {
    let Arguments { settings, files: Files { print_config, .. }, batch, .. } = arguments;
    batch.check()?;
    let single = batch.single().filter(|_| !arguments.format.json);
    if batch.asked() && single.is_none() && !print_config {
        return batch::run(arguments, options, terminal);
    }
    let prompt = match single {
        _ if *print_config => String::new(),
        Some(prompt) => prompt.to_owned(),
        None => arguments.prompt.read_prompt(terminal)?,
    };
    let files = ModelFiles::find(options, terminal)?;
    let structured_outputs = settings.structure()?;
    let given = GenerationConfig { structured_outputs, ..settings.given() };
    let file = arguments.files.read()?.or(files.generation_config()?);
    let seeded = given.seed.or(file.seed).is_some();
    let mut config = settings.config(file);
    config.structured_outputs = given.structured_outputs.clone().or(config.structured_outputs);
    config.check().map_err(|error| blame(error, &given))?;
    settings.speculation.check(&config)?;
    if *print_config {
        // A seed that nobody gave is another one every time, and what a model's file has besides is about its making.
        config.seed = config.seed.filter(|_| seeded);
        config.other.clear();
        return Ok(terminal.output.text(&(config.to_json() + "\n"), anstyle::Style::new())?);
    }
    arguments.say_what_is_idle(&config, options, terminal)?;
    if ends_in_space(&prompt, &config) {
        terminal.note(ENDS_IN_SPACE);
    }

    let loaded = files.load(options, terminal)?;
    let assistant = settings.speculation.assistant(&files, &loaded, options, terminal)?;
    let special = arguments.prompt.special();
    settings.add_words(&mut config, &loaded.tokenizer)?;
    let ids = loaded.tokenizer.encode(&prompt, special)?;
    let beams = config.beams();
    let mut request = loaded.model.generate(&ids).tokenizer(&loaded.tokenizer).config(config);
    if let Some(text) = settings.negative_prompt() {
        request = request.negative_prompt(&loaded.tokenizer.encode(text, special)?);
    }
    if let Some(assistant) = &assistant {
        request = request.assistant(assistant);
    }
    if beams > 1 {
        // A search has texts of its own only when it has ended.
        request = request.stopping_criterion(|_| Interrupts::requested());
    }
    if arguments.logprobs.is_some() || arguments.trace {
        let alternatives = arguments.logprobs.unwrap_or(0);
        request = request.details(DetailsRequest { alternatives, trace: arguments.trace });
    }
    let texts = request.text().map_err(|error| blame(error, &given))?;
    let generation = texts.generation();
    // A prompt that was healed is another one.
    let healed = match generation.config().token_healing {
        Some(true) => Some(loaded.tokenizer.decode(generation.prompt(), SpecialText::Keep)?),
        _ => None,
    };
    let details =
        arguments.prompt_logprobs.map(|alternatives| generation.prompt_details(alternatives)).transpose()?;
    let given_prompt = healed.is_some().then_some(prompt.as_str());
    let inputs = Inputs { given_prompt, ..Inputs::new(arguments) };
    let prompt = healed.as_ref().unwrap_or(&prompt);
    let shown = Shown { prompt, details: details.as_deref(), loaded: &loaded, inputs };
    if arguments.format.json {
        output::json(texts, &shown, arguments.stream, terminal)
    } else {
        output::text(texts, &shown, arguments, terminal)
    }
}

impl Arguments {
    /// Names the flags that change nothing beside these settings; with `--strict` the first is an error.
    fn say_what_is_idle(
        &self,
        config: &GenerationConfig,
        options: &Options,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        let given = self.settings.given();
        let idle = config.without_effect().into_iter().filter(|idle| sets(&given, idle.setting));
        let idle = idle.map(|idle| (flag(idle.setting), idle.reason));
        let others = self.settings.idle_words(config).chain(self.settings.speculation.idle(options));
        let mut idle = idle.chain(others.map(|(flag, reason)| (flag.to_owned(), reason)));
        idle.try_for_each(|(flag, reason)| self.say_idle(&flag, reason, terminal))
    }

    /// Says that a setting changes nothing, and why; with `--strict` that is an error.
    fn say_idle(&self, name: &str, reason: &str, terminal: &Terminal) -> Result<(), Failure> {
        let message = format!("`{name}` has no effect: {reason}");
        if self.files.strict {
            return Err(Failure::usage(message));
        }
        terminal.note(&message);
        Ok(())
    }
}

impl Files {
    /// The settings of the file that was named.
    fn read(&self) -> Result<GenerationConfig, Failure> {
        let Some(path) = &self.generation_config else { return Ok(GenerationConfig::default()) };
        GenerationConfig::from_json(read_file(Path::new(path))?.as_bytes())
            .map_err(|error| Failure::caused(format!("cannot use `{path}`"), error))
    }
}

/// Says where a setting that cannot be came from.
fn blame(error: GenerateError, given: &GenerationConfig) -> Failure {
    match error {
        GenerateError::Setting { setting, .. } if sets(given, setting) => Failure::usage(error.to_string()),
        GenerateError::Structure { kind, ref message } if sets(given, "structured_outputs") => {
            Failure::usage(format!("`{}` cannot be used: {message}", structure::flag(kind)))
        }
        GenerateError::Setting { .. } => Failure::new(error).hint(
            "it was set in the model's `generation_config.json`, or else its `config.json`, or in the file that was \
             named; the flag of the same name overrides it",
        ),
        GenerateError::Contradiction(one, other) if sets(given, one) || sets(given, other) => {
            let name = |setting: &str| match &given.structured_outputs {
                Some(outputs) if setting == "structured_outputs" => structure::flag(outputs.name()),
                _ if sets(given, setting) => flag(setting),
                _ => setting.to_owned(),
            };
            Failure::usage(format!("`{}` cannot be combined with `{}`", name(one), name(other)))
        }
        _ => error.into(),
    }
}

/// Whether a setting is set.
fn sets(config: &GenerationConfig, setting: &str) -> bool {
    serde_json::to_value(config).is_ok_and(|fields| fields.get(setting).is_some_and(|value| !value.is_null()))
}

/// The name of a setting's flag.
fn flag(setting: &str) -> String {
    format!("--{}", setting.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Map, Value};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn config(line: &[&str], model: &str) -> GenerationConfig {
        let line = Line::try_parse_from([&["generate", "hi", "--seed", "1"], line].concat());
        let model = GenerationConfig::from_json(model.as_bytes()).unwrap();
        line.unwrap_or_else(|error| panic!("{error}")).arguments.settings.config(model)
    }

    #[test]
    fn arguments_go_before_the_model_and_the_model_before_the_defaults() {
        let default =
            GenerationConfig { seed: Some(1), num_return_sequences: Some(1), ..GenerationConfig::notebook() };
        assert_eq!(config(&[], "{}"), default);
        let model = r#"{"temperature": 0.5, "top_k": 7, "max_length": 9, "eos_token_id": [3]}"#;
        let expected = GenerationConfig {
            temperature: Some(0.5),
            top_k: Some(7),
            max_length: Some(9),
            max_new_tokens: None,
            eos_token_id: Some(vec![3]),
            ..default.clone()
        };
        assert_eq!(config(&[], model), expected);
        let line = ["--temperature", "2", "--max-new-tokens", "4", "--eos-token-id", "5,6"];
        let expected = GenerationConfig {
            temperature: Some(2.0),
            top_k: Some(7),
            max_new_tokens: Some(4),
            eos_token_id: Some(vec![5, 6]),
            ..default
        };
        assert_eq!(config(&line, model), expected);
        assert!(config(&["--ignore-eos"], model).eos_token_id.is_some_and(|ids| ids.is_empty()));
    }

    /// Each setting with a value in the model's file, one in the file that was named, flags, and what these set.
    const FIELDS: &str = r#"
        max_length 7 8 --max-length|9 9
        max_new_tokens 7 8 --max-new-tokens|9 9
        min_length 7 8 --min-length|9 9
        min_new_tokens 7 8 --min-new-tokens|9 9
        max_time 7.5 8.5 --max-time|9.5 9.5
        stop_strings ["a"] ["b"] --stop|c ["c"]
        include_stop_str_in_output true true --stop|c|--include-stop-str-in-output true
        skip_special_tokens false false --skip-special-tokens=true true
        overflow "slide" "error" --overflow|stop "stop"
        do_sample false false --do-sample true
        num_beams 2 3 --num-beams|4 4
        early_stopping true "never" --early-stopping|false false
        length_penalty 2.5 3.5 --length-penalty|4.5 4.5
        num_beam_groups 2 3 --num-beam-groups|4 4
        diversity_penalty 0.5 1.5 --diversity-penalty|2.5 2.5
        force_words_ids [[1]] [[2]] --force-words-ids|3 [[3]]
        penalty_alpha 0.25 0.5 --penalty-alpha|0.75 0.75
        dola_layers "low" [0,2] --dola-layers|high "high"
        guidance_scale 1.5 2.5 --guidance-scale|3.5 3.5
        token_healing true true --token-healing true
        num_return_sequences 3 4 --num-return-sequences|5 5
        prompt_lookup_num_tokens 3 4 --prompt-lookup-num-tokens|5 5
        max_matching_ngram_size 3 5 --max-matching-ngram-size|6 6
        num_assistant_tokens 3 4 --num-assistant-tokens|5 5
        temperature 0.25 0.5 --temperature|0.75 0.75
        top_k 3 4 --top-k|5 5
        top_p 0.25 0.5 --top-p|0.75 0.75
        min_p 0.25 0.5 --min-p|0.75 0.75
        top_h 0.25 0.5 --top-h|0.75 0.75
        typical_p 0.25 0.5 --typical-p|0.75 0.75
        epsilon_cutoff 0.25 0.5 --epsilon-cutoff|0.75 0.75
        eta_cutoff 0.25 0.5 --eta-cutoff|0.75 0.75
        repetition_penalty 1.25 1.5 --repetition-penalty|1.75 1.75
        encoder_repetition_penalty 1.25 1.5 --encoder-repetition-penalty|1.75 1.75
        no_repeat_ngram_size 3 4 --no-repeat-ngram-size|5 5
        encoder_no_repeat_ngram_size 3 4 --encoder-no-repeat-ngram-size|5 5
        bad_words ["a"] ["b"] --bad-words|c ["c"]
        bad_words_ids [[1]] [[2]] --bad-words-ids|3,4 [[3,4]]
        sequence_bias [[[1],0.5]] [[[2],1.5]] --sequence-bias|3=2.5 [[[3],2.5]]
        suppress_tokens [1] [2] --suppress-tokens|3,4 [3,4]
        begin_suppress_tokens [1] [2] --begin-suppress-tokens|3 [3]
        forced_bos_token_id 1 2 --forced-bos-token-id|3 3
        forced_eos_token_id 1 [2,3] --forced-eos-token-id|4 4
        exponential_decay_length_penalty [1,1.5] [2,1.5] --exponential-decay-length-penalty|3,1.5 [3,1.5]
        remove_invalid_values true true --remove-invalid-values true
        renormalize_logits true true --renormalize-logits true
        structured_outputs {"regex":"a"} {"regex":"b"}
        watermarking_config {"bias":1.5} {"bias":2.5} --watermarking-config|{"bias":3.5} {"bias":3.5}
        frequency_penalty 0.25 0.5 --frequency-penalty|0.75 0.75
        presence_penalty 0.25 0.5 --presence-penalty|0.75 0.75
        dry_multiplier 0.25 0.5 --dry-multiplier|0.75 0.75
        dry_base 2.5 3.5 --dry-base|4.5 4.5
        dry_allowed_length 3 4 --dry-allowed-length|5 5
        dry_penalty_last_n 3 4 --dry-penalty-last-n|5 5
        dry_sequence_breakers ["a"] ["b"] --dry-sequence-breakers|c ["c"]
        xtc_probability 0.25 0.5 --xtc-probability|0.75 0.75
        xtc_threshold 0.25 0.5 --xtc-threshold|0.75 0.75
        mirostat 1 1 --mirostat|2 2
        mirostat_tau 2.5 3.5 --mirostat-tau|4.5 4.5
        mirostat_eta 0.25 0.5 --mirostat-eta|0.75 0.75
        dynatemp_range 0.25 0.5 --dynatemp-range|0.75 0.75
        dynatemp_exponent 1.5 2.5 --dynatemp-exponent|3.5 3.5
        top_n_sigma 1.5 2.5 --top-n-sigma|3.5 3.5
        samplers ["top_k"] ["top_p"] --samplers|min_p ["min_p"]
        seed 7 8 --seed|9 9
        rng "torch" "torch" --rng|keyed "keyed"
        bos_token_id 1 2
        eos_token_id 1 [2,3] --eos-token-id|4 4
        pad_token_id 1 2
    "#;

    #[test]
    fn no_default_of_a_flag_hides_what_a_file_sets() {
        let parse = |value: &str| serde_json::from_str::<Value>(value).unwrap();
        let fields = FIELDS.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let fields: Vec<_> = fields.filter(|fields| !fields.is_empty()).collect();
        for fields in &fields {
            let name = fields[0];
            // What a file says of the setting, with the fields that a pattern has besides.
            let read = |value: &str| {
                let field = Map::from_iter([(name.to_owned(), parse(value))]);
                GenerationConfig::from_fields(field).unwrap()
            };
            let shown = |config: &GenerationConfig| serde_json::to_value(config).unwrap()[name].clone();
            let resolved = |line: &[&str], files: GenerationConfig| {
                let line = Line::try_parse_from([&["generate", "hi"], line].concat());
                shown(&line.unwrap_or_else(|error| panic!("{error}")).arguments.settings.config(files))
            };
            let (model, named) = (read(fields[1]), read(fields[2]));
            assert_eq!(resolved(&[], model.clone()), shown(&model), "{name} in the model's file");
            let both = named.clone().or(model.clone());
            assert_eq!(resolved(&[], both.clone()), shown(&named), "{name} in the file that was named");
            if let [_, _, _, flags, expected] = fields[..] {
                let flags: Vec<&str> = flags.split('|').collect();
                assert_eq!(resolved(&flags, both), shown(&read(expected)), "{name} as a flag");
            }
        }
        let known = serde_json::to_value(GenerationConfig::default()).unwrap();
        let tested: Vec<&str> = fields.iter().map(|fields| fields[0]).collect();
        for name in known.as_object().unwrap().keys() {
            assert!(tested.contains(&name.as_str()), "`{name}` is not tested");
        }
    }

    #[test]
    fn speculation_looks_up_as_many_tokens_as_a_file_says() {
        let line = ["--speculate", "prompt-lookup"];
        assert_eq!(config(&line, "{}").prompt_lookup_num_tokens, Some(15));
        assert_eq!(config(&line, r#"{"prompt_lookup_num_tokens": 5}"#).prompt_lookup_num_tokens, Some(5));
        assert_eq!(config(&[], "{}").prompt_lookup_num_tokens, None);
    }

    #[test]
    fn a_mode_that_draws_nothing_is_followed_where_a_file_asks_for_it() {
        for file in [
            r#"{"penalty_alpha": 0.6, "top_k": 4}"#,
            r#"{"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}"#,
            r#"{"num_beams": 4, "force_words_ids": [[1]]}"#,
        ] {
            assert!(!config(&[], file).samples(), "{file}");
            assert!(config(&[], file).check().is_ok(), "{file}");
            assert!(config(&["--temperature", "0.5"], file).samples(), "{file}");
        }
    }

    #[test]
    fn a_sampling_flag_turns_sampling_on_and_greedy_turns_it_off() {
        let greedy = r#"{"do_sample": false}"#;
        assert!(!config(&[], greedy).samples());
        assert!(config(&["--top-k", "5"], greedy).samples());
        assert!(config(&["--do-sample"], greedy).samples());
        assert!(!config(&["--greedy", "--top-k", "5"], "{}").samples());
        assert!(!config(&["--temperature", "0"], "{}").samples());
    }
}
