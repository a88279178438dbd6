//! Lengths, ends, stop strings and wrong settings of a generation.

use std::path::{Path, PathBuf};

use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{FinishReason, GenerateError, GeneratedToken, Generation, GenerationConfig, Overflow};
use gpt2::model::{Formats, Model, StepError};
use gpt2::predict::next_tokens;
use gpt2::process::{Context, Processor, Scores};
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

fn greedy() -> GenerationConfig {
    GenerationConfig { eos_token_id: Some(Vec::new()), ..GenerationConfig::default() }
}

fn generation<'m>(
    model: &'m Model,
    prompt: &[u32],
    config: &GenerationConfig,
) -> Result<Generation<'m>, GenerateError> {
    model.generate(prompt).config(config.clone()).tokens()
}

fn run(model: &Model, prompt: &[u32], config: &GenerationConfig) -> Vec<GeneratedToken> {
    generation(model, prompt, config).expect("generation").collect::<Result<_, _>>().expect("finite logits")
}

fn error(model: &Model, prompt: &[u32], config: &GenerationConfig) -> GenerateError {
    generation(model, prompt, config).err().expect("an error")
}

fn step_error(model: &Model, prompt: &[u32], config: &GenerationConfig) -> StepError {
    match error(model, prompt, config) {
        GenerateError::Step(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn twenty_new_tokens_unless_told_otherwise() {
    let model = tiny();
    let tokens = run(&model, &[1, 2, 3], &greedy());
    assert_eq!(tokens.len(), 20);
    assert_eq!(tokens[19].finish, Some(FinishReason::Length));
    assert!(tokens[..19].iter().all(|token| token.finish.is_none()));
    assert!(tokens.iter().all(|token| token.logprob <= 0.0 && token.logprob.is_finite()));
}

#[test]
fn max_length_counts_the_prompt_and_max_new_tokens_does_not() {
    let model = tiny();
    assert_eq!(run(&model, &[1, 2, 3], &GenerationConfig { max_length: Some(10), ..greedy() }).len(), 7);
    assert_eq!(run(&model, &[1, 2, 3], &GenerationConfig { max_new_tokens: Some(10), ..greedy() }).len(), 10);
    let reached = error(&model, &[1, 2, 3], &GenerationConfig { max_length: Some(3), ..greedy() });
    assert!(matches!(reached, GenerateError::MaxLength { prompt: 3, max_length: 3 }));
    let both = GenerationConfig { max_length: Some(10), max_new_tokens: Some(5), ..greedy() };
    let both = error(&model, &[1], &both);
    assert!(matches!(both, GenerateError::TwoLengths { max_new_tokens: 5, max_length: 10 }));
}

#[test]
fn a_full_context_yields_one_last_token_and_says_so() {
    let model = tiny();
    let context = model.config().n_positions;
    let settings = GenerationConfig { max_new_tokens: Some(1000), ..greedy() };
    let prompt: Vec<u32> = (0..context as u32 - 5).map(|i| i % 50).collect();
    let tokens = run(&model, &prompt, &settings);
    assert_eq!(tokens.len(), 6, "five positions are free, and the token behind the last can be chosen");
    assert_eq!(tokens[5].finish, Some(FinishReason::Context));

    let full: Vec<u32> = vec![7; context];
    let tokens = run(&model, &full, &settings);
    assert_eq!((tokens.len(), tokens[0].finish), (1, Some(FinishReason::Context)));
    let exactly = run(&model, &full, &GenerationConfig { max_new_tokens: Some(1), ..greedy() });
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
    let generation = generation(&demo, &[], &greedy()).expect("generation");
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
    let sampled = GenerationConfig {
        do_sample: Some(true),
        temperature: Some(2.0),
        top_k: Some(0),
        top_p: Some(1.0),
        num_return_sequences: Some(4),
        seed: Some(3),
        eos_token_id: Some(Vec::new()),
        ..GenerationConfig::notebook()
    };
    let free = run(&model, &[1, 2, 3], &sampled);
    let of = |tokens: &[GeneratedToken], index| -> Vec<u32> {
        tokens.iter().filter(|t| t.sequence == index).map(|t| t.id).collect()
    };
    // End at a token that the second sequence is known to draw.
    let eos = of(&free, 1)[10];
    let ended =
        run(&model, &[1, 2, 3], &GenerationConfig { eos_token_id: Some(vec![eos]), ..sampled.clone() });
    // Without a word from the caller, the model's configuration says what ends a text.
    let configured = run(&model, &[1, 2, 3], &GenerationConfig { eos_token_id: None, ..sampled.clone() });
    let named =
        GenerationConfig { eos_token_id: Some(model.config().eos_token_ids.clone()), ..sampled.clone() };
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
    let base = GenerationConfig { eos_token_id: Some(Vec::new()), ..GenerationConfig::notebook() };
    let cases = [
        ("temperature", GenerationConfig { temperature: Some(-1.0), ..base.clone() }),
        ("temperature", GenerationConfig { temperature: Some(f64::NAN), ..base.clone() }),
        ("temperature", GenerationConfig { temperature: Some(f64::INFINITY), ..base.clone() }),
        ("top_p", GenerationConfig { top_p: Some(2.0), ..base.clone() }),
        ("top_p", GenerationConfig { top_p: Some(-0.1), ..base.clone() }),
        ("top_p", GenerationConfig { top_p: Some(f64::NAN), ..base.clone() }),
        ("max_new_tokens", GenerationConfig { max_new_tokens: Some(0), ..base.clone() }),
        ("max_length", GenerationConfig { max_length: Some(0), max_new_tokens: None, ..base.clone() }),
        ("num_return_sequences", GenerationConfig { num_return_sequences: Some(0), ..base.clone() }),
        (
            "num_return_sequences",
            GenerationConfig { num_return_sequences: Some(1_000_000_000), ..base.clone() },
        ),
    ];
    for (name, settings) in cases {
        match error(&model, &[1], &settings) {
            GenerateError::Setting { setting, .. } => assert_eq!(setting, name),
            other => panic!("{name}: {other}"),
        }
    }
    let same = GenerationConfig { num_return_sequences: Some(2), do_sample: Some(false), ..base };
    assert!(matches!(error(&model, &[1], &same), GenerateError::SameSequences(2)));
}

#[test]
fn temperature_zero_is_greedy() {
    let model = tiny();
    let cold = GenerationConfig { do_sample: Some(true), temperature: Some(0.0), ..greedy() };
    assert_eq!(run(&model, &[4, 5], &cold), run(&model, &[4, 5], &greedy()));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let folder = root().join("models/demo");
    let model = load(&folder);
    let tokenizer = Tokenizer::from_directory(&folder).expect("tokenizer");
    let settings = GenerationConfig {
        max_new_tokens: Some(30),
        seed: Some(1),
        num_return_sequences: Some(2),
        ..GenerationConfig::notebook()
    };
    let prompt: Vec<u32> = vec![7454, 2402, 257, 640]; // Once upon a time
    let texts = |stop: &[String]| {
        let request = model.generate(&prompt).tokenizer(&tokenizer).config(settings.clone());
        let mut text =
            request.with(|config| config.stop_strings = Some(stop.to_vec())).text().expect("generation");
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
    let settings = GenerationConfig { eos_token_id: Some(vec![first]), ..greedy() };
    let mut text = model.generate(&[464]).tokenizer(&tokenizer).config(settings).text().expect("generation");
    assert!(text.by_ref().all(|delta| delta.is_ok()));
    let completion = &text.completions()[0];
    assert_eq!((completion.text.as_str(), &completion.tokens[..]), ("", &[first][..]));
    assert_eq!(completion.finish, Some(FinishReason::Eos));
}

#[test]
fn a_stopped_sequence_yields_nothing_more() {
    let model = tiny();
    let settings = GenerationConfig {
        num_return_sequences: Some(3),
        max_new_tokens: Some(1),
        eos_token_id: Some(Vec::new()),
        ..GenerationConfig::notebook()
    };
    let mut generation = generation(&model, &[1, 2], &settings).expect("generation");
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
        fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
            assert_eq!(context.prompt_tokens(), [1, 2], "it sees the prompt");
            scores.put(self.0, f32::NEG_INFINITY);
        }
    }
    let model = tiny();
    let free = run(&model, &[1, 2], &greedy());
    let banned = free[0].id;
    let generation =
        model.generate(&[1, 2]).config(greedy()).processor(Ban(banned)).tokens().expect("generation");
    let tokens: Vec<_> = generation.map(|t| t.expect("finite").id).collect();
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

    let mut generation = generation(&model, &[1, 2, 3], &greedy()).expect("generation");
    let error = generation.next().expect("an item").expect_err("damaged weights");
    assert!(matches!(error, GenerateError::Step(StepError::NotFinite { position: 2 })));
    assert!(generation.next().is_none());
    assert_eq!(next_tokens(&model, &[1, 2, 3], 5), Err(StepError::NotFinite { position: 2 }));
    assert_eq!(score(&model, &[1, 2, 3]), Err(StepError::NotFinite { position: 0 }));
}

#[test]
fn a_text_longer_than_the_context_slides_or_is_refused() {
    let model = tiny();
    let context = model.config().n_positions;
    let base = GenerationConfig { max_new_tokens: Some(context + 30), ..greedy() };
    let slide = GenerationConfig { overflow: Some(Overflow::Slide), ..base.clone() };
    let all = run(&model, &[1, 2, 3], &slide);
    assert_eq!((all.len(), all[context + 29].finish), (context + 30, Some(FinishReason::Length)));
    let stopped = run(&model, &[1, 2, 3], &base);
    assert_eq!(
        all[..stopped.len()].iter().map(|t| t.id).collect::<Vec<_>>(),
        stopped.iter().map(|t| t.id).collect::<Vec<_>>()
    );
    // What follows is a function of the text: the same when most of it is the prompt.
    for prompt in [context - 1, context, context + 1, context + 20] {
        let text: Vec<u32> = [1, 2, 3].into_iter().chain(all.iter().map(|t| t.id)).collect();
        let rest = GenerationConfig { max_new_tokens: Some(5), ..slide.clone() };
        let rest = run(&model, &text[..prompt], &rest);
        assert_eq!(rest.iter().map(|t| t.id).collect::<Vec<_>>(), text[prompt..prompt + 5]);
    }
    let refused = GenerationConfig { overflow: Some(Overflow::Error), ..base };
    assert!(
        matches!(error(&model, &[1], &refused), GenerateError::Overflow { wanted, .. } if wanted == context + 31)
    );
}

#[test]
fn a_criterion_of_ones_own_ends_the_text() {
    let model = tiny();
    let free = run(&model, &[1, 2], &greedy());
    let ends = |context: &Context<'_>| context.generated() == 3;
    let generation =
        model.generate(&[1, 2]).config(greedy()).stopping_criterion(ends).tokens().expect("generation");
    let tokens: Vec<_> = generation.map(|t| t.expect("finite")).collect();
    assert_eq!(
        tokens.iter().map(|t| t.id).collect::<Vec<_>>(),
        free[..3].iter().map(|t| t.id).collect::<Vec<_>>()
    );
    assert_eq!(tokens[2].finish, Some(FinishReason::Stop));
}

#[test]
fn a_text_ends_when_its_time_is_up() {
    let model = tiny();
    let tokens = run(&model, &[1, 2], &GenerationConfig { max_time: Some(1e-9), ..greedy() });
    assert_eq!((tokens.len(), tokens[0].finish), (1, Some(FinishReason::Time)));
    assert_eq!(run(&model, &[1, 2], &GenerationConfig { max_time: Some(1e300), ..greedy() }).len(), 20);
}
