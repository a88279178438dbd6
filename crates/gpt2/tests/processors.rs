//! Every processor against transformers and llama.cpp, alone and combined: `testdata/golden/processors`.

use std::path::Path;

use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{Chain, Generate, GenerateError, GenerationConfig, SamplerName, Setup};
use gpt2::model::{Formats, Model};
use gpt2::process::{Context, Dry, PrefixAllowedTokens, Processor, Scores, Xtc};
use gpt2::tokenizer::{SpecialTokens, Tokenizer};
use gpt2_kernels::{Cpu, Kernels};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
    mirostat: Vec<Run>,
}

#[derive(Deserialize, Debug)]
struct Case {
    group: String,
    /// Fields of `GenerationConfig`; besides, `allowed` tokens and DRY's `breakers` as tokens.
    setting: serde_json::Map<String, Value>,
    tokens: Vec<u32>,
    prompt: usize,
    total: usize,
    eos: Vec<u32>,
    vocab: usize,
}

#[derive(Deserialize)]
struct Run {
    setting: serde_json::Map<String, Value>,
    chosen: Vec<u32>,
    vocab: usize,
}

fn golden() -> (Expected, Vec<f32>, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/processors");
    let json = std::fs::read(folder.join("expected.json")).expect("expected.json");
    let bytes = std::fs::read(folder.join("expected.safetensors")).expect("expected.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("expected.safetensors");
    let floats = |name: &str| {
        let data = tensors.tensor(name).expect(name).data().as_chunks::<4>().0;
        data.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    };
    (serde_json::from_slice(&json).expect("expected.json"), floats("before"), floats("after"))
}

/// Reads settings; `top_k` is off unless they say otherwise.
fn config(setting: &serde_json::Map<String, Value>) -> GenerationConfig {
    let json = serde_json::to_vec(setting).expect("settings");
    let off = GenerationConfig { top_k: Some(0), ..GenerationConfig::default() };
    let config = GenerationConfig::from_json(&json).expect("settings").or(off);
    config.check().expect("settings");
    config
}

fn take<'a>(floats: &mut &'a [f32], count: usize) -> &'a [f32] {
    let (taken, rest) = floats.split_at(count);
    *floats = rest;
    taken
}

