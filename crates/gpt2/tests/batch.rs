//! A text is what its request alone gives, whatever it is batched with.

use std::collections::BTreeMap;
use std::path::Path;

use gpt2::cache::PrefixCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{
    Batch, BatchEvent, Completion, Generate, GenerateError, GenerationConfig, Overflow, Rng,
};
use gpt2::memory::MemoryNeed;
use gpt2::model::{Formats, Model};
use gpt2::predict::next_tokens;
use gpt2::process::Context;
use gpt2::tokenizer::{SpecialTokens, Tokenizer};
use gpt2_kernels::{Cpu, Kernels, WeightFormat};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");

fn load(folder: &Path, format: WeightFormat, threads: usize) -> Model {
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(folder).expect("checkpoint");
    let cpu = Cpu::new(Kernels::detect(), threads);
    Model::load(cpu, config, &checkpoint, Formats::from(format), &mut |_, _| ()).expect("model")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_directory(Path::new(FOLDER)).expect("tokenizer")
}

const REQUESTS: usize = 48;

/// A request of many kinds; some cannot be.
fn request<'m>(model: &'m Model, tokenizer: &'m Tokenizer, index: usize) -> Generate<'m> {
    let tale = "Once upon a time there was a king who had a daughter, and the daughter had a cat. ";
    let mut prompt = tokenizer.encode(&tale.repeat(1 + index % 11), SpecialTokens::Parse).expect("tokens");
    prompt.truncate(prompt.len() - index % 7);
    let length = 3 + 5 * (index % 8);
    let sampled = |config: &mut GenerationConfig| {
        config.do_sample = Some(true);
        config.seed = Some(index as u64);
    };
    let request = model.generate(&prompt).tokenizer(tokenizer).max_new_tokens(length);
    match index % 16 {
        0 => request,
        1..=3 => request.with(sampled).temperature(0.8).top_p(0.9),
        4 => request.with(sampled).num_return_sequences(3),
        5 => request.with(sampled).with(|config| config.rng = Some(Rng::Torch)).num_return_sequences(2),
        6 => request.with(|config| {
            config.repetition_penalty = Some(1.3);
            config.no_repeat_ngram_size = Some(2);
        }),
        7 => request.with(sampled).stop("the").top_k(0),
        8 => request.with(sampled).with(|config| config.mirostat = Some(2)),
        9 => request.num_beams(3),
        10 => request.with(|config| (config.penalty_alpha, config.top_k) = (Some(0.6), Some(4))),
        11 => request.with(|config| config.guidance_scale = Some(1.5)),
        // More tokens than the context, where the text may not end.
        12 => request.max_new_tokens(2000).with(|config| config.overflow = Some(Overflow::Error)),
        13 => request.with(sampled).with(|config| config.eos_token_id = Some((0..2000).collect())),
        14 => request.with(sampled).with(|config| config.prompt_lookup_num_tokens = Some(5)),
        // All that is left is ruled out.
        _ => request.prefix_allowed_tokens_fn(
            |context| {
                if context.generated() < 2 { vec![3, 4] } else { Vec::new() }
            },
        ),
    }
}

type Outcome = Result<(Vec<u32>, Vec<Completion>), String>;

fn alone(model: &Model, tokenizer: &Tokenizer) -> Vec<Outcome> {
    let run = |index| -> Result<_, GenerateError> {
        let mut texts = request(model, tokenizer, index).text()?;
        texts.by_ref().try_for_each(|delta| delta.map(drop))?;
        Ok((texts.generation().prompt().to_vec(), texts.into_completions()))
    };
    (0..REQUESTS).map(|index| run(index).map_err(|error| error.to_string())).collect()
}

