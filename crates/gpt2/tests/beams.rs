//! Beam search against transformers, `testdata/golden/beams`, and against itself on other routes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{FinishReason, ForcedWords, GeneratedToken, GenerationConfig};
use gpt2::model::{Formats, Model};
use gpt2::pretrained::Pretrained;
use gpt2::process::{Context, Processor, Scores};
use gpt2::tokenizer::SpecialTokens;
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

/// A run of transformers 4.53, which writes the first end token whichever it was, and tells no scores of tokens.
#[derive(Deserialize)]
struct OldRun {
    case: String,
    prompt: Vec<u32>,
    settings: GenerationConfig,
    sequences: Vec<Vec<u32>>,
    sequences_scores: Vec<f32>,
    /// For each group, whether it ended before its length.
    done: Vec<bool>,
}

#[derive(Deserialize)]
struct OldExpected {
    runs: Vec<OldRun>,
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

fn old_runs(file: &str) -> Vec<OldRun> {
    let json = std::fs::read(root().join("testdata/golden/beams").join(file)).expect("a golden file");
    serde_json::from_slice::<OldExpected>(&json).expect("a golden file").runs
}

/// Compares with runs of transformers 4.53; returns how many ended before their length, in all groups and in some.
fn equal_those_of_old(file: &str, at_least: usize) -> (usize, usize) {
    let runs = old_runs(file);
    assert!(runs.len() >= at_least, "{} runs", runs.len());
    let mut models = HashMap::new();
    for (index, expected) in runs.iter().enumerate() {
        let model =
            models.entry(expected.case.clone()).or_insert_with(|| load(&expected.case, Kernels::detect(), 2));
        let (tokens, scores) = run(model, &expected.prompt, &expected.settings);
        let what = format!(
            "{file}, run {index}, {} {:?}",
            serde_json::to_string(&expected.settings).expect("json"),
            expected.prompt
        );
        let ends = expected.settings.eos_token_id.as_deref().expect("end tokens");
        for (sequence, ids) in expected.sequences.iter().enumerate() {
            let first_end = |id| if ends.contains(&id) { ends[0] } else { id };
            let found: Vec<u32> = of(&tokens, sequence).map(|token| first_end(token.id)).collect();
            assert_eq!(found, *ids, "{what}, sequence {sequence}");
            let last = of(&tokens, sequence).last().expect("a token");
            assert_eq!(last.finish == Some(FinishReason::Eos), ends.contains(&last.id), "{what}");
            let power = (found.len() as f64).powf(expected.settings.length_penalty.unwrap_or(1.0));
            let sum: f64 = of(&tokens, sequence).map(|token| f64::from(token.score)).sum();
            assert_close(&[(sum / power) as f32], &expected.sequences_scores[sequence..=sequence], &what);
        }
        assert_close(&scores, &expected.sequences_scores, &what);
    }
    let all = runs.iter().filter(|run| run.done.iter().all(|&done| done)).count();
    (all, runs.iter().filter(|run| run.done.contains(&true)).count() - all)
}

#[test]
fn groups_of_beams_are_those_of_transformers() {
    let (all, some) = equal_those_of_old("groups.json", 40);
    assert!(all >= 5 && some >= 5, "{all} {some}");
}

#[test]
fn beams_with_forced_words_are_those_of_transformers() {
    let (all, _) = equal_those_of_old("constraints.json", 40);
    assert!(all >= 3, "{all}");
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
    let groups = Some(2);
    let diverse =
        GenerationConfig { num_beam_groups: groups, diversity_penalty: Some(0.7), ..config.clone() };
    let words = vec![ForcedWords::Phrase(vec![9, 8, 7]), ForcedWords::OneOf(vec![vec![1, 2], vec![1, 3, 5]])];
    let forced = GenerationConfig { force_words_ids: Some(words), ..config.clone() };
    for config in [config, sampled, diverse, forced] {
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

#[test]
fn a_criterion_ends_a_beam_as_an_end_token_does() {
    let plain = runs().into_iter().map(|run| (run.case, run.prompt, run.settings));
    let old = ["groups.json", "constraints.json"].into_iter().flat_map(old_runs);
    let old = old.map(|run| (run.case, run.prompt, run.settings));
    let mut models = HashMap::new();
    let (mut compared, mut ended) = (0, 0);
    for (case, prompt, mut settings) in plain.chain(old) {
        // With one end token and with none, there are as many candidates.
        let Some(&[end]) = settings.eos_token_id.as_deref() else { continue };
        if settings.min_new_tokens.is_some() {
            continue;
        }
        settings.pad_token_id = settings.pad_token_id.or(Some(end));
        let model = models.entry(case.clone()).or_insert_with(|| load(&case, Kernels::detect(), 2));
        let expected = run(model, &prompt, &settings);
        settings.eos_token_id = Some(Vec::new());
        let ends = move |context: &Context<'_>| context.tokens.last() == Some(&end);
        let request = model.generate(&prompt).config(settings).stopping_criterion(ends);
        let mut generation = request.tokens().expect("settings");
        let mut tokens: Vec<_> = generation.by_ref().collect::<Result<_, _>>().expect("finite logits");
        for token in &mut tokens {
            if token.finish == Some(FinishReason::Stop) {
                token.finish = Some(FinishReason::Eos);
                ended += 1;
            }
        }
        assert_eq!((tokens, generation.sequences_scores()), expected, "{case} {prompt:?}");
        compared += 1;
    }
    assert!(compared > 40 && ended >= 5, "{compared} {ended}");
}

/// Leaves only one token at a position.
struct Only {
    position: usize,
    token: u32,
}

impl Processor for Only {
    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        if context.tokens.len() == self.position {
            scores.keep(|id, _| id == self.token);
        }
    }
}

#[test]
fn a_token_that_is_the_only_one_left_narrows_the_search_for_a_moment_only() {
    let model = load("head-24", Kernels::detect(), 2);
    // Without a length penalty, a token that all texts begin with changes no order.
    let config = GenerationConfig {
        num_beams: Some(4),
        num_return_sequences: Some(4),
        length_penalty: Some(0.0),
        eos_token_id: Some(vec![3, 67]),
        max_length: Some(20),
        ..GenerationConfig::default()
    };
    let (expected, _) = run(&model, &[1, 2, 5], &config);
    let request = model.generate(&[1, 2]).config(config).processor(Only { position: 2, token: 5 });
    let tokens: Vec<_> =
        request.tokens().expect("settings").collect::<Result<_, _>>().expect("finite logits");
    for sequence in 0..4 {
        let found: Vec<u32> = of(&tokens, sequence).map(|token| token.id).collect();
        let expected: Vec<u32> = of(&expected, sequence).map(|token| token.id).collect();
        assert_eq!((found[0], &found[1..]), (5, &*expected));
    }
}

#[test]
fn beams_end_where_the_context_does() {
    let model = load("full-context", Kernels::detect(), 2);
    let context = model.config().n_positions;
    let beams = GenerationConfig {
        num_beams: Some(4),
        num_return_sequences: Some(2),
        max_new_tokens: Some(100),
        eos_token_id: Some(Vec::new()),
        ..GenerationConfig::default()
    };
    let groups = GenerationConfig { num_beam_groups: Some(2), diversity_penalty: Some(1.0), ..beams.clone() };
    let words =
        GenerationConfig { force_words_ids: Some(vec![ForcedWords::Phrase(vec![7, 7])]), ..beams.clone() };
    for config in [beams, groups, words] {
        let (tokens, _) = run(&model, &[1, 2, 3], &config);
        for sequence in 0..2 {
            // The token behind a full context can still be chosen.
            assert_eq!(of(&tokens, sequence).count(), context + 1 - 3);
            assert_eq!(of(&tokens, sequence).last().and_then(|t| t.finish), Some(FinishReason::Context));
        }
    }
}

#[test]
fn words_that_must_occur_do() {
    let gpt2 = Pretrained::from_directory(
        root().join("models/demo"),
        Cpu::new(Kernels::detect(), 2),
        Formats::default(),
    )
    .expect("the demo model");
    let ids = |text: &str| gpt2.tokenizer.encode(text, SpecialTokens::Parse).expect("a text");
    let forced = |config: &mut GenerationConfig| {
        let either = ForcedWords::OneOf(vec![ids(" dragon"), ids(" castle")]);
        config.force_words_ids = Some(vec![ForcedWords::Phrase(ids(" little bird")), either]);
    };
    let request = gpt2.generate("Once upon a time").expect("a text").num_beams(4).max_new_tokens(30);
    let texts = request.with(forced).run().expect("settings");
    let text = &texts[0].text;
    assert!(text.contains(" little bird"), "{text}");
    assert!(text.contains(" dragon") || text.contains(" castle"), "{text}");
    // A stop string ends a group's beam, too, and the text is cut before it.
    let diverse = |config: &mut GenerationConfig| {
        (config.num_beam_groups, config.diversity_penalty) = (Some(2), Some(1.0));
    };
    let request = || gpt2.generate("Once upon a time").expect("a text").num_beams(4).max_new_tokens(30);
    let plain = request().with(diverse).run().expect("settings");
    let words: Vec<&str> = plain[0].text.split(' ').collect();
    let stop = words[words.len() / 2];
    let stopped = request().with(diverse).stop(stop).num_return_sequences(4).run().expect("settings");
    assert!(stopped.iter().any(|completion| completion.finish == Some(FinishReason::Stop)));
    assert!(stopped.iter().all(|completion| !completion.text.contains(stop)));
}

#[test]
fn settings_of_beams_that_contradict_each_other_are_refused() {
    let model = load("one-layer", Kernels::detect(), 1);
    let words = |words: serde_json::Value| serde_json::json!({"num_beams": 4, "force_words_ids": words});
    for (settings, message) in [
        (
            serde_json::json!({"num_beams": 4, "num_beam_groups": 2}),
            "`num_beam_groups` must be 1 without a `diversity_penalty` above 0, for the groups would all be the same, not 2",
        ),
        (
            serde_json::json!({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}),
            "`num_beam_groups` must be a divisor of `num_beams`, not 3",
        ),
        (
            serde_json::json!({"num_beams": 2, "num_return_sequences": 3}),
            "`num_return_sequences` (3) must be at most `num_beams` (2)",
        ),
        (
            words(serde_json::json!([[5], [101]])),
            "`force_words_ids` must be tokens of the vocabulary, not 101",
        ),
        (
            words(serde_json::json!([[[5, 6], [5]]])),
            "`force_words_ids` must be alternatives none of which begins with another, not one that does",
        ),
    ] {
        let config: GenerationConfig = serde_json::from_value(settings).expect("settings");
        let error = model.generate(&[1]).config(config).tokens().err().expect("an error");
        assert_eq!(error.to_string(), message);
    }
}
