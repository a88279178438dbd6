//! Guessing changes no bit: what is generated with drafts is what is generated without.

use std::path::Path;

use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{GenerateError, GeneratedToken, GenerationConfig, Overflow, Rng, SpeculationReport};
use gpt2::model::{Formats, Model};
use gpt2::tokenizer::{SpecialTokens, Tokenizer};
use gpt2_kernels::{Cpu, Kernels, WeightFormat};

fn load(folder: &str, formats: impl Into<Formats>) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    let cpu = Cpu::new(Kernels::detect(), 2);
    Model::load(cpu, config, &checkpoint, formats.into(), &mut |_, _| ()).expect("model")
}

fn demo(format: WeightFormat) -> Model {
    load("models/demo", format)
}

/// Where guesses come from.
#[derive(Clone, Copy)]
enum Source<'m> {
    Nowhere,
    Lookup(usize),
    Assistant(&'m Model),
}

/// The tokens of every sequence, with all that was said of them, and what came of the drafts.
fn generate(
    model: &Model,
    source: Source<'_>,
    prompt: &[u32],
    config: &GenerationConfig,
) -> (Vec<Vec<GeneratedToken>>, Option<SpeculationReport>) {
    let mut config = config.clone();
    if let Source::Lookup(most) = source {
        config.prompt_lookup_num_tokens = Some(most);
    }
    let mut sequences = vec![Vec::new(); config.sequences()];
    let request = model.generate(prompt).config(config);
    let request = match source {
        Source::Assistant(assistant) => request.assistant(assistant),
        Source::Nowhere | Source::Lookup(_) => request,
    };
    let mut generation = request.tokens().expect("settings");
    for token in generation.by_ref() {
        let token = token.expect("a token");
        sequences[token.sequence].push(token);
    }
    (sequences, generation.speculation().cloned())
}

/// Settings of many kinds, each of so many new tokens.
fn settings(tokens: usize) -> Vec<GenerationConfig> {
    let base = || GenerationConfig {
        max_new_tokens: Some(tokens),
        eos_token_id: Some(Vec::new()),
        seed: Some(5),
        ..GenerationConfig::default()
    };
    let sampled =
        || GenerationConfig { do_sample: Some(true), temperature: Some(0.7), top_p: Some(0.95), ..base() };
    vec![
        base(),
        sampled(),
        GenerationConfig { repetition_penalty: Some(1.2), no_repeat_ngram_size: Some(3), ..base() },
        GenerationConfig {
            top_k: Some(0),
            temperature: None,
            frequency_penalty: Some(0.3),
            min_p: Some(0.02),
            no_repeat_ngram_size: Some(4),
            seed: Some(6),
            ..sampled()
        },
        GenerationConfig { mirostat: Some(2), mirostat_tau: Some(3.0), seed: Some(7), ..sampled() },
        GenerationConfig { num_return_sequences: Some(3), seed: Some(8), ..sampled() },
    ]
}

const PROMPTS: [&str; 2] = [
    "Once upon a time there was a king who had three daughters, and the youngest of them",
    "The miller had a cat, the cat had a mouse, the mouse had a house. The miller had a cat,",
];

fn encode(prompt: &str) -> Vec<u32> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let tokenizer = Tokenizer::from_directory(&folder).expect("tokenizer");
    tokenizer.encode(prompt, SpecialTokens::Parse).expect("tokens")
}

#[test]
fn a_draft_changes_no_bit_of_the_demo_model() {
    let int4 = demo(WeightFormat::Int4);
    let (mut compared, mut drafts) = (0, (0, 0));
    for format in [WeightFormat::F32, WeightFormat::Bf16] {
        let model = demo(format);
        for (prompt, tokens) in PROMPTS.iter().zip([300, 260]) {
            let prompt = encode(prompt);
            for config in settings(tokens) {
                let (plain, none) = generate(&model, Source::Nowhere, &prompt, &config);
                assert_eq!(none, None);
                for source in [Source::Lookup(10), Source::Assistant(&int4)] {
                    let (drafted, report) = generate(&model, source, &prompt, &config);
                    assert!(plain == drafted, "{format:?} {config:?}");
                    let report = report.expect("a report");
                    let chosen: usize = drafted.iter().map(Vec::len).sum();
                    compared += chosen;
                    assert!(report.accepted <= report.drafted && report.accepted < chosen);
                    assert_eq!(report.accepted, report.accepted_by_position.iter().sum::<usize>());
                    assert_eq!(report.drafted, report.drafted_by_position.iter().sum::<usize>());
                    if let (Source::Assistant(_), None) = (source, config.mirostat) {
                        // How many are tried is a matter of time; of many, most are right.
                        drafts = (drafts.0 + report.drafted, drafts.1 + report.accepted);
                        assert!(report.drafted > 0 && report.passes * drafted.len() < chosen, "{report:?}");
                    }
                }
            }
        }
    }
    assert!(compared >= 17_000, "{compared}");
    assert!(2 * drafts.1 > drafts.0, "{} of {} were right", drafts.1, drafts.0);
}

