//! Lengths, ends, stop strings and wrong settings of a generation.

use std::path::{Path, PathBuf};

use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{FinishReason, GenerateError, GeneratedToken, Generation, Settings, TextGeneration};
use gpt2::model::{Formats, Model, StepError};
use gpt2::predict::next_tokens;
use gpt2::process::Processor;
use gpt2::score::score;
use gpt2::tokenizer::Tokenizer;
use gpt2_kernels::{Cpu, Kernels};
use safetensors::SafeTensors;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(folder: &Path) -> Model {
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(folder).expect("checkpoint");
    Model::load(Cpu::new(Kernels::detect(), 2), config, &checkpoint, Formats::default(), &mut |_, _| ())
        .expect("model")
}

/// A model of 200 positions whose bos and eos tokens are the configuration's.
fn tiny() -> Model {
    load(&root().join("testdata/golden/head-24"))
}

fn greedy() -> Settings {
    Settings { do_sample: false, eos_token_ids: Some(Vec::new()), ..Settings::default() }
}

fn run(model: &Model, prompt: &[u32], settings: &Settings) -> Vec<GeneratedToken> {
    let generation = Generation::new(model, prompt, settings.clone()).expect("generation");
    generation.collect::<Result<_, _>>().expect("finite logits")
}

fn error(model: &Model, prompt: &[u32], settings: &Settings) -> GenerateError {
    Generation::new(model, prompt, settings.clone()).err().expect("an error")
}