/// The same tokens are left, with the same scores but for rounding.
fn assert_same(found: &[f32], expected: &[f32], about: &dyn Fn() -> String) {
    for (token, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let same = found == expected || (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
        assert!(same, "{}, token {token}: {found}, expected {expected}", about());
    }
}

#[test]
fn processors_keep_what_transformers_and_llama_cpp_keep_and_score_it_the_same() {
    let (expected, before, after) = golden();
    let (mut before, mut after) = (&before[..], &after[..]);
    let groups = ["alone", "combined", "llama.cpp"]
        .map(|group| expected.cases.iter().filter(|case| case.group == group).count());
    assert!(groups[0] >= 350 && groups[1] >= 200 && groups[2] >= 150, "{groups:?}");
    let mut changed = 0;
    for case in &expected.cases {
        let mut setting = case.setting.clone();
        let [allowed, breakers] = ["allowed", "breakers"].map(|name| setting.remove(name));
        let mut config = config(&setting);
        let context = Context { tokens: &case.tokens, prompt: case.prompt, ..Context::default() };
        let mut scores = Scores::default();
        scores.set(take(&mut before, case.vocab));
        let untouched = scores.clone().all().to_vec();
        if let Some(allowed) = allowed {
            let allowed: Vec<u32> = serde_json::from_value(allowed).expect("allowed");
            PrefixAllowedTokens::new(move |_| allowed.clone(), 1).process(&context, &mut scores);
        }
        if let Some(breakers) = breakers {
            let breakers: Vec<Vec<u32>> = serde_json::from_value(breakers).expect("breakers");
            let multiplier = config.dry_multiplier.take().expect("a multiplier");
            let dry = Dry::new(multiplier, 1.75, config.dry_allowed_length.expect("a length"));
            breakers.iter().fold(dry, |dry, tokens| dry.breaker(tokens)).process(&context, &mut scores);
        }
        let setup = Setup {
            eos_token_ids: &case.eos,
            total_tokens: case.total,
            vocabulary: case.vocab,
            tokenizer: None,
        };
        Chain::new(&config, &setup).expect("settings").process(&context, &mut scores);
        assert_same(scores.all(), take(&mut after, case.vocab), &|| format!("{case:?}"));
        changed += usize::from(scores.all() != untouched);
    }
    assert!(changed > expected.cases.len() / 2, "only {changed} cases change anything");
    for Run { setting, chosen, vocab } in &expected.mirostat {
        let setup = Setup { vocabulary: *vocab, ..Setup::default() };
        let mut chain = Chain::new(&config(setting), &setup).expect("settings");
        let mut tokens = vec![0];
        for &token in chosen {
            let mut scores = Scores::default();
            scores.set(take(&mut before, *vocab));
            let context = Context { tokens: &tokens, prompt: 1, sequence: 3, ..Context::default() };
            chain.process(&context, &mut scores);
            chain.chosen(&context, &scores, token);
            assert_same(scores.all(), take(&mut after, *vocab), &|| {
                format!("{setting:?}, {} tokens", tokens.len())
            });
            tokens.push(token);
        }
    }
    assert!(before.is_empty() && after.is_empty());
}

#[test]
fn a_token_outside_of_the_vocabulary_is_an_error_that_names_the_setting() {
    let default = GenerationConfig::default;
    let wrong = [
        ("sequence_bias", GenerationConfig { sequence_bias: Some(vec![(vec![1, 60], 1.0)]), ..default() }),
        ("bad_words_ids", GenerationConfig { bad_words_ids: Some(vec![vec![1], vec![60]]), ..default() }),
        ("forced_bos_token_id", GenerationConfig { forced_bos_token_id: Some(60), ..default() }),
        ("forced_eos_token_id", GenerationConfig { forced_eos_token_id: Some(vec![60]), ..default() }),
        ("suppress_tokens", GenerationConfig { suppress_tokens: Some(vec![60]), ..default() }),
        ("begin_suppress_tokens", GenerationConfig { begin_suppress_tokens: Some(vec![60]), ..default() }),
    ];
    for (setting, config) in wrong {
        let setup = Setup { vocabulary: 60, ..Setup::default() };
        let error = Chain::new(&config, &setup).err().expect(setting);
        assert_eq!(error.to_string(), format!("`{setting}` must be tokens of the vocabulary, not 60"));
        let larger = Setup { vocabulary: 61, ..Setup::default() };
        assert!(Chain::new(&config, &larger).is_ok(), "{setting}");
    }
}

/// The scores after a chain that is at the second token of a text.
fn process(config: &GenerationConfig, setup: &Setup<'_>, tokens: &[u32], scores: &[f32]) -> Vec<f32> {
    let mut all = Scores::default();
    all.set(scores);
    let context = Context { tokens, prompt: 1, ..Context::default() };
    Chain::new(config, setup).expect("settings").process(&context, &mut all);
    all.all().to_vec()
}

#[test]
fn a_text_breaks_repetitions_wherever_tokens_begin_and_end() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let tokenizer = Tokenizer::from_directory(&folder).expect("tokenizer");
    let vocabulary = tokenizer.vocab_size();
    let penalized = |text: &str, breakers: Option<&[&str]>, tokenizer: Option<&Tokenizer>| {
        let reader = Tokenizer::from_directory(&folder).expect("tokenizer");
        let tokens = reader.encode(text, SpecialTokens::AsText).expect("tokens");
        let config = GenerationConfig {
            dry_multiplier: Some(1.0),
            dry_sequence_breakers: breakers
                .map(|breakers| breakers.iter().copied().map(str::to_owned).collect()),
            ..GenerationConfig::default()
        };
        let setup = Setup { vocabulary, tokenizer, ..Setup::default() };
        let after = process(&config, &setup, &tokens, &vec![0.0; vocabulary]);
        let text =
            |id: usize| String::from_utf8_lossy(reader.token_bytes(id as u32).expect("a token")).into_owned();
        (0..vocabulary).filter(|&id| after[id] < 0.0).map(text).collect::<Vec<_>>()
    };
    let repeated = "the cat sat, the cat sat, the cat";
    assert_eq!(penalized(repeated, None, Some(&tokenizer)), [" sat"]);
    assert_eq!(penalized(repeated, Some(&[" cat"]), Some(&tokenizer)), [""; 0]);
    assert_eq!(penalized(repeated, Some(&["a"]), Some(&tokenizer)), [""; 0]);
    assert_eq!(penalized(repeated, Some(&["he cat"]), Some(&tokenizer)), [""; 0]);
    assert_eq!(penalized(repeated, Some(&["sat"]), Some(&tokenizer)), [""; 0]);
    assert_eq!(penalized(repeated, Some(&[]), Some(&tokenizer)), [" sat"]);
    let lines = "a:\nthe cat sat\nthe cat";
    assert_eq!(penalized(lines, None, None), [" sat"]);
    assert_eq!(penalized(lines, None, Some(&tokenizer)), [" sat"]);
    let behind_line = "the\n cat sat, the\n cat";
    assert_eq!(penalized(behind_line, None, Some(&tokenizer)), [""; 0]);
    assert_eq!(penalized(behind_line, None, None), [" sat"]);
    let config = GenerationConfig {
        dry_multiplier: Some(1.0),
        dry_sequence_breakers: Some(vec![":".to_owned()]),
        ..GenerationConfig::default()
    };
    let error = Chain::new(&config, &Setup { vocabulary, ..Setup::default() }).err().expect("an error");
    assert!(matches!(error, GenerateError::NoTokenizer("dry_sequence_breakers")), "{error}");
}

