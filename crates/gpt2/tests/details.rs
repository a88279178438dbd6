//! What is said of every token: against the distributions it is about, and that asking changes nothing.

use std::path::Path;

use gpt2::cache::KvCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::generate::{Details, DetailsRequest, GeneratedToken, GenerationConfig, Rng};
use gpt2::model::{Formats, Model, Step, Want};
use gpt2::predict::next_tokens;
use gpt2::score::score;
use gpt2::workspace::Workspace;
use gpt2_kernels::{Cpu, Kernels};
use proptest::prelude::*;

const PROMPT: [u32; 4] = [5, 17, 3, 80];
const TRACE: DetailsRequest = DetailsRequest { alternatives: 4, trace: true };

/// A model of 200 positions and 101 tokens.
fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    Model::load(Cpu::new(Kernels::detect(), 2), config, &checkpoint, Formats::default(), &mut |_, _| ())
        .expect("model")
}

fn config() -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(12),
        eos_token_id: Some(Vec::new()),
        ..GenerationConfig::default()
    }
}

fn run(model: &Model, config: &GenerationConfig, details: Option<DetailsRequest>) -> Vec<GeneratedToken> {
    let mut request = model.generate(&PROMPT).config(config.clone());
    if let Some(details) = details {
        request = request.details(details);
    }
    request.tokens().expect("generation").collect::<Result<_, _>>().expect("finite scores")
}

/// The same tokens without what else is said of them.
fn bare(tokens: &[GeneratedToken]) -> Vec<GeneratedToken> {
    tokens.iter().map(|token| GeneratedToken { details: None, ..token.clone() }).collect()
}

/// The model's log-probabilities behind the tokens so far, in `f64`.
fn log_probabilities(model: &Model, tokens: &[u32]) -> Vec<f64> {
    let mut cache = KvCache::new(model);
    let mut work = Workspace::new(model, tokens.len(), 1);
    let step = Step::new(model, tokens, &mut cache, Want::Last).expect("step");
    let logits: Vec<f64> = model.forward(&mut [step], &mut work).row(0).iter().map(|&x| x.into()).collect();
    let normaliser = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    logits.into_iter().map(|x| x - normaliser).collect()
}