/// Pushes the requests in an order, so many before every event, and collects what comes of each; the texts have to be
/// made of the pieces that were told.
fn batched<'m>(
    mut batch: Batch<'m>,
    order: &[usize],
    at_once: usize,
    request: impl Fn(usize) -> Generate<'m>,
) -> Vec<Outcome> {
    let mut waiting = order.iter().copied();
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut pieces: BTreeMap<(usize, usize), String> = BTreeMap::new();
    loop {
        for index in waiting.by_ref().take(at_once) {
            batch.push(request(index));
        }
        match batch.next() {
            Some(BatchEvent::Token { request, delta }) => {
                *pieces.entry((order[request], delta.token.sequence)).or_default() += &delta.text;
            }
            Some(BatchEvent::Finished { request, prompt, result, .. }) => {
                if let Ok(completions) = &result {
                    for (sequence, completion) in completions.iter().enumerate() {
                        assert_eq!(pieces.remove(&(order[request], sequence)), Some(completion.text.clone()));
                    }
                }
                let outcome =
                    result.map(|completions| (prompt, completions)).map_err(|error| error.to_string());
                assert!(outcomes.insert(order[request], outcome).is_none());
            }
            Some(other) => panic!("{other:?}"),
            None if waiting.len() == 0 => break,
            None => {}
        }
    }
    assert_eq!(batch.unfinished(), 0);
    outcomes.into_values().collect()
}

fn compare(found: &[Outcome], expected: &[Outcome]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "request {index}");
    }
}

#[test]
fn a_batch_changes_no_bit() {
    let tokenizer = tokenizer();
    let in_order: Vec<usize> = (0..REQUESTS).collect();
    let backwards: Vec<usize> = (0..REQUESTS).rev().collect();
    for format in [WeightFormat::F32, WeightFormat::Int8] {
        let model = load(Path::new(FOLDER), format, 2);
        let expected = alone(&model, &tokenizer);
        let failed = expected.iter().filter(|outcome| outcome.is_err()).count();
        assert_eq!(failed, 2 * REQUESTS / 16, "those that cannot be");
        let make = |index| request(&model, &tokenizer, index);
        for (slots, order, at_once) in
            [(1, &in_order, REQUESTS), (3, &backwards, 1), (8, &in_order, 2), (32, &backwards, REQUESTS)]
        {
            let found = batched(Batch::new(&model, slots), order, at_once, make);
            compare(&found, &expected);
        }
        // With beginnings that are shared, on one thread.
        let single = load(Path::new(FOLDER), format, 1);
        let prefixes = PrefixCache::new(&single, 1 << 26);
        let found = batched(Batch::new(&single, 20), &in_order, REQUESTS, |index| {
            request(&single, &tokenizer, index).prefix_cache(&prefixes)
        });
        compare(&found, &expected);
        assert!(prefixes.stats().reused_tokens > 1000, "{:?}", prefixes.stats());
    }
}

#[test]
fn what_is_being_read_for_another_is_waited_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let model = load(&folder, WeightFormat::F32, 2);
    let prefixes = PrefixCache::new(&model, 1 << 26);
    let mut batch = Batch::new(&model, 8);
    for end in 0..8u32 {
        let prompt: Vec<u32> = (0..130).map(|i| i % 101).chain([end]).collect();
        batch.push(model.generate(&prompt).max_new_tokens(3).prefix_cache(&prefixes));
    }
    let texts = batch.filter(|event| matches!(event, BatchEvent::Finished { result: Ok(_), .. })).count();
    assert_eq!((texts, prefixes.stats().reused_tokens), (8, 7 * 128));
}

#[test]
fn a_text_slides_in_a_batch_as_alone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let model = load(&folder, WeightFormat::F32, 2);
    let make = |index: usize| {
        let prompt: Vec<u32> = (0..20 + 37 * index as u32).map(|i| i * i % 101).collect();
        model.generate(&prompt).do_sample(true).max_new_tokens(250).with(|config| {
            config.overflow = Some(Overflow::Slide);
            config.eos_token_id = Some(Vec::new());
        })
    };
    let mut batch = Batch::new(&model, 4);
    (0..8).for_each(|index| _ = batch.push(make(index)));
    let mut finished = 0;
    for event in batch {
        if let BatchEvent::Finished { request, prompt, result, .. } = event {
            let alone: Vec<u32> =
                make(request).tokens().expect("settings").map(|token| token.expect("a token").id).collect();
            assert_eq!(result.expect("texts")[0].tokens, alone);
            assert_eq!(prompt.len(), 20 + 37 * request);
            finished += 1;
        }
    }
    assert_eq!(finished, 8);
}

