//! Guidance, contrastive search, contrasted layers, watermarks and healed prompts: against transformers, and the law.
//!
//! The golden files are made by `tools/golden/modes.py`. Tokens are equal, and processed scores, where the files have
//! them, within 1e-5 for logits of size 10: guidance multiplies them, and those of earlier layers are larger.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{
    DolaHalf, DolaLayers, FinishReason, Generate, GenerateError, GeneratedToken, GenerationConfig, Overflow,
    Repetition, SeedingScheme, Watermarking,
};
use gpt2::model::{Formats, Model, StepError};
use gpt2::process::{Context, Processor, Scores};
use gpt2::score::score;
use gpt2::tokenizer::Tokenizer;
use gpt2::watermark::{Detect, DetectError, Detection, detect};
use gpt2_kernels::{Cpu, Kernels, WeightFormat};
use safetensors::SafeTensors;
use serde::Deserialize;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden")
}

fn load(name: &str, formats: Formats, kernels: &'static Kernels, threads: usize) -> Model {
    let folder = if name == "demo" { golden().join("../../models/demo") } else { golden().join(name) };
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    Model::load(Cpu::new(kernels, threads), config, &checkpoint, formats, &mut |_, _| ()).expect("model")
}

fn fastest(name: &str) -> Model {
    load(name, Formats::default(), Kernels::detect(), 2)
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    #[derive(Deserialize)]
    struct File<T> {
        cases: Vec<T>,
    }
    let json = std::fs::read(golden().join("modes").join(name)).expect(name);
    serde_json::from_slice::<File<T>>(&json).expect(name).cases
}

/// The rows of a tensor, if the file has it.
fn rows(file: &SafeTensors<'_>, name: &str) -> Option<Vec<Vec<f32>>> {
    let tensor = file.tensor(name).ok()?;
    let values: Vec<f32> = tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Some(values.chunks(tensor.shape()[1]).map(<[f32]>::to_vec).collect())
}

/// What the processors left behind at every step. (tokens, V)
#[derive(Clone, Default)]
struct Spy(Arc<Mutex<Vec<Vec<f32>>>>);

