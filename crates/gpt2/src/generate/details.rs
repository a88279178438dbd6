//! What there is to say of a token besides its log-probability: what the model thought, and what the processors did.
//!
//! ```text
//! logits ─ begin ─► Recording ◄─ step ─ after every processor          choice of a token ─► Details
//! ```
//! Nothing of this happens unless it was asked for, with [`Generate::details`](super::Generate::details).

use gpt2_kernels::math::exp_not_positive;
use serde::Serialize;

use crate::predict::{entropy, rank};
use crate::process::Scores;
use crate::sample::Draw;

/// Most tokens that a step of a trace lists as removed.
const LISTED: usize = 5;

/// What to say of each token besides its log-probability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetailsRequest {
    /// Number of likeliest tokens to list.
    pub alternatives: usize,
    /// Whether to tell what every processor did, and how the token was chosen.
    pub trace: bool,
}

/// What there is to say of a generated token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Details {
    /// Its log-probability by the model, before any processor.
    pub logprob: f32,
    /// Its probability after the processors: with which it is drawn, if anything is.
    pub probability: f32,
    /// One more than the number of tokens that the model finds likelier.
    pub rank: usize,
    /// The entropy of the model's distribution, in nats.
    pub entropy: f32,
    /// The tokens that the model finds likeliest, in order; as many as were asked for.
    pub alternatives: Vec<Alternative>,
    /// What was done to the scores, and how the token was chosen, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// A token that might have come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Alternative {
    /// The token.
    pub id: u32,
    /// Its log-probability by the model.
    pub logprob: f32,
    /// Its probability after the processors; 0 if they have ruled it out.
    pub probability: f32,
}

/// The way from the model's scores to a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// What changed the scores, in order.
    pub steps: Vec<TraceStep>,
    /// How the token was chosen from what was left; `None` with beams, which are chosen together, and in contrastive
    /// search.
    pub draw: Option<Draw>,
}

/// What one processor did.
///
/// Masses are `null` in JSON where scores are no numbers, and a score where the token is ruled out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceStep {
    /// The processor: the name of its setting.
    pub name: &'static str,
    /// Number of tokens that it ruled out.
    pub removed: usize,
    /// Their probability, by the scores that the step began with.
    pub removed_mass: f32,
    /// Their probability, by the scores that the first step began with. Over all steps, together with what is left by
    /// the last, it is one, unless a step lets tokens in again.
    pub removed_share: f32,
    /// The likeliest of them.
    pub likeliest_removed: Vec<RemovedToken>,
    /// Number of tokens that it let in again.
    pub restored: usize,
    /// Number of tokens, left before and after it, whose score it changed.
    pub changed: usize,
    /// The score of the token that was chosen in the end, before the step; `None` if it was ruled out then.
    pub score_before: Option<f32>,
    /// That score after the step.
    pub score_after: Option<f32>,
    /// Number of tokens left.
    pub left: usize,
    /// Their probability, by the scores that the first step began with.
    pub left_share: f32,
}

/// A token that a processor ruled out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RemovedToken {
    /// The token.
    pub id: u32,
    /// Its probability, by the scores that the step began with.
    pub probability: f32,
}

/// What happens to a row of scores, kept until it is known which token comes of it.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    request: DetailsRequest,
    /// The model's own scores. (V)
    logits: Vec<f32>,
    /// `ln Σ exp` of them.
    normaliser: f32,
    /// The scores that the first step begins with. (V)
    first: Vec<f32>,
    /// Every step, and the scores behind it. (V)
    steps: Vec<(&'static str, Vec<f32>)>,
    /// The scores that a token is chosen by. (V)
    last: Vec<f32>,
}

impl Recording {
    pub(super) fn new(request: DetailsRequest) -> Self {
        let (logits, first, last) = (Vec::new(), Vec::new(), Vec::new());
        Self { request, logits, normaliser: 0.0, first, steps: Vec::new(), last }
    }

    /// Whether it is to be told how the token was chosen.
    pub(super) fn traces(&self) -> bool {
        self.request.trace
    }

    /// Begins anew, with a row of logits and what scores are made of them.
    pub(super) fn begin(&mut self, logits: &[f32], normaliser: f32, scores: &Scores) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.normaliser = normaliser;
        self.steps.clear();
        self.first = all(scores);
    }

    /// Learns what scores a step leaves behind.
    pub(super) fn step(&mut self, name: &'static str, scores: &Scores) {
        if self.request.trace {
            self.steps.push((name, all(scores)));
        }
    }

    /// Learns which scores the token is chosen by.
    pub(super) fn end(&mut self, scores: &Scores) {
        self.last = all(scores);
    }

    /// What there is to say of a token, now that it was chosen.
    pub(super) fn details(&self, id: u32, draw: Option<Draw>) -> Details {
        let Self { request, logits, normaliser, first, steps, last } = self;
        let logit = logits[id as usize];
        let after = Softmax::of(last);
        let alternatives = rank(logits, *normaliser, request.alternatives).into_iter().map(|candidate| {
            let probability = after.probability(last[candidate.id as usize]) as f32;
            Alternative { id: candidate.id, logprob: candidate.logprob, probability }
        });
        let trace = request.trace.then(|| {
            let begin = Softmax::of(first);
            let share: Vec<f64> = first.iter().map(|&score| begin.probability(score)).collect();
            let before = std::iter::once(first).chain(steps.iter().map(|(_, scores)| scores));
            let steps = before.zip(steps);
            Trace {
                steps: steps
                    .map(|(before, (name, after))| TraceStep::new(name, before, after, &share, id))
                    .collect(),
                draw,
            }
        });
        Details {
            logprob: logit - normaliser,
            probability: after.probability(last[id as usize]) as f32,
            rank: logits.iter().filter(|&&other| other > logit).count() + 1,
            entropy: entropy(logits),
            alternatives: alternatives.collect(),
            trace,
        }
    }
}