#[test]
fn whether_xtc_leaves_tokens_out_depends_on_seed_sequence_and_position_alone() {
    let happens = |seed, sequence, position: usize| {
        let mut scores = Scores::default();
        scores.set(&[1.0, 1.0, -9.0]);
        let tokens = vec![0; position];
        Xtc::new(0.3, 0.1, seed)
            .process(&Context { tokens: &tokens, prompt: 1, sequence, ..Context::default() }, &mut scores);
        scores.score(0) == f32::NEG_INFINITY
    };
    for axis in 0..3 {
        let pick = |i: usize| match axis {
            0 => happens(i as u64, 2, 7),
            1 => happens(5, i, 7),
            _ => happens(5, 2, i),
        };
        let found: Vec<bool> = (1..2001).map(pick).collect();
        // Five standard deviations of a binomial distribution are 102.
        let count = found.iter().filter(|&&happens| happens).count();
        assert!((498..=702).contains(&count), "{count} of 2000 along axis {axis}");
        assert_eq!(found, (1..2001).map(pick).collect::<Vec<bool>>());
    }
}

#[test]
fn mirostat_stands_in_for_what_else_truncates() {
    let scores: Vec<f32> = (0..40).map(|i| -0.1 * i as f32).collect();
    let setup = Setup { vocabulary: 40, ..Setup::default() };
    let mirostat =
        GenerationConfig { do_sample: Some(true), mirostat: Some(2), ..GenerationConfig::default() };
    let both = GenerationConfig { top_k: Some(3), min_p: Some(0.9), ..mirostat.clone() };
    assert_eq!(process(&both, &setup, &[0], &scores), process(&mirostat, &setup, &[0], &scores));
    let idle: Vec<&str> = both.without_effect().iter().map(|idle| idle.setting).collect();
    assert_eq!(idle, ["top_k", "min_p"]);
}

#[test]
fn samplers_that_an_order_leaves_out_are_named() {
    let config = GenerationConfig {
        do_sample: Some(true),
        samplers: Some(vec![SamplerName::Temperature, SamplerName::MinP]),
        temperature: Some(0.7),
        top_p: Some(0.9),
        min_p: Some(0.1),
        repetition_penalty: Some(1.1),
        ..GenerationConfig::default()
    };
    let idle: Vec<&str> = config.without_effect().iter().map(|idle| idle.setting).collect();
    assert_eq!(idle, ["repetition_penalty", "top_p"]);
    // Where nothing is drawn there is no order, and penalties are penalties.
    let greedy = GenerationConfig { do_sample: Some(false), ..config };
    let idle: Vec<&str> = greedy.without_effect().iter().map(|idle| idle.setting).collect();
    assert_eq!(idle, ["temperature", "top_p", "min_p", "samplers"]);
}