impl Processor for Spy {
    fn process(&mut self, _context: &Context<'_>, _scores: &mut Scores) {}

    fn chosen(&mut self, _context: &Context<'_>, scores: &Scores, _token: u32) {
        self.0.lock().expect("lock").push(scores.clone().all().to_vec());
    }
}

fn assert_scores(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (id, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(a == b || (a - b).abs() <= tolerance, "{what}: token {id} has {a}, expected {b}");
    }
}

fn run(model: &Model, prompt: &[u32], config: &GenerationConfig) -> Vec<GeneratedToken> {
    let generation = model.generate(prompt).config(config.clone()).tokens().expect("generation");
    generation.collect::<Result<_, _>>().expect("finite logits")
}

fn ids(tokens: &[GeneratedToken]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

fn endless(tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(tokens),
        eos_token_id: Some(Vec::new()),
        ..GenerationConfig::default()
    }
}

/// The log-probabilities of tokens are the model's own, whatever chose them.
fn assert_logprobs(model: &Model, prompt: &[u32], tokens: &[GeneratedToken]) {
    let text: Vec<u32> = prompt.iter().copied().chain(ids(tokens)).collect();
    let scored = score(model, &text[..text.len().min(model.config().n_positions)]).expect("scores");
    for (token, scored) in tokens.iter().zip(&scored.tokens[prompt.len()..]) {
        assert_eq!(Some(token.logprob), scored.logprob);
    }
}

/// Every row of the kernel table and every number of threads gives the same tokens and log-probabilities.
fn assert_law(name: &str, prompt: &[u32], config: &GenerationConfig) {
    for format in WeightFormat::ALL {
        let scalar = load(name, format.into(), Kernels::by_name("scalar").expect("scalar"), 1);
        let expected = run(&scalar, prompt, config);
        for kernels in Kernels::available() {
            let threads: &[usize] = if format == WeightFormat::F32 { &[1, 2, 3] } else { &[2] };
            for &threads in threads {
                let model = load(name, format.into(), kernels, threads);
                let what = format!("{name} {} {} {threads} threads", format.name(), kernels.name());
                assert_eq!(run(&model, prompt, config), expected, "{what}");
            }
        }
    }
}

#[derive(Deserialize)]
struct Guided {
    model: String,
    ids: Vec<u32>,
    guidance_scale: f64,
    negative: Option<Vec<u32>>,
    tokens: Vec<u32>,
}

#[test]
fn guidance_equals_transformers() {
    let cases: Vec<Guided> = read("guidance.json");
    assert!(cases.len() >= 10, "{} cases", cases.len());
    let bytes = std::fs::read(golden().join("modes/guidance.safetensors")).expect("guidance.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("guidance.safetensors");
    let mut compared = 0;
    for (index, case) in cases.iter().enumerate() {
        let what = format!("case {index}, {}", case.model);
        let model = fastest(&case.model);
        let spy = Spy::default();
        let config =
            GenerationConfig { guidance_scale: Some(case.guidance_scale), ..endless(case.tokens.len()) };
        let mut request = model.generate(&case.ids).config(config).processor(spy.clone());
        if let Some(negative) = &case.negative {
            request = request.negative_prompt(negative);
        }
        let tokens: Vec<GeneratedToken> =
            request.tokens().expect("generation").collect::<Result<_, _>>().expect("finite logits");
        assert_eq!(ids(&tokens), case.tokens, "{what}");
        assert_logprobs(&model, &case.ids, &tokens);
        if let Some(expected) = rows(&tensors, &format!("case{index}.scores")) {
            let tolerance = 1e-5 * (case.guidance_scale.abs() as f32 + 1.0);
            for (step, (found, expected)) in spy.0.lock().expect("lock").iter().zip(&expected).enumerate() {
                assert_scores(found, expected, tolerance, &format!("{what}, step {step}"));
            }
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared} cases with scores");
}

#[test]
fn guidance_is_the_same_on_every_machine_and_in_every_company() {
    let config = GenerationConfig { guidance_scale: Some(1.8), ..endless(40) };
    assert_law("head-24", &[5, 6, 7, 8], &config);
    let sampled = GenerationConfig { do_sample: Some(true), seed: Some(3), ..config };
    assert_law("head-24", &[5, 6, 7, 8], &sampled);
    let model = fastest("head-24");
    let several = GenerationConfig { num_return_sequences: Some(3), ..sampled.clone() };
    let several = run(&model, &[5, 6, 7, 8], &several);
    let first: Vec<GeneratedToken> = several.iter().filter(|token| token.sequence == 0).cloned().collect();
    assert_eq!(first, run(&model, &[5, 6, 7, 8], &sampled));
    assert!(first.iter().zip(several.iter().filter(|t| t.sequence == 1)).any(|(a, b)| a.id != b.id));
}

#[test]
fn sequences_that_end_leave_the_others_of_a_guided_batch_alone() {
    let model = fastest("head-24");
    let free = GenerationConfig {
        guidance_scale: Some(0.5),
        do_sample: Some(true),
        temperature: Some(2.0),
        num_return_sequences: Some(4),
        ..endless(30)
    };
    let of = |tokens: &[GeneratedToken], index| -> Vec<u32> {
        tokens.iter().filter(|t| t.sequence == index).map(|t| t.id).collect()
    };
    let all = run(&model, &[1, 2, 3], &free);
    let eos = of(&all, 1)[7];
    let ended = run(&model, &[1, 2, 3], &GenerationConfig { eos_token_id: Some(vec![eos]), ..free });
    for index in 0..4 {
        let all = of(&all, index);
        let expected = all.iter().position(|&id| id == eos).map_or(&all[..], |end| &all[..=end]);
        assert_eq!(of(&ended, index), expected, "sequence {index}");
    }
}

#[test]
fn a_scale_of_one_and_the_prompt_itself_as_negative_change_no_choice() {
    let model = fastest("head-24");
    let plain = run(&model, &[9, 8, 7], &endless(30));
    let config = GenerationConfig { guidance_scale: Some(1.0), ..endless(30) };
    let one = model.generate(&[9, 8, 7]).config(config).negative_prompt(&[1, 2]);
    let one: Vec<GeneratedToken> = one.tokens().expect("generation").map(|t| t.expect("finite")).collect();
    assert_eq!(one, plain);
    let config = GenerationConfig { guidance_scale: Some(2.5), ..endless(30) };
    let itself = model.generate(&[9, 8, 7]).config(config).negative_prompt(&[9, 8, 7]);
    let itself: Vec<GeneratedToken> =
        itself.tokens().expect("generation").map(|t| t.expect("finite")).collect();
    let choices =
        |tokens: &[GeneratedToken]| -> Vec<(u32, f32)> { tokens.iter().map(|t| (t.id, t.logprob)).collect() };
    assert_eq!(choices(&itself), choices(&plain));
}

#[test]
fn both_sides_of_a_guided_text_fit_into_the_context() {
    let model = fastest("head-24");
    let context = model.config().n_positions;
    let config = GenerationConfig { guidance_scale: Some(1.5), ..endless(1000) };
    for (prompt, negative) in [(3, context - 4), (context - 4, 3), (3, context), (context, context)] {
        let (prompt, negative) = (vec![5; prompt], vec![6; negative]);
        let request = model.generate(&prompt).config(config.clone()).negative_prompt(&negative);
        let tokens: Vec<GeneratedToken> =
            request.tokens().expect("generation").map(|t| t.expect("finite")).collect();
        assert_eq!(tokens.len(), context + 1 - prompt.len().max(negative.len()));
        assert_eq!(tokens.last().expect("a token").finish, Some(FinishReason::Context));
    }
    let error = |config: &GenerationConfig, negative: &[u32]| {
        let request = model.generate(&[5; 3]).config(config.clone()).negative_prompt(negative);
        request.tokens().err().expect("an error")
    };
    let long = error(&config, &vec![6; context + 1]);
    let expected = StepError::Context { past: 0, new: context + 1, context };
    assert!(matches!(long, GenerateError::Step(error) if error == expected));
    let unknown = error(&config, &[99_999]);
    assert!(matches!(unknown, GenerateError::Step(StepError::Token { id: 99_999, .. })));
    let refuse =
        GenerationConfig { overflow: Some(Overflow::Error), max_new_tokens: Some(20), ..config.clone() };
    assert!(matches!(error(&refuse, &vec![6; context - 4]), GenerateError::Overflow { .. }));
    // An empty negative prompt is the beginning-of-text token, as an empty prompt is.
    let bos = model.config().bos_token_id.expect("the case has one");
    let of = |negative: &[u32]| -> Vec<GeneratedToken> {
        let request =
            model.generate(&[5; 3]).config(GenerationConfig { max_new_tokens: Some(9), ..config.clone() });
        request.negative_prompt(negative).tokens().expect("generation").map(|t| t.expect("finite")).collect()
    };
    assert_eq!(of(&[]), of(&[bos]));
}

#[derive(Deserialize)]
struct Contrasted {
    model: String,
    ids: Vec<u32>,
    penalty_alpha: f64,
    top_k: usize,
    repetition_penalty: Option<f64>,
    tokens: Vec<u32>,
}

fn contrastive(penalty_alpha: f64, top_k: usize, tokens: usize) -> GenerationConfig {
    GenerationConfig { penalty_alpha: Some(penalty_alpha), top_k: Some(top_k), ..endless(tokens) }
}

#[test]
fn contrastive_search_equals_transformers() {
    let cases: Vec<Contrasted> = read("contrastive.json");
    assert!(cases.len() >= 10, "{} cases", cases.len());
    for (index, case) in cases.iter().enumerate() {
        let model = fastest(&case.model);
        let config = contrastive(case.penalty_alpha, case.top_k, case.tokens.len());
        let request = penalized(model.generate(&case.ids).config(config), case.repetition_penalty);
        let tokens: Vec<GeneratedToken> =
            request.tokens().expect("generation").collect::<Result<_, _>>().expect("finite logits");
        assert_eq!(ids(&tokens), case.tokens, "case {index}, {}", case.model);
        assert_logprobs(&model, &case.ids, &tokens);
    }
}

#[test]
fn contrastive_search_is_the_same_on_every_machine() {
    // Longer than a block of the cache, so that forks copy one that is shared.
    assert_law("head-24", &[5, 6, 7, 8], &contrastive(0.6, 5, 90));
    assert_law("layer-scale", &[3], &contrastive(0.4, 9, 30));
}

#[test]
fn contrastive_search_goes_on_from_its_own_text_as_from_a_prompt() {
    let model = fastest("head-24");
    let whole = run(&model, &[4, 3, 2], &contrastive(0.6, 4, 40));
    let text: Vec<u32> = [4, 3, 2].into_iter().chain(ids(&whole)).collect();
    let rest = run(&model, &text[..23], &contrastive(0.6, 4, 20));
    assert_eq!(rest, whole[20..]);
}

#[test]
fn contrastive_search_fills_the_context_and_no_more() {
    let model = fastest("head-24");
    let context = model.config().n_positions;
    // The candidates for the last position still go through the model; behind it there are none.
    let tokens = run(&model, &vec![5; context - 3], &contrastive(0.6, 4, 100));
    assert_eq!((tokens.len(), tokens[2].finish), (3, Some(FinishReason::Context)));
    let exactly = run(&model, &vec![5; context - 3], &contrastive(0.6, 4, 3));
    assert_eq!(exactly[2].finish, Some(FinishReason::Length));
    let full = model.generate(&vec![5; context]).config(contrastive(0.6, 4, 1)).tokens().err();
    let expected = StepError::Context { past: context, new: 1, context };
    assert!(matches!(full, Some(GenerateError::Step(error)) if error == expected));
}

#[test]
fn contrastive_search_takes_no_token_that_is_ruled_out_and_at_most_all_others() {
    struct Only(u32);
    impl Processor for Only {
        fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
            scores.keep(|id, _| id < self.0);
        }
    }
    let model = fastest("head-24");
    let of = |left: u32| {
        let request = model.generate(&[9, 9]).config(contrastive(0.9, 20, 30)).processor(Only(left));
        request.tokens().expect("generation").collect::<Result<Vec<_>, _>>()
    };
    assert!(of(3).expect("tokens").iter().all(|token| token.id < 3));
    assert!(matches!(of(0), Err(GenerateError::NoTokenLeft { position: 2 })));
    let vocabulary = model.config().vocab_size;
    let all = run(&model, &[9, 9], &contrastive(0.9, vocabulary, 30));
    assert_eq!(run(&model, &[9, 9], &contrastive(0.9, vocabulary + 20, 30)), all);
    let many = model.generate(&[9, 9]).config(contrastive(0.9, 257, 30)).tokens().err();
    assert!(matches!(many, Some(GenerateError::Setting { setting: "top_k", .. })));
}

fn penalized<'m>(request: Generate<'m>, penalty: Option<f64>) -> Generate<'m> {
    request.with(|config| config.repetition_penalty = penalty)
}