#[test]
fn a_draft_that_is_never_right_changes_no_bit() {
    let model = load("testdata/golden/head-24", WeightFormat::F32);
    let other = load("testdata/golden/act-relu", WeightFormat::F32);
    assert_eq!(model.config().vocab_size, other.config().vocab_size);
    let mut compared = 0;
    for seed in 0..6 {
        for config in settings(model.config().n_positions - 4) {
            let config = GenerationConfig { seed: Some(seed), ..config };
            let prompt = [3 + seed as u32, 9, 4];
            let (plain, _) = generate(&model, Source::Nowhere, &prompt, &config);
            for source in [Source::Lookup(7), Source::Assistant(&other), Source::Assistant(&model)] {
                let (drafted, _) = generate(&model, source, &prompt, &config);
                assert!(plain == drafted, "{config:?}");
                compared += drafted.iter().map(Vec::len).sum::<usize>();
            }
        }
    }
    assert!(compared >= 3_000, "{compared}");
}

/// The context's end, windows, the length, end tokens, criteria and torch's generator.
#[test]
fn a_draft_ends_where_the_text_does() {
    let model = load("testdata/golden/head-24", WeightFormat::F32);
    let context = model.config().n_positions;
    let prompt = [1, 2, 3, 1, 2, 3, 1, 2];
    let sampled =
        || GenerationConfig { do_sample: Some(true), top_k: Some(0), ..GenerationConfig::default() };
    let ends = [
        GenerationConfig { max_new_tokens: Some(2 * context), ..GenerationConfig::default() },
        GenerationConfig {
            max_new_tokens: Some(5 * context),
            overflow: Some(Overflow::Slide),
            eos_token_id: Some(Vec::new()),
            ..sampled()
        },
        GenerationConfig { max_new_tokens: Some(1), ..sampled() },
        GenerationConfig { max_new_tokens: Some(2), ..sampled() },
        GenerationConfig { max_length: Some(context + 1), rng: Some(Rng::Torch), seed: Some(3), ..sampled() },
        GenerationConfig {
            max_new_tokens: Some(context / 2),
            eos_token_id: Some((0..20).collect()),
            num_return_sequences: Some(9),
            ..sampled()
        },
    ];
    for config in ends {
        let (plain, _) = generate(&model, Source::Nowhere, &prompt, &config);
        for source in [Source::Lookup(64), Source::Assistant(&model)] {
            let (drafted, report) = generate(&model, source, &prompt, &config);
            assert_eq!(plain, drafted, "{config:?}");
            if let Source::Assistant(_) = source {
                // It is the model itself.
                let SpeculationReport { drafted, accepted, .. } = report.expect("a report");
                let cut = config.sequences() * 15;
                assert!(accepted + cut >= drafted, "{accepted} of {drafted}");
            }
        }
    }

    let stopping = |source| {
        let config = GenerationConfig { max_new_tokens: Some(40), ..GenerationConfig::default() };
        let mut config = GenerationConfig { eos_token_id: Some(Vec::new()), ..config };
        let mut asked = Vec::new();
        if let Source::Lookup(most) = source {
            config.prompt_lookup_num_tokens = Some(most);
        }
        let ends = |context: &gpt2::process::Context<'_>| {
            asked.push(context.tokens.to_vec());
            context.tokens.len() == 20
        };
        let request = model.generate(&prompt).config(config).stopping_criterion(ends);
        let tokens: Vec<GeneratedToken> =
            request.tokens().expect("settings").map(|token| token.expect("a token")).collect();
        (tokens, asked)
    };
    assert_eq!(stopping(Source::Nowhere), stopping(Source::Lookup(8)));
}

#[test]
fn what_drafts_do_not_go_with_is_named() {
    let model = load("testdata/golden/head-24", WeightFormat::F32);
    let lookup = GenerationConfig { prompt_lookup_num_tokens: Some(4), ..GenerationConfig::default() };
    let refused = |config: &GenerationConfig, assistant: Option<&Model>| {
        let request = model.generate(&[1]).config(config.clone());
        let request = match assistant {
            Some(assistant) => request.assistant(assistant),
            None => request,
        };
        request.tokens().err().map(|error| error.to_string())
    };
    let torch = GenerationConfig {
        rng: Some(Rng::Torch),
        do_sample: Some(true),
        num_return_sequences: Some(2),
        ..lookup.clone()
    };
    for (config, other) in [
        (GenerationConfig { num_beams: Some(2), ..lookup.clone() }, "num_beams"),
        (GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(3), ..lookup.clone() }, "penalty_alpha"),
        (GenerationConfig { guidance_scale: Some(1.5), ..lookup.clone() }, "guidance_scale"),
        (torch, "rng"),
    ] {
        let message = |name: &str| Some(format!("`{name}` cannot be combined with `{other}`"));
        assert_eq!(refused(&config, None), message("prompt_lookup_num_tokens"));
        let config = GenerationConfig { prompt_lookup_num_tokens: None, ..config };
        assert_eq!(refused(&config, Some(&model)), message("assistant_model"));
    }
    let both = refused(&lookup, Some(&model)).expect("an error");
    assert_eq!(both, "`assistant_model` cannot be combined with `prompt_lookup_num_tokens`");
    let demo = demo(WeightFormat::Int4);
    let request = model.generate(&[1]).assistant(&demo);
    let error = request.tokens().err().expect("an error");
    assert!(matches!(error, GenerateError::Setting { setting: "assistant_model", .. }), "{error}");
}