/// Checks what is said of a token of which `before` is the text before it.
fn check(model: &Model, before: &[u32], id: u32, details: &Details) {
    let logprobs = log_probabilities(model, before);
    let logprob = logprobs[id as usize];
    let entropy: f64 = logprobs.iter().map(|logprob| -logprob.exp() * logprob).sum();
    assert!((f64::from(details.logprob) - logprob).abs() < 1e-5);
    assert!((f64::from(details.entropy) - entropy).abs() < 1e-5, "{} and {entropy}", details.entropy);
    assert_eq!(details.rank, 1 + logprobs.iter().filter(|&&other| other > logprob).count());
    assert!((0.0..=1.0).contains(&details.probability));
    let likeliest = next_tokens(model, before, TRACE.alternatives).expect("candidates");
    let found: Vec<(u32, f32)> = details.alternatives.iter().map(|a| (a.id, a.logprob)).collect();
    assert_eq!(found, likeliest.iter().map(|c| (c.id, c.logprob)).collect::<Vec<_>>());
    assert!(details.alternatives.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
    for alternative in details.alternatives.iter().filter(|alternative| alternative.id == id) {
        assert_eq!(alternative.probability, details.probability);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the settings, the tokens are the same with a trace, and the trace adds up.
    #[test]
    fn a_trace_changes_nothing_and_adds_up(
        seed in 0u64..1000,
        sampling in any::<bool>(),
        torch in any::<bool>(),
        temperature in 0.3f64..2.0,
        top_k in 0usize..120,
        top_p in 0.3f64..1.1,
        repetition_penalty in prop::option::of(0.7f64..1.6),
        no_repeat in prop::option::of(1usize..3),
        typical_p in prop::option::of(0.3f64..0.99),
    ) {
        let model = model();
        let config = GenerationConfig {
            do_sample: Some(sampling),
            seed: Some(seed),
            rng: torch.then_some(Rng::Torch),
            temperature: Some(temperature),
            top_k: Some(top_k),
            top_p: Some(top_p.min(1.0)),
            repetition_penalty,
            no_repeat_ngram_size: no_repeat,
            typical_p,
            num_return_sequences: sampling.then_some(2),
            ..config()
        };
        let traced = run(&model, &config, Some(TRACE));
        prop_assert_eq!(bare(&traced), run(&model, &config, None));
        let mut texts = vec![PROMPT.to_vec(); 2];
        for token in &traced {
            let text = &mut texts[token.sequence];
            let details = token.details.as_deref().expect("it was asked for");
            check(&model, text, token.id, details);
            text.push(token.id);
            prop_assert_eq!(details.logprob, token.logprob);

            let trace = details.trace.as_ref().expect("it was asked for");
            let draw = trace.draw.as_ref().expect("plain sequences are drawn");
            let sampler = if !sampling { "greedy" } else if torch { "torch" } else { "keyed" };
            prop_assert_eq!((draw.sampler, draw.chosen.id), (sampler, token.id));
            prop_assert!((draw.chosen.probability - details.probability).abs() < 1e-6);
            let mut left = model.config().vocab_size;
            let mut removed_share = 0.0;
            for step in &trace.steps {
                prop_assert_eq!(step.left, left - step.removed, "{:?}", step);
                left = step.left;
                removed_share += step.removed_share;
                prop_assert!((removed_share + step.left_share - 1.0).abs() < 1e-4, "{:?}", trace);
                prop_assert_eq!(step.likeliest_removed.len(), step.removed.min(5));
                let sum: f32 = step.likeliest_removed.iter().map(|token| token.probability).sum();
                prop_assert!(sum <= step.removed_mass + 1e-5);
                prop_assert!(step.likeliest_removed.windows(2).all(|pair| pair[0].probability >= pair[1].probability));
                prop_assert!(step.score_after.is_some(), "what was chosen was left");
            }
            prop_assert_eq!(draw.runner_up.is_some(), left > 1);
            let score = trace.steps.last().map_or(token.score, |step| step.score_after.expect("left"));
            prop_assert_eq!(score, token.score);
        }
    }
}

#[test]
fn a_trace_names_the_settings_in_their_order() {
    let model = model();
    let config = GenerationConfig {
        do_sample: Some(true),
        temperature: Some(0.8),
        top_k: Some(20),
        top_p: Some(0.9),
        repetition_penalty: Some(1.2),
        min_p: Some(0.01),
        guidance_scale: Some(1.3),
        ..config()
    };
    let tokens = run(&model, &config, Some(TRACE));
    assert_eq!(bare(&tokens), run(&model, &config, None));
    for token in tokens {
        let trace = token.details.expect("details").trace.expect("a trace");
        let names: Vec<&str> = trace.steps.iter().map(|step| step.name).collect();
        assert_eq!(names, ["guidance_scale", "repetition_penalty", "temperature", "top_k", "top_p", "min_p"]);
        assert_eq!((trace.steps[2].removed, trace.steps[2].changed, trace.steps[3].left), (0, 101, 20));
    }
}

#[test]
fn beams_and_contrastive_search_have_details_too() {
    let model = model();
    let beams = GenerationConfig { num_beams: Some(3), num_return_sequences: Some(2), ..config() };
    let drawn = GenerationConfig { do_sample: Some(true), top_k: Some(30), seed: Some(4), ..beams.clone() };
    let contrastive = GenerationConfig { penalty_alpha: Some(0.6), top_k: Some(4), ..config() };
    for config in [beams, drawn, contrastive] {
        let tokens = run(&model, &config, Some(TRACE));
        assert_eq!(bare(&tokens), run(&model, &config, None));
        let mut texts = vec![PROMPT.to_vec(); 2];
        for token in &tokens {
            let details = token.details.as_deref().expect("it was asked for");
            check(&model, &texts[token.sequence], token.id, details);
            texts[token.sequence].push(token.id);
            assert_eq!(details.trace.as_ref().expect("a trace").draw, None);
        }
    }
}

#[test]
fn without_a_trace_there_is_none() {
    let model = model();
    let request = DetailsRequest { alternatives: 0, trace: false };
    for token in run(&model, &config(), Some(request)) {
        let details = token.details.expect("it was asked for");
        assert_eq!((details.alternatives.len(), &details.trace), (0, &None));
        // Nothing was asked of the processors: what is drawn from is the model's distribution.
        assert!((details.probability.ln() - details.logprob).abs() < 1e-5);
        let json = serde_json::to_value(&details).expect("JSON");
        let mut names: Vec<&String> = json.as_object().expect("an object").keys().collect();
        names.sort();
        assert_eq!(names, ["alternatives", "entropy", "logprob", "probability", "rank"]);
    }
}

#[test]
fn a_trace_as_json_names_everything() {
    let model = model();
    let config = GenerationConfig {
        do_sample: Some(true),
        top_k: Some(3),
        max_new_tokens: Some(1),
        suppress_tokens: Some(vec![2]),
        ..config()
    };
    let tokens = run(&model, &config, Some(TRACE));
    let json = serde_json::to_value(tokens[0].details.as_deref().expect("details")).expect("JSON");
    let step = &json["trace"]["steps"][0];
    assert_eq!(
        (&step["name"], &step["removed"], &step["left"]),
        (&"suppress_tokens".into(), &1.into(), &100.into())
    );
    assert_eq!(step["likeliest_removed"][0]["id"], 2);
    assert_eq!(json["trace"]["steps"][1]["left"], 3);
    let draw = &json["trace"]["draw"];
    assert_eq!((&draw["sampler"], &draw["chosen"]["id"]), (&"keyed".into(), &tokens[0].id.into()));
    assert!(draw["runner_up"]["random"].is_number());
}

#[test]
fn the_prompt_is_judged_as_by_score() {
    let model = model();
    let prompt: Vec<u32> = (0..190).map(|i| (i * 37 + i * i % 11) % 101).collect();
    let generation = model.generate(&prompt).config(config()).tokens().expect("generation");
    let found = generation.prompt_details(3).expect("details");
    let scores = score(&model, &prompt).expect("scores").tokens;
    assert_eq!(found.len(), scores.len());
    assert_eq!((found[0].entropy, found[0].alternatives.len()), (None, 0));
    for (index, (found, score)) in found.iter().zip(&scores).enumerate() {
        assert_eq!((found.id, found.logprob, found.rank), (score.id, score.logprob, score.rank));
        if index > 0 && index % 23 == 0 {
            let logprobs = log_probabilities(&model, &prompt[..index]);
            let entropy: f64 = logprobs.iter().map(|logprob| -logprob.exp() * logprob).sum();
            assert!((f64::from(found.entropy.expect("an entropy")) - entropy).abs() < 1e-5);
            assert_eq!(found.alternatives, next_tokens(&model, &prompt[..index], 3).expect("candidates"));
        }
    }
    // With more text than fits into the context, every token but the first still has one before it.
    let long: Vec<u32> = prompt.iter().cycle().copied().take(450).collect();
    let details = gpt2::score::token_details(&model, &long, 0).expect("details");
    assert_eq!(details.len(), 450);
    assert!(details[1..].iter().all(|token| token.logprob.is_some()));
    assert_eq!(details[..200].iter().map(|t| t.logprob).collect::<Vec<_>>(), {
        score(&model, &long[..200]).expect("scores").tokens.iter().map(|t| t.logprob).collect::<Vec<_>>()
    });
}