#[derive(Deserialize)]
struct LayersContrasted {
    model: String,
    ids: Vec<u32>,
    dola_layers: DolaLayers,
    repetition_penalty: Option<f64>,
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_k: Option<usize>,
    logits_max: f32,
    tokens: Vec<u32>,
}

#[test]
fn contrasted_layers_equal_transformers() {
    let cases: Vec<LayersContrasted> = read("dola.json");
    assert!(cases.len() >= 13, "{} cases", cases.len());
    let bytes = std::fs::read(golden().join("modes/dola.safetensors")).expect("dola.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("dola.safetensors");
    let (mut greedy, mut sampled) = (0, 0);
    for (index, case) in cases.iter().enumerate() {
        let what = format!("case {index}, {}", case.model);
        let model = fastest(&case.model);
        let config = |tokens| GenerationConfig {
            dola_layers: Some(case.dola_layers.clone()),
            do_sample: case.do_sample,
            temperature: case.temperature,
            top_k: case.top_k,
            ..endless(tokens)
        };
        let generate = |prompt: &[u32], count: usize, spy: &Spy| -> Vec<GeneratedToken> {
            let request = model.generate(prompt).config(config(count)).processor(spy.clone());
            let tokens = penalized(request, case.repetition_penalty).tokens().expect("generation");
            tokens.collect::<Result<_, _>>().expect("finite logits")
        };
        let expected = rows(&tensors, &format!("case{index}.scores")).unwrap_or_default();
        let spy = Spy::default();
        if case.do_sample == Some(true) {
            // Draws are not torch's: every step starts from its text.
            let text: Vec<u32> = case.ids.iter().chain(&case.tokens).copied().collect();
            for end in case.ids.len()..text.len() {
                generate(&text[..end], 1, &spy);
            }
            assert_eq!(expected.len(), case.tokens.len(), "{what}");
            sampled += 1;
        } else {
            let tokens = generate(&case.ids, case.tokens.len(), &spy);
            assert_eq!(ids(&tokens), case.tokens, "{what}");
            assert_logprobs(&model, &case.ids, &tokens);
            greedy += 1;
        }
        for (step, (found, expected)) in spy.0.lock().expect("lock").iter().zip(&expected).enumerate() {
            let tolerance = 1e-5 * (case.logits_max / 10.0).max(1.0);
            assert_scores(found, expected, tolerance, &format!("{what}, step {step}"));
        }
    }
    assert!(greedy >= 10 && sampled >= 3, "{greedy} greedy, {sampled} sampled");
}

#[test]
fn contrasted_layers_are_the_same_on_every_machine_and_in_every_company() {
    let layers = |layers: &[usize]| Some(DolaLayers::Layers(layers.to_vec()));
    let config = GenerationConfig { dola_layers: layers(&[0, 1, 2]), ..endless(40) };
    assert_law("layer-scale", &[5, 6, 7, 8], &config);
    let sampled = GenerationConfig { do_sample: Some(true), seed: Some(5), ..config };
    assert_law("layer-scale", &[5, 6, 7, 8], &sampled);
    let model = fastest("layer-scale");
    let several = GenerationConfig { num_return_sequences: Some(3), ..sampled.clone() };
    let several = run(&model, &[5, 6, 7, 8], &several);
    let first: Vec<GeneratedToken> = several.iter().filter(|token| token.sequence == 0).cloned().collect();
    assert_eq!(first, run(&model, &[5, 6, 7, 8], &sampled));
    assert!(first.iter().zip(several.iter().filter(|t| t.sequence == 1)).any(|(a, b)| a.id != b.id));
    // A text that slides through the context is a function of the text.
    let slide = GenerationConfig {
        overflow: Some(Overflow::Slide),
        dola_layers: layers(&[0, 1]),
        ..endless(model.config().n_positions + 20)
    };
    let whole = run(&model, &[1, 2], &slide);
    let text: Vec<u32> = [1, 2].into_iter().chain(ids(&whole)).collect();
    for end in [text.len() - 25, text.len() - 5] {
        let rest = run(&model, &text[..end], &GenerationConfig { max_new_tokens: Some(5), ..slide.clone() });
        assert_eq!(rest.iter().map(|t| t.id).collect::<Vec<_>>(), text[end..end + 5]);
    }
}

#[test]
fn layers_that_the_model_does_not_have_are_refused_when_none_is_left() {
    let model = fastest("layer-scale");
    for layers in
        [DolaLayers::Layers(vec![3, 9]), DolaLayers::Layers(vec![]), DolaLayers::Half(DolaHalf::Low)]
    {
        let config = GenerationConfig { dola_layers: Some(layers), ..endless(5) };
        let error = model.generate(&[1]).config(config).tokens().err();
        assert!(matches!(error, Some(GenerateError::Setting { setting: "dola_layers", .. })));
    }
}

#[derive(Deserialize)]
struct Watermarked {
    model: String,
    ids: Vec<u32>,
    watermarking_config: Watermarking,
    tokens: Vec<u32>,
}

#[test]
fn watermarks_equal_transformers() {
    let cases: Vec<Watermarked> = read("watermark.json");
    assert!(cases.len() >= 9, "{} cases", cases.len());
    let bytes = std::fs::read(golden().join("modes/watermark.safetensors")).expect("watermark.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).expect("watermark.safetensors");
    let mut compared = 0;
    for (index, case) in cases.iter().enumerate() {
        let what = format!("case {index}, {}", case.model);
        let model = fastest(&case.model);
        let spy = Spy::default();
        let config = GenerationConfig {
            watermarking_config: Some(case.watermarking_config),
            ..endless(case.tokens.len())
        };
        let request = model.generate(&case.ids).config(config).processor(spy.clone());
        let tokens: Vec<GeneratedToken> =
            request.tokens().expect("generation").collect::<Result<_, _>>().expect("finite logits");
        assert_eq!(ids(&tokens), case.tokens, "{what}");
        assert_logprobs(&model, &case.ids, &tokens);
        if let Some(expected) = rows(&tensors, &format!("case{index}.scores")) {
            for (step, (found, expected)) in spy.0.lock().expect("lock").iter().zip(&expected).enumerate() {
                assert_scores(found, expected, 1e-5, &format!("{what}, step {step}"));
            }
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared} cases with scores");
}

#[derive(Deserialize)]
struct Detected {
    vocabulary: usize,
    bos_token_id: u32,
    watermarking_config: Watermarking,
    ignore_repeated_ngrams: bool,
    z_threshold: f64,
    ids: Vec<u32>,
    num_tokens_scored: f64,
    num_green_tokens: f64,
    green_fraction: f64,
    z_score: f64,
    p_value: f64,
    prediction: bool,
    confidence: f64,
}

#[test]
fn what_is_found_of_watermarks_equals_transformers() {
    let cases: Vec<Detected> = read("detection.json");
    assert!(cases.len() >= 20, "{} cases", cases.len());
    assert!(cases.iter().any(|case| case.prediction) && cases.iter().any(|case| !case.prediction));
    for (index, case) in cases.iter().enumerate() {
        let how = Detect {
            bos_token_id: Some(case.bos_token_id),
            ignore_repeated_ngrams: case.ignore_repeated_ngrams,
            z_threshold: case.z_threshold,
        };
        let found = detect(&case.ids, case.vocabulary, &case.watermarking_config, &how).expect("detection");
        let Detection { num_tokens_scored, num_green_tokens, prediction, .. } = found;
        assert_eq!(
            (num_tokens_scored as f64, num_green_tokens as f64, prediction),
            (case.num_tokens_scored, case.num_green_tokens, case.prediction),
            "case {index}"
        );
        for (found, expected) in [
            (found.green_fraction, case.green_fraction),
            (found.z_score, case.z_score),
            (found.p_value, case.p_value),
            (found.confidence, case.confidence),
        ] {
            // Of the confidence, which is a difference from 1, no more digits are known.
            let tolerance = 1e-11 * expected.abs() + 1e-16;
            assert!((found - expected).abs() <= tolerance, "case {index}: {found}, expected {expected}");
        }
    }
}

#[test]
fn a_text_in_which_no_watermark_can_be_found_is_an_error() {
    let config = Watermarking { context_width: 3, ..Watermarking::default() };
    let how = Detect { bos_token_id: Some(9), ..Detect::default() };
    assert_eq!(detect(&[9, 1, 2, 3], 100, &config, &how), Err(DetectError::Short { tokens: 3, least: 4 }));
    assert_eq!(detect(&[], 100, &config, &how), Err(DetectError::Short { tokens: 0, least: 4 }));
    assert_eq!(detect(&[9, 1, 2, 3, 4], 100, &config, &how).map(|found| found.num_tokens_scored), Ok(1));
    for ratio in [0.0, 1.0, f64::NAN] {
        let config = Watermarking { greenlist_ratio: ratio, ..config };
        let error = detect(&[1; 20], 100, &config, &how);
        assert!(matches!(error, Err(DetectError::Setting { setting: "greenlist_ratio", .. })));
    }
}

#[test]
fn a_text_is_recognised_by_its_own_key_only() {
    let model = fastest("head-24");
    let vocabulary = model.config().vocab_size;
    for seeding_scheme in [SeedingScheme::Lefthash, SeedingScheme::Selfhash] {
        let mark = Watermarking { bias: 8.0, seeding_scheme, ..Watermarking::default() };
        let config = GenerationConfig {
            watermarking_config: Some(mark),
            do_sample: Some(true),
            temperature: Some(2.0),
            top_k: Some(0),
            ..endless(150)
        };
        let text = ids(&run(&model, &[1, 2, 3], &config));
        let unmarked = GenerationConfig { watermarking_config: None, ..config };
        let how = Detect { ignore_repeated_ngrams: true, ..Detect::default() };
        let found = |text: &[u32], mark| detect(text, vocabulary, &mark, &how).expect("detection").z_score;
        assert!(found(&text, mark) > 4.0, "{seeding_scheme:?}");
        assert!(found(&text, Watermarking { hashing_key: 77, ..mark }) < 3.0, "{seeding_scheme:?}");
        assert!(found(&ids(&run(&model, &[1, 2, 3], &unmarked)), mark) < 3.0, "{seeding_scheme:?}");
    }
}

#[derive(Deserialize)]
struct Healed {
    text: String,
    ids: Vec<u32>,
    healed: Vec<u32>,
    tokens: Option<Vec<u32>>,
}

#[test]
fn healed_prompts_equal_transformers() {
    let cases: Vec<Healed> = read("healing.json");
    let changed = cases.iter().filter(|case| case.ids != case.healed).count();
    assert!(cases.len() >= 30 && changed >= 10, "{changed} of {} prompts are changed", cases.len());
    let model = fastest("demo");
    let tokenizer = Tokenizer::from_directory(&golden().join("../../models/demo")).expect("tokenizer");
    for case in cases {
        let config = GenerationConfig {
            token_healing: Some(true),
            ..endless(case.tokens.iter().flatten().count().max(1))
        };
        let generation = model.generate(&case.ids).config(config).tokenizer(&tokenizer).tokens();
        let generation = generation.expect("generation");
        let healed = if case.healed.is_empty() { vec![50256] } else { case.healed };
        assert_eq!(generation.prompt(), healed, "{:?}", case.text);
        if let Some(expected) = case.tokens {
            let tokens: Vec<u32> = generation.map(|token| token.expect("finite logits").id).collect();
            assert_eq!(tokens, expected, "{:?}", case.text);
        }
    }
}

#[test]
fn a_prompt_that_transformers_cannot_heal_is_left_alone() {
    let model = fastest("demo");
    let tokenizer = Tokenizer::from_directory(&golden().join("../../models/demo")).expect("tokenizer");
    let healing = GenerationConfig { token_healing: Some(true), ..endless(1) };
    // A `KeyError` there: the letter that stands for the byte E9 is `é`, of which the token `é` is no beginning.
    let prompt = [66, 1878, 2634];
    let generation = model.generate(&prompt).config(healing.clone()).tokenizer(&tokenizer).tokens();
    assert_eq!(generation.expect("generation").prompt(), prompt);
    let error = model.generate(&prompt).config(healing).tokens().err();
    assert!(matches!(error, Some(GenerateError::NoTokenizer("token_healing"))));
}

#[test]
fn a_loop_is_reported_with_the_text_that_ends_in_it() {
    let model = fastest("demo");
    let tokenizer = Tokenizer::from_directory(&golden().join("../../models/demo")).expect("tokenizer");
    let prompt = [464, 1468, 582];
    let of = |config: GenerationConfig| {
        model.generate(&prompt).config(config).tokenizer(&tokenizer).run().expect("texts").remove(0)
    };
    let greedy = of(endless(200));
    let found = greedy.repetition.expect("greedy texts of a small model loop");
    let (phrase, rest) = greedy.tokens[found.start..].split_at(found.period);
    assert!(found.count >= 3 && rest.iter().eq(phrase.iter().cycle().take(rest.len())));
    assert_eq!(found.count, (greedy.tokens.len() - found.start) / found.period);
    // The end token is no part of the loop.
    let eos = GenerationConfig { eos_token_id: None, ..endless(200) };
    struct End(usize);
    impl Processor for End {
        fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
            if context.generated() == self.0 {
                scores.keep(|id, _| id == 50256);
            }
        }
    }
    let request = model.generate(&prompt).config(eos).tokenizer(&tokenizer).processor(End(150));
    let ended = request.run().expect("texts").remove(0);
    assert_eq!(ended.finish, Some(FinishReason::Eos));
    let before = Repetition::find(&greedy.tokens[..150]);
    assert!(before.is_some());
    assert_eq!(ended.repetition, before);
    assert_eq!(of(endless(8)).repetition, None);
}
