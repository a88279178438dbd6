//! Tokens that keep a text within a grammar.
//!
//! ```text
//! decoding thread   chosen ──── forward pass ──── process: takes the mask ─ …
//!                      │                              ▲
//! background thread    └─ token ─► matcher ─► mask ───┘
//! ```
//! What is allowed is a function of the tokens behind the prompt alone. `chosen` only has it computed early: where
//! `process` meets other tokens than it was told of, as with guesses that are dropped again, it has these matched.

mod gbnf;
mod grammar;
mod pattern;
mod schema;
mod worker;

use std::io;
use std::sync::{Arc, OnceLock};

pub(crate) use self::grammar::{Grammar, Vocabulary};
use self::worker::{Allowed, Answer, Request, Worker};
use super::{Context, Processor, Scores};

/// Leaves only the tokens that keep the continuation within a grammar, and the end tokens where it may end.
pub(crate) struct Structure {
    worker: Worker,
    /// How far each return sequence has come, as far as the worker was told.
    sequences: Vec<Sequence>,
    ends: bool,
    /// Number of requests so far.
    requests: u64,
    failure: Arc<OnceLock<String>>,
    /// What the grammar was made from.
    kind: &'static str,
}

/// The tokens of a sequence behind the prompt, and what may follow them.
#[derive(Default)]
struct Sequence {
    tokens: Vec<u32>,
    request: u64,
    answer: Option<Answer>,
}

impl Structure {
    /// Begins to match a grammar. End tokens spell nothing: they are allowed where the text may end.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn new(grammar: &Grammar, eos_token_ids: &[u32], vocabulary: usize) -> io::Result<Self> {
        let worker = Worker::start(grammar, eos_token_ids, vocabulary)?;
        let ends = !eos_token_ids.is_empty();
        let (failure, kind) = (Arc::clone(&grammar.failure), grammar.kind);
        let mut structure = Self { worker, sequences: Vec::new(), ends, requests: 0, failure, kind };
        // The prompt is on its way through the model now.
        structure.follow(0, &[], None);
        Ok(structure)
    }

    /// Has the worker match the tokens of a sequence, if that is not done or under way.
    fn follow(&mut self, sequence: usize, before: &[u32], next: Option<u32>) {
        if self.sequences.len() <= sequence {
            self.sequences.resize_with(sequence + 1, Sequence::default);
        }
        let Self { worker, sequences, requests, .. } = self;
        let known = &mut sequences[sequence];
        let tokens = || before.iter().copied().chain(next);
        let same = known.tokens.iter().zip(tokens()).take_while(|&(&a, b)| a == b).count();
        let length = before.len() + usize::from(next.is_some());
        if known.request > 0 && same == known.tokens.len() && same == length {
            return;
        }
        *requests += 1;
        known.request = *requests;
        known.answer = None;
        known.tokens.truncate(same);
        known.tokens.extend(tokens().skip(same));
        let tokens = known.tokens[same..].to_vec();
        worker.ask(Request { sequence, number: *requests, same, tokens });
    }

    /// What may follow the tokens of a sequence.
    fn answer(&mut self, context: &Context<'_>) -> &Answer {
        self.follow(context.sequence, &context.tokens[context.prompt..], None);
        while self.sequences[context.sequence].answer.is_none() {
            let (sequence, request, answer) = self.worker.receive();
            let known = &mut self.sequences[sequence];
            // What is no longer wanted may still arrive.
            known.answer = known.answer.take().or((known.request == request).then_some(answer));
        }
        self.sequences[context.sequence].answer.as_ref().expect("it was waited for")
    }
}

impl Processor for Structure {
    fn name(&self) -> &'static str {
        "structured_outputs"
    }

    fn process(&mut self, context: &Context<'_>, scores: &mut Scores) {
        let kind = self.kind;
        let answer = self.answer(context);
        if answer.is_dead_end() {
            // The first failure is the one to tell of.
            let _ = self.failure.set(dead_end(kind, context.generated()));
            return scores.keep_ids(&[]);
        }
        match &answer.allowed {
            Allowed::Only(ids) => scores.keep_ids(ids),
            Allowed::AllBut(ids) => scores.rule_out(ids),
        }
    }

    fn chosen(&mut self, context: &Context<'_>, _scores: &Scores, token: u32) {
        if !self.worker.ends(token) {
            self.follow(context.sequence, &context.tokens[context.prompt..], Some(token));
        }
    }

    /// Without an end token a text ends where nothing can follow.
    fn ended(&mut self, context: &Context<'_>) -> bool {
        !self.ends && self.answer(context).ended
    }
}

/// Says that nothing can follow a text that is not complete.
fn dead_end(kind: &str, generated: usize) -> String {
    let what = if kind == "json" { "schema" } else { kind };
    let tokens = if generated == 1 { "token" } else { "tokens" };
    format!(
        "the {what} led into a dead end: the text is not complete after {generated} {tokens}, and no token can follow"
    )
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walks;