fn step_error(model: &Model, prompt: &[u32], settings: &Settings) -> StepError {
    match error(model, prompt, settings) {
        GenerateError::Step(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn fifty_new_tokens_unless_told_otherwise() {
    let model = tiny();
    let tokens = run(&model, &[1, 2, 3], &greedy());
    assert_eq!(tokens.len(), 50);
    assert_eq!(tokens[49].finish, Some(FinishReason::Length));
    assert!(tokens[..49].iter().all(|token| token.finish.is_none()));
    assert!(tokens.iter().all(|token| token.logprob <= 0.0 && token.logprob.is_finite()));
}

#[test]
fn max_length_counts_the_prompt_and_max_new_tokens_does_not() {
    let model = tiny();
    assert_eq!(run(&model, &[1, 2, 3], &Settings { max_length: Some(10), ..greedy() }).len(), 7);
    assert_eq!(run(&model, &[1, 2, 3], &Settings { max_new_tokens: Some(10), ..greedy() }).len(), 10);
    let reached = error(&model, &[1, 2, 3], &Settings { max_length: Some(3), ..greedy() });
    assert!(matches!(reached, GenerateError::MaxLength { prompt: 3, max_length: 3 }));
    let both = Settings { max_length: Some(10), max_new_tokens: Some(5), ..greedy() };
    let both = error(&model, &[1], &both);
    assert!(matches!(both, GenerateError::TwoLengths { max_new_tokens: 5, max_length: 10 }));
}

#[test]
fn a_full_context_yields_one_last_token_and_says_so() {
    let model = tiny();
    let context = model.config().n_positions;
    let settings = Settings { max_new_tokens: Some(1000), ..greedy() };
    let prompt: Vec<u32> = (0..context as u32 - 5).map(|i| i % 50).collect();
    let tokens = run(&model, &prompt, &settings);
    assert_eq!(tokens.len(), 6, "five positions are free, and the token behind the last can be chosen");
    assert_eq!(tokens[5].finish, Some(FinishReason::Context));

    let full: Vec<u32> = vec![7; context];
    let tokens = run(&model, &full, &settings);
    assert_eq!((tokens.len(), tokens[0].finish), (1, Some(FinishReason::Context)));
    let exactly = run(&model, &full, &Settings { max_new_tokens: Some(1), ..greedy() });
    assert_eq!(exactly[0].finish, Some(FinishReason::Length));

    let long = vec![7; context + 1];
    let expected = StepError::Context { past: 0, new: context + 1, context };
    assert_eq!(step_error(&model, &long, &settings), expected);
}

#[test]
fn an_empty_prompt_starts_from_the_beginning_of_text_token() {
    let model = tiny();
    let bos = model.config().bos_token_id.expect("the case has one");
    assert_eq!(run(&model, &[], &greedy()), run(&model, &[bos], &greedy()));
    let demo = load(&root().join("models/demo"));
    let generation = Generation::new(&demo, &[], greedy()).expect("generation");
    assert_eq!(generation.prompt(), [50256]);
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error_that_names_it() {
    let model = tiny();
    let vocabulary = model.config().vocab_size;
    let expected = StepError::Token { id: 99_999, index: 1, vocabulary };
    assert_eq!(step_error(&model, &[1, 99_999], &greedy()), expected);
    // Behind the first chunk too, and before anything is computed.
    let late: Vec<u32> = std::iter::repeat_n(1, 150).chain([99_999]).collect();
    let expected = StepError::Token { id: 99_999, index: 150, vocabulary };
    assert_eq!(step_error(&model, &late, &greedy()), expected);
}

#[test]
fn an_end_token_ends_its_own_sequence_only() {
    let model = tiny();
    let sampled = Settings {
        do_sample: true,
        temperature: 2.0,
        top_k: 0,
        top_p: 1.0,
        num_return_sequences: 4,
        seed: 3,
        eos_token_ids: Some(Vec::new()),
        ..Settings::default()
    };
    let free = run(&model, &[1, 2, 3], &sampled);
    let of = |tokens: &[GeneratedToken], index| -> Vec<u32> {
        tokens.iter().filter(|t| t.sequence == index).map(|t| t.id).collect()
    };
    // End at a token that the second sequence is known to draw.
    let eos = of(&free, 1)[10];
    let ended = run(&model, &[1, 2, 3], &Settings { eos_token_ids: Some(vec![eos]), ..sampled.clone() });
    // Without a word from the caller, the model's configuration says what ends a text.
    let configured = run(&model, &[1, 2, 3], &Settings { eos_token_ids: None, ..sampled.clone() });
    let named = Settings { eos_token_ids: Some(model.config().eos_token_ids.clone()), ..sampled.clone() };
    assert_eq!(configured, run(&model, &[1, 2, 3], &named));
    for index in 0..4 {
        let free = of(&free, index);
        let expected = free.iter().position(|&id| id == eos).map_or(&free[..], |end| &free[..=end]);
        assert_eq!(of(&ended, index), expected, "sequence {index}");
        let last = ended.iter().rfind(|t| t.sequence == index).expect("a token");
        let reason = if last.id == eos { FinishReason::Eos } else { FinishReason::Length };
        assert_eq!(last.finish, Some(reason));
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let model = tiny();
    let base = Settings { eos_token_ids: Some(Vec::new()), ..Settings::default() };
    let cases = [
        ("temperature", Settings { temperature: -1.0, ..base.clone() }),
        ("temperature", Settings { temperature: f64::NAN, ..base.clone() }),
        ("temperature", Settings { temperature: f64::INFINITY, ..base.clone() }),
        ("top_p", Settings { top_p: 2.0, ..base.clone() }),
        ("top_p", Settings { top_p: -0.1, ..base.clone() }),
        ("top_p", Settings { top_p: f64::NAN, ..base.clone() }),
        ("max_new_tokens", Settings { max_new_tokens: Some(0), ..base.clone() }),
        ("max_length", Settings { max_length: Some(0), ..base.clone() }),
        ("num_return_sequences", Settings { num_return_sequences: 0, ..base.clone() }),
        ("num_return_sequences", Settings { num_return_sequences: 1_000_000_000, ..base.clone() }),
    ];
    for (name, settings) in cases {
        match error(&model, &[1], &settings) {
            GenerateError::Setting { setting, .. } => assert_eq!(setting, name),
            other => panic!("{name}: {other}"),
        }
    }
    let same = Settings { num_return_sequences: 2, do_sample: false, ..base };
    assert!(matches!(error(&model, &[1], &same), GenerateError::SameSequences(2)));
}

#[test]
fn temperature_zero_is_greedy() {
    let model = tiny();
    let cold = Settings { do_sample: true, temperature: 0.0, ..greedy() };
    assert_eq!(run(&model, &[4, 5], &cold), run(&model, &[4, 5], &greedy()));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let folder = root().join("models/demo");
    let model = load(&folder);
    let tokenizer = Tokenizer::from_directory(&folder).expect("tokenizer");
    let settings =
        Settings { max_new_tokens: Some(30), seed: 1, num_return_sequences: 2, ..Settings::default() };
    let prompt: Vec<u32> = vec![7454, 2402, 257, 640]; // Once upon a time
    let texts = |stop: &[String]| {
        let generation = Generation::new(&model, &prompt, settings.clone()).expect("generation");
        let mut text = TextGeneration::new(generation, &tokenizer, stop);
        let mut streamed = vec![String::new(); 2];
        for delta in &mut text {
            let delta = delta.expect("known tokens");
            streamed[delta.token.sequence].push_str(&delta.text);
        }
        for (streamed, completion) in streamed.iter().zip(text.completions()) {
            assert_eq!(*streamed, completion.text, "the pieces make up the text");
        }
        text.completions().to_vec()
    };
    let free = texts(&[]);
    assert_eq!(free[0].tokens.len(), 30);
    // Stop at a few characters from the middle of the first text, across tokens.
    let characters: Vec<char> = free[0].text.chars().collect();
    let stop: String = characters[characters.len() / 2..][..5].iter().collect();
    let stopped = texts(std::slice::from_ref(&stop));
    let end = free[0].text.find(&stop).expect("it is in there");
    assert_eq!(stopped[0].text, free[0].text[..end]);
    assert_eq!(stopped[0].finish, Some(FinishReason::Stop));
    let expected = free[1].text.find(&stop).map_or(&free[1].text[..], |end| &free[1].text[..end]);
    assert_eq!(stopped[1].text, expected, "the other sequence goes on");
}

#[test]
fn the_end_token_adds_nothing_to_the_text() {
    let folder = root().join("models/demo");
    let model = load(&folder);
    let tokenizer = Tokenizer::from_directory(&folder).expect("tokenizer");
    let first = run(&model, &[464], &greedy())[0].id;
    let settings = Settings { eos_token_ids: Some(vec![first]), ..greedy() };
    let generation = Generation::new(&model, &[464], settings).expect("generation");
    let mut text = TextGeneration::new(generation, &tokenizer, &[]);
    assert!(text.by_ref().all(|delta| delta.is_ok()));
    let completion = &text.completions()[0];
    assert_eq!((completion.text.as_str(), &completion.tokens[..]), ("", &[first][..]));
    assert_eq!(completion.finish, Some(FinishReason::Eos));
}

#[test]
fn a_stopped_sequence_yields_nothing_more() {
    let model = tiny();
    let settings = Settings {
        num_return_sequences: 3,
        max_new_tokens: Some(1),
        eos_token_ids: Some(Vec::new()),
        ..Settings::default()
    };
    let mut generation = Generation::new(&model, &[1, 2], settings).expect("generation");
    assert_eq!(generation.next().expect("a token").expect("finite logits").sequence, 0);
    // Its only and last token is chosen already.
    generation.stop(1, FinishReason::Stop);
    assert_eq!(generation.next().expect("a token").expect("finite logits").sequence, 2);
    assert!(generation.next().is_none());
}

#[test]
fn a_processor_of_ones_own_takes_part() {
    struct Ban(u32);
    impl Processor for Ban {
        fn process(&mut self, tokens: &[u32], scores: &mut [f32]) {
            assert_eq!(tokens[..2], [1, 2], "it sees the prompt");
            scores[self.0 as usize] = f32::NEG_INFINITY;
        }
    }
    let model = tiny();
    let free = run(&model, &[1, 2], &greedy());
    let banned = free[0].id;
    let generation = Generation::new(&model, &[1, 2], greedy()).expect("generation");
    let tokens: Vec<_> =
        generation.with_processor(Box::new(Ban(banned))).map(|t| t.expect("finite").id).collect();
    assert!(!tokens.contains(&banned));
}

#[test]
fn weights_that_are_no_numbers_are_an_error_and_not_a_text() {
    let folder = root().join("testdata/golden/head-24");
    let mut bytes = std::fs::read(folder.join("model.safetensors")).expect("model.safetensors");
    let start = bytes.as_ptr().addr();
    let file = SafeTensors::deserialize(&bytes).expect("model.safetensors");
    let wte = file.tensor("transformer.wte.weight").expect("wte").data().as_ptr().addr() - start;
    // The first weight of the first token, in half precision, is not a number.
    bytes[wte..wte + 2].copy_from_slice(&[0x00, 0x7e]);
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::from_bytes(bytes).expect("checkpoint");
    let model =
        Model::load(Cpu::new(Kernels::detect(), 2), config, &checkpoint, Formats::default(), &mut |_, _| ())
            .expect("model");

    let mut generation = Generation::new(&model, &[1, 2, 3], greedy()).expect("generation");
    assert_eq!(generation.next(), Some(Err(StepError::NotFinite { position: 2 })));
    assert_eq!(generation.next(), None);
    assert_eq!(next_tokens(&model, &[1, 2, 3], 5), Err(StepError::NotFinite { position: 2 }));
    assert_eq!(score(&model, &[1, 2, 3]), Err(StepError::NotFinite { position: 0 }));
}