impl TraceStep {
    /// Compares the scores before and after a step; `share` is every token's probability at the beginning.
    fn new(name: &'static str, before: &[f32], after: &[f32], share: &[f64], id: u32) -> Self {
        let is_left = |scores: &[f32], token: usize| scores[token] != f32::NEG_INFINITY;
        let softmax = Softmax::of(before);
        let mut removed = Vec::new();
        let (mut removed_mass, mut removed_share, mut left_share) = (0.0, 0.0, 0.0);
        let (mut restored, mut changed, mut left) = (0, 0, 0);
        for token in 0..before.len() {
            match (is_left(before, token), is_left(after, token)) {
                (true, false) => {
                    let probability = softmax.probability(before[token]);
                    removed_mass += probability;
                    removed_share += share[token];
                    removed.push(RemovedToken { id: token as u32, probability: probability as f32 });
                }
                (false, true) => restored += 1,
                (true, true) => changed += usize::from(before[token] != after[token]),
                (false, false) => {}
            }
            if is_left(after, token) {
                left += 1;
                left_share += share[token];
            }
        }
        let count = removed.len();
        removed.sort_unstable_by(|a, b| b.probability.total_cmp(&a.probability).then(a.id.cmp(&b.id)));
        removed.truncate(LISTED);
        let score = |scores: &[f32]| is_left(scores, id as usize).then(|| scores[id as usize]);
        Self {
            name,
            removed: count,
            removed_mass: removed_mass as f32,
            removed_share: removed_share as f32,
            likeliest_removed: removed,
            restored,
            changed,
            score_before: score(before),
            score_after: score(after),
            left,
            left_share: left_share as f32,
        }
    }
}

/// All scores, as they are.
fn all(scores: &Scores) -> Vec<f32> {
    scores.clone().all().to_vec()
}

/// The probabilities that scores stand for.
struct Softmax {
    max: f32,
    total: f64,
}

impl Softmax {
    fn of(scores: &[f32]) -> Self {
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total = scores.iter().map(|score| exp_not_positive(f64::from(score - max))).sum();
        Self { max, total }
    }

    fn probability(&self, score: f32) -> f64 {
        exp_not_positive(f64::from(score - self.max)) / self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::chain::Chain;
    use crate::generate::{GenerationConfig, Setup};
    use crate::process::{Context, Processor};

    /// Doubles a score and lets a token in again.
    struct Odd;

    impl Processor for Odd {
        fn process(&mut self, _context: &Context<'_>, scores: &mut Scores) {
            scores.put(0, 2.0 * scores.score(0));
            scores.put(3, 1.0);
        }
    }

    #[test]
    fn a_trace_says_what_each_step_did() {
        let config = GenerationConfig {
            suppress_tokens: Some(vec![3, 4]),
            do_sample: Some(true),
            top_k: Some(2),
            temperature: Some(0.5),
            ..GenerationConfig::default()
        };
        let setup = Setup { vocabulary: 5, total_tokens: 20, ..Setup::default() };
        let mut chain = Chain::new(&config, &setup).expect("a chain");
        chain.add_custom(Box::new(Odd));
        let logits = [0.1f32, 0.2, 0.1, 0.4, 0.2].map(f32::ln);
        let mut scores = Scores::default();
        scores.set(&logits);
        let mut recording = Recording::new(DetailsRequest { alternatives: 2, trace: true });
        recording.begin(&logits, 0.0, &scores);
        chain.trace(&Context { tokens: &[1], prompt: 1, ..Context::default() }, &mut scores, &mut recording);
        recording.end(&scores);
        let details = recording.details(1, None);

        let close =
            |found: f32, expected: f32| assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        close(details.logprob, 0.2f32.ln());
        // Left are tokens 3, at 1, and 1, at ln 0.2; both by half a temperature.
        close(details.probability, 0.04 / (0.04 + 2f32.exp()));
        assert_eq!(details.rank, 2);
        close(details.entropy, -(0.2 * 0.1f32.ln() + 0.4 * 0.2f32.ln() + 0.4 * 0.4f32.ln()));
        assert_eq!(details.alternatives.iter().map(|a| a.id).collect::<Vec<_>>(), [3, 1]);

        let trace = details.trace.expect("a trace");
        assert_eq!(
            trace.steps.iter().map(|step| step.name).collect::<Vec<_>>(),
            ["suppress_tokens", "custom", "temperature", "top_k"]
        );
        let counts = |step: &TraceStep| (step.removed, step.restored, step.changed, step.left);
        assert_eq!(
            trace.steps.iter().map(counts).collect::<Vec<_>>(),
            [(2, 0, 0, 3), (0, 1, 1, 4), (0, 0, 4, 4), (2, 0, 0, 2)]
        );
        let suppress = &trace.steps[0];
        close(suppress.removed_mass, 0.6);
        close(suppress.removed_share, 0.6);
        close(suppress.left_share, 0.4);
        assert_eq!(suppress.likeliest_removed.iter().map(|token| token.id).collect::<Vec<_>>(), [3, 4]);
        close(suppress.likeliest_removed[0].probability, 0.4);
        let temperature = &trace.steps[2];
        assert_eq!(temperature.score_before, Some(0.2f32.ln()));
        assert_eq!(temperature.score_after, Some(0.2f32.ln() / 0.5));
        let top_k = &trace.steps[3];
        // Behind the temperature: 0.1², 0.2², 0.1 and e².
        let total = 0.0001 + 0.04 + 0.01 + 2f32.exp();
        close(top_k.removed_mass, (0.0001 + 0.01) / total);
        close(top_k.removed_share, 0.2);
    }
}
