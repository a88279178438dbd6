//! Scores and next tokens against the logits they come from.

use std::path::Path;

use gpt2::cache::KvCache;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::model::{Formats, Model, Step, StepError, Want};
use gpt2::predict::next_tokens;
use gpt2::score::{score, score_strided};
use gpt2::workspace::Workspace;
use gpt2_kernels::{Cpu, Kernels};

/// A model of 200 positions and 101 tokens.
fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/head-24");
    let config =
        Config::from_json(&std::fs::read(folder.join("config.json")).expect("config.json")).expect("config");
    let checkpoint = Checkpoint::open(&folder).expect("checkpoint");
    Model::load(Cpu::new(Kernels::detect(), 2), config, &checkpoint, Formats::default(), &mut |_, _| ())
        .expect("model")
}

fn text(length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + i * i % 11) % 101) as u32).collect()
}

/// The log-softmax of every position, in `f64`.
fn log_probabilities(model: &Model, tokens: &[u32]) -> Vec<Vec<f64>> {
    let mut cache = KvCache::new(model);
    let mut work = Workspace::new(model, tokens.len(), tokens.len());
    let step = Step::new(model, tokens, &mut cache, Want::All).expect("step");
    let logits = model.forward(&mut [step], &mut work);
    (0..tokens.len())
        .map(|row| {
            let logits: Vec<f64> = logits.row(row).iter().map(|&x| f64::from(x)).collect();
            let normaliser = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            logits.into_iter().map(|x| x - normaliser).collect()
        })
        .collect()
}

#[test]
fn a_score_is_the_log_softmax_at_the_next_token() {
    let (model, tokens) = (model(), text(150));
    let expected = log_probabilities(&model, &tokens);
    let scores = score(&model, &tokens).expect("scores");
    assert!(scores.tokens.iter().map(|token| token.id).eq(tokens.iter().copied()));
    assert_eq!((scores.tokens[0].logprob, scores.tokens[0].rank), (None, None));
    let mut total = 0.0;
    for (i, token) in scores.tokens.iter().enumerate().skip(1) {
        let row = &expected[i - 1];
        let logprob = row[token.id as usize];
        total += logprob;
        assert!((f64::from(token.logprob.expect("a score")) - logprob).abs() < 1e-5, "token {i}");
        let rank = 1 + row.iter().filter(|&&other| other > logprob).count();
        assert_eq!(token.rank, Some(rank), "token {i}");
    }
    assert_eq!(scores.tokens_scored(), 149);
    assert!((scores.total_logprob() - total).abs() < 1e-3);
    assert!((scores.perplexity().expect("tokens") - (-total / 149.0).exp()).abs() < 1e-3);
}

#[test]
fn every_stride_scores_each_token_in_the_first_window_that_holds_it() {
    let (model, tokens) = (model(), text(530));
    for stride in [50, 199, 200] {
        let mut done = Vec::new();
        let scores = score_strided(&model, &tokens, stride, &mut |count| done.push(count)).expect("scores");
        assert!(scores.tokens.iter().map(|token| token.id).eq(tokens.iter().copied()), "stride {stride}");
        assert_eq!(done.last(), Some(&530));
        let mut alone = (usize::MAX, Vec::new());
        for (i, token) in scores.tokens.iter().enumerate() {
            let window = if i < 200 { 0 } else { (i - 200) / stride + 1 } * stride;
            if alone.0 != window {
                alone =
                    (window, score(&model, &tokens[window..(window + 200).min(530)]).expect("scores").tokens);
            }
            assert_eq!(*token, alone.1[i - window], "stride {stride}, token {i}");
            assert_eq!(token.logprob.is_none(), i == window, "stride {stride}, token {i}");
        }
    }
}

#[test]
fn next_tokens_are_the_likeliest_in_order() {
    let (model, tokens) = (model(), text(90));
    let expected = log_probabilities(&model, &tokens).pop().expect("rows");
    let all = next_tokens(&model, &tokens, 1000).expect("candidates");
    assert_eq!(all.len(), 101);
    assert!((all.iter().map(|c| f64::from(c.probability)).sum::<f64>() - 1.0).abs() < 1e-5);
    assert!(all.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
    assert!(all.iter().all(|c| (f64::from(c.logprob) - expected[c.id as usize]).abs() < 1e-5));
    assert_eq!(next_tokens(&model, &tokens, 7).expect("candidates"), all[..7]);
    assert!(next_tokens(&model, &tokens, 0).expect("candidates").is_empty());
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let model = model();
    assert_eq!(score(&model, &[]), Err(StepError::Empty));
    assert_eq!(score(&model, &text(201)), Err(StepError::Context { past: 0, new: 201, context: 200 }));
    let token = Err(StepError::Token { id: 101, index: 250, vocabulary: 101 });
    let mut tokens = text(300);
    tokens[250] = 101;
    assert_eq!(score_strided(&model, &tokens, 100, &mut |_| ()), token);
    assert_eq!(next_tokens(&model, &[], 3), Err(StepError::Empty));
}
