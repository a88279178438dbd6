//! Beam search against transformers, `testdata/golden/beams`, and against itself on other routes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{FinishReason, GeneratedToken, GenerationConfig};
use gpt2::model::{Formats, Model};
use gpt2::pretrained::Pretrained;
use gpt2_kernels::{Cpu, Kernels};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    case: String,
    prompt: Vec<u32>,
    settings: GenerationConfig,
    sequences: Vec<Vec<u32>>,
    sequences_scores: Vec<f32>,
    scores: Vec<Vec<f32>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(case: &str, kernels: &'static Kernels, threads: usize) -> Model {
    let folder = root().join("testdata/golden").join(case);
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    Model::load(Cpu::new(kernels, threads), config, &checkpoint, Formats::default(), &mut |_, _| ())
        .expect("model")
}

fn runs() -> Vec<Run> {
    let json = std::fs::read(root().join("testdata/golden/beams/expected.json")).expect("expected.json");
    serde_json::from_slice::<Expected>(&json).expect("expected.json").runs
}

/// All tokens, in the order in which they were given out, and the scores of the texts.
fn run(model: &Model, prompt: &[u32], config: &GenerationConfig) -> (Vec<GeneratedToken>, Vec<f32>) {
    let mut generation = model.generate(prompt).config(config.clone()).tokens().expect("settings");
    let tokens = generation.by_ref().collect::<Result<_, _>>().expect("finite logits");
    (tokens, generation.sequences_scores())
}

fn of(tokens: &[GeneratedToken], sequence: usize) -> impl Iterator<Item = &GeneratedToken> {
    tokens.iter().filter(move |token| token.sequence == sequence)
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1e-4f32.max(1e-5 * expected.abs()),
            "{what}: {found}, expected {expected}"
        );
    }
}

#[test]
fn beams_are_those_of_transformers() {
    let mut models = HashMap::new();
    let runs = runs();
    assert!(runs.len() > 100);
    for (index, expected) in runs.iter().enumerate() {
        let model =
            models.entry(expected.case.clone()).or_insert_with(|| load(&expected.case, Kernels::detect(), 2));
        let (tokens, scores) = run(model, &expected.prompt, &expected.settings);
        let what = format!("run {index}, {:?}", serde_json::to_string(&expected.settings));
        for (sequence, ids) in expected.sequences.iter().enumerate() {
            let found: Vec<u32> = of(&tokens, sequence).map(|token| token.id).collect();
            assert_eq!(found, *ids, "{what}, sequence {sequence}");
            let found: Vec<f32> = of(&tokens, sequence).map(|token| token.score).collect();
            assert_close(&found, &expected.scores[sequence], &what);
            assert!(of(&tokens, sequence).last().is_some_and(|token| token.finish.is_some()));
        }
        assert_close(&scores, &expected.sequences_scores, &what);
    }
}

#[test]
fn beams_do_not_depend_on_the_machine() {
    let config = GenerationConfig {
        num_beams: Some(4),
        num_return_sequences: Some(3),
        max_new_tokens: Some(80),
        eos_token_id: Some(vec![3]),
        ..GenerationConfig::default()
    };
    let sampled = GenerationConfig { do_sample: Some(true), seed: Some(5), ..config.clone() };
    for config in [config, sampled] {
        let expected = run(&load("head-24", Kernels::detect(), 2), &[1, 2, 3], &config);
        for kernels in Kernels::available() {
            for threads in [1, 3] {
                assert_eq!(run(&load("head-24", kernels, threads), &[1, 2, 3], &config), expected);
            }
        }
    }
}

#[test]
fn what_beams_agree_on_is_given_out_before_the_end() {
    let root = root();
    let cpu = Cpu::new(Kernels::detect(), 2);
    let gpt2 = Pretrained::from_directory(root.join("models/demo"), cpu, Formats::default())
        .expect("the demo model");
    let request = |stop: &[&str]| {
        let request = gpt2.generate("Once upon a time").expect("a text").num_beams(3).num_return_sequences(2);
        let stop = stop.iter().map(|&text| text.to_owned()).collect();
        request.max_new_tokens(40).with(|config| config.stop_strings = Some(stop))
    };
    let mut texts = request(&[]).text().expect("settings");
    let mut streamed = [String::new(), String::new()];
    let (mut early, mut ended) = (0, false);
    while let Some(delta) = texts.next() {
        let delta = delta.expect("finite logits");
        streamed[delta.token.sequence] += &delta.text;
        ended |= !texts.generation().sequences_scores().is_empty();
        early += usize::from(!ended);
    }
    assert!(early > 0, "nothing was given out before the end");
    let completions = texts.into_completions();
    for (completion, streamed) in completions.iter().zip(&streamed) {
        assert_eq!((&completion.text, completion.finish), (streamed, Some(FinishReason::Length)));
        assert_eq!(completion.tokens.len(), 40);
    }
    // A beam that comes to a stop string has ended, and the text is cut before it.
    let characters: Vec<char> = completions[0].text.chars().collect();
    let stop: String = characters[characters.len() / 2..][..6].iter().collect();
    let stopped = request(&[&stop]).run().expect("settings");
    for completion in stopped.iter().filter(|completion| completion.finish == Some(FinishReason::Stop)) {
        assert!(!completion.text.contains(&stop));
        assert!(completion.tokens.len() < 40);
    }
    assert!(stopped.iter().any(|completion| completion.finish == Some(FinishReason::Stop)));
}

#[test]
fn the_log_probabilities_are_the_models() {
    let model = load("one-layer", Kernels::detect(), 2);
    let config = GenerationConfig {
        num_beams: Some(3),
        max_new_tokens: Some(10),
        eos_token_id: Some(Vec::new()),
        ..GenerationConfig::default()
    };
    let (tokens, scores) = run(&model, &[1, 2], &config);
    let sum: f32 = tokens.iter().map(|token| token.logprob).sum();
    assert!((sum / 10.0 - scores[0]).abs() < 1e-5, "{sum} {scores:?}");
    let text: Vec<u32> = [1, 2].into_iter().chain(tokens.iter().map(|token| token.id)).collect();
    let scored = gpt2::score::score(&model, &text).expect("finite logits");
    let last: Vec<f32> =
        scored.tokens[2..].iter().map(|token| token.logprob.expect("behind the first")).collect();
    assert_close(&tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(), &last, "log-probabilities");
}