#[test]
fn a_function_of_the_text_says_which_tokens_a_generation_may_take() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    let cpu = Cpu::new(Kernels::detect(), 1);
    let model = Model::load(cpu, config, &checkpoint, Formats::default(), &mut |_, _| ()).expect("model");
    let generate = |prompt: &[u32]| model.generate(prompt).max_new_tokens(6);
    let ids = |request: Generate<'_>| {
        let tokens: Result<Vec<_>, _> = request.tokens().expect("settings").collect();
        tokens.map(|tokens| tokens.iter().map(|token| token.id).collect::<Vec<u32>>())
    };
    let counting = |context: &Context<'_>| vec![context.tokens[context.tokens.len() - 1] + 1];
    let counted = ids(generate(&[7, 20]).prefix_allowed_tokens_fn(counting)).expect("tokens");
    assert_eq!(counted, [21, 22, 23, 24, 25, 26]);
    let error = ids(generate(&[7]).prefix_allowed_tokens_fn(|_| Vec::new())).expect_err("nothing is allowed");
    assert!(matches!(error, GenerateError::NoTokenLeft { position: 1 }), "{error}");
    let forced = ids(generate(&[7]).with(|config| {
        (config.forced_bos_token_id, config.forced_eos_token_id) = (Some(3), Some(vec![4]));
        config.suppress_tokens = Some(vec![9]);
        config.eos_token_id = Some(Vec::new());
    }))
    .expect("tokens");
    assert_eq!((forced.len(), forced[0], forced[5]), (6, 3, 4));
    let drawn = |seed| {
        let mirostat = |config: &mut GenerationConfig| config.mirostat = Some(2);
        ids(generate(&[7]).do_sample(true).seed(seed).num_return_sequences(3).with(mirostat)).expect("tokens")
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

/// Settings of every filter that leaves a choice; any of them may be missing.
fn filters() -> impl Strategy<Value = GenerationConfig> {
    let share = || proptest::option::of(0.0..=1.0);
    let above = || proptest::option::of(1e-6..=1.0);
    let below = || proptest::option::of(0.0..0.999);
    let first = (share(), share(), above(), above(), below(), below(), share(), share());
    let rest = (
        proptest::option::of(0.1..4.0),
        proptest::option::of(0.01..3.0),
        proptest::option::of(0.0..2.0),
        proptest::option::of(0usize..9),
        proptest::option::of(0u8..3),
        1usize..4,
        any::<bool>(),
    );
    (first, rest).prop_map(|(first, rest)| {
        let (top_p, min_p, top_h, typical_p, epsilon_cutoff, eta_cutoff, xtc_probability, xtc_threshold) =
            first;
        let (temperature, top_n_sigma, dynatemp_range, top_k, mirostat, num_beams, renormalize) = rest;
        GenerationConfig {
            do_sample: Some(true),
            top_p,
            min_p,
            top_h,
            typical_p,
            epsilon_cutoff,
            eta_cutoff,
            xtc_probability,
            xtc_threshold,
            temperature,
            top_n_sigma,
            dynatemp_range,
            top_k,
            mirostat: mirostat.filter(|_| num_beams == 1),
            num_beams: Some(num_beams),
            renormalize_logits: Some(renormalize),
            ..GenerationConfig::default()
        }
    })
}

fn finite() -> impl Strategy<Value = f32> {
    prop_oneof![4 => -20.0f32..20.0, 1 => Just(0.5f32), 1 => Just(f32::NEG_INFINITY), 1 => -1e30f32..1e30]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_filter_leaves_a_token_and_changes_the_order_of_none(
        config in filters(),
        scores in proptest::collection::vec(finite(), 2..150),
    ) {
        prop_assume!(scores.iter().any(|score| score.is_finite()));
        let setup = Setup { vocabulary: scores.len(), ..Setup::default() };
        let after = process(&config, &setup, &[0, 1], &scores);
        prop_assert!(after.iter().any(|score| score.is_finite()), "{after:?}");
        prop_assert!(!after.iter().any(|score| score.is_nan()));
        for (a, b) in (0..scores.len()).zip(1..scores.len()) {
            let left = after[a] > f32::NEG_INFINITY && after[b] > f32::NEG_INFINITY;
            prop_assert!(!left || scores[a] < scores[b] || after[a] >= after[b], "{a} and {b} in {after:?}");
        }
    }

    #[test]
    fn hostile_scores_give_numbers_or_an_error(
        config in filters(),
        penalties in (0.01f64..100.0, -9.0f64..9.0, 0.0f64..5.0, 0usize..4, any::<bool>()),
        scores in proptest::collection::vec(
            prop_oneof![
                finite(), Just(f32::NAN), Just(f32::INFINITY), Just(f32::MAX), Just(f32::MIN), Just(f32::NEG_INFINITY),
            ],
            2..60,
        ),
    ) {
        let (penalty, frequency, dry, ngram, remove) = penalties;
        let config = GenerationConfig {
            repetition_penalty: Some(penalty),
            frequency_penalty: Some(frequency),
            dry_multiplier: Some(dry),
            no_repeat_ngram_size: Some(ngram),
            exponential_decay_length_penalty: Some((0, penalty)),
            remove_invalid_values: Some(remove),
            ..config
        };
        let setup = Setup { vocabulary: scores.len(), eos_token_ids: &[1], ..Setup::default() };
        let mut all = Scores::default();
        all.set(&scores);
        let tokens = [0, 1, 0, 1, 0];
        let context = Context { tokens: &tokens, prompt: 1, ..Context::default() };
        let mut chain = Chain::new(&config, &setup).expect("settings");
        chain.process(&context, &mut all);
        match gpt2::sample::Sampler::new(&config).choose(&all, 0, 5) {
            Ok(token) => {
                prop_assert!(all.score(token).is_finite());
                chain.chosen(&context, &all, token);
                prop_assert!(all.all().iter().all(|&score| score < f32::INFINITY));
            }
            Err(GenerateError::NoTokenLeft { position: 5 } | GenerateError::Scores { position: 5 }) => {}
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