#[test]
fn what_is_the_callers_may_use_the_model_in_a_batch_too() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let model = load(&folder, WeightFormat::F32, 2);
    let make = |index: u32| {
        let likeliest = |tokens: &[u32]| next_tokens(&model, tokens, 1).expect("a text")[0].id;
        // It ends before the token that the model has as the likeliest one is below a bound.
        model
            .generate(&[index, 5, 7])
            .do_sample(true)
            .max_new_tokens(20)
            .stopping_criterion(move |context| likeliest(context.tokens) < 12 * index)
    };
    let mut batch = Batch::new(&model, 3);
    (0..6).for_each(|index| _ = batch.push(make(index)));
    let mut lengths = Vec::new();
    for event in batch {
        if let BatchEvent::Finished { request, result, .. } = event {
            let alone: Vec<u32> = make(request as u32)
                .tokens()
                .expect("settings")
                .map(|token| token.expect("a token").id)
                .collect();
            let tokens = result.expect("texts").remove(0).tokens;
            assert_eq!(tokens, alone);
            lengths.push(tokens.len());
        }
    }
    assert_eq!(lengths.len(), 6);
    assert!(lengths.contains(&20) && lengths.iter().any(|&length| length < 20), "{lengths:?}");
}

#[test]
fn the_place_of_a_sequence_that_has_ended_is_the_next_ones_at_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let model = load(&folder, WeightFormat::F32, 2);
    let endless = || {
        let request = model.generate(&[1, 2, 3]).do_sample(true).max_new_tokens(20);
        request.with(|config| config.eos_token_id = Some(Vec::new()))
    };
    let mut batch = Batch::new(&model, 4);
    // Of four sequences, the first three end with their second token.
    let ends = |context: &Context<'_>| context.sequence < 3 && context.generated() >= 2;
    batch.push(endless().num_return_sequences(4).stopping_criterion(ends));
    batch.push(endless());
    batch.push(endless().num_return_sequences(2));
    batch.push(endless());
    let mut chosen = vec![0; 4];
    let mut began = vec![None; 4];
    for event in batch {
        if let BatchEvent::Token { request, .. } = event {
            if began[request].is_none() {
                began[request] = Some(chosen.clone());
            }
            chosen[request] += 1;
        }
    }
    assert_eq!(chosen, [3 * 2 + 20, 20, 40, 20]);
    // Two requests take the three places in the very next step; the last one waits for another place.
    assert_eq!(began[1], Some(vec![4 * 2 + 1, 0, 0, 0]));
    assert_eq!(began[2], Some(vec![4 * 2 + 1, 1, 0, 0]));
    assert_eq!(began[3], Some(vec![3 * 2 + 20, 19, 38, 0]));
}

#[test]
fn searches_take_turns_and_keep_nobody_else_waiting() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let model = load(&folder, WeightFormat::F32, 2);
    let plain = || model.generate(&[1, 2, 3]).max_new_tokens(8);
    let guided = || plain().with(|config| config.guidance_scale = Some(1.5));
    let mut batch = Batch::new(&model, 32);
    for request in [guided(), guided(), plain(), guided()] {
        batch.push(request);
    }
    let mut events = Vec::new();
    for event in batch.by_ref() {
        events.push(match event {
            BatchEvent::Token { request, .. } => (request, false),
            BatchEvent::Finished { request, .. } => (request, true),
            other => panic!("{other:?}"),
        });
    }
    let at = |event| events.iter().position(|&other| other == event).expect("it happened");
    assert!(at((0, true)) < at((1, false)) && at((1, true)) < at((3, false)), "{events:?}");
    assert!(at((2, false)) < at((0, true)), "{events:?}");
    let tokens = events.iter().filter(|(_, finished)| !finished).count();
    assert_eq!((batch.stats().prompt_tokens, batch.stats().tokens), (4 * 3, tokens));
    let timing = batch.stats().timing;
    assert!(!timing.prefill.is_zero() && !timing.decode.is_zero(), "{timing:?}");
}

#[test]
fn a_batch_needs_a_cache_and_logits_for_each_slot() {
    let config = Config::default();
    let one = MemoryNeed::new(&config, Formats::default(), 512);
    let need = MemoryNeed::batch(&config, Formats::default(), 32);
    assert_eq!(need.weights, one.weights);
    assert_eq!(need.cache, 32 * one.cache);
    assert_eq!(need.cache, 32 * 2 * 12 * 768 * 1024 * 4);
    assert!(need.workspace >= one.workspace + 31 * 4 * 50257);
}

#[test]
#[should_panic(expected = "another model")]
fn a_request_for_another_model_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let [one, other] = [0, 1].map(|_| load(&folder, WeightFormat::F32, 1));
    Batch::new(&one, 1).push(other.generate(&[1]));
}
